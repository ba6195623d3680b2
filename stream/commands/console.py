"""What a person sees in the terminal: progress bars and alerts, in the same shape everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream.records import Alert

COLOURS: Final = {"warning": "yellow", "major": "bright_red", "critical": "magenta"}
#: Never colour alone: each severity and state has a word as well.
_MARKS: Final = {"open": "▲", "updated": "·", "resolved": "✓"}


@contextmanager
def advancing(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; yields a function that takes how many more are done."""
    with bar() as progress:
        task = progress.add_task(label, total=total, note="")
        yield lambda count: progress.advance(task, count)


def bar(console: Console | None = None) -> Progress:
    """A progress bar with counts, the time left and a note (``note=`` in its tasks)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console or Console(stderr=True),
    )


def plain(text: str) -> Text:
    """Text that somebody else wrote, as it is: no markup, and what would move the cursor or ring is spelt out."""
    return Text("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text))


def alert_line(alert: Alert) -> str:
    """An alert on one line, coloured for a terminal (click strips the colours where there is none)."""
    causes = ", ".join(f"{cause.signal} {cause.share:.0%}" for cause in alert.causes[:3])
    at = {"open": alert.opened, "updated": alert.last_seen, "resolved": alert.resolved or alert.last_seen}[alert.state]
    verdict = "" if alert.verdict == "model" else f" [{alert.verdict}]"
    state = click.style(
        f"{_MARKS[alert.state]} {alert.state:<8} {alert.severity:<8}",
        fg="green" if alert.state == "resolved" else COLOURS[alert.severity],
        bold=alert.state == "open",
    )
    return (
        f"{at}  {state} {alert.asset}  {alert.detector}{verdict}  "
        f"score {alert.score:.3g} of {alert.threshold:.3g}, peak {alert.peak:.3g}  {causes}"
    )


def exam_table(exam: Mapping[str, Any]) -> Table:
    """An exam as it is kept with its version."""
    table = Table("", "version", "made-up faults found", "labelled faults found", "labelled false alarms raised",
                  "held-back: false alarms", box=None, title="Exam")  # fmt: skip
    for key in ("young", "grown"):
        marks = exam.get(key)
        if isinstance(marks, dict):
            table.add_row(
                plain(str(marks.get("kind"))),
                plain(str(marks.get("version"))),
                plain(f"{marks.get('made_found')} of {exam.get('made')}"),
                plain(f"{marks.get('found')} of {exam.get('faults')}"),
                plain(f"{marks.get('repeated')} of {exam.get('excused')}"),
                plain(str(marks.get("false_alarms"))),
            )
    return table
