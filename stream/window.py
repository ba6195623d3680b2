"""Readings to windows: the second stage.

Per asset the last ``length - 1`` scaled rows are kept in one array, (slot, row, signal). A batch's rows are laid behind
their asset's history in one flat array, and a window is a run of consecutive rows of it: no loop over readings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stream.records import Bool, Float32, Int32, Int64, Runs, Windows

#: Wider than any time in milliseconds: keeps assets apart while a running maximum goes over all of them at once.
_APART = np.int64(1) << 44
#: No reading yet.
NEVER = np.iinfo(np.int64).min // 2


def arrival(slot: Int32, at_ms: Int64, last_ms: Int64) -> tuple[Int64, Bool, Bool]:
    """Sort a batch by asset, keep each asset's time going forward.

    slot     (reading,) int32, index of the asset
    at_ms    (reading,) int64
    last_ms  (slot,) int64, each asset's newest reading so far; updated in place

    Returns ``order`` (reading,), which sorts by asset and keeps arrival order within it, and, in that order, ``late``
    (older than what the asset has shown) and ``duplicate`` (the same time as its newest).
    """
    order = np.argsort(slot, kind="stable")
    slots = slot[order].astype(np.int64)
    times = at_ms[order]
    first = _firsts(slots)
    # The newest time seen before each row, within its asset: the stored one, or the running maximum of the batch.
    running = np.maximum.accumulate(np.maximum(times, np.maximum(last_ms[slots], 0)) + slots * _APART) - slots * _APART
    before = np.empty_like(times)
    before[1:] = running[:-1]
    before[first] = last_ms[slots[first]]
    if len(times):
        ends = np.append(np.flatnonzero(first)[1:] - 1, len(times) - 1)
        last_ms[slots[ends]] = np.maximum(last_ms[slots[ends]], running[ends])
    return order, times < before, times == before


def _firsts(slots: Int64) -> Bool:
    first = np.ones(len(slots), dtype=bool)
    first[1:] = slots[1:] != slots[:-1]
    return first


@dataclass(slots=True)
class WindowState:
    """What a detector remembers of its assets' readings; grows as assets appear.

    history  (slot, length - 1, signal) float32, scaled, the newest last
    rows     (slot,) int64, rows since the last reset
    last_ms  (slot,) int64, time of the newest row
    """

    length: int
    signals: int
    history: Float32 = field(init=False)
    rows: Int64 = field(init=False)
    last_ms: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.history = np.zeros((0, self.length - 1, self.signals), dtype=np.float32)
        self.rows = np.zeros(0, dtype=np.int64)
        self.last_ms = np.zeros(0, dtype=np.int64)

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets, doubling so that growth costs little a reading."""
        held = len(self.rows)
        if slots <= held:
            return
        room = max(slots, 2 * held, 16)
        history = np.zeros((room, self.length - 1, self.signals), dtype=np.float32)
        history[:held] = self.history
        self.history = history
        self.rows = np.concatenate([self.rows, np.zeros(room - held, dtype=np.int64)])
        self.last_ms = np.concatenate([self.last_ms, np.full(room - held, NEVER, dtype=np.int64)])


def runs(state: WindowState, slot: Int32, at_ms: Int64, longest_gap_ms: int | None = None) -> Runs:
    """Count the rows of a batch (at least one) since their assets' last resets; updates the counts in ``state``.

    slot, at_ms     (row,), sorted by slot, and by time within a slot
    longest_gap_ms  a longer pause between two rows of an asset is a reset; None: never
    """
    count = len(slot)
    slots = slot.astype(np.int64)
    state.grow(int(slots[-1]) + 1)
    first = _firsts(slots)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    ends = np.append(starts[1:], count)
    nth = np.arange(count) - starts[group]
    since = state.rows[slots] + nth + 1
    if longest_gap_ms is not None:
        before = np.empty_like(at_ms)
        before[1:] = at_ms[:-1]
        before[starts] = state.last_ms[slots[starts]]
        gap = at_ms - before > longest_gap_ms
        if gap.any():
            last_gap = np.maximum.accumulate(np.where(gap | first, np.arange(count), 0))
            since = np.where(gap[last_gap], np.arange(count) - last_gap + 1, since)
    touched = slots[starts]
    state.rows[touched] = since[ends - 1]
    state.last_ms[touched] = at_ms[ends - 1]
    return Runs(slots, group, nth, since, starts, ends)


def window(
    state: WindowState, slot: Int32, at_ms: Int64, rows: Float32, *, hop: int = 1, longest_gap_ms: int | None = None
) -> Windows:
    """Lay a batch's rows behind their assets' histories.

    slot, at_ms, rows  (row,), (row,), (row, signal) scaled; sorted by slot, and by time within a slot
    hop                judge every how many rows, counted from the first full window since a reset
    longest_gap_ms     a longer pause between two rows of an asset empties its window; None: never

    Updates ``state``; returns the windows that are full and whose turn it is.
    """
    count = len(slot)
    keep = state.length - 1
    if not count:
        empty = np.zeros(0, dtype=np.int64)
        return Windows(state.length, np.zeros((0, state.signals), dtype=np.float32), empty, empty)
    found = runs(state, slot, at_ms, longest_gap_ms)

    # Each run: its asset's history, then its rows.
    offset = np.arange(len(found.starts)) * keep + found.starts
    flat = np.empty((count + len(found.starts) * keep, state.signals), dtype=np.float32)
    touched = found.slots[found.starts]
    position = np.arange(count) + (found.group + 1) * keep
    flat[position] = rows
    if keep:
        flat[offset[:, None] + np.arange(keep)] = state.history[touched]
        stop = offset + keep + (found.ends - found.starts)
        state.history[touched] = flat[stop[:, None] + np.arange(-keep, 0)]
    chosen = found.due(state.length, hop)
    return Windows(state.length, flat, position[chosen], chosen)
