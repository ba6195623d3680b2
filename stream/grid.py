"""Readings onto a detector's period, and what stands where readings are missing; for lanes whose plan asks for it.

A network has learnt rows that are one period apart. ``Grid`` makes such rows of readings that come when they like, or
with a part of the signals each; ``Filler`` puts rows where some are missing. Both are causal: a row holds nothing that
came after it, and what ``Filler`` puts in is never judged, for an interpolated row knows what came next. Both work on a
batch's rows as arrays, sorted by slot, and by time within a slot; what they remember of a slot is an array's row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.records import Bool, Float32, Float64, Int32, Int64
from stream.window import NEVER, firsts, room_for

#: The pause before a slot's first row: longer than any gap that counts.
_FOREVER: Final = np.int64(1) << 60


@dataclass(slots=True)
class Cells:
    """Rows on the grid.

    slot, at_ms  (row,) at_ms is that of the newest reading in the row
    values       (row, signal) float64
    pause_ms     (row,) whole periods since the slot's row before
    """

    slot: Int32
    at_ms: Int64
    values: Float64
    pause_ms: Int64


@dataclass(slots=True)
class Grid:
    """One row a period: the last that is known of each signal at the period's end.

    A slot's periods are counted from its first reading, which is in the middle of the first. A row is given out when a
    reading of a later period shows that it is complete; ``drain`` gives out those that are not.

    held, held_ms     (slot, signal) the newest value of each signal and its time
    first_ms, cell    (slot,) the first reading's time, and the period that is not complete
    cell_ms, before   (slot,) the newest reading's time in it, and the period of the row that was given out last
    """

    period_ms: float
    longest_ms: int
    signals: int
    held: Float64 = field(init=False)
    held_ms: Int64 = field(init=False)
    first_ms: Int64 = field(init=False)
    cell: Int64 = field(init=False)
    cell_ms: Int64 = field(init=False)
    before: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.held = np.zeros((0, self.signals))
        self.held_ms = np.zeros((0, self.signals), dtype=np.int64)
        self.first_ms, self.cell, self.cell_ms, self.before = (np.zeros(0, dtype=np.int64) for _ in range(4))

    def arrays(self) -> dict[str, Float64 | Int64]:
        """What is remembered, by name."""
        names = ("held", "held_ms", "first_ms", "cell", "cell_ms", "before")
        return {f"grid.{name}": getattr(self, name) for name in names}

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets."""
        held = len(self.cell)
        if slots <= held:
            return
        more = room_for(slots, held) - held
        self.held = np.concatenate([self.held, np.full((more, self.signals), np.nan)])
        self.held_ms = np.concatenate([self.held_ms, np.full((more, self.signals), NEVER, dtype=np.int64)])
        never = np.full(more, NEVER, dtype=np.int64)
        for name in ("first_ms", "cell", "cell_ms", "before"):
            setattr(self, name, np.concatenate([getattr(self, name), never]))

    def reset(self, slots: Int64) -> None:
        """Put assets back to their beginning."""
        self.held[slots] = np.nan
        self.held_ms[slots] = self.first_ms[slots] = self.cell[slots] = NEVER
        self.cell_ms[slots] = self.before[slots] = NEVER

    def put(self, slot: Int32, at_ms: Int64, values: Float64) -> Cells:
        """Take a batch's readings (at least one); the rows that are complete."""
        count = len(slot)
        self.grow(int(slot[-1]) + 1)
        first = firsts(slot)
        starts = np.flatnonzero(first)
        touched = slot[starts]
        new = self.first_ms[touched] == NEVER
        self.first_ms[touched[new]] = at_ms[starts[new]]
        cell = np.floor((at_ms - self.first_ms[slot]) / self.period_ms + 0.5).astype(np.int64)
        # The rows that the batches before left open come first, each before its slot's readings.
        open_ones = np.flatnonzero(self.cell[touched] != NEVER)
        waiting = touched[open_ones]
        slot = np.insert(slot, starts[open_ones], waiting)
        at_ms = np.insert(at_ms, starts[open_ones], self.cell_ms[waiting])
        cell = np.insert(cell, starts[open_ones], self.cell[waiting])
        known, known_ms = self._known(np.insert(values, starts[open_ones], np.nan, axis=0), slot, at_ms)
        count = len(slot)
        last = np.ones(count, dtype=bool)  # of its slot in the batch
        last[:-1] = slot[1:] != slot[:-1]
        complete = np.zeros(count, dtype=bool)
        complete[:-1] = ~last[:-1] & (cell[1:] != cell[:-1])
        ends = np.flatnonzero(last)
        self.held[touched], self.held_ms[touched] = known[ends], known_ms[ends]
        self.cell[touched], self.cell_ms[touched] = cell[ends], at_ms[ends]
        return self._rows(slot[complete], at_ms[complete], cell[complete], known[complete], known_ms[complete])

    def drain(self) -> Cells:
        """The rows that are not complete: the stream has ended."""
        slot = np.flatnonzero(self.cell != NEVER).astype(np.int32)
        cells = self._rows(slot, self.cell_ms[slot], self.cell[slot], self.held[slot], self.held_ms[slot])
        self.cell[slot] = NEVER
        return cells

    def _known(self, values: Float64, slot: Int32, at_ms: Int64) -> tuple[Float64, Int64]:
        """At each row the newest value of each signal and its time, this row's included."""
        there = ~np.isnan(values)
        newest = np.maximum.accumulate(np.where(there, np.arange(len(slot))[:, None], -1), axis=0)
        first = firsts(slot)
        start = np.maximum.accumulate(np.where(first, np.arange(len(slot)), 0))
        in_batch = newest >= start[:, None]
        column = np.arange(values.shape[1])
        known = np.where(in_batch, values[newest, column], self.held[slot])
        known_ms = np.where(in_batch, at_ms[newest], self.held_ms[slot])
        return known, known_ms

    def _rows(self, slot: Int32, at_ms: Int64, cell: Int64, known: Float64, known_ms: Int64) -> Cells:
        values = np.where(at_ms[:, None] - known_ms > self.longest_ms, np.nan, known)
        first = firsts(slot)
        step = np.diff(cell, prepend=0).astype(np.float64)
        before = self.before[slot[first]]
        step[first] = np.where(before == NEVER, np.inf, cell[first] - before)
        pause_ms = np.minimum(np.rint(step * self.period_ms), float(_FOREVER)).astype(np.int64)
        if len(slot):
            ends = np.append(np.flatnonzero(first)[1:] - 1, len(slot) - 1)
            self.before[slot[ends]] = cell[ends]
        return Cells(slot, at_ms, values, pause_ms)


@dataclass(slots=True)
class Filler:
    """Rows where some are missing: the last values (``hold``), or those on a straight line (``interpolate``).

    longest_ms  a longer gap is not filled
    last        (slot, signal) float32, each slot's newest row, scaled
    """

    period_ms: float
    longest_ms: int
    straight: bool
    signals: int
    last: Float32 = field(init=False)

    def __post_init__(self) -> None:
        self.last = np.zeros((0, self.signals), dtype=np.float32)

    def arrays(self) -> dict[str, Float32]:
        """What is remembered, by name."""
        return {"fill.last": self.last}

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets."""
        held = len(self.last)
        if slots > held:
            more = np.full((room_for(slots, held) - held, self.signals), np.nan, dtype=np.float32)
            self.last = np.concatenate([self.last, more])

    def reset(self, slots: Int64) -> None:
        """Put assets back to their beginning."""
        self.last[slots] = np.nan

    def fill(self, slot: Int32, rows: Float32, pause_ms: Int64) -> tuple[Int64, Bool, Float32]:
        """Put rows in where they are missing.

        slot, rows, pause_ms  (row,), (row, signal) scaled, (row,) the time since the slot's row before

        Returns, each (row,) of all that there are then: the row given that it is or stands before, whether it is that
        row itself, and the rows (row, signal).
        """
        self.grow(int(slot[-1]) + 1)
        first = firsts(slot)
        before = np.empty_like(rows)
        before[1:] = rows[:-1]
        before[first] = self.last[slot[first]]
        ends = np.append(np.flatnonzero(first)[1:] - 1, len(slot) - 1)
        self.last[slot[ends]] = rows[ends]
        gap = (pause_ms > 1.5 * self.period_ms) & (pause_ms <= self.longest_ms)
        if not gap.any():
            everything = np.arange(len(slot))
            return everything, np.ones(len(slot), dtype=bool), rows
        missing = np.where(gap, np.rint(pause_ms / self.period_ms) - 1, 0).astype(np.int64)
        of = np.repeat(np.arange(len(slot)), missing + 1)
        ends = np.cumsum(missing + 1) - 1
        real = np.zeros(len(of), dtype=bool)
        real[ends] = True
        filled = before[of]
        if self.straight:
            share = (np.arange(len(of)) - (ends - missing)[of] + 1) / (missing + 1)[of]
            filled += (rows - before)[of] * share[:, None].astype(np.float32)
        filled[real] = rows
        return of, real, filled
