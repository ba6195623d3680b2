from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from through import flat, records_of, run

from models.datasets import Recording
from stream.backtest import backtest
from stream.grid import Cells, Filler, Grid
from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.shelf import Shelf

Row = tuple[int, int, list[float | None]]  # slot, cell's newest time, values
NAN = float("nan")


def naive_grid(events: list[tuple[int, int, int, float]], period_ms: int, longest_ms: int) -> list[Row]:
    """One reading after the other: (slot, time, signal, value), in order of time within a slot."""
    rows: list[Row] = []
    known: dict[tuple[int, int], tuple[float, int]] = {}
    first: dict[int, int] = {}
    cell: dict[int, int] = {}
    newest: dict[int, int] = {}

    def give(slot: int) -> None:
        at_ms = newest[slot]
        held = [known.get((slot, signal), (NAN, -(10**9))) for signal in range(2)]
        rows.append((slot, at_ms, [value if at_ms - since <= longest_ms else None for value, since in held]))

    for slot, at_ms, signal, value in events:
        first.setdefault(slot, at_ms)
        mine = int(np.floor((at_ms - first[slot]) / period_ms + 0.5))
        if slot in cell and mine != cell[slot]:
            give(slot)
        cell[slot], newest[slot] = mine, at_ms
        known[slot, signal] = (value, at_ms)
    for slot in sorted(cell):
        give(slot)
    return sorted(rows, key=lambda row: row[:2])


def rows_of(cells: Cells) -> list[Row]:
    values = [[None if value != value else value for value in row] for row in cells.values.tolist()]
    return list(zip(cells.slot.tolist(), cells.at_ms.tolist(), values, strict=True))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 25), st.integers(0, 1)), max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([10, 40]),
)
def test_the_grid_equals_one_reading_after_the_other_however_the_batches_are_cut(
    steps: list[tuple[int, int, int]], cuts: list[int], longest_ms: int
) -> None:
    now = dict.fromkeys(range(3), 1000)
    events = []
    for count, (asset, step, signal) in enumerate(steps):
        now[asset] += step
        events.append((asset, now[asset], signal, float(count)))
    grid = Grid(10.0, longest_ms, 2)
    rows: list[Row] = []
    pauses: dict[int, int] = {}
    for start, stop in pairwise([0, *sorted(cut % (len(events) + 1) for cut in cuts), len(events)]):
        batch = sorted(events[start:stop], key=lambda event: event[:2])
        if not batch:
            continue
        values = np.full((len(batch), 2), NAN)
        for row, (_, _, signal, value) in enumerate(batch):
            values[row, signal] = value
        slot = np.array([event[0] for event in batch], dtype=np.int32)
        cells = grid.put(slot, np.array([event[1] for event in batch], dtype=np.int64), values)
        rows += rows_of(cells)
        for each, pause_ms in zip(cells.slot.tolist(), cells.pause_ms.tolist(), strict=True):
            assert pause_ms % 10 == 0 if each in pauses else pause_ms >= 1 << 59
            pauses[each] = pauses.get(each, 0) + (pause_ms if each in pauses else 0)
    rows += rows_of(grid.drain())
    assert sorted(rows, key=lambda row: row[:2]) == naive_grid(events, 10, longest_ms)


@pytest.mark.parametrize(
    ("straight", "expected"),
    [(False, [[1.0, 5.0], [1.0, 5.0], [1.0, 5.0]]), (True, [[2.0, NAN], [3.0, NAN], [4.0, NAN]])],
)
def test_a_gap_is_filled_with_the_last_values_or_on_a_straight_line(
    straight: bool, expected: list[list[float]]
) -> None:
    filler = Filler(10.0, 60, straight, 2)
    slot = np.array([0, 1], dtype=np.int32)
    of, real, rows = filler.fill(slot, np.array([[1, 5], [0, 0]], dtype=np.float32), np.array([1 << 60, 1 << 60]))
    assert (of.tolist(), real.tolist()) == ([0, 1], [True, True])
    of, real, rows = filler.fill(slot, np.array([[5, NAN], [1, 1]], dtype=np.float32), np.array([41, 14]))
    assert of.tolist() == [0, 0, 0, 0, 1]
    assert real.tolist() == [False, False, False, True, True]
    np.testing.assert_array_equal(rows, np.array([*expected, [5, NAN], [1, 1]], dtype=np.float32))
    of, real, _ = filler.fill(slot[:1], np.zeros((1, 2), dtype=np.float32), np.array([61]))
    assert (of.tolist(), real.tolist()) == ([0], [True]), "longer than what may be filled"


def with_gaps(plan: Plan, **gaps: object) -> Plan:
    table = plan.model_dump(exclude={"folder"}, exclude_none=True)
    for detector in table["detectors"].values():
        detector |= {"gaps": gaps, "hop": 1}
    return parse_plan(table, folder=plan.folder)


def scored(plan: Plan, recording: Recording, batches: list[int] | None = None) -> list[int]:
    rows, _ = flat(run(plan, records_of([recording]), batches or []))
    start = int(recording.at_ms[0])
    return sorted((at - start) // 1000 for detector, _, at in rows if detector == "quick")


@pytest.mark.parametrize("policy", ["keep", "reset", "hold", "interpolate"])
@pytest.mark.parametrize("missing", [4, 10])
def test_what_a_gap_costs_by_policy(
    plan: Plan, make_recording: Callable[..., Recording], policy: str, missing: int
) -> None:
    whole = make_recording("pump-1", rows=200, seed=1)
    rows = np.r_[0 : 100 - missing, 100:200]
    recording = replace(whole, at_ms=whole.at_ms[rows], values=whole.values[rows])
    asked = with_gaps(plan, policy=policy, longer_than_s=8)
    at = scored(asked, recording)
    assert at == scored(asked, recording, [1, 50, 95, 96, 97, 150])
    silent = 31 if missing > 8 and policy != "keep" else 0
    assert at == [*range(31, 100 - missing), *range(100 + silent, 200)], "no row that was put in is judged"


def test_a_filled_window_is_what_it_says(plan: Plan, make_recording: Callable[..., Recording]) -> None:
    whole = make_recording("pump-1", rows=200, seed=1)
    values = whole.values.copy()
    values[95:99] = values[94]
    held = replace(whole, values=values)
    rows = np.r_[0:95, 99:200]
    gap = replace(whole, at_ms=whole.at_ms[rows], values=whole.values[rows])
    filled = flat(run(with_gaps(plan, policy="hold", longer_than_s=8), records_of([gap]), []))[0]
    expected = flat(run(with_gaps(plan), records_of([held]), []))[0]
    assert filled == {key: score for key, score in expected.items() if key in filled}
    assert len(filled) == len(expected) - 2 * 4


def test_signals_that_come_one_by_one_at_odd_times_are_judged_as_if_together(
    plan: Plan, make_recording: Callable[..., Recording]
) -> None:
    whole = make_recording("pump-1", rows=200, seed=1, fault=(120, 150))
    random = np.random.default_rng(0)
    parts = []
    for column in range(3):
        values = np.full(whole.values.shape, NAN)
        values[:, column] = whole.values[:, column]
        at_ms = (
            whole.at_ms + 100 + 180 * column + random.integers(-90, 90, len(values)) * (whole.at_ms > whole.at_ms[0])
        )
        parts.append(replace(whole, at_ms=at_ms, values=values))
    at_ms = np.concatenate([part.at_ms for part in parts])
    order = np.argsort(at_ms)
    apart = replace(whole, at_ms=at_ms[order], values=np.concatenate([part.values for part in parts])[order])
    asked = with_gaps(plan, grid=True, policy="hold")
    rows, alerts = flat(list(backtest(Pipeline(asked, Shelf(asked)), [apart])))
    expected, same = flat(list(backtest(Pipeline(plan, Shelf(plan)), [whole])))
    scores, wanted = (
        [s for (name, _, _), (s, _) in sorted(held.items()) if name == "quick"] for held in (rows, expected)
    )
    assert len(scores) == len(wanted)
    np.testing.assert_allclose(scores, wanted)
    assert {alert.detector for alert in alerts} == {alert.detector for alert in same} == {"quick", "slow"}
    assert flat(run(asked, records_of([apart]), [1, 77, 300])) == flat(run(asked, records_of([apart]), []))
