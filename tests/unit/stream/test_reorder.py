from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.presence import Presence
from stream.records import Int64
from stream.reorder import Ordered, Reorder, Rows
from stream.window import NEVER, arrival

Event = tuple[int, int]  # asset, time
STEP_MS, ASSETS = 4, 5


class Naive:
    """One reading after the other, with a list an asset: what the arrays must equal."""

    def __init__(self, lateness_ms: int, silent_ms: int, most: int) -> None:
        self.lateness_ms, self.silent_ms, self.most = lateness_ms, silent_ms, most
        self.clock, self.front = 0, NEVER
        self.newest: dict[int, int] = {}
        self.given: dict[int, int] = defaultdict(lambda: NEVER)
        self.heard: dict[int, int] = {}
        self.held: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.out: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.late: list[int] = []
        self.duplicates = 0

    def put(self, nth: int, asset: int, at_ms: int) -> None:
        if asset in self.heard and self.clock - self.heard[asset] > self.silent_ms:
            self.release(asset, self.newest[asset])
        if self.front != NEVER:
            self.clock += min(max(at_ms - self.front, 0), STEP_MS)
        self.front = max(self.front, at_ms)
        self.heard[asset] = self.clock
        before = self.newest.get(asset, NEVER)
        if at_ms < before - self.lateness_ms or at_ms < self.given[asset]:
            self.late.append(nth)
            return
        self.newest[asset] = max(before, at_ms)
        if at_ms == self.given[asset] or at_ms in [at for at, _ in self.held[asset]]:
            self.duplicates += 1
            return
        self.held[asset].append((at_ms, nth))
        self.release(asset, self.newest[asset] - self.lateness_ms)
        while len(self.held[asset]) > self.most:
            self.release(asset, min(self.held[asset])[0])

    def release(self, asset: int, until_ms: int) -> None:
        due = sorted(held for held in self.held[asset] if held[0] <= until_ms)
        self.held[asset] = [held for held in self.held[asset] if held[0] > until_ms]
        self.out[asset] += due
        if due:
            self.given[asset] = due[-1][0]

    def end(self) -> None:
        for asset in list(self.held):
            self.release(asset, self.newest[asset])


class Arrays:
    """The same through ``Reorder``."""

    def __init__(self, lateness_ms: int, silent_ms: int, most: int) -> None:
        self.reorder = Reorder(lateness_ms, silent_ms, ("x",), most, with_bad=True)
        self.presence = Presence(STEP_MS, forget_after_ms=1 << 40)
        self.presence.grow(ASSETS)
        self.newest: Int64 = np.full(ASSETS, NEVER, dtype=np.int64)
        self.given: Int64 = np.full(ASSETS, NEVER, dtype=np.int64)
        self.out: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.late: list[int] = []
        self.duplicates = 0

    def put(self, events: list[Event], start: int) -> None:
        asset = np.array([event[0] for event in events], dtype=np.int32)
        at_ms = np.array([event[1] for event in events], dtype=np.int64)
        nth = np.arange(start, start + len(events))
        order, _, _, pause_ms = arrival(asset, at_ms, self.newest)
        silence_ms = self.presence.hear(asset, at_ms, order)
        rows = Rows(asset, at_ms, nth[:, None].astype(np.float64), (nth % 2 == 0)[:, None], nth.astype(np.int32))
        before_ms, now_ms = at_ms[order] - pause_ms, self.presence.clock_ms
        found = self.reorder.put(rows, order, before_ms, silence_ms, self.given, self.presence.heard_ms, now_ms)
        self.late += nth[found.late].tolist()
        self.take(found)

    def take(self, found: Ordered) -> None:
        self.duplicates += found.duplicates
        for asset, at_ms, pause_ms, (nth,), (bad,) in zip(
            found.rows.asset.tolist(),
            found.rows.at_ms.tolist(),
            found.pause_ms.tolist(),
            found.rows.values.astype(int).tolist(),
            found.rows.bad.tolist() if found.rows.bad is not None else [],
            strict=True,
        ):
            mine = self.out[asset]
            assert pause_ms == at_ms - mine[-1][0] if mine else pause_ms > 1 << 40
            assert bad == (nth % 2 == 0)
            mine.append((at_ms, nth))


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(st.integers(0, ASSETS - 1), st.integers(0, 60)), max_size=90),
    st.lists(st.integers(0, 90), max_size=7),
    st.integers(1, 12),
    st.integers(0, 10),
    st.sampled_from([1, 2, 3, 1000]),
)
def test_what_is_released_equals_a_list_per_asset_however_the_batches_are_cut(
    events: list[Event], cuts: list[int], lateness_ms: int, more_ms: int, most: int
) -> None:
    naive = Naive(lateness_ms, lateness_ms + more_ms, most)
    for nth, (asset, at_ms) in enumerate(events):
        naive.put(nth, asset, at_ms)
    arrays = Arrays(lateness_ms, lateness_ms + more_ms, most)
    for start, stop in pairwise([0, *sorted(cut % (len(events) + 1) for cut in cuts), len(events)]):
        arrays.put(events[start:stop], start)
        assert all(int(count) <= most for count in arrays.reorder.count)
    naive.end()
    arrays.take(arrays.reorder.drain(arrays.given))
    assert {asset: out for asset, out in arrays.out.items() if out} == {a: out for a, out in naive.out.items() if out}
    assert (sorted(arrays.late), arrays.duplicates) == (naive.late, naive.duplicates)
    assert len(arrays.reorder) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffle_within_the_lateness_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    events = [(asset, at_ms) for at_ms in range(0, 400, 2) for asset in range(ASSETS)]
    by_delay = np.argsort([at_ms + random.integers(0, 11) for _, at_ms in events], kind="stable")
    shuffled = [events[place] for place in by_delay.tolist()]
    times = []
    for each in (events, shuffled):
        arrays = Arrays(10, 10, 1000)
        for start in range(0, len(each), 37):
            arrays.put(each[start : start + 37], start)
        arrays.take(arrays.reorder.drain(arrays.given))
        assert (arrays.late, arrays.duplicates) == ([], 0)
        times.append({asset: [at_ms for at_ms, _ in out] for asset, out in arrays.out.items()})
    assert times[0] == times[1]


def test_an_asset_that_falls_silent_gets_its_last_readings_judged_when_others_go_on() -> None:
    arrays = Arrays(10, 20, 1000)
    arrays.put([(0, 100), (0, 104), (1, 104)], 0)
    assert not arrays.out
    arrays.put([(1, at_ms) for at_ms in range(106, 124, 2)], 3)
    assert not arrays.out[0], "its partition has gone on for 18 ms only"
    arrays.put([(1, 126)], 12)
    assert [at_ms for at_ms, _ in arrays.out[0]] == [100, 104]
    arrays.put([(0, 103)], 13)
    assert arrays.late == [13]


def test_what_is_held_can_be_taken_out_and_put_back() -> None:
    arrays = Arrays(10, 20, 1000)
    arrays.put([(3, 104), (1, 101), (3, 100), (1, 103)], 0)
    held = arrays.reorder.held(1, 4)
    assert held.asset.tolist() == [1, 1, 3, 3]
    again = Reorder(10, 20, ("x",), 1000, with_bad=True)
    again.restore(held)
    found = again.drain(np.full(ASSETS, NEVER, dtype=np.int64))
    assert found.rows.asset.tolist() == [1, 1, 3, 3]
    assert found.rows.at_ms.tolist() == [101, 103, 100, 104]
    assert found.rows.values[:, 0].tolist() == [1, 3, 2, 0]
    assert again.newest_ms(np.array([1, 2])).tolist() == [NEVER, NEVER]
