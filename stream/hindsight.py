"""What is known of the past, for training: which stretches of which asset were alarmed, and what people said of them.

left out   everything while an alert was open, what a label calls a fault, and maintenance windows: a model must not
           learn it as normal
kept       what a label calls a false alarm, alert and all: that it is normal is what the model has to learn
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from models.base import NORMAL, UNKNOWN
from stream.actions import Action
from stream.follow import follow
from stream.labels import Label
from stream.maintenance import Maintenance
from stream.operating import ModeSettings
from stream.plan import Plan
from stream.reader import read_records
from stream.records import Alert, Bool, Int64
from stream.settings import KafkaSettings
from stream.topics import list_topics

if TYPE_CHECKING:
    from models.datasets import Recording

_log = logging.getLogger(__name__)

#: The end of what is not over.
_OPEN_MS: Final = 253_402_300_799_999
What = Literal["fault", "false_alarm", "alert", "maintenance"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """From ``start_ms`` to ``end_ms``, both included, of one asset.

    what   ``fault`` (a label says so), ``false_alarm`` (a label says so), ``maintenance`` (it was being worked on) or
           ``alert`` (nobody has said what it was)
    fault  which fault, where the label names it
    quiet  detector and version of whose threshold the label of a false alarm has moved above its peak
    """

    asset: str
    start_ms: int
    end_ms: int
    what: What
    fault: str = ""
    quiet: tuple[str, str] | None = None

    def holds(self, at_ms: Int64) -> Bool:
        """Which of these times are in it."""
        return (at_ms >= self.start_ms) & (at_ms <= self.end_ms)


def read_past(kafka: KafkaSettings, plan: Plan, assets: Iterable[str]) -> list[Stretch]:
    """What the alert topic and the labels topic hold, and the maintenance windows of ``assets``.

    A topic that there is not holds nothing. Raises ``BrokerError``.
    """
    there = list_topics(kafka)
    if absent := {plan.topics.alerts, plan.topics.labels, plan.topics.actions} - there:
        _log.warning("there is no topic %s: it leaves nothing out", " and no topic ".join(sorted(absent)))
    alerts: list[Alert] = []
    if plan.topics.alerts in there:
        alerts = [alert for alert in follow(kafka, plan.topics.alerts, from_start=True, until_end=True) if alert]
    labels: dict[str, Label] = {}
    for records in read_records(kafka, plan.topics.labels) if plan.topics.labels in there else ():
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            labels.pop(key, None)
            if record.value is not None:
                try:
                    labels[key] = msgspec.json.decode(record.value, type=Label)
                except (msgspec.DecodeError, RecursionError):
                    continue  # the workers have dead-lettered it
    maintenance = Maintenance(plan.maintenance)
    if plan.topics.actions in there:
        _read_maintenance(kafka, plan.topics.actions, maintenance)
    return [*stretches(alerts, labels.values()), *worked_on(maintenance, assets)]


def _read_maintenance(kafka: KafkaSettings, topic: str, maintenance: Maintenance) -> None:
    """Take in the windows that the actions topic tells of."""
    for records in read_records(kafka, topic):
        for record in records:
            if record.value is None:
                continue
            try:
                action = msgspec.json.decode(record.value, type=Action)
            except (msgspec.DecodeError, RecursionError):
                continue  # the workers have dead-lettered it
            if action.action in {"maintenance_start", "maintenance_stop"}:
                maintenance.take(action)


def worked_on(maintenance: Maintenance, assets: Iterable[str]) -> list[Stretch]:
    """The maintenance windows of these assets, as stretches."""
    found = []
    for asset in dict.fromkeys(assets):
        for window in maintenance.of(asset):
            seen = window.from_its_beginning()
            end_ms = _OPEN_MS if seen.until_ms is None else seen.until_ms - 1
            found.append(Stretch(asset, seen.since_ms or 0, end_ms, "maintenance"))
    return found


def stretches(alerts: Iterable[Alert], labels: Iterable[Label]) -> list[Stretch]:
    """Alerts, as transitions in any order, and labels, as stretches in the order of time.

    An alert that a label calls a false alarm, or that lies within such a stretch of its asset, is none.
    """
    newest: dict[str, Alert] = {}
    for alert in alerts:
        if alert.id not in newest or alert.sequence >= newest[alert.id].sequence:
            newest[alert.id] = alert
    said, of_alert = [], {}
    for label in labels:
        what: What = "fault" if label.verdict == "true" else "false_alarm"
        quiet = (label.detector, label.model_version) if label.silences else None
        fault = "" if label.fault in (NORMAL, UNKNOWN) else label.fault  # words that a classifier has for its own
        said.append(Stretch(label.asset, _ms(label.since), _ms(label.until), what, fault, quiet))
        if label.alert:
            of_alert[label.alert] = said[-1]
    excused = [held for held in said if held.what == "false_alarm"]
    for alert in newest.values():
        end_ms = _OPEN_MS if alert.resolved is None else _ms(alert.resolved)
        mine = Stretch(alert.asset, _ms(alert.onset), end_ms, "alert")
        if (label_of := of_alert.get(alert.id)) is not None:  # it may have gone on after it was labelled
            said.append(replace(mine, what=label_of.what, fault=label_of.fault, quiet=label_of.quiet))
            said.remove(label_of)
        elif not any(_within(mine, held) for held in excused):
            said.append(mine)
    return sorted(said, key=lambda held: (held.start_ms, held.asset, held.what))


def marked(
    recording: Recording, past: Sequence[Stretch], margin_ms: int = 0, *, keep_onsets: bool = False
) -> Recording:
    """A recording whose ``labels`` are all that must not be learnt, ``margin_ms`` around it too, and ``faults`` what
    was going on. What a recording says itself stays said. A false alarm's own rows are kept, whatever lies around them,
    unless they are of a fault or of maintenance as well.

    keep_onsets  keep what leads to a fault that is named: whoever learns to name it sees it begin
    """
    mine = [held for held in past if held.asset == recording.asset]
    labels = np.zeros(len(recording.at_ms), bool) if recording.labels is None else recording.labels.copy()
    faults = recording.faults
    for held in mine:
        if held.what != "false_alarm":
            lead_ms = 0 if keep_onsets and held.fault else margin_ms
            wide = replace(held, start_ms=held.start_ms - lead_ms, end_ms=held.end_ms + margin_ms)
            labels |= wide.holds(recording.at_ms)
    for held in mine:
        if held.what == "false_alarm" and not any(_overlap(held, other) for other in mine if other.what == "fault"):
            labels &= ~held.holds(recording.at_ms)
    for held in mine:
        if held.what == "maintenance":
            labels |= held.holds(recording.at_ms)
    if any(held.fault for held in mine):
        told = np.full(len(labels), NORMAL, dtype=object) if faults is None else faults.astype(object)
        for held in mine:
            if held.fault:
                told[held.holds(recording.at_ms)] = held.fault
        faults = told.astype(str)
    return replace(recording, labels=labels, faults=faults)


def left_out(keys: Sequence[tuple[str, int]], recordings: Iterable[Recording]) -> Bool:
    """Which of these rows, (asset, time), are labelled in the recordings that ``marked`` gave."""
    labelled = {
        (held.asset, at) for held in recordings if held.labels is not None for at in held.at_ms[held.labels].tolist()
    }
    return np.fromiter((key in labelled for key in keys), dtype=bool, count=len(keys))


def learnt_in(recording: Recording, modes: Mapping[str, ModeSettings], only_in: Collection[str]) -> Recording:
    """A recording whose ``labels`` leave out all but these modes, as far as a signal shows them; all of it where none
    does.
    """
    shown: Bool | None = None
    for name in only_in:
        mode = modes[name]
        if mode.signal in recording.signals and mode.may_be_of(recording.asset):
            now = mode.shown_by(recording.values[:, recording.signals.index(mode.signal)])
            shown = now if shown is None else shown | now
    if shown is None:
        return recording
    labels = ~shown if recording.labels is None else recording.labels | ~shown
    return replace(recording, labels=labels)


@dataclass(frozen=True, slots=True)
class Said:
    """How many stretches people judged, and how they did.

    true, false_alarms   labels that say so
    faults               of the true ones, how many name each fault
    unjudged             alerts that nobody has judged
    """

    true: int
    false_alarms: int
    unjudged: int
    faults: Mapping[str, int]


def said_of(past: Sequence[Stretch]) -> Said:
    """Count them."""
    kinds = Counter(held.what for held in past)
    faults = Counter(held.fault for held in past if held.fault)
    return Said(kinds["fault"], kinds["false_alarm"], kinds["alert"], dict(sorted(faults.items())))


def _within(one: Stretch, other: Stretch) -> bool:
    return one.asset == other.asset and other.start_ms <= one.start_ms and one.end_ms <= other.end_ms


def _overlap(one: Stretch, other: Stretch) -> bool:
    return one.asset == other.asset and one.start_ms <= other.end_ms and other.start_ms <= one.end_ms


def _ms(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000)
