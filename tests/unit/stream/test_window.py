from collections import defaultdict, deque
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.window import NEVER, WindowState, arrival, window


def naive(
    events: list[tuple[int, int, float]], length: int, hop: int, gap_ms: int | None
) -> dict[tuple[int, int], list[float]]:
    """A deque per asset, one reading after the other: what the arrays must equal."""
    held: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=length))
    count: dict[int, int] = defaultdict(int)
    last: dict[int, int] = {}
    found = {}
    for slot, at_ms, value in events:
        if slot in last and at_ms <= last[slot]:
            continue
        if slot in last and gap_ms is not None and at_ms - last[slot] > gap_ms:
            held[slot].clear()
            count[slot] = 0
        last[slot] = at_ms
        held[slot].append(value)
        count[slot] += 1
        if count[slot] >= length and (count[slot] - length) % hop == 0:
            found[slot, at_ms] = list(held[slot])
    return found


def in_batches(
    events: list[tuple[int, int, float]], cuts: list[int], length: int, hop: int, gap_ms: int | None
) -> dict[tuple[int, int], list[float]]:
    state = WindowState(length, 1)
    last_ms = np.full(8, NEVER, dtype=np.int64)
    found = {}
    bounds = [0, *sorted(cut % (len(events) + 1) for cut in cuts), len(events)]
    for start, stop in pairwise(bounds):
        batch = events[start:stop]
        slot = np.array([event[0] for event in batch], dtype=np.int32)
        at_ms = np.array([event[1] for event in batch], dtype=np.int64)
        values = np.array([[event[2]] for event in batch], dtype=np.float32).reshape(-1, 1)
        order, late, duplicate, pause_ms = arrival(slot, at_ms, last_ms)
        fresh = order[~late & ~duplicate]
        paused = None if gap_ms is None else pause_ms[~late & ~duplicate] > gap_ms
        windows = window(state, slot[fresh], values[fresh], hop=hop, paused=paused)
        taken = windows.take(0, len(windows))
        for index, row in enumerate(windows.row.tolist()):
            found[int(slot[fresh][row]), int(at_ms[fresh][row])] = taken[index, :, 0].tolist()
    return found


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=80),
    st.lists(st.integers(0, 100), max_size=6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([None, 3, 10]),
)
def test_windows_equal_a_deque_per_asset_however_the_batches_are_cut(
    raw: list[tuple[int, int]], cuts: list[int], length: int, hop: int, gap_ms: int | None
) -> None:
    events = [(slot, at_ms, float(index)) for index, (slot, at_ms) in enumerate(raw)]
    assert in_batches(events, cuts, length, hop, gap_ms) == naive(events, length, hop, gap_ms)


def test_late_and_duplicate_readings_are_told_apart_and_change_nothing() -> None:
    last_ms: npt.NDArray[np.int64] = np.array([100, NEVER], dtype=np.int64)
    slot = np.array([0, 1, 0, 0, 1, 0], dtype=np.int32)
    at_ms = np.array([100, 5, 90, 120, 4, 120], dtype=np.int64)
    order, late, duplicate, pause_ms = arrival(slot, at_ms, last_ms)
    assert order.tolist() == [0, 2, 3, 5, 1, 4]
    assert late.tolist() == [False, True, False, False, False, True]
    assert duplicate.tolist() == [True, False, False, True, False, False]
    assert pause_ms[[0, 1, 2, 3, 5]].tolist() == [0, -10, 20, 0, -1]
    assert pause_ms[4] > 1 << 60
    assert last_ms.tolist() == [120, 5]


def test_an_empty_batch_gives_no_window() -> None:
    empty = np.zeros(0, dtype=np.int32)
    assert len(window(WindowState(3, 2), empty, np.zeros((0, 2), dtype=np.float32))) == 0


def test_state_grows_without_losing_what_it_holds() -> None:
    state = WindowState(2, 1)
    for slot in range(40):
        window(
            state,
            np.array([slot], dtype=np.int32),
            np.array([[float(slot)]], dtype=np.float32),
        )
    assert state.history[:40, 0, 0].tolist() == list(map(float, range(40)))
    assert state.rows[:40].tolist() == [1] * 40


def test_rows_are_counted_on_when_they_would_no_longer_fit() -> None:
    state = WindowState(3, 1)
    one, row = np.zeros(1, dtype=np.int32), np.zeros((1, 1), dtype=np.float32)
    for _ in range(4):
        window(state, one, row, hop=5)
    state.rows[0] = (1 << 30) - 1  # as it is after years; its place in the hop is (that - 3) % 5 = 0
    due = [len(window(state, one, row, hop=5)) for _ in range(12)]
    assert due == [(((1 << 30) + nth) - 3) % 5 == 0 for nth in range(12)]
    assert state.rows[0] < 100
