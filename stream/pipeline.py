"""Decode, window, score and decide, one after the other: what live, replay and backtest share. No I/O.

State is kept per partition: when a partition moves to another worker, its state goes with one call. Nothing here knows
the time of day, so the same records give the same scores and alerts whenever they are run, and however they are cut
into batches.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models.base import Float32, Scored
from stream.decide import DecisionState, Identity, Rules, decide
from stream.decode import Decoder
from stream.records import (
    Alert,
    Bool,
    DeadLetter,
    Float64,
    Int32,
    Int64,
    Late,
    Output,
    RawRecord,
    Readings,
    Scores,
)
from stream.score import carry, score
from stream.settings import DetectorSettings, Plan
from stream.window import NEVER, WindowState, arrival, runs, window

if TYPE_CHECKING:
    from models.artifact import Artifact

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where the pipeline finds its models."""

    def find(self, detector: str, asset: str) -> Artifact | None:
        """The artifact that serves ``detector`` for ``asset``; None if there is none."""
        ...

    def signals(self) -> tuple[str, ...]:
        """All signals that any artifact looks at, sorted."""
        ...


@dataclass(slots=True)
class _Lane:
    """One model at work on the assets of one partition.

    slots    index of an asset within the lane, by its index in the partition; -1 where the lane does not watch it
    carried  the state of a detector that carries it from reading to reading; its ``windows`` then only count rows
    """

    detector: str
    settings: DetectorSettings
    artifact: Artifact
    columns: Int64
    rules: Rules
    identity: Identity
    windows: WindowState
    carried: Any = None
    decisions: DecisionState = field(default_factory=DecisionState)
    names: list[str] = field(default_factory=list)
    slots: Int32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def admit(self, index: int, name: str) -> None:
        """Watch the asset that the partition knows by ``index``."""
        if index >= len(self.slots):
            room = max(index + 1, 2 * len(self.slots), 16)
            slots = np.full(room, -1, dtype=np.int32)
            slots[: len(self.slots)] = self.slots
            self.slots = slots
        self.slots[index] = len(self.names)
        self.names.append(name)

    def slots_of(self, assets: Int32) -> Int32:
        """The lane's slot of each asset; -1 where it does not watch it."""
        known = assets < len(self.slots)
        return np.where(known, self.slots[np.where(known, assets, 0)], -1).astype(np.int32)


@dataclass(slots=True)
class _PartitionState:
    """All that is remembered of one partition. ``applied``: offset of the newest record that is part of it."""

    applied: int = -1
    index: dict[str, int] = field(default_factory=dict)
    watched: list[bool] = field(default_factory=list)
    last_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lanes: dict[tuple[str, int], _Lane] = field(default_factory=dict)


class Pipeline:
    """Records in, ``Output`` out. One thread at a time."""

    def __init__(self, plan: Plan, shelf: Shelf, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._plan = plan
        self._shelf = shelf
        self._clock = clock
        self._decoder = Decoder(plan.input, shelf.signals())
        self._partitions: dict[int, _PartitionState] = {}

    @property
    def signals(self) -> tuple[str, ...]:
        """The columns of the readings that ``run`` takes."""
        return self._decoder.signals

    def process(self, partition: int, records: Sequence[RawRecord]) -> Output:
        """One partition's batch of records, in the order of their offsets.

        Records up to the last offset already applied are passed over: a consumer that was set back reads them again.
        """
        start = self._clock()
        state = self._partitions.setdefault(partition, _PartitionState())
        given = len(records)
        if records and records[0].offset <= state.applied:
            records = [record for record in records if record.offset > state.applied]
        if records:
            state.applied = records[-1].offset
        readings, dead, unknown = self._decoder.decode(records)
        decode_s = self._clock() - start
        output = self.run(partition, readings, records)
        return replace(
            output,
            dead=(*dead, *output.dead),
            counts={
                **output.counts,
                "records": len(records),
                "repeated": given - len(records),
                "unknown_signals": unknown,
            },
            stage_s={"decode": decode_s, **output.stage_s},
            produced_ms=records[-1].timestamp if records else 0,
        )

    def run(self, partition: int, readings: Readings, records: Sequence[RawRecord] = ()) -> Output:
        """Readings that need no decoding: a backtest's. ``records`` are for the dead letters."""
        state = self._partitions.setdefault(partition, _PartitionState())
        counts: Counter[str] = Counter(readings=len(readings))
        stage_s: dict[str, float] = defaultdict(float)
        assets = self._admit(state, readings)
        order, late, duplicate = arrival(assets, readings.at_ms, state.last_ms)
        counts["late"], counts["duplicates"] = int(late.sum()), int(duplicate.sum())
        fresh = order[~late & ~duplicate]
        watched = np.array(state.watched, dtype=bool)
        counts["unwatched"] = int((~watched[assets[fresh]]).sum()) if len(fresh) else 0

        scores: list[Scores] = []
        alerts: list[Alert] = []
        dead: list[DeadLetter] = []
        for lane in state.lanes.values():
            slots = lane.slots_of(assets[fresh])
            chosen = fresh[slots >= 0]
            if not len(chosen):
                continue
            try:
                result = self._watch(lane, slots[slots >= 0], chosen, readings, stage_s)
            except Exception as error:  # one broken model must not stop the others, nor lose what it was given
                _log.exception("detector %s failed on %d readings", lane.detector, len(chosen))
                reason = f"detector {lane.detector}: {type(error).__name__}: {error}"
                dead += [
                    DeadLetter(records[index], "score", "detector_failed", reason)
                    for index in sorted(set(readings.record[chosen].tolist()))
                    if index < len(records)
                ]
                counts["failed"] += len(chosen)
                continue
            if result:
                scores.append(result[0])
                alerts += result[1]
        alerts.sort(key=lambda alert: (alert.last_seen, alert.id, alert.sequence))
        return Output(
            scores=tuple(scores),
            alerts=tuple(alerts),
            dead=tuple(dead),
            late=tuple(self._late(readings, order[late], records)),
            counts=dict(counts),
            stage_s=dict(stage_s),
        )

    def keep_only(self, partitions: set[int]) -> None:
        """Drop the state of partitions that have gone to another worker."""
        for partition in self._partitions.keys() - partitions:
            del self._partitions[partition]

    def _admit(self, state: _PartitionState, readings: Readings) -> Int32:
        """The partition's index of each reading's asset; new assets get their lanes."""
        for name in readings.names:
            if name not in state.index:
                state.index[name] = len(state.index)
                state.watched.append(self._open_lanes(state, name))
        room = len(state.index)
        if room > len(state.last_ms):
            grown = np.full(max(room, 2 * len(state.last_ms)), NEVER, dtype=np.int64)
            grown[: len(state.last_ms)] = state.last_ms
            state.last_ms = grown
        codes = np.array([state.index[name] for name in readings.names], dtype=np.int32)
        return codes[readings.asset] if len(readings) else np.zeros(0, dtype=np.int32)

    def _open_lanes(self, state: _PartitionState, name: str) -> bool:
        """Admit a new asset to the lane of every detector that watches it; whether any does."""
        watched = False
        for detector, settings in self._plan.detectors.items():
            if not settings.watches(name):
                continue
            artifact = self._shelf.find(detector, name)
            if artifact is None:
                continue
            key = (detector, id(artifact))
            lane = state.lanes.get(key)
            if lane is None:
                lane = state.lanes[key] = self._lane(detector, settings, artifact)
            lane.admit(state.index[name], name)
            watched = True
        return watched

    def _lane(self, detector: str, settings: DetectorSettings, artifact: Artifact) -> _Lane:
        column = {signal: index for index, signal in enumerate(self._decoder.signals)}
        stepper = artifact.stepper
        return _Lane(
            detector=detector,
            settings=settings,
            artifact=artifact,
            columns=np.array([column[signal] for signal in artifact.signals], dtype=np.int64),
            rules=rules_of(settings, artifact),
            identity=Identity(self._plan.site, detector, settings.kind, artifact.version),
            windows=WindowState(artifact.window, 0 if stepper else len(artifact.signals)),
            carried=stepper.begin() if stepper else None,
        )

    def _watch(
        self, lane: _Lane, slots: Int32, chosen: Int64, readings: Readings, stage_s: dict[str, float]
    ) -> tuple[Scores, list[Alert]] | None:
        """Window, score and decide for one lane; ``chosen`` are its readings, sorted by asset and time."""
        started = self._clock()
        # A lane's slots follow the order of arrival of its assets; the window stage wants them ascending.
        ascending = np.argsort(slots, kind="stable")
        slots, chosen = slots[ascending], chosen[ascending]
        values = readings.values[np.ix_(chosen, lane.columns)]
        at_ms = readings.at_ms[chosen]
        scaled = lane.artifact.scaler.transform(values)
        gap_ms = longest_gap_ms(lane.settings, lane.artifact)
        stepper = lane.artifact.stepper
        if stepper is None:
            windows = window(lane.windows, slots, at_ms, scaled, hop=lane.settings.hop, longest_gap_ms=gap_ms)
            due = windows.row
        else:
            found = runs(lane.windows, slots, at_ms, gap_ms)
            due = found.due(lane.artifact.window, lane.settings.hop)
        windowed = self._clock()
        stage_s["window"] += windowed - started
        if stepper is not None:
            scored = carry(stepper, lane.carried, found, scaled, due)
        elif len(due):
            scored = score(lane.artifact.detector, windows)
        done = self._clock()
        stage_s["score"] += done - windowed
        if not len(due):
            return None
        evidence = self._evidence(lane, due, scored, slots, at_ms, values)
        rows = slots[due]
        anomalous, alerts = decide(lane.decisions, lane.rules, lane.identity, rows, lane.names, evidence)
        stage_s["decide"] += self._clock() - done
        return replace(evidence, anomalous=anomalous), alerts

    def _evidence(
        self, lane: _Lane, rows: Int64, scored: Scored, slots: Int32, at_ms: Int64, values: Float64
    ) -> Scores:
        """``rows`` (judged,): which of the lane's readings ``scored`` is about."""
        present = np.unique(slots[rows])
        scaler = lane.artifact.scaler
        nothing: Bool = np.zeros(len(rows), dtype=bool)
        return Scores(
            detector=lane.detector,
            kind=lane.settings.kind,
            model_version=lane.artifact.version,
            names=tuple(lane.names[slot] for slot in present.tolist()),
            asset=np.searchsorted(present, slots[rows]).astype(np.int32),
            at_ms=at_ms[rows],
            score=scored.score,
            threshold=np.full(len(rows), lane.rules.threshold),
            anomalous=nothing,
            signals=lane.artifact.signals,
            values=values[rows],
            contributions=scored.contributions,
            expected=None if scored.expected is None else scaler.inverse(scored.expected),
            spread=None if scored.spread is None else _unscale(scored.spread, scaler.scale),
            verdict=np.zeros(len(rows), dtype=np.uint8) if scored.kind is None else scored.kind,
        )

    def _late(self, readings: Readings, late: Int64, records: Sequence[RawRecord]) -> list[Late]:
        if not len(records):
            return []
        # A frame is one record with many readings: it is handed on once.
        first: dict[int, int] = {}
        for row in late.tolist():
            first.setdefault(int(readings.record[row]), row)
        return [
            Late(records[index], f"older than the newest reading of {readings.names[readings.asset[row]]}")
            for index, row in first.items()
        ]


def rules_of(settings: DetectorSettings, artifact: Artifact) -> Rules:
    """The rules of a detector in the plan, with the threshold of its artifact unless the plan says one."""
    threshold = settings.threshold
    if threshold is None:
        threshold = artifact.threshold(settings.false_alarms_per_day)
    return Rules(
        threshold=threshold,
        on_delay_ms=_ms(settings.on_delay_s),
        off_delay_ms=_ms(settings.off_delay_s),
        deadband=settings.deadband,
        update_every_ms=_ms(settings.update_every_s),
        major_at=settings.major_at,
        critical_at=settings.critical_at,
        escalate_after_ms=_ms(settings.escalate_after_s),
    )


def longest_gap_ms(settings: DetectorSettings, artifact: Artifact) -> int | None:
    """The longest pause that leaves a window in one piece; None if any does. Default: five periods of the model."""
    if settings.gaps.policy == "keep":
        return None
    seconds = settings.gaps.longer_than_s
    return _ms(5 * artifact.period_s if seconds is None else seconds)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _unscale(spread: Float32, scale: Float64) -> Float64:
    return spread.astype(np.float64) * scale
