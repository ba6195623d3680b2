"""The demo's screen: progress, and one line for each alert that opens, updates and resolves in place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from models.base import NORMAL
from models.evaluate import Matching
from stream.records import Alert
from stream.report.outcome import Outcome, incidents_of
from stream.report.sightings import Sighting, called, where
from stream.report.wording import causes, clock, duration, number

_STYLES = {"warning": "yellow", "major": "dark_orange", "critical": "bold magenta"}
_MARKS = {"open": "▲", "updated": "▲", "resolved": "✓"}


class AlertBoard:
    """Alerts as a table that changes in place on a terminal; as lines, opened and resolved, anywhere else.

    ``total`` is how many readings will be sent.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._newest: dict[str, Alert] = {}
        self._transitions: list[Alert] = []
        self._facts = ""
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(40),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        )
        self._sent = self._progress.add_task("sent by the plant", total=total)
        self._done = self._progress.add_task("judged", total=total)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    @property
    def alerts(self) -> Sequence[Alert]:
        """All transitions so far."""
        return self._transitions

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def progress(self, sent: int, judged: int, facts: str) -> None:
        """Say how far it is; ``facts`` stands below the bars."""
        self._progress.update(self._sent, completed=sent)
        self._progress.update(self._done, completed=judged)
        self._facts = facts

    def show(self, alert: Alert) -> None:
        """Take in a transition."""
        before = self._newest.get(alert.id)
        self._transitions.append(alert)
        self._newest[alert.id] = alert
        worse = before is not None and before.severity != alert.severity
        if not self._console.is_terminal and (alert.state != "updated" or worse):
            self._console.print(_line(alert), soft_wrap=True)

    def _render(self) -> RenderableType:
        """Open alerts first, then the newest of the resolved, as many as fit the screen."""
        room = max(4, min(16, self._console.height - 10))
        held = sorted(self._newest.values(), key=lambda alert: (alert.state == "resolved", _negative(alert)))
        table = Table(box=None, expand=True, pad_edge=False)
        for name, width in (("", 1), ("opened", 8), ("severity", 8), ("asset", 14), ("detector", 9), ("lasts", 7)):
            table.add_column(name, min_width=width, no_wrap=True)
        table.add_column("causes", ratio=1, no_wrap=True, overflow="ellipsis")
        for alert in held[:room]:
            closed = alert.state == "resolved"
            style = "dim" if closed else _STYLES[alert.severity]
            table.add_row(
                Text(_MARKS[alert.state], style="green" if closed else style),
                alert.opened[11:19],
                Text(alert.severity, style=style),
                alert.asset,
                _short(alert.detector, alert.asset),
                _lasts(alert),
                _told(alert) + ("" if alert.verdict == "model" else f"  ({alert.verdict})"),
                style="dim" if closed else "",
            )
        still_open = sum(alert.state != "resolved" for alert in held)
        title = Text(f"{len(held)} alerts, {still_open} open", style="bold")
        return Group(self._progress, Text(self._facts, style="dim"), Text(), title, table)


def summary(outcome: Outcome, matching: Matching) -> RenderableType:
    """Give what was injected against what was found, sort by sort, and the false alarms."""
    found = {item.fault: item for item in matching.found}
    table = Table(
        "",
        "fault",
        "asset",
        "what",
        "found by",
        "after",
        title="What was wrong, and what was said",
        title_justify="left",
    )
    table.columns[-1].justify = "right"
    for index, fault in enumerate(outcome.faults):
        item = found.get(index)
        by = (
            ", ".join(sorted({_short(outcome.incidents[i].detector, outcome.incidents[i].asset) for i in item.alarms}))
            if item
            else "missed"
        )
        table.add_row(
            Text("✓", style="green") if item else Text("✗", style="red"),
            fault.sort,
            fault.asset,
            fault.sentence,
            Text(by, style="" if item else "red"),
            duration(item.delay_ms / 1000) if item else "",
        )
    lines = Table.grid(padding=(0, 2))
    false = len(matching.false_alarms)
    days = matching.watched_ms / 86_400_000
    if days >= 2:
        watched, rate = f"{days:.1f} asset-days", f"{number(matching.false_alarms_per_day)} a day and asset"
    else:
        watched, rate = (
            f"{24 * days:.1f} asset-hours",
            f"{number(matching.false_alarms_per_day / 24)} an hour and asset",
        )
    lines.add_row("faults found", Text(f"{len(matching.found)} of {matching.faults}", style="bold"))
    lines.add_row("median delay", f"{duration(matching.median_delay_s)} of the plant's time")
    lines.add_row(
        "false alarms",
        f"{false} in {watched} ({rate}), "
        f"on {len({outcome.incidents[i].asset for i in matching.false_alarms})} of {len(outcome.recordings)} assets",
    )
    for name, value in outcome.facts.items():
        lines.add_row(name, value)
    if not outcome.faults:
        return lines
    pictures = (Text(), _pictures(outcome.sightings)) if outcome.sightings else ()
    return Group(Text(), table, *pictures, Text(), lines)


def _pictures(sightings: Sequence[Sighting]) -> Table:
    """What cameras saw, and what was said of it."""
    table = Table(
        "", "defect", "station", "taken", "called", "score", "where", title="What the camera saw", title_justify="left"
    )
    for one in sightings:
        alert = one.alert
        table.add_row(
            Text("✓", style="green") if one.found else Text("✗", style="red"),
            "none" if one.kind == NORMAL else one.kind,
            one.asset,
            clock(one.at_ms)[11:],
            Text("missed", style="red") if alert is None else called(alert),
            "" if alert is None else f"{alert.peak:.1f} of {alert.threshold:.1f}",
            "" if alert is None or alert.heat is None else where(alert.heat),
        )
    return table


def _line(alert: Alert) -> Text:
    style = "green" if alert.state == "resolved" else _STYLES[alert.severity]
    at = {"open": alert.opened, "resolved": alert.resolved or alert.last_seen}.get(alert.state, alert.last_seen)
    return Text.assemble(
        (f"{at[:19]}  {_MARKS[alert.state]} {alert.state:<8} {alert.severity:<8} ", style),
        f"{alert.asset}  {alert.detector}  {_told(alert)}",
        "" if alert.verdict == "model" else f"  ({alert.verdict})",
    )


def _told(alert: Alert) -> str:
    """What caused it: signals, or what a picture shows and where."""
    if alert.heat is None:
        return causes(alert.causes)
    return ", ".join(filter(None, (called(alert), where(alert.heat))))


def _short(detector: str, asset: str) -> str:
    """Name a detector without the kind of machine that the asset's name already tells."""
    return detector.removeprefix(asset.rsplit("-", 1)[0] + "-")


def _lasts(alert: Alert) -> str:
    (incident,) = incidents_of([alert])
    return duration((incident.end_ms - incident.start_ms) / 1000)


def _negative(alert: Alert) -> float:
    """Newest first."""
    return -datetime.fromisoformat(alert.last_seen).astimezone(UTC).timestamp()
