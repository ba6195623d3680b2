"""The compiled steps give what numpy's give, in each instruction set that this CPU has, and believe no array unseen."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import compiled_steps
from models.compiled import SWITCH, address, library
from models.compiled_steps import Judged, Steps, best_level
from models.innovation import Yardstick
from models.recurrence import CELLS, Layer, Recurrence
from models.stepping import Stepper

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def opened():
    """The library; a test fails, and is not skipped, where it was not built."""
    return library("models._steps")


def levels():
    return range(opened().headrace_steps_level() + 1)


def body_of(rng, cell, signals, units, layers, lags):
    def some(*shape):
        return rng.normal(0, 0.4, shape).astype(np.float32)

    made = []
    for number in range(layers):
        wide = GATES[cell] * units
        bias = some(2, wide) if cell == "GRU" else some(wide)
        made.append(Layer(CELLS[cell], some(units if number else signals, wide), bias, some(units, wide)))
    return Recurrence(tuple(made), some(units, signals), some(signals), some(lags, signals) / lags)


def yardstick_of(rng, signals):
    mixing = rng.normal(0, 0.2 / signals, (signals, signals))
    spread = rng.uniform(0.5, 1.5, signals).astype(np.float32)
    return Yardstick(spread, np.eye(signals) + mixing + mixing.T, rng.uniform(0.5, 2, (2, 3)))


def both_of(body, yardstick, level):
    """The same with the compiled steps and without."""
    compiled, plain = Stepper(body, yardstick), Stepper(body, yardstick)
    assert compiled._steps is not None, "models._steps was not built"
    plain._steps = None
    compiled._steps.level = level
    return compiled, plain


@pytest.mark.parametrize("level", levels())
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_gives_what_numpy_gives(level, data):
    """Any cell and size, values missing, assets of any age with more or fewer rows, in any order."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    cell, signals = draw(st.sampled_from(sorted(CELLS))), draw(st.integers(1, 40))
    body = body_of(rng, cell, signals, draw(st.integers(1, 40)), draw(st.integers(1, 3)), draw(st.integers(1, 6)))
    compiled, plain = both_of(body, yardstick_of(rng, signals), level)
    room = draw(st.integers(1, 40))
    ours, theirs = compiled.begin(room), plain.begin(room)
    ours.rows[:] = theirs.rows[:] = rng.choice([0, 1, 5, 505, 3000], room)
    missing = draw(st.sampled_from([0.0, 0.2, 0.9]))
    for _ in range(2):
        slots = rng.permutation(room)[: draw(st.integers(1, room))]
        counts = rng.integers(1, draw(st.integers(2, 12)), len(slots))
        rows = rng.normal(size=(counts.sum(), signals)).astype(np.float32)
        rows[rng.random(rows.shape) < missing] = np.nan
        rows[rng.random(rows.shape) < 0.01] = 1e30
        got, wanted = (
            stepper.run(state, slots, counts, rows) for stepper, state in ((compiled, ours), (plain, theirs))
        )
        np.testing.assert_allclose(got.expected, wanted.expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got.score, wanted.score, rtol=1e-3)
        np.testing.assert_allclose(got.contributions, wanted.contributions, atol=1e-3)
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        for name, held in theirs.arrays.items():
            np.testing.assert_allclose(ours.arrays[name], held, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("signals", [1, 8, 13])
def test_a_row_is_the_same_to_the_bit_in_any_company_and_cut(level, cell, signals):
    rng = np.random.default_rng(1)
    stepper, _ = both_of(body_of(rng, cell, signals, 11, 2, 3), yardstick_of(rng, signals), level)
    assets, steps = 53, 6
    rows = rng.normal(size=(assets, steps, signals)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    together = stepper.begin(assets)
    whole = stepper.run(together, np.arange(assets), np.full(assets, steps), rows.reshape(-1, signals))
    for asset in (0, 15, 16, 47, 48, 52):
        state = stepper.begin(1)
        for step in range(steps):
            alone = stepper.step(state, np.zeros(1, np.int64), rows[asset, step][None])
            for field in ("score", "contributions", "expected"):
                np.testing.assert_array_equal(getattr(alone, field)[0], getattr(whole, field)[asset * steps + step])
        for name, held in state.arrays.items():
            np.testing.assert_array_equal(held[0], together.arrays[name][asset])


@pytest.mark.parametrize("level", levels())
def test_tanh(level):
    def tanh(numbers):
        room = np.zeros(-(-len(numbers) // 16) * 16, np.float32)
        room[: len(numbers)] = numbers
        call = opened().headrace_steps_tanh
        call.argtypes, call.restype = (ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p), None
        call(level, len(room), address(room))
        return room[: len(numbers)]

    x = np.concatenate([np.linspace(0, 10, 400_001), np.logspace(-30, 1, 100_000)]).astype(np.float32)
    exact = np.tanh(x.astype(np.float64))
    off = np.abs(tanh(x) - exact)
    assert off.max() < 4e-7
    assert (off / np.spacing(exact.astype(np.float32))).max() < 7
    assert np.abs(tanh(x)).max() <= 1
    np.testing.assert_array_equal(tanh(-x), -tanh(x))
    np.testing.assert_array_equal(tanh(np.array([0, 100, -100, np.inf, -np.inf])), [0, 1, -1, 1, -1])
    assert np.isnan(tanh(np.array([np.nan])))[0]


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    stepper, _ = both_of(body_of(rng, "LSTM", 3, 5, 2, 2), yardstick_of(rng, 3), 0)
    return stepper, stepper.begin(4)


@pytest.mark.parametrize(
    ("slots", "counts", "starts"),
    [([4], [1], [0]), ([-1], [1], [0]), ([0], [0], [0]), ([0], [7], [0]), ([0], [2], [5]), ([0], [1], [-1]),
     ([0, 1], [1], [0])],
)  # fmt: skip
def test_runs_that_are_not_there_are_refused(made, slots, counts, starts):
    stepper, state = made
    rows = np.zeros((6, 3), np.float32)
    runs = (np.array(slots), np.array(counts), np.array(starts))
    with pytest.raises(IndexError):
        stepper._steps.run(state.arrays, state.rows, runs, rows, Judged.of(6, 3))


@pytest.mark.parametrize("name", ["state0.0", "state1.1", "past", "means"])
@pytest.mark.parametrize("wrong", [lambda held: held[:3], lambda held: held.astype(float), np.asfortranarray])
def test_arrays_of_another_kind_are_refused(made, name, wrong):
    stepper, state = made
    state.arrays[name] = wrong(state.arrays[name])
    with pytest.raises(ValueError, match=name):
        stepper.step(state, np.arange(2), np.zeros((2, 3), np.float32))


def test_layers_that_do_not_fit_are_refused(made):
    stepper, _ = made
    first, second = stepper.body.laid()
    with pytest.raises(ValueError, match="does not fit"):
        Steps([first._replace(inputs=4), second], stepper.body.linear, stepper._measures())
    with pytest.raises(ValueError, match="does not fit"):
        Steps([second], stepper.body.linear, stepper._measures())


def test_without_the_library_it_goes_the_other_way(monkeypatch):
    monkeypatch.setenv(SWITCH, "false")
    library.cache_clear()
    rng = np.random.default_rng(0)
    try:
        assert Stepper(body_of(rng, "GRU", 3, 5, 1, 2), yardstick_of(rng, 3))._steps is None
    finally:
        library.cache_clear()


def test_an_instruction_set_that_goes_wrong_here_is_not_used(monkeypatch, caplog):
    best_level.cache_clear()
    assert best_level() == opened().headrace_steps_level()  # all that this CPU has go right
    trial = compiled_steps._trial
    monkeypatch.setattr(compiled_steps, "_trial", lambda level: trial(level) * (1.01 if level else 1.0))
    best_level.cache_clear()
    try:
        assert best_level() == 0
    finally:
        best_level.cache_clear()
    assert len(caplog.records) == opened().headrace_steps_level()
