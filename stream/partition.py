"""All that is remembered of one partition's assets between batches, and how blocks of it are taken out and put back."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream.assembly import Image
from stream.episode import standing
from stream.lane import Lane, LaneKey
from stream.limits import Limits
from stream.presence import Presence
from stream.records import Alert, Bool, Int64
from stream.reorder import Reorder, Rows, joined
from stream.skew import Skew
from stream.state import MOST_ASSETS, Array, Block, Clock, Events, LaneRows, Meta, Served
from stream.window import NEVER, room_for


@dataclass(slots=True)
class Restored:
    """What became of an image: assets taken over, and those whose memory of a detector is begun anew, by reason."""

    assets: int = 0
    anew: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    open_alerts: int = 0


@dataclass(slots=True)
class Partition:
    """``applied``: offset of the newest record that is part of it.

    epoch         see ``state.Block``
    size          assets in a block
    index, names  of an asset by its name, and the other way round; empty where an index is free
    watched       by index: whether any lane watches it
    last_ms       (asset,) int64, the newest time that its detectors have been given
    seen_ms       (asset,) int64, the newest time it has shown: another where readings are held back (``reorder``)
    signals       the columns of readings
    presence, reorder, skew, limits   where the plan asks for them
    served        which versions are at work, by detector, for those whose models are in the store
    left_over     readings that a snapshot held back, and that the plan no longer does: they come before what is next
    touched       blocks that differ from what was last taken
    written       by block: its ``applied`` when it was last taken
    marked        ``applied`` and the clock when a snapshot last began
    passed        (asset,) int64, the offset that it has applied, while that may be ahead of ``applied``; then None
    """

    size: int = MOST_ASSETS
    applied: int = -1
    epoch: int = 0
    index: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    watched: Bool = field(default_factory=lambda: np.zeros(0, dtype=bool))
    last_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    lanes_in: dict[int, set[LaneKey]] = field(default_factory=lambda: defaultdict(set))
    touched: set[int] = field(default_factory=set)
    written: dict[int, int] = field(default_factory=dict)
    passed: Int64 | None = None
    passed_until: int = -1
    marked: tuple[int, Clock | None] = (-1, None)
    shown_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    signals: tuple[str, ...] = ()
    left_over: Rows | None = None
    presence: Presence | None = None
    reorder: Reorder | None = None
    skew: Skew | None = None
    limits: Limits | None = None
    served: dict[str, Served] = field(default_factory=dict)

    @property
    def seen_ms(self) -> Int64:
        """See above."""
        return self.last_ms if self.reorder is None else self.shown_ms

    def admit(self, name: str, at: int | None = None) -> int:
        """The index of a new asset: ``at``, or the lowest that is free."""
        if at is not None:
            index = at
            while len(self.names) <= at:  # what lies between is free
                self._extend()
        else:
            if not self.free:
                heapq.heappush(self.free, len(self.names))
                self._extend()
            index = heapq.heappop(self.free)
        self.names[index] = name
        self.index[name] = index
        if self.limits is not None:
            self.limits.admit(index, name)
        if self.skew is not None:
            self.skew.changed()
        return index

    def _extend(self) -> None:
        self.names.append("")
        if self.presence is not None:
            self.presence.grow(len(self.names))
        held = len(self.last_ms)
        if len(self.names) > held:
            more = room_for(held + 1, held) - held
            never = np.full(more, NEVER, dtype=np.int64)
            self.last_ms = np.concatenate([self.last_ms, never])
            self.watched = np.concatenate([self.watched, np.zeros(more, dtype=bool)])
            if self.reorder is not None:
                self.shown_ms = np.concatenate([self.shown_ms, never])

    def watch(self, index: int, key: LaneKey, lane: Lane) -> None:
        """Let a lane watch an asset."""
        self.lanes[key] = lane
        lane.admit(index, self.names[index])
        self.lanes_in[index // self.size].add(key)
        self.watched[index] = True

    def evict(self, silent_for_ms: int) -> int:
        """Forget assets that have been silent for so long, by the partition's third newest; how many.

        Not by the newest: a clock or two that run ahead must not cost the others their memory. An asset with an episode
        is kept, for its alert has to be resolved one day; so is one of which readings are held back.
        """
        last_ms = self.seen_ms[: len(self.names)]
        if self.passed is not None or len(last_ms) < 3:
            return 0
        now_ms = int(np.partition(last_ms, -3)[-3])
        gone = 0
        silent = (last_ms < now_ms - silent_for_ms) & (last_ms != NEVER)
        if self.skew is not None:
            silent[self.skew.never_taken(last_ms)] = True
        for index in np.flatnonzero(silent).tolist():
            lanes = [key for key in self.lanes_in[index // self.size] if self._watches(key, index)]
            if any(int(self.lanes[key].slots[index]) in self.lanes[key].decisions.episodes for key in lanes):
                continue
            if self._needed(index):
                continue
            for key in lanes:
                self.lanes[key].dismiss(index)
                if len(self.lanes[key].free) == len(self.lanes[key].names):
                    del self.lanes[key]
                    for others in self.lanes_in.values():
                        others.discard(key)
            del self.index[self.names[index]]
            self.names[index], self.watched[index], self.last_ms[index], self.seen_ms[index] = "", False, NEVER, NEVER
            if self.presence is not None:
                self.presence.forget(index)
            if self.skew is not None:
                self.skew.forget(index)
            heapq.heappush(self.free, index)
            self.touched.add(index // self.size)
            gone += 1
        return gone

    def _needed(self, index: int) -> bool:
        """Whether something that an asset has begun is not at its end."""
        return (
            (self.reorder is not None and self.reorder.holds(index))
            or (self.presence is not None and self.presence.is_stale(index))
            or (self.limits is not None and index in self.limits.decisions.episodes)
        )

    def _watches(self, key: LaneKey, index: int) -> bool:
        slots = self.lanes[key].slots
        return index < len(slots) and int(slots[index]) >= 0

    def take(self, number: int) -> Block:
        """A copy of a block, as of ``applied``; it counts as untouched from now on."""
        start = number * self.size
        stop = min(start + self.size, len(self.names))
        lanes = [held for key in self.lanes_in[number] for held in self.lanes[key].take(start, stop)]
        self.touched.discard(number)
        self.written[number] = self.applied
        return Block(
            self.epoch,
            self.applied,
            self.size,
            number,
            self.names[start:stop],
            self.last_ms[start:stop].copy(),
            lanes,
            self._events(start, stop),
        )

    def _events(self, start: int, stop: int) -> Events | None:
        """What a block with these indices has to know of event time."""
        if self.presence is None and self.skew is None and self.limits is None and self.left_over is None:
            return None
        rows = Rows.none(len(self.signals)) if self.left_over is None else self.left_over
        rows = rows.take((rows.asset >= start) & (rows.asset < stop))
        if self.reorder is not None:
            rows = self.reorder.held(start, stop)
        nothing, clock = np.full(stop - start, NEVER, dtype=np.int64), self._clock()
        claimed = {} if self.skew is None else self.skew.claimed
        episodes = {} if self.limits is None else self.limits.decisions.episodes
        silent = {} if self.presence is None else self.presence.episodes
        return Events(
            clock_ms=clock.clock_ms,
            newest_ms=clock.newest_ms,
            taken=clock.taken,
            signals=self.signals,
            places=rows.asset - np.int32(start),
            at_ms=rows.at_ms,
            values=rows.values,
            bad=np.zeros(rows.values.shape, dtype=bool) if rows.bad is None else rows.bad,
            heard_ms=nothing if self.presence is None else self.presence.heard_ms[start:stop].copy(),
            since_ms=nothing if self.presence is None else self.presence.since_ms[start:stop].copy(),
            claimed={index - start: held for index, held in claimed.items() if start <= index < stop},
            episodes={index - start: replace(held) for index, held in episodes.items() if start <= index < stop},
            silent={index - start: replace(held) for index, held in silent.items() if start <= index < stop},
        )

    def mark(self) -> None:
        """Remember the clock of now: a snapshot begins."""
        if self.presence is not None or self.skew is not None:
            self.marked = self.applied, self._clock()

    def meta(self, applied: int) -> Meta:
        """What to write when all blocks are, up to ``applied``."""
        blocks = [self.written.get(number, -1) for number in range(max(self.written, default=-1) + 1)]
        at, clock = self.marked
        return Meta(
            epoch=self.epoch,
            applied=applied,
            size=self.size,
            blocks=blocks,
            clock=clock if at == applied else None,
            served=dict(self.served),
        )

    def _clock(self) -> Clock:
        return Clock(
            0 if self.presence is None else self.presence.clock_ms,
            NEVER if self.presence is None else self.presence.newest_ms,
            0 if self.skew is None else self.skew.taken,
        )

    def restore(self, image: Image, open_lanes: Callable[[int], object]) -> Restored:
        """Take over an image, as a new partition; ``open_lanes`` lets the lanes of today watch an asset."""
        self.applied, self.epoch = image.applied, image.epoch
        self.served = dict(image.served)
        report = Restored()
        kept = image.size == self.size
        ahead: dict[int, int] = {}
        for number, block in sorted(image.blocks.items()):
            mine = kept and number < 1 << 19
            if mine:
                self.written[number] = block.applied
            indices = np.full(len(block.names), -1, dtype=np.int64)
            for place, name in enumerate(block.names):
                if not name:
                    continue
                index = self.admit(name, number * self.size + place if mine else None)
                indices[place] = index
                self.last_ms[index] = block.last_ms[place]
                if number in image.passed:
                    ahead[index] = image.passed[number]
                open_lanes(index)
                report.assets += 1
                if not mine:
                    self.touched.add(index // self.size)
            versions = {(held.detector, held.version) for held in block.lanes}
            for held in block.lanes:
                self._put(held, indices, report, versions)
            if block.events is not None:
                self._put_events(block.events, indices)
        self._set_clock(image)
        self.free = [index for index, name in enumerate(self.names) if not name]  # ascending: a heap
        if ahead:
            self.passed = np.full(len(self.names), -1, dtype=np.int64)
            self.passed[list(ahead)] = list(ahead.values())
            self.passed_until = max(ahead.values())
        return report

    def _put(self, held: LaneRows, indices: Int64, report: Restored, versions: set[tuple[str, str]]) -> None:
        """One stored lane's rows to the lanes that watch these assets for its detector now.

        versions   (detector, version) of all that the block holds: of two versions one may have gone since
        """
        row_of: dict[LaneKey, list[int]] = defaultdict(list)
        for row, index in enumerate(indices[held.places].tolist()):
            if index < 0:
                continue
            key = next((key for key in self._lanes_at(index) if key[0] == held.detector), None)
            if key is None:
                report.anew["not watched any more"] += 1
            else:
                row_of[key].append(row)
        for key, chosen in row_of.items():
            lane, rows = self.lanes[key], np.array(chosen, dtype=np.int64)
            where = indices[held.places[rows]]
            if lane.heir is not None and held.version == lane.heir.artifact.version:
                if not lane.put_heir(where, held, rows):
                    report.anew[f"{held.detector}: another shape"] += len(rows)
            elif held.version != lane.artifact.version:
                if (held.detector, lane.artifact.version) not in versions:
                    report.anew[f"{held.detector}: model {lane.artifact.version} in place of {held.version}"] += len(
                        rows
                    )
            elif not lane.put(where, held, rows):
                report.anew[f"{held.detector}: another shape"] += len(rows)
            for place, index in zip(held.places[rows].tolist(), where.tolist(), strict=True):
                if place in held.episodes:
                    lane.decisions.episodes[int(lane.slots[index])] = held.episodes[place]
                    report.open_alerts += held.episodes[place].is_open

    def _put_events(self, events: Events, indices: Int64) -> None:
        """What a block knew of event time, to whoever asks for it now."""
        there = np.flatnonzero(indices >= 0)
        index = indices[there]
        if self.presence is not None:
            self.presence.heard_ms[index] = events.heard_ms[there]
            self.presence.since_ms[index] = events.since_ms[there]
            self.presence.episodes |= {int(indices[place]): held for place, held in events.silent.items()}
        if self.skew is not None:
            self.skew.claimed |= {int(indices[place]): held for place, held in events.claimed.items()}
        if self.limits is not None:
            self.limits.decisions.episodes |= {int(indices[place]): held for place, held in events.episodes.items()}
        asset = indices[events.places].astype(np.int32)
        values, bad = (
            _columns(held, events.signals, self.signals, nothing)
            for held, nothing in ((events.values, np.nan), (events.bad, False))
        )
        rows = Rows(asset, events.at_ms, values, bad, np.full(len(asset), -1, dtype=np.int32)).take(asset >= 0)
        if self.reorder is not None:
            self.reorder.restore(rows)
            self.shown_ms[index] = np.maximum(self.last_ms[index], self.reorder.newest_ms(index))
        elif len(rows):
            rows = rows.take(np.lexsort((rows.at_ms, rows.asset)))
            self.left_over = rows if self.left_over is None else joined([self.left_over, rows])

    def _set_clock(self, image: Image) -> None:
        """The partition's own, as of ``applied``; of an older release's snapshot, from the newest block not ahead."""
        if image.clock is not None:
            self._clock_is(image.clock)
            return
        blocks = [(block.applied <= image.applied, block.applied, block.events) for block in image.blocks.values()]
        known = [(behind, applied if behind else -applied, events) for behind, applied, events in blocks if events]
        if not known:
            return
        events = max(known, key=lambda held: held[:2])[2]
        self._clock_is(Clock(events.clock_ms, events.newest_ms, events.taken))

    def _clock_is(self, clock: Clock) -> None:
        if self.presence is not None:
            self.presence.clock_ms, self.presence.newest_ms = clock.clock_ms, clock.newest_ms
        if self.skew is not None:
            self.skew.taken = clock.taken

    def open_alerts_on_data(self) -> list[Alert]:
        """Those that are open and no model's, as they were last published."""
        alerts = [] if self.presence is None else self.presence.open_alerts(self.names)
        if self.limits is not None:
            alerts += [
                standing(episode, self.limits.rules, self.limits.identity, self.names[index])
                for index, episode in self.limits.decisions.episodes.items()
                if episode.is_open
            ]
        return alerts

    def lanes_of(self, index: int) -> list[Lane]:
        """The lanes that watch an asset."""
        return [self.lanes[key] for key in self._lanes_at(index)]

    def _lanes_at(self, index: int) -> Iterable[LaneKey]:
        return (key for key in self.lanes_in[index // self.size] if self._watches(key, index))


def _columns(held: Array, signals: Sequence[str], wanted: Sequence[str], nothing: object) -> Array:
    """Columns ``wanted`` of ``held`` (row, signal); ``nothing`` where there is no such signal."""
    if tuple(signals) == tuple(wanted):
        return held
    column = {signal: index for index, signal in enumerate(signals)}
    chosen = np.full((len(held), len(wanted)), nothing, dtype=held.dtype)
    for index, signal in enumerate(wanted):
        if signal in column:
            chosen[:, index] = held[:, column[signal]]
    return chosen
