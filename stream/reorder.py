"""Readings into the order of time, asset by asset, where a plan allows them to be late.

A reading is held back until its asset's watermark, its newest time less the allowed lateness, has passed it; so
whatever order the readings of that stretch come in, the stages behind see them in the order of time. An asset that
falls silent never passes its last readings by itself: they are released when its partition has gone on for
``silent_ms`` without it (``stream.presence``). What comes after what was released is late; the same time twice is a
duplicate.

Times are kept per asset in a table (asset, column), values in one pool that all assets share, so a batch touches what
belongs to its own assets and nothing else. Of one asset at most ``most`` readings are held: beyond that its oldest is
released as if the watermark had passed it. What is released does not depend on how batches are cut.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.records import Bool, Float64, Int32, Int64
from stream.window import NEVER, firsts, room_for, running_max

#: No reading: later than any.
_FREE: Final = np.iinfo(np.int64).max


@dataclass(slots=True)
class Rows:
    """Readings with what belongs to them, row by row.

    asset   (row,) int32, index in the partition
    at_ms   (row,) int64
    values  (row, signal) float64
    bad     (row, signal) bool, where the source called a value bad; None: nobody asks
    record  (row,) int32, the record of the batch it came in; -1: an earlier batch
    """

    asset: Int32
    at_ms: Int64
    values: Float64
    bad: Bool | None
    record: Int32

    def __len__(self) -> int:
        return len(self.at_ms)

    @classmethod
    def none(cls, signals: int) -> Rows:
        """No rows."""
        nothing = np.zeros(0, dtype=np.int32)
        return cls(nothing, np.zeros(0, dtype=np.int64), np.zeros((0, signals)), None, nothing)

    def take(self, chosen: Int64 | Bool) -> Rows:
        """Some of the rows, in that order."""
        bad = None if self.bad is None else self.bad[chosen]
        return Rows(self.asset[chosen], self.at_ms[chosen], self.values[chosen], bad, self.record[chosen])


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    bad: list[Bool] = []
    if any(part.bad is not None for part in parts):
        bad = [np.zeros(part.values.shape, dtype=bool) if part.bad is None else part.bad for part in parts]
    return Rows(
        np.concatenate([part.asset for part in parts]),
        np.concatenate([part.at_ms for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate(bad) if bad else None,
        np.concatenate([part.record for part in parts]),
    )


@dataclass(slots=True)
class _Arriving:
    """One asset's rows of a batch, and what ``Reorder.put`` is told of each."""

    rows: Rows
    order: Int64
    newest_ms: Int64
    silence_ms: Int64


@dataclass(slots=True)
class Ordered:
    """What became of a batch.

    rows        what is released, sorted by asset, and by time within an asset: each later than all before it
    pause_ms    (row,) int64, the time since the asset's reading before it; immensely long where there was none
    late        places in the batch of the readings that came too late, sorted by asset
    duplicates  how many had a time that their asset had already
    """

    rows: Rows
    pause_ms: Int64
    late: Int64
    duplicates: int


@dataclass(slots=True)
class Reorder:
    """What a partition holds back.

    names    the signals, which are the columns of the values
    times    (asset, column) int64, of the held readings of an asset, in no order; ``_FREE`` where there is none
    place    (asset, column) int32, the row of the pool that has its values
    count    (asset,) int32
    """

    lateness_ms: int
    silent_ms: int
    names: tuple[str, ...]
    most: int
    with_bad: bool = False
    times: Int64 = field(init=False)
    place: Int32 = field(init=False)
    count: Int32 = field(init=False)
    _values: Float64 = field(init=False)
    _bad: Bool | None = field(init=False)
    _vacant: Int32 = field(init=False)  # rows of the pool that are free: the first ``_vacancies``
    _vacancies: int = 0
    _due_ms: int = 0  # no asset is silent for long enough before the partition's clock shows this

    def __post_init__(self) -> None:
        self.times = np.full((0, 4), _FREE, dtype=np.int64)
        self.place = np.zeros((0, 4), dtype=np.int32)
        self.count = np.zeros(0, dtype=np.int32)
        self._values = np.zeros((0, len(self.names)))
        self._bad = np.zeros((0, len(self.names)), dtype=bool) if self.with_bad else None
        self._vacant = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return int(self.count.sum())

    def put(
        self,
        given: Rows,
        order: Int64,
        newest_ms: Int64,
        silence_ms: Int64,
        last_ms: Int64,
        heard_ms: Int64,
        now_ms: int,
    ) -> Ordered:
        """Take a batch, release what is due.

        order       (row,) sorts the batch by asset, in the order of arrival within it
        newest_ms   (row,) in that order: the newest time that its asset had shown before
        silence_ms  (row,) in that order: how long its partition had gone on without its asset
        last_ms     (asset,) the newest time that was released; updated in place
        heard_ms    (asset,) what the partition's clock showed when an asset was last heard
        now_ms      what it shows at the end of the batch
        """
        if len(order):
            self._grow(int(given.asset[order[-1]]) + 1)
        parts: list[Rows] = []
        late: list[Int64] = []
        duplicates = 0
        crowded = self._crowded(given.asset[order], given.at_ms[order])
        for asset in crowded:
            mine = given.asset[order] == asset
            of = _Arriving(given.take(order[mine]), order[mine], newest_ms[mine], silence_ms[mine])
            rows, too_late, again = self._one_by_one(asset, of, int(last_ms[asset]))
            parts.append(rows)
            late.append(too_late)
            duplicates += again
        if crowded:
            others = ~np.isin(given.asset[order], crowded)
            order, newest_ms, silence_ms = order[others], newest_ms[others], silence_ms[others]
        released, too_late, again = self._together(given, order, newest_ms, silence_ms, last_ms)
        parts += [*released, self._silent(heard_ms, now_ms)]
        return self._ordered(parts, last_ms, np.concatenate([*late, too_late]), duplicates + again)

    def _together(
        self, given: Rows, order: Int64, newest_ms: Int64, silence_ms: Int64, last_ms: Int64
    ) -> tuple[list[Rows], Int64, int]:
        """What is released of a batch and of what its assets held, which of it is late, how many are duplicates."""
        slots, times = given.asset[order].astype(np.int64), given.at_ms[order]
        before = last_ms[slots]
        # A silence has released all that its asset had shown.
        floor = before
        silent = (silence_ms > self.silent_ms) & (newest_ms > before)
        if silent.any():
            floor = running_max(slots, np.where(silent, newest_ms, before))
        late = times < np.maximum(newest_ms - self.lateness_ms, floor)
        ends = np.append(np.flatnonzero(firsts(slots))[1:] - 1, len(slots) - 1) if len(slots) else order[:0]
        touched = slots[ends]
        newest = np.maximum(newest_ms[ends], times[ends])
        passed = np.maximum(newest - self.lateness_ms, floor[ends])

        live = ~late & (times != before)
        fresh, slots, times = order[live], slots[live], times[live]
        duplicates = int(np.count_nonzero(~late)) - len(fresh)
        # By time within the asset; of those with one time the first to arrive is kept.
        if len(times) > 1 and ((times[1:] <= times[:-1]) & (slots[1:] == slots[:-1])).any():
            by_time = np.lexsort((times, slots))
            fresh, slots, times = fresh[by_time], slots[by_time], times[by_time]
        again = np.zeros(len(times), dtype=bool)
        again[1:] = (slots[1:] == slots[:-1]) & (times[1:] == times[:-1])
        again |= (self.times[slots] == times[:, None]).any(axis=1)
        if again.any():
            duplicates += int(np.count_nonzero(again))
            fresh, slots, times = fresh[~again], slots[~again], times[~again]
        released = self._release(touched, passed)
        due = times <= passed[np.searchsorted(touched, slots)]
        self._hold(given.take(fresh[~due]))
        return [released, given.take(fresh[due])], order[late], duplicates

    def _crowded(self, slots: Int32, times: Int64) -> list[int]:
        """The assets of which more than ``most`` might have to be held at some row of a batch."""
        if len(slots) + self.times.shape[1] <= self.most:
            return []
        assets, counts = np.unique(slots, return_counts=True)
        found = []
        for asset in assets[self.count[assets] + counts > self.most].tolist():
            held = self.times[asset]
            known = np.sort(np.concatenate([held[held != _FREE], times[slots == asset]]))
            within = np.arange(len(known)) - np.searchsorted(known, known - self.lateness_ms, "right") + 1
            if int(within.max()) > self.most:
                found.append(asset)
        return found

    def _one_by_one(self, asset: int, arriving: _Arriving, last_ms: int) -> tuple[Rows, Int64, int]:
        """As ``_together`` for one asset, with a look at ``most`` after each reading."""
        earlier = self._release(np.array([asset], dtype=np.int64), np.array([_FREE - 1]))
        every = joined([earlier, arriving.rows])
        pending = sorted((at_ms, place) for place, at_ms in enumerate(earlier.at_ms.tolist()))
        times = {at_ms for at_ms, _ in pending}
        floor, out, late, duplicates = last_ms, [], [], 0
        for nth, at_ms in enumerate(arriving.rows.at_ms.tolist()):
            newest = int(arriving.newest_ms[nth])
            if arriving.silence_ms[nth] > self.silent_ms and newest > floor:
                floor = newest
            if at_ms < max(newest - self.lateness_ms, floor):
                late.append(nth)
            elif at_ms == floor or at_ms in times:
                duplicates += 1
            else:
                insort(pending, (at_ms, len(earlier) + nth))
                times.add(at_ms)
            passed = max(newest - self.lateness_ms, at_ms - self.lateness_ms, floor)
            due = max(bisect_right(pending, (passed, len(every))), len(pending) - self.most)
            if due:
                floor = pending[due - 1][0]
            out += [place for _, place in pending[:due]]
            times.difference_update(at for at, _ in pending[:due])
            del pending[:due]
        self._hold(every.take(np.array([place for _, place in pending], dtype=np.int64)))
        return every.take(np.array(out, dtype=np.int64)), arriving.order[np.array(late, dtype=np.int64)], duplicates

    def drain(self, last_ms: Int64) -> Ordered:
        """Release everything: the stream has ended."""
        held = np.flatnonzero(self.count)
        rows = self._release(held, np.full(len(held), _FREE - 1))
        return self._ordered([rows], last_ms, np.zeros(0, dtype=np.int64), 0)

    def held(self, start: int, stop: int) -> Rows:
        """A copy of what is held of the assets with these indices, sorted by asset and time."""
        part = self.times[start:stop]
        where, column = np.nonzero(part != _FREE)
        return self._copy((where + start).astype(np.int32), column)

    def restore(self, rows: Rows) -> None:
        """Hold what ``held`` gave."""
        if len(rows):
            self._grow(int(rows.asset.max()) + 1)
            self._hold(rows.take(np.argsort(rows.asset, kind="stable")))

    def holds(self, asset: int) -> bool:
        """Whether readings of an asset are held."""
        return asset < len(self.count) and bool(self.count[asset])

    def newest_ms(self, slots: Int64) -> Int64:
        """The newest time held of each asset; ``NEVER`` where there is none."""
        if not len(slots):
            return np.zeros(0, dtype=np.int64)
        self._grow(int(slots.max()) + 1)
        times = self.times[slots]
        return np.asarray(np.where(times == _FREE, NEVER, times).max(axis=1))

    def _grow(self, assets: int) -> None:
        held = len(self.count)
        if assets <= held:
            return
        more = room_for(assets, held) - held
        self.times = np.concatenate([self.times, np.full((more, self.times.shape[1]), _FREE, dtype=np.int64)])
        self.place = np.concatenate([self.place, np.zeros((more, self.place.shape[1]), dtype=np.int32)])
        self.count = np.concatenate([self.count, np.zeros(more, dtype=np.int32)])

    def _hold(self, rows: Rows) -> None:
        """Keep rows, sorted by asset, none of whose times their asset has."""
        if not len(rows):
            return
        first = firsts(rows.asset)
        starts = np.flatnonzero(first)
        touched = rows.asset[starts]
        new = np.diff(starts, append=len(rows))
        most = int((self.count[touched] + new).max())
        if most > self.times.shape[1]:
            self._widen(most)
        group = np.cumsum(first) - 1
        free = self.times[touched] == _FREE
        _, columns = np.nonzero(free)
        begin = np.cumsum(np.append(0, free.sum(axis=1)[:-1]))
        column = columns[begin[group] + np.arange(len(rows)) - starts[group]]
        places = self._occupy(len(rows))
        self._values[places] = rows.values
        if self._bad is not None and rows.bad is not None:
            self._bad[places] = rows.bad
        elif self._bad is not None:
            self._bad[places] = False
        self.times[rows.asset, column] = rows.at_ms
        self.place[rows.asset, column] = places
        self.count[touched] += new.astype(np.int32)

    def _widen(self, columns: int) -> None:
        more = max(columns, 2 * self.times.shape[1]) - self.times.shape[1]
        assets = len(self.count)
        self.times = np.concatenate([self.times, np.full((assets, more), _FREE, dtype=np.int64)], axis=1)
        self.place = np.concatenate([self.place, np.zeros((assets, more), dtype=np.int32)], axis=1)

    def _occupy(self, count: int) -> Int32:
        """Rows of the pool for so many readings."""
        if count > self._vacancies:
            held = len(self._values)
            room = room_for(held + count - self._vacancies, held)
            grown = np.zeros((room, len(self.names)))
            grown[:held] = self._values
            self._values = grown
            if self._bad is not None:
                self._bad = np.concatenate([self._bad, np.zeros((room - held, len(self.names)), dtype=bool)])
            vacant = np.empty(room, dtype=np.int32)
            vacant[: self._vacancies] = self._vacant[: self._vacancies]
            vacant[self._vacancies : self._vacancies + room - held] = np.arange(held, room, dtype=np.int32)
            self._vacant = vacant
            self._vacancies += room - held
        self._vacancies -= count
        return self._vacant[self._vacancies : self._vacancies + count].copy()

    def _release(self, touched: Int64, passed: Int64) -> Rows:
        """Give out what is held of ``touched`` (each once) up to ``passed``."""
        where, column = np.nonzero(self.times[touched] <= passed[:, None])
        asset = touched[where].astype(np.int32)
        rows = self._copy(asset, column)
        self.times[asset, column] = _FREE
        self.count[touched] -= np.bincount(where, minlength=len(touched)).astype(np.int32)
        places = self.place[asset, column]
        self._vacant[self._vacancies : self._vacancies + len(places)] = places
        self._vacancies += len(places)
        return rows

    def _copy(self, asset: Int32, column: Int64) -> Rows:
        places = self.place[asset, column]
        bad = None if self._bad is None else self._bad[places]
        earlier = np.full(len(asset), -1, dtype=np.int32)
        return Rows(asset, self.times[asset, column], self._values[places], bad, earlier)

    def _silent(self, heard_ms: Int64, now_ms: int) -> Rows:
        """Give out what is held of assets that their partition has gone on without."""
        silent = np.zeros(0, dtype=np.int64)
        if now_ms > self._due_ms:
            holding = np.flatnonzero(self.count)
            heard = heard_ms[holding]
            silent = holding[heard < now_ms - self.silent_ms]
            self._due_ms = int(heard[heard >= now_ms - self.silent_ms].min(initial=now_ms)) + self.silent_ms
        return self._release(silent, np.full(len(silent), _FREE - 1))

    def _ordered(self, parts: list[Rows], last_ms: Int64, late: Int64, duplicates: int) -> Ordered:
        rows = joined([part for part in parts if len(part)] or parts[:1])
        if len(rows) > 1:
            later = (rows.asset[1:] > rows.asset[:-1]) | (
                (rows.asset[1:] == rows.asset[:-1]) & (rows.at_ms[1:] > rows.at_ms[:-1])
            )
            if not later.all():
                rows = rows.take(np.lexsort((rows.at_ms, rows.asset)))
        first = firsts(rows.asset)
        pause_ms = np.empty(len(rows), dtype=np.int64)
        pause_ms[1:] = np.diff(rows.at_ms)
        pause_ms[first] = rows.at_ms[first] - last_ms[rows.asset[first]]
        if len(rows):
            ends = np.append(np.flatnonzero(first)[1:] - 1, len(rows) - 1)
            last_ms[rows.asset[ends]] = rows.at_ms[ends]
        return Ordered(rows, pause_ms, late, duplicates)
