"""What ``headrace alerts ack`` and its like do: find the alert, write the record, wait for the worker's answer."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from stream.actions import Action, Deed
from stream.commands.console import plain
from stream.errors import BrokerError, ConfigError
from stream.follow import follow
from stream.incidents import group, look_first
from stream.labels import HIGHEST, Label, factor
from stream.plan import Plan, TopicSettings, load_plan
from stream.reader import read_records
from stream.records import Alert, to_json
from stream.settings import KafkaSettings, from_environment

T = TypeVar("T", bound=msgspec.Struct)

#: Letters of an id that are shown; as many, or fewer, name it.
SHOWN: Final = 8
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SENT_S: Final = 30.0


class Line:
    """The topics of a plan on a cluster, as operators use them."""

    def __init__(self, plan_path: Path) -> None:
        self.plan: Plan | None = load_plan(plan_path) if plan_path.exists() else None
        self.topics = self.plan.topics if self.plan else TopicSettings()
        self.kafka = from_environment(KafkaSettings)

    def alerts(self) -> dict[str, Alert]:
        """The newest transition of every alert that the topic still has, by id."""
        newest: dict[str, Alert] = {}
        for alert in follow(self.kafka, self.topics.alerts, from_start=True, until_end=True):
            if alert is not None and (alert.id not in newest or newest[alert.id].sequence <= alert.sequence):
                newest[alert.id] = alert
        return newest

    def find(self, beginning: str) -> Alert:
        """The alert whose id begins so. Raises ``ConfigError`` where there is none, or several."""
        found = [alert for key, alert in self.alerts().items() if key.startswith(beginning)]
        if not found:
            raise ConfigError(f"no alert's id begins with {beginning!r}: see `headrace alerts list --all`")
        if len(found) > 1:
            ids = ", ".join(f"{alert.id[:12]} ({alert.asset})" for alert in found[:5])
            raise ConfigError(f"{beginning!r} is the beginning of {len(found)} ids: {ids}; give more of it")
        return found[0]

    def read(self, topic: str, kind: type[T]) -> Iterator[tuple[str, T | None]]:
        """All records of a control topic, with their keys; what is malformed is passed over."""
        decode = msgspec.json.Decoder(kind).decode
        for batch in read_records(self.kafka, topic):
            for record in batch:
                key = (record.key or b"").decode("utf-8", "replace")
                try:
                    yield key, None if record.value is None else decode(record.value)
                except msgspec.DecodeError:
                    continue

    def labels(self) -> dict[str, Label]:
        """The labels that hold, by key."""
        held: dict[str, Label] = {}
        for key, label in self.read(self.topics.labels, Label):
            held.pop(key, None)
            if label is not None:
                held[key] = label
        return held

    def write(self, topic: str, key: str, value: bytes | None) -> None:
        """Write a record; on return every replica in sync has it. Raises ``BrokerError``."""
        try:
            producer = KafkaProducer(**self.kafka.client_options(), acks="all")
            try:
                producer.send(topic, key=key.encode(), value=value).get(timeout=_SENT_S)
            finally:
                producer.close(timeout=5)
        except KafkaError as error:
            raise BrokerError(f"{self.kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None

    def answered(self, topic: str, key: str, value: bytes, action: str, wait_s: float) -> Alert | None:
        """Write a record and wait for the transition that answers ``action``; None if there is none in time."""
        deadline = time.monotonic() + wait_s
        following = follow(self.kafka, self.topics.alerts)
        try:
            before = next(following)  # from here on nothing is missed
            self.write(topic, key, value)
            for alert in chain([before], following):
                if alert is not None and alert.action == action:
                    return alert
                if time.monotonic() > deadline:
                    return None
        finally:
            following.close()  # type: ignore[attr-defined]
        return None


def now() -> str:
    """This moment, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """``90s``, ``30m``, ``2h``, ``1d``, or a number of seconds. Raises ``ConfigError``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"{text!r} is no duration: write 90s, 30m, 2h or 1d")
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def checked(kind: type[T], **fields: Any) -> T:
    """A record, checked as whoever reads it does. Raises ``ConfigError``."""
    try:
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def run_action(
    plan_path: Path, alert_id: str, action: Deed, *, by: str, comment: str, wait_s: float, for_: str | None = None
) -> int:
    """Do something to an alert; the exit status: 1 if no worker has answered in time."""
    line = Line(plan_path)
    alert = line.find(alert_id)
    if alert.state == "resolved":
        raise ConfigError(f"alert {alert.id[:SHOWN]} of {alert.asset} is resolved since {alert.resolved}: label it")
    done = checked(
        Action,
        id=uuid.uuid4().hex,
        action=action,
        asset=alert.asset,
        alert=alert.id,
        by=by,
        at=now(),
        comment=comment,
        for_s=None if for_ is None else seconds(for_),
    )
    answer = line.answered(line.topics.actions, alert.asset, to_json(done), done.id, wait_s)
    if answer is None:
        click.secho(
            f"written, but no worker has answered within {wait_s:g} s: it is applied when one watches {alert.asset}",
            fg="yellow",
            err=True,
        )
        return 1
    _describe(answer)
    return 0


def run_label(
    plan_path: Path,
    alert_id: str,
    verdict: str,
    *,
    by: str,
    comment: str,
    fault: str,
    wait_s: float,
    take_back: bool,
) -> int:
    """Say what an alert was; the exit status."""
    line = Line(plan_path)
    alert = line.find(alert_id)
    if take_back:
        line.write(line.topics.labels, alert.id, None)
        click.echo(f"{alert.id[:SHOWN]} {alert.asset}: the label is taken back")
        return 0
    label = checked(
        Label,
        verdict=verdict,
        asset=alert.asset,
        since=alert.onset,
        until=alert.last_seen,
        by=by,
        at=now(),
        alert=alert.id,
        detector=alert.detector,
        model_version=alert.model_version,
        ratio=peak_ratio(alert),
        fault=fault,
        comment=comment,
    )
    answer = None
    waits = alert.state != "resolved"
    if waits:
        answer = line.answered(line.topics.labels, label.key, to_json(label), label.at, wait_s)
    else:
        line.write(line.topics.labels, label.key, to_json(label))
    mine = [
        held
        for held in line.labels().values()
        if (held.detector, held.asset, held.model_version) == (label.detector, label.asset, label.model_version)
    ]
    moved = factor(mine)
    click.echo(f"{alert.id[:SHOWN]} {alert.asset}: {verdict}; threshold of {alert.detector} there: {moved:.3g} times")
    if moved >= HIGHEST:
        click.echo(f"no label moves it further than {HIGHEST:g} times: what stands out by more alarms all the same")
    if waits and answer is None:
        click.secho(f"no worker has answered within {wait_s:g} s", fg="yellow", err=True)
        return 1
    return 0


def run_label_stretch(
    plan_path: Path, asset: str, verdict: str, *, since: str, until: str, by: str, comment: str, fault: str
) -> None:
    """Say what a stretch of an asset was: retraining hears of it, thresholds do not move."""
    line = Line(plan_path)
    label = checked(
        Label, verdict=verdict, asset=asset, since=since, until=until, by=by, at=now(), fault=fault, comment=comment
    )
    line.write(line.topics.labels, label.key, to_json(label))
    click.echo(f"{asset} from {since} to {until}: {verdict}{f' ({fault})' if fault else ''}")


def run_list(plan_path: Path, *, everything: bool, as_json: bool) -> None:
    """The alerts that are open, or all that the topic still has; the newest last."""
    line = Line(plan_path)
    held = sorted(line.alerts().values(), key=lambda alert: (alert.opened, alert.id))
    shown = [alert for alert in held if everything or alert.state != "resolved"]
    if as_json:
        for alert in shown:
            click.echo(to_json(alert).decode())
        return
    if not shown:
        click.echo("nothing is open")
        return
    table = Table("id", "opened", "severity", "asset", "detector", "peak", "it is", box=None)
    for alert in shown:
        far = f"{alert.peak:.3g} of {alert.threshold:.3g}"
        asset, detector = plain(alert.asset), plain(alert.detector)
        table.add_row(alert.id[:SHOWN], alert.opened, alert.severity, asset, detector, far, plain(standing(alert)))
    Console().print(table)


def run_incidents(plan_path: Path, *, everything: bool, as_json: bool) -> None:
    """The incidents that are open, or all that the alert topic still tells of."""
    line = Line(plan_path)
    if line.plan is None or not line.plan.lines:
        raise ConfigError(f"{plan_path}: there are no lines: write [lines.NAME] with assets in the process's order")
    alerts = [alert for alert in line.alerts().values() if not alert.suppressed]
    shown = [held for held in group(alerts, line.plan.lines) if everything or held.state == "open"]
    if as_json:
        for incident in shown:
            click.echo(to_json(incident).decode())
        return
    if not shown:
        click.echo("no incident is open")
        return
    table = Table("line", "since", "severity", "look first at", "alerts", "assets", box=None)
    for held in shown:
        look = plain(f"{look_first(held)}, alert {held.first[:SHOWN]}")
        table.add_row(held.line, held.since, held.severity, look, str(len(held.alerts)), plain(", ".join(held.assets)))
    Console().print(table)


def run_history(plan_path: Path, alert_id: str, *, as_json: bool) -> None:
    """Everything that happened to one alert: what the readings did, and what people did."""
    line = Line(plan_path)
    alert = line.find(alert_id)
    answered = {event.id for event in alert.life if event.id}
    waiting = [
        action
        for _, action in line.read(line.topics.actions, Action)
        if action is not None and action.alert == alert.id and action.id not in answered
    ]
    label = line.labels().get(alert.id)
    if as_json:
        record = {"alert": alert, "unanswered": waiting, "label": label}
        click.echo(msgspec.json.encode(record).decode())
        return
    _describe(alert)
    for event in alert.life:
        who = f"  by {event.by}" if event.by else ""
        click.echo(f"  {event.at}  {event.what}{who}{f': {event.comment}' if event.comment else ''}")
    if label is not None and not any((event.by, event.at) == (label.by, label.at) for event in alert.life):
        said = ": ".join(part for part in (label.fault, label.comment) if part)
        click.echo(f"  {label.at}  labelled {label.verdict}  by {label.by}{f': {said}' if said else ''}")
    for action in waiting:
        click.echo(f"  {action.at}  {action.action}  by {action.by}: not applied, the alert was over or nobody watched")


def run_maintenance_start(
    plan_path: Path, pattern: str, *, for_: str | None, since: str | None, until: str | None, by: str, comment: str
) -> None:
    """Begin a maintenance window."""
    if for_ is not None and until is not None:
        raise ConfigError("give --for or --until, not both")
    if for_ is not None:
        begins = datetime.now(UTC) if since is None else _time(since)
        until = (begins + timedelta(seconds=seconds(for_))).isoformat(timespec="seconds").replace("+00:00", "Z")
    _write(plan_path, "maintenance_start", pattern, by=by, comment=comment, since=since, until=until)
    ends = f"until {until}" if until else "until it is stopped"
    click.echo(f"{pattern}: nobody is told of alerts and nothing is learnt {ends}")


def run_maintenance_stop(plan_path: Path, pattern: str, *, by: str, comment: str) -> None:
    """End it."""
    held = {action.asset for action in _windows(Line(plan_path))}
    if pattern not in held:
        known = f"there are {', '.join(sorted(held))}" if held else "there is none"
        raise ConfigError(f"no maintenance window for {pattern!r} was begun: {known}")
    _write(plan_path, "maintenance_stop", pattern, by=by, comment=comment)
    click.echo(f"{pattern}: people are told of alerts again, and thresholds follow drift")


def run_maintenance_list(plan_path: Path) -> None:
    """The windows of the plan, and those that operators have begun and not stopped."""
    line = Line(plan_path)
    table = Table("assets", "since", "until", "why", "by", box=None)
    for name, held in (line.plan.maintenance if line.plan else {}).items():
        table.add_row(", ".join(held.assets), str(held.since), str(held.until), held.reason or name, "the plan")
    for action in _windows(line):
        why, by = plain(action.comment), plain(action.by)
        table.add_row(plain(action.asset), action.since or action.at, action.until or "stopped", why, by)
    if table.row_count:
        Console().print(table)
    else:
        click.echo("no maintenance windows")


def run_mode(plan_path: Path, pattern: str, mode: str, *, by: str, comment: str) -> None:
    """Say which mode assets are in from now on; empty: none."""
    line = Line(plan_path)
    if mode and line.plan is not None and mode not in line.plan.modes:
        raise ConfigError(f"the plan has no mode {mode!r}; it has {', '.join(line.plan.modes) or 'none'}: see [modes]")
    _write(plan_path, "mode", pattern, by=by, comment=comment, mode=mode)
    click.echo(f"{pattern}: {f'in mode {mode}' if mode else 'in no mode'}")


def peak_ratio(alert: Alert) -> float:
    """An alert's peak over the threshold before labels and modes moved that."""
    return alert.peak / alert.threshold * alert.factor


def standing(alert: Alert) -> str:
    """What an operator should know of how an alert is."""
    said = ["resolved" if alert.state == "resolved" else "open"]
    if alert.state != "resolved":
        if alert.acknowledged:
            said.append(f"acknowledged by {alert.acknowledged.by}")
        if alert.shelved:
            said.append(f"shelved until {alert.shelved.until} by {alert.shelved.by}")
        if alert.suppressed:
            said.append(alert.suppressed)
        if alert.re_alarm:
            said.append("alarmed again")
    return ", ".join(said)


def _write(plan_path: Path, action: Deed, pattern: str, **fields: Any) -> None:
    line = Line(plan_path)
    done = checked(Action, id=uuid.uuid4().hex, action=action, asset=pattern, at=now(), **fields)
    line.write(line.topics.actions, pattern, to_json(done))


def _windows(line: Line) -> list[Action]:
    held: dict[str, Action] = {}
    for _, action in line.read(line.topics.actions, Action):
        if action is not None and action.action == "maintenance_start":
            held[action.asset] = action
        elif action is not None and action.action == "maintenance_stop":
            held.pop(action.asset, None)
    return list(held.values())


def _describe(alert: Alert) -> None:
    causes = ", ".join(cause.signal for cause in alert.causes[:3])
    click.echo(
        f"{alert.id[:SHOWN]} {alert.asset} {alert.detector} {alert.severity} {causes}: {standing(alert)}; "
        f"peak {alert.peak:.3g} of {alert.threshold:.3g}"
    )


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time: write 2026-11-25T08:00:00Z") from None
