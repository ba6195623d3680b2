"""Readings to windows: the second stage.

Per asset the last ``length - 1`` scaled rows are kept in one array, (slot, row, signal). A batch's rows are laid behind
their asset's history in one flat array, and a window is a run of consecutive rows of it: no loop over readings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream.records import Bool, Float32, Int32, Int64, Runs, Windows

#: Wider than any time in milliseconds: keeps assets apart while a running maximum goes over all of them at once.
_APART = np.int64(1) << 44
#: No reading yet.
NEVER = np.iinfo(np.int64).min // 2
#: Arrays double up to so many assets, and grow by a part from there on: copying them so often costs little an asset.
_DOUBLING: Final = 1024
_GROWTH: Final = 32
#: Rows are counted on from the first full window before they no longer fit.
_MOST_ROWS: Final = 1 << 30


def arrival(slot: Int32, at_ms: Int64, last_ms: Int64) -> tuple[Int64, Bool, Bool, Int64]:
    """Sort a batch by asset, keep each asset's time going forward.

    slot     (reading,) int32, index of the asset
    at_ms    (reading,) int64
    last_ms  (slot,) int64, each asset's newest reading so far; updated in place

    Returns ``order`` (reading,), which sorts by asset and keeps arrival order within it, and, in that order, ``late``
    (older than what the asset has shown), ``duplicate`` (the same time as its newest) and ``pause_ms``, the time since
    the asset's newest reading before it; immensely long where there was none.
    """
    order = np.argsort(slot, kind="stable")
    slots = slot[order].astype(np.int64)
    times = at_ms[order]
    first = firsts(slots)
    # The newest time seen before each row, within its asset: the stored one, or the running maximum of the batch.
    running = running_max(slots, np.maximum(times, last_ms[slots]))
    before = np.empty_like(times)
    before[1:] = running[:-1]
    before[first] = last_ms[slots[first]]
    if len(times):
        ends = np.append(np.flatnonzero(first)[1:] - 1, len(times) - 1)
        last_ms[slots[ends]] = np.maximum(last_ms[slots[ends]], running[ends])
    return order, times < before, times == before, times - before


def running_max(slots: Int64, times: Int64) -> Int64:
    """The greatest of ``times`` (row,), not below 0, from its slot's first row to each; ``slots`` are sorted."""
    apart = slots * _APART
    return np.asarray(np.maximum.accumulate(np.maximum(times, 0) + apart) - apart)


def firsts(slots: npt.NDArray[np.integer[Any]]) -> Bool:
    """Which rows are the first of their slot; ``slots`` are sorted."""
    first = np.ones(len(slots), dtype=bool)
    first[1:] = slots[1:] != slots[:-1]
    return first


def room_for(count: int, held: int) -> int:
    """How much room to make for ``count`` assets where ``held`` have some: growth costs little an asset, and so does
    what it leaves over.
    """
    return max(count, held + (held if held < _DOUBLING else held // _GROWTH), 16)


@dataclass(slots=True)
class WindowState:
    """What a detector remembers of its assets' readings; grows as assets appear.

    history  (slot, length - 1, signal) float32, scaled, the newest last
    rows     (slot,) int32, rows since the last reset
    """

    length: int
    signals: int
    history: Float32 = field(init=False)
    rows: Int32 = field(init=False)

    def __post_init__(self) -> None:
        self.history = np.zeros((0, self.length - 1, self.signals), dtype=np.float32)
        self.rows = np.zeros(0, dtype=np.int32)

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets."""
        held = len(self.rows)
        if slots <= held:
            return
        room = room_for(slots, held)
        history = np.zeros((room, self.length - 1, self.signals), dtype=np.float32)
        history[:held] = self.history
        self.history = history
        self.rows = np.concatenate([self.rows, np.zeros(room - held, dtype=np.int32)])

    def reset(self, slots: Int64) -> None:
        """Put assets back to their beginning: others will have their slots."""
        self.history[slots] = 0
        self.rows[slots] = 0


def runs(rows: npt.NDArray[np.integer[Any]], slot: Int32, paused: Bool | None = None) -> Runs:
    """Count the rows of a batch (at least one) since their assets' last resets.

    rows    (slot,) integers, how many each asset had before
    slot    (row,), sorted, and by time within a slot
    paused  (row,), whether so long a pause came before the row that it starts anew; None: nowhere
    """
    count = len(slot)
    slots = slot.astype(np.int64)
    first = firsts(slots)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    ends = np.append(starts[1:], count)
    nth = np.arange(count) - starts[group]
    since = rows[slots].astype(np.int64) + nth + 1
    if paused is not None and paused.any():
        last_pause = np.maximum.accumulate(np.where(paused | first, np.arange(count), 0))
        since = np.where(paused[last_pause], np.arange(count) - last_pause + 1, since)
    return Runs(slots, group, nth, since, starts, ends)


def window(state: WindowState, slot: Int32, rows: Float32, *, hop: int = 1, paused: Bool | None = None) -> Windows:
    """Lay a batch's rows behind their assets' histories.

    slot, rows  (row,), (row, signal) scaled; sorted by slot, and by time within a slot
    hop         judge every how many rows, counted from the first full window since a reset
    paused      (row,), whether so long a pause came before the row that its asset's window is emptied; None: nowhere

    Updates ``state``; returns the windows that are full and whose turn it is.
    """
    count = len(slot)
    keep = state.length - 1
    if not count:
        empty = np.zeros(0, dtype=np.int64)
        return Windows(state.length, np.zeros((0, state.signals), dtype=np.float32), empty, empty)
    state.grow(int(slot[-1]) + 1)
    found = runs(state.rows, slot, paused)
    touched = found.slots[found.starts]
    held = found.since[found.ends - 1]
    state.rows[touched] = np.where(held > _MOST_ROWS, state.length + (held - state.length) % hop, held)

    # Each run: its asset's history, then its rows.
    offset = np.arange(len(found.starts)) * keep + found.starts
    flat = np.empty((count + len(found.starts) * keep, state.signals), dtype=np.float32)
    position = np.arange(count) + (found.group + 1) * keep
    flat[position] = rows
    if keep:
        flat[offset[:, None] + np.arange(keep)] = state.history[touched]
        stop = offset + keep + (found.ends - found.starts)
        state.history[touched] = flat[stop[:, None] + np.arange(-keep, 0)]
    chosen = found.due(state.length, hop)
    return Windows(state.length, flat, position[chosen], chosen)
