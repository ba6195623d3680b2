"""What a run said, put together for a person: transitions become incidents, score rows become courses.

Both the demo (from the topics of a real worker) and a backtest (from the pipeline's scores) end here; ``report`` draws
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

import msgspec
import numpy as np

from models.evaluate import Event, Matching, events_of, match
from stream.episode import BAND_SIGMAS
from stream.records import Alert, Bool, Cause, Float64, Int64, Scores, Severity
from stream.report.sightings import Sighting

SEVERITIES: Final[tuple[Severity, ...]] = ("warning", "major", "critical")


class Recorded(Protocol):
    """The readings of an asset, as ``models.datasets.Recording`` holds them."""

    @property
    def asset(self) -> str:
        """Name of the asset."""
        ...

    @property
    def at_ms(self) -> Int64:
        """(row,) ascending epoch milliseconds."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the columns of ``values``."""
        ...

    @property
    def values(self) -> Float64:
        """(row, signal) in the plant's units, NaN where missing."""
        ...

    @property
    def labels(self) -> Bool | None:
        """(row,) whether something was wrong; None if nobody knows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Incident(Event):
    """An alert from opening to the last that was heard of it; ``start_ms`` is when the operator was told.

    severity  the worst it reached; ``causes`` are those of its peak
    fault     the likeliest that a classifier named; empty where none was asked
    resolved  whether it ended
    """

    id: str
    detector: str
    severity: Severity
    verdict: str
    peak: float
    threshold: float
    causes: tuple[Cause, ...]
    resolved: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A detector with another budget.

    factor      of the plan's budget
    budget      false alarms a day accepted for one asset
    thresholds  of the artifacts that scored, ascending
    """

    detector: str
    factor: float
    budget: float
    thresholds: tuple[float, ...]
    incidents: tuple[Incident, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """The scores of one asset by one detector.

    at_ms                (row,) int64 ascending, epoch milliseconds
    score, threshold     (row,) float64, NaN where a row could not be judged
    signals              columns of the tables below
    expected, low, high  (row, signal) float64, plant units, NaN where unknown; None if the detector expects nothing
    """

    at_ms: Int64
    score: Float64
    threshold: Float64
    signals: tuple[str, ...]
    expected: Float64 | None = None
    low: Float64 | None = None
    high: Float64 | None = None


@dataclass(frozen=True)
class Outcome:
    """A run: what there was to see, what was said of it, and what should have been said.

    courses      by (asset, detector)
    grace_s      an alarm that opens so long after a fault's end still belongs to it
    early_s      likewise before a fault's start, where labels are not exact
    facts        further figures for the head of the report, by name
    trials       what other budgets would have raised, by detector
    sightings    pictures with a defect or an alert; their assets have no recording
    """

    title: str
    recordings: Sequence[Recorded]
    faults: Sequence[Event]
    incidents: Sequence[Incident]
    courses: Mapping[tuple[str, str], Course]
    units: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    trials: Mapping[str, Sequence[Trial]] = field(default_factory=dict)
    sightings: Sequence[Sighting] = ()
    grace_s: float = 0.0
    early_s: float = 0.0

    @property
    def watched_ms(self) -> int:
        """How long the assets were watched, summed over them."""
        return sum(int(held.at_ms[-1] - held.at_ms[0]) for held in self.recordings if len(held.at_ms))

    def watched_by(self, detector: str) -> tuple[frozenset[str], int]:
        """The assets that a detector judged, and how long they were watched, summed over them (milliseconds)."""
        assets = frozenset(asset for asset, name in self.courses if name == detector)
        held = [recording for recording in self.recordings if recording.asset in assets and len(recording.at_ms)]
        return assets, sum(int(recording.at_ms[-1] - recording.at_ms[0]) for recording in held)

    @property
    def lasted_ms(self) -> int:
        """From the first reading of all to the last."""
        filled = [held for held in self.recordings if len(held.at_ms)]
        if not filled:
            return 0
        return max(int(held.at_ms[-1]) for held in filled) - min(int(held.at_ms[0]) for held in filled)

    def matching(self, incidents: Sequence[Incident] | None = None) -> Matching:
        """Which incident belongs to which fault; of others than its own where they are given."""
        told = self.incidents if incidents is None else incidents
        return match(self.faults, told, watched_ms=self.watched_ms, grace_s=self.grace_s, early_s=self.early_s)


def incidents_of(alerts: Iterable[Alert]) -> list[Incident]:
    """Put the transitions of each alert together, in the order of opening. Repeated transitions change nothing."""
    transitions: dict[str, dict[int, Alert]] = {}
    for alert in alerts:
        transitions.setdefault(alert.id, {})[alert.sequence] = alert
    incidents = []
    for by_sequence in transitions.values():
        last = by_sequence[max(by_sequence)]
        start_ms = epoch_ms(last.opened)
        incidents.append(
            Incident(
                asset=last.asset,
                start_ms=start_ms,
                end_ms=max(start_ms, epoch_ms(last.resolved or last.last_seen)),
                sort=last.kind,
                signals=tuple(cause.signal for cause in last.causes),
                id=last.id,
                detector=last.detector,
                severity=max((alert.severity for alert in by_sequence.values()), key=SEVERITIES.index),
                verdict=last.verdict,
                peak=last.peak,
                threshold=last.threshold,
                causes=last.causes,
                resolved=last.state == "resolved",
                fault=last.diagnosis[0].fault if last.diagnosis else "",
            )
        )
    return sorted(incidents, key=lambda incident: (incident.start_ms, incident.asset, incident.detector))


def labelled(recordings: Iterable[Recorded], join_s: float = 0.0) -> list[Event]:
    """Turn the labels of recordings into faults, in the order of time."""
    faults = [
        replace(event, sort="labelled")
        for held in recordings
        if held.labels is not None
        for event in events_of(held.asset, held.at_ms, held.labels, join_s)
    ]
    return sorted(faults, key=lambda fault: (fault.start_ms, fault.asset))


def around(events: Iterable[Event], step_ms: int) -> list[tuple[int, int]]:
    """The stretches of time, (first, last) epoch milliseconds, in which events are drawn: each with what was around."""
    spans = []
    for event in events:
        margin_ms = max(round(0.7 * (event.end_ms - event.start_ms)), 40 * step_ms)
        spans.append((event.start_ms - margin_ms, event.end_ms + margin_ms))
    return spans


def step_of(recording: Recorded) -> int:
    """The usual step between its readings, milliseconds."""
    return max(1, int(np.median(np.diff(recording.at_ms)))) if len(recording.at_ms) > 1 else 1


def courses_of(scores: Iterable[Scores]) -> dict[tuple[str, str], Course]:
    """Sort batches of scores into courses."""
    pieces: dict[tuple[str, str], list[tuple[Scores, Int64]]] = {}
    for batch in scores:
        for index in np.unique(batch.asset).tolist():
            rows = np.flatnonzero(batch.asset == index)
            pieces.setdefault((batch.names[index], batch.detector), []).append((batch, rows))
    courses = {}
    for key, parts in pieces.items():
        expected = _join([None if batch.expected is None else batch.expected[rows] for batch, rows in parts])
        spread = _join([None if batch.spread is None else batch.spread[rows] for batch, rows in parts])
        width = None if spread is None else BAND_SIGMAS * spread
        banded = expected is not None and width is not None
        courses[key] = _course(
            at_ms=np.concatenate([batch.at_ms[rows] for batch, rows in parts]),
            score=np.concatenate([batch.score[rows] for batch, rows in parts]),
            threshold=np.concatenate([batch.threshold[rows] for batch, rows in parts]),
            signals=parts[0][0].signals,
            expected=expected,
            low=expected - width if banded else None,  # type: ignore[operator]  # both are there
            high=expected + width if banded else None,  # type: ignore[operator]
        )
    return courses


class _ScoreRow(msgspec.Struct):
    """A record of the scores topic, as far as it is drawn."""

    asset: str
    detector: str
    ts: datetime
    score: float | None = None
    threshold: float | None = None
    values: dict[str, float] = {}
    expected: dict[str, float] | None = None
    low: dict[str, float] | None = None
    high: dict[str, float] | None = None


def courses_of_topic(payloads: Iterable[bytes]) -> dict[tuple[str, str], Course]:
    """Read the records of the scores topic into courses; a row that was written twice counts once."""
    decoder = msgspec.json.Decoder(_ScoreRow)
    rows: dict[tuple[str, str], dict[int, _ScoreRow]] = {}
    for payload in payloads:
        row = decoder.decode(payload)
        rows.setdefault((row.asset, row.detector), {})[round(row.ts.timestamp() * 1000)] = row
    courses = {}
    for key, by_time in rows.items():
        held = list(by_time.values())
        signals = tuple(dict.fromkeys(name for row in held for name in row.values))
        courses[key] = _course(
            at_ms=np.array(list(by_time), dtype=np.int64),
            score=np.array([_number(row.score) for row in held]),
            threshold=np.array([_number(row.threshold) for row in held]),
            signals=signals,
            expected=_table([row.expected for row in held], signals),
            low=_table([row.low for row in held], signals),
            high=_table([row.high for row in held], signals),
        )
    return courses


def epoch_ms(text: str) -> int:
    """RFC 3339 as epoch milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _course(
    *,
    at_ms: Int64,
    score: Float64,
    threshold: Float64,
    signals: tuple[str, ...],
    expected: Float64 | None,
    low: Float64 | None,
    high: Float64 | None,
) -> Course:
    order = np.argsort(at_ms, kind="stable")
    tables = (None if table is None else table[order] for table in (expected, low, high))
    return Course(at_ms[order], score[order], threshold[order], signals, *tables)


def _join(parts: Sequence[Float64 | None]) -> Float64 | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _table(rows: Sequence[Mapping[str, float] | None], signals: Sequence[str]) -> Float64 | None:
    if not any(rows):
        return None
    return np.array([[(row or {}).get(name, np.nan) for name in signals] for row in rows])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
