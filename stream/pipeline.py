"""Decode, window, score and decide, one after the other: what live, replay and backtest share. No I/O.

State is kept per partition: when a partition moves to another worker, its state goes with one call. Nothing here knows
the time of day, so the same records give the same scores and alerts whenever they are run, and however they are cut
into batches.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models.base import Float32, Scored
from stream.decide import Identity, Rules, decide, standing
from stream.decode import Decoder
from stream.partition import Lane, Partition, Restored
from stream.records import (
    Alert,
    Bool,
    DeadLetter,
    Fetched,
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
from stream.state import BLOCK_BYTES, MOST_ASSETS, Block, Image, Meta
from stream.window import WindowState, arrival, runs, window

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

    def serving(self) -> Iterator[tuple[str, Artifact]]:
        """Every artifact with its detector's name in the plan."""
        ...


class Pipeline:
    """Records in, ``Output`` out. One thread at a time."""

    def __init__(self, plan: Plan, shelf: Shelf, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._plan = plan
        self._shelf = shelf
        self._clock = clock
        self._decoder = Decoder(plan.input, shelf.signals())
        self._partitions: dict[int, Partition] = {}
        self._block = block_size(shelf)
        self._evict_after_ms = _ms(plan.state.evict_after_s)

    @property
    def signals(self) -> tuple[str, ...]:
        """The columns of the readings that ``run`` takes."""
        return self._decoder.signals

    def process(self, partition: int, records: Sequence[RawRecord]) -> Output:
        """One partition's batch of records, in the order of their offsets.

        Records up to the last offset already applied are passed over: a consumer that was set back reads them again.
        """
        start = self._clock()
        state = self._of(partition)
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
                "repeated": given - len(records) + output.counts.get("repeated", 0),
                "unknown_signals": unknown,
            },
            stage_s={"decode": decode_s, **output.stage_s},
            produced_ms=records[-1].timestamp if records else 0,
        )

    def run(self, partition: int, readings: Readings, records: Sequence[RawRecord] = ()) -> Output:
        """Readings that need no decoding: a backtest's. ``records`` are for the dead letters."""
        state = self._of(partition)
        counts: Counter[str] = Counter(readings=len(readings))
        stage_s: dict[str, float] = defaultdict(float)
        assets = self._admit(state, readings)
        if state.passed is not None:
            readings, assets = self._new_to_their_assets(state, readings, assets, records)
            counts["repeated"] = counts["readings"] - len(readings)
        order, late, duplicate, pause_ms = arrival(assets, readings.at_ms, state.last_ms)
        counts["late"], counts["duplicates"] = int(late.sum()), int(duplicate.sum())
        good = ~late & ~duplicate
        fresh, pause_ms = order[good], pause_ms[good]
        watched = np.array(state.watched, dtype=bool)
        counts["unwatched"] = int((~watched[assets[fresh]]).sum()) if len(fresh) else 0

        scores: list[Scores] = []
        alerts: list[Alert] = []
        dead: list[DeadLetter] = []
        for lane in state.lanes.values():
            slots = lane.slots_of(assets[fresh])
            mine = slots >= 0
            chosen = fresh[mine]
            if not len(chosen):
                continue
            try:
                result = self._watch(lane, slots[mine], chosen, pause_ms[mine], readings, stage_s)
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

    @property
    def partitions(self) -> set[int]:
        """The partitions of which anything is remembered."""
        return set(self._partitions)

    def applied(self, partition: int) -> int:
        """The offset of the newest record that is part of a partition's state; -1 if there is none."""
        state = self._partitions.get(partition)
        return -1 if state is None else state.applied

    def touched(self, partition: int) -> tuple[int, list[int]] | None:
        """What a snapshot now has to hold: the offset it is of, and the blocks. None if it cannot be taken now.

        While some blocks are ahead of others nothing is taken: their own offsets would be lost.
        """
        state = self._partitions.get(partition)
        if state is None or state.applied < state.passed_until:
            return None
        return state.applied, sorted(state.touched)

    def take(self, partition: int, numbers: Sequence[int]) -> list[Block]:
        """Copies of blocks as they are now; they count as untouched from then on."""
        state = self._partitions.get(partition)
        return [] if state is None else [state.take(number) for number in numbers]

    def touch(self, partition: int, numbers: Sequence[int]) -> None:
        """Say that blocks that were taken could not be written."""
        if state := self._partitions.get(partition):
            state.touched.update(numbers)

    def meta(self, partition: int, applied: int) -> Meta | None:
        """The record that ends a snapshot."""
        state = self._partitions.get(partition)
        return None if state is None else state.meta(applied)

    def restore(self, partition: int, image: Image) -> Restored:
        """Begin a partition with what a snapshot has of it, in place of what is remembered."""
        self.keep_only(self.partitions - {partition})
        state = self._of(partition)
        return state.restore(image, lambda index: self._open_lanes(state, index))

    def evict(self) -> int:
        """Forget assets that have been silent for longer than the plan says; how many."""
        return sum(state.evict(self._evict_after_ms) for state in self._partitions.values())

    def assets(self) -> int:
        """How many assets are remembered."""
        return sum(len(state.index) for state in self._partitions.values())

    def open_alerts(self) -> list[Alert]:
        """All alerts that are open, as they were last published."""
        return [
            standing(episode, lane.rules, lane.identity, lane.names[slot])
            for state in self._partitions.values()
            for lane in state.lanes.values()
            for slot, episode in lane.decisions.episodes.items()
            if episode.opened_ms is not None
        ]

    def _of(self, partition: int) -> Partition:
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = Partition(self._block)
        return state

    def _admit(self, state: Partition, readings: Readings) -> Int32:
        """The partition's index of each reading's asset; new assets get their lanes."""
        for name in readings.names:
            if name not in state.index:
                self._open_lanes(state, state.admit(name))
        if not len(readings):
            return np.zeros(0, dtype=np.int32)
        codes = np.array([state.index[name] for name in readings.names], dtype=np.int32)
        state.touched.update(np.unique(codes // state.size).tolist())
        return codes[readings.asset]

    def _new_to_their_assets(
        self, state: Partition, readings: Readings, assets: Int32, records: Sequence[RawRecord]
    ) -> tuple[Readings, Int32]:
        """Leave out what its asset has applied: after a crash between blocks some are ahead of others."""
        passed = state.passed
        if passed is None or not len(records):
            return readings, assets
        held = records.raw if isinstance(records, Fetched) else records
        offsets = np.array([record.offset for record in held], dtype=np.int64)[readings.record]
        known = assets < len(passed)
        new = offsets > np.where(known, passed[np.where(known, assets, 0)], -1)
        if state.applied >= state.passed_until:
            state.passed = None
        return replace(
            readings,
            asset=readings.asset[new],
            at_ms=readings.at_ms[new],
            values=readings.values[new],
            record=readings.record[new],
        ), assets[new]

    def _open_lanes(self, state: Partition, index: int) -> None:
        """Admit an asset to the lane of every detector that watches it."""
        name = state.names[index]
        for detector, settings in self._plan.detectors.items():
            if not settings.watches(name):
                continue
            artifact = self._shelf.find(detector, name)
            if artifact is None:
                continue
            key = (detector, id(artifact))
            state.watch(index, key, state.lanes.get(key) or self._lane(detector, settings, artifact))

    def _lane(self, detector: str, settings: DetectorSettings, artifact: Artifact) -> Lane:
        column = {signal: index for index, signal in enumerate(self._decoder.signals)}
        stepper = artifact.stepper
        return Lane(
            detector=detector,
            settings=settings,
            artifact=artifact,
            columns=np.array([column[signal] for signal in artifact.signals], dtype=np.int64),
            rules=rules_of(settings, artifact),
            identity=Identity(self._plan.site, detector, settings.kind, artifact.version),
            windows=None if stepper else WindowState(artifact.window, len(artifact.signals)),
            carried=stepper.begin() if stepper else None,
        )

    def _watch(
        self, lane: Lane, slots: Int32, chosen: Int64, pause_ms: Int64, readings: Readings, stage_s: dict[str, float]
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
        paused = pause_ms[ascending] > (self._evict_after_ms if gap_ms is None else gap_ms)
        stepper = lane.artifact.stepper
        if lane.windows is not None:
            windows = window(lane.windows, slots, scaled, hop=lane.settings.hop, paused=paused)
            due = windows.row
        else:
            lane.carried.grow(int(slots[-1]) + 1)
            found = runs(lane.carried.rows, slots, paused)
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

    def _evidence(self, lane: Lane, rows: Int64, scored: Scored, slots: Int32, at_ms: Int64, values: Float64) -> Scores:
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


def block_size(shelf: Shelf) -> int:
    """How many assets of this plan make a block of about ``BLOCK_BYTES``."""
    largest: dict[str, int] = {}
    for detector, artifact in shelf.serving():
        if artifact.stepper:
            size = sum(array.nbytes for array in artifact.stepper.begin(1).arrays.values())
        else:
            size = 4 * (artifact.window - 1) * len(artifact.signals)
        largest[detector] = max(largest.get(detector, 0), size)
    each = 300 + sum(largest.values())
    size = MOST_ASSETS
    while size > 1 and size * each > BLOCK_BYTES:
        size //= 2
    return size


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
