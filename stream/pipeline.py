"""Decode, window, score and decide, one after the other: what live, replay and backtest share. No I/O.

State is kept per partition: when a partition moves to another worker, its state goes with one call. Nothing here knows
the time of day, so the same records give the same scores and alerts whenever they are run, and however they are cut
into batches.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import msgspec
import numpy as np

from models.base import UInt8
from stream.actions import ON_ALERTS, Action
from stream.agreement import Agreement
from stream.arrive import Arrivals, Arrived, arrive, drain, milliseconds
from stream.assembly import Image
from stream.decode import Decoder
from stream.desk import Desk
from stream.episode import standing
from stream.fitting import Fitting, Shelf, block_size
from stream.hear import heed_label, move, open_in, operate, retell
from stream.heirs import watch_both
from stream.judge import Judged, Present, Sitting, inspect, judge, watch
from stream.labels import Label
from stream.lane import Lane
from stream.letters import failed, from_the_future, too_late
from stream.modes import factors
from stream.partition import Partition, Restored
from stream.plan import Plan
from stream.records import (
    Alert,
    Bool,
    DeadLetter,
    Fetched,
    Float64,
    Int32,
    Int64,
    Output,
    RawRecord,
    Readings,
    Scores,
)
from stream.state import Block, Meta, Served
from stream.whereabouts import Whereabouts

_log = logging.getLogger(__name__)


class Pipeline:
    """Records in, ``Output`` out. One thread at a time."""

    def __init__(self, plan: Plan, shelf: Shelf, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._plan = plan
        self._clock = clock
        self._decoder = Decoder(plan.input, shelf.signals())
        self._partitions: dict[int, Partition] = {}
        self._whereabouts = Whereabouts()
        self._block = block_size(shelf, plan.input.lateness_s)
        self._evict_after_ms = milliseconds(plan.state.evict_after_s)
        periods_s = [artifact.period_s for _, artifact in shelf.serving()]
        lateness_s = plan.input.lateness_s
        self._too_late = f"more than {lateness_s:g} s older than" if lateness_s else "older than"
        self._too_late += " the newest reading of"
        self.desk = Desk(plan)
        self._unsettled: set[int] = set()
        self._arrivals = Arrivals(plan, self._decoder.signals, min(periods_s, default=1.0))
        self._fitting = Fitting(plan, shelf, self.desk, self._arrivals, self._decoder.signals, self._evict_after_ms)

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
        present = Present(readings.names, self._admit(partition, state, readings))
        assets = present.assets.take(readings.asset)
        again: Bool | None = None
        if state.passed is not None:
            again = self._applied_by_their_assets(state, readings, assets, records)
            counts["repeated"] = 0 if again is None else int(again.sum())
        found = arrive(state, readings, assets, again)
        counts["late"], counts["duplicates"] = len(found.late), found.duplicates
        if state.skew is not None:
            counts["future"] = len(found.future)
        output = self._judge(state, found, present, records, counts, readings.pictures)
        return replace(
            output,
            alerts=self._heard(partition, output.alerts),
            dead=(*from_the_future(readings, found.future, records), *output.dead),
            late=tuple(too_late(readings, found.late, records, self._too_late)),
        )

    def finish(self, partition: int) -> Output:
        """The partition's stream has ended: judge what was held back for readings that might still have come."""
        state = self._of(partition)
        nobody = Present((), np.zeros(0, dtype=np.int32))
        output = self._judge(state, drain(state), nobody, (), Counter())
        sitting = Sitting(self._clock, self._factors, self._still, nobody)
        scores, alerts = list(output.scores), list(output.alerts)
        for lane in state.lanes.values():
            cells = None if lane.grid is None else lane.grid.drain()
            result = None if cells is None or not len(cells.slot) else judge(lane, cells, sitting)
            if result:
                scores.append(result[0])
                alerts += result[1]
        alerts.sort(key=lambda alert: (alert.last_seen, alert.id, alert.sequence))
        return replace(output, scores=tuple(scores), alerts=self._heard(partition, alerts))

    def _judge(
        self,
        state: Partition,
        found: Arrived,
        present: Present,
        records: Sequence[RawRecord],
        counts: Counter[str],
        pictures: Mapping[int, UInt8] = MappingProxyType({}),
    ) -> Output:
        """Let every lane judge what has arrived for it."""
        rows, fresh = found.rows, found.fresh
        sitting = Sitting(self._clock, self._factors, self._still, present)
        assets = rows.asset[fresh]
        counts["unwatched"] = int((~state.watched[assets]).sum())
        scores: list[Scores] = []
        alerts = list(found.alerts)
        dead: list[DeadLetter] = []
        result: Judged | None
        for lane in state.lanes.values():
            slots, chosen, pause_ms = lane.slots_of(assets), fresh, found.pause_ms
            mine = slots >= 0
            if not mine.all():
                slots, chosen, pause_ms = slots[mine], chosen[mine], pause_ms[mine]
            if not len(chosen):
                continue
            try:
                if lane.artifact.inspects:
                    result = inspect(lane, slots, chosen, rows, pictures, sitting)
                elif lane.heir is not None:
                    results, outcome = watch_both(lane, slots, chosen, pause_ms, rows, sitting)
                    if outcome:
                        state.served[lane.detector] = Served(lane.artifact.version)
                        self._fitting.touch_all(state, lane.detector)
                    scores += [held for held, _ in results]
                    alerts += [alert for _, told in results for alert in told]
                    continue
                else:
                    result = watch(lane, slots, chosen, pause_ms, rows, sitting)
            except Exception as error:  # one broken model must not stop the others, nor lose what it was given
                _log.exception("detector %s failed on %d readings", lane.detector, len(chosen))
                reason = f"detector {lane.detector}: {type(error).__name__}: {error}"
                dead += failed(state, rows, chosen, records, reason)
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
            counts=dict(counts),
            stage_s=dict(sitting.stage_s),
        )

    def keep_only(self, partitions: set[int]) -> None:
        """Drop the state of partitions that have gone to another worker."""
        for partition in self._partitions.keys() - partitions:
            del self._partitions[partition]
        self._whereabouts.forget()

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
        state.mark()
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
        self._unsettled.add(partition)  # what was done while nobody had it
        return state.restore(image, lambda index: self._fitting.open_lanes(state, index))

    def evict(self) -> int:
        """Forget assets that have been silent for longer than the plan says; how many."""
        gone = sum(state.evict(self._evict_after_ms) for state in self._partitions.values())
        if gone:
            self._whereabouts.forget()
        return gone

    def assets(self) -> int:
        """How many assets are remembered."""
        return sum(len(state.index) for state in self._partitions.values())

    def held_back(self) -> int:
        """How many readings wait for earlier ones that may still come."""
        return sum(len(state.reorder) for state in self._partitions.values() if state.reorder is not None)

    def names(self) -> set[str]:
        """The assets that are remembered."""
        return {name for state in self._partitions.values() for name in state.index}

    def open_alerts(self) -> list[Alert]:
        """All alerts that are open, as they were last published."""
        on_data = [alert for state in self._partitions.values() for alert in state.open_alerts_on_data()]
        standing_ones = on_data + [
            standing(episode, lane.rules, lane.identity, lane.names[slot])
            for state in self._partitions.values()
            for lane in state.lanes.values()
            for slot, episode in lane.decisions.episodes.items()
            if episode.is_open
        ]
        return [self._marked(alert) for alert in standing_ones]

    def act(self, action: Action) -> Output:
        """Take an operator's action, and do it to what is here: the transitions that it leads to."""
        self.desk.take(action)
        alerts = []
        for state in self._partitions.values():
            if action.action in ON_ALERTS:
                alerts += operate(self.desk, state, action.asset, action.alert)
            elif action.action != "mode":
                alerts += retell(state, action.asset, action.id)
        return Output(alerts=tuple(self._marked(alert) for alert in alerts))

    def label(self, key: str, label: Label | None) -> Output:
        """Take a label, or take it back: thresholds move at once, and the alert that it is about tells of it."""
        moved = self.desk.label(key, label)
        alerts: list[Alert] = []
        if moved is not None:
            for state in self._partitions.values():
                move(self.desk, state, *moved)
                if label is not None:
                    alerts += heed_label(state, label)
        return Output(alerts=tuple(self._marked(alert) for alert in alerts))

    def moved(self) -> dict[str, int]:
        """For how many assets labels have moved the threshold, by detector."""
        counts = dict.fromkeys(self._plan.detectors, 0)
        for state in self._partitions.values():
            for lane in state.lanes.values():
                counts[lane.detector] += len(lane.factors)
        return counts

    def _heard(self, partition: int, alerts: Sequence[Alert]) -> tuple[Alert, ...]:
        """The alerts of a batch with what operators did to those that opened, or were read back, in the meantime."""
        state, found = self._partitions[partition], list(alerts)
        if partition in self._unsettled:
            self._unsettled.discard(partition)
            for alert in open_in(state):
                found += operate(self.desk, state, alert.asset, alert.id)
        for alert in alerts:
            if alert.state == "open":
                found += operate(self.desk, state, alert.asset, alert.id)
        return tuple(self._marked(alert) for alert in found)

    def _marked(self, alert: Alert) -> Alert:
        why = self.desk.muted(alert) if alert.state != "resolved" else ""
        return msgspec.structs.replace(alert, suppressed=why) if why else alert

    def _of(self, partition: int) -> Partition:
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = Partition(self._block)
            self._arrivals.begin(state)
        return state

    def _admit(self, partition: int, state: Partition, readings: Readings) -> Int32:
        """The partition's index of each of ``readings.names``; new assets get their lanes."""
        codes = self._whereabouts.find(partition, readings.names, state.index)
        for place in np.flatnonzero(codes < 0).tolist():
            codes[place] = state.admit(readings.names[place])
            self._fitting.open_lanes(state, int(codes[place]))
        self._whereabouts.keep(partition, readings.names, codes)
        state.touched.update(np.unique(codes // state.size).tolist())
        return codes

    def _applied_by_their_assets(
        self, state: Partition, readings: Readings, assets: Int32, records: Sequence[RawRecord]
    ) -> Bool | None:
        """Which readings their asset has applied: after a crash between blocks some are ahead of others."""
        passed = state.passed
        if passed is None or not len(records):
            return None
        held = records.raw if isinstance(records, Fetched) else records
        offsets = np.array([record.offset for record in held], dtype=np.int64)[readings.record]
        known = assets < len(passed)
        again: Bool = offsets <= np.where(known, passed[np.where(known, assets, 0)], -1)
        if state.applied >= state.passed_until:
            state.passed = None
        return again

    def served(self, partition: int) -> dict[str, Served]:
        """Which versions are at work in a partition, by detector, for those whose models are in the store."""
        state = self._partitions.get(partition)
        return {} if state is None else dict(state.served)

    def switch(self, partition: int, detector: str, serving: str, candidate: str) -> bool:
        """Let other versions, which the shelf has, be at work from the next record on. Whether anything changed."""
        return self._fitting.switch(self._of(partition), detector, serving, candidate)

    def compared(self) -> list[tuple[int, str, str, str, Agreement]]:
        """(partition, detector, what serves, the candidate, how they compare) for each that has one."""
        return [
            (partition, lane.detector, lane.artifact.version, lane.heir.artifact.version, replace(lane.agreement))
            for partition, state in self._partitions.items()
            for lane in state.lanes.values()
            if lane.heir is not None and lane.agreement is not None
        ]

    def versions_at_work(self) -> set[tuple[str, str]]:
        """(detector, version) of all that partitions need, for those whose models are in the store."""
        return {
            (detector, version)
            for state in self._partitions.values()
            for detector, served in state.served.items()
            for version in (served.version, served.heir)
            if version
        }

    def _factors(self, lane: Lane, slots: Int32, values: Float64) -> Float64 | None:
        """What each row's threshold is multiplied by, for labels and modes; None where nothing moves it."""
        return factors(self._plan.modes, self.desk, lane, slots, values)

    def _still(self, lane: Lane, slots: Int32, at_ms: Int64) -> Bool | None:
        """Which rows no threshold follows, for their assets are being worked on; None: none of them."""
        return None if lane.rules.drift is None else self.desk.maintenance.still(lane.names, slots, at_ms)
