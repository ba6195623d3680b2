"""Stepping equals the network run over the whole history; the carried means equal those over all rows."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from models.innovation import LEVEL, RECENT, Yardstick
from models.recurrence import CELLS, recurrence_of
from models.stepping import Stepper

SIGNALS, UNITS, LAGS = 5, 12, 3


def weights_of(layer, rng, layers=1):
    gates = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[layer] * UNITS
    bias = (2, gates) if layer == "GRU" else (gates,)
    shapes = [
        shape
        for number in range(layers)
        for shape in (
            ("kernel", (UNITS if number else SIGNALS, gates)),
            ("recurrent_kernel", (UNITS, gates)),
            ("bias", bias),
        )
    ]
    shapes += [
        ("zeros_kernel", (LAGS, SIGNALS)),
        ("kernel", (UNITS, SIGNALS)),
        ("bias", (SIGNALS,)),
    ]
    return {
        f"network.{place:02d}.{name}": rng.normal(0, 0.3, shape).astype(np.float32)
        for place, (name, shape) in enumerate(shapes)
    }


def yardstick_of(rng):
    mixing = rng.normal(0, 0.2, (SIGNALS, SIGNALS))
    return Yardstick(
        rng.uniform(0.5, 1.5, SIGNALS).astype(np.float32), np.eye(SIGNALS) + mixing + mixing.T, np.ones((2, 3))
    )


@pytest.fixture(params=sorted(CELLS))
def layer(request):
    return request.param


@pytest.fixture(params=[1, 2])
def layers(request):
    return request.param


@pytest.fixture
def stepper(layer, layers):
    rng = np.random.default_rng(3)
    return Stepper(recurrence_of(layer, weights_of(layer, rng, layers)), yardstick_of(rng))


def walk(stepper, rows, slots=(0,), state=None):
    """Step one asset, kept at ``slots[0]`` among idle others, through (row, signal); what each step said."""
    state = state or stepper.begin(max(slots) + 1)
    return [stepper.step(state, np.array(slots[:1]), row[None]) for row in rows]


@pytest.mark.tensorflow
def test_a_step_foretells_what_keras_foretells_from_the_whole_history(layer, layers, stepper):
    import keras

    from models.forecasting import recurrent

    rows = np.random.default_rng(0).normal(size=(300, SIGNALS)).astype(np.float32)

    sizes = SimpleNamespace(window=len(rows) + 1, units=UNITS, layers=layers, lags=LAGS)
    model = recurrent(getattr(keras.layers, layer), SIGNALS, sizes)
    model.set_weights(list(weights_of(layer, np.random.default_rng(3), layers).values()))
    foretold = np.asarray(model(rows[None]))[0]
    stepped = np.concatenate([scored.expected for scored in walk(stepper, rows)])
    np.testing.assert_allclose(stepped[1:], foretold[:-1], atol=2e-5)


def test_a_row_is_the_same_to_the_bit_in_any_company(stepper):
    rng = np.random.default_rng(1)
    histories = rng.normal(size=(700, 6, SIGNALS)).astype(np.float32)
    together = stepper.begin(700)
    said = [stepper.step(together, np.arange(700), histories[:, row]) for row in range(6)]
    for asset in (0, 1, 15, 16, 511, 512, 699):
        alone = walk(stepper, histories[asset])
        for row in range(6):
            for field in ("score", "contributions", "expected"):
                np.testing.assert_array_equal(getattr(said[row], field)[asset], getattr(alone[row], field)[0])
    some = stepper.begin(700)
    order = rng.permutation(700)[:37]
    for row in range(6):
        part = stepper.step(some, order, histories[order, row])
        np.testing.assert_array_equal(part.score, said[row].score[order])


def test_the_carried_means_are_those_over_all_rows_since_the_reset(stepper):
    rows = np.random.default_rng(2).normal(size=(40, SIGNALS)).astype(np.float32)
    said = walk(stepper, rows)
    innovations = np.stack([row - scored.expected[0] for row, scored in zip(rows, said, strict=True)])[1:]
    yardstick = stepper.yardstick
    z = yardstick.standardised(innovations)
    total = 0.0
    for each in (z, z @ yardstick.whitener):
        for view, rate in (("recent", RECENT), ("level", LEVEL)):
            weights = (1 - rate) ** np.arange(len(each) - 1, -1, -1)
            weights /= weights.sum()
            mean = (weights[:, None] * (each**2 if view == "recent" else each)).sum(axis=0)
            part = mean if view == "recent" else mean**2 / (weights**2).sum()
            total += part.sum() * (1 if view == "recent" else 2)
        total += (each[-1] ** 2).sum()
    np.testing.assert_allclose(said[-1].score[0], np.sqrt(total / 8 / SIGNALS), rtol=1e-4)


def test_the_first_row_is_not_judged_and_a_reset_begins_anew(stepper):
    rows = np.random.default_rng(4).normal(size=(10, SIGNALS)).astype(np.float32)
    state = stepper.begin(3)
    first = walk(stepper, rows, (1,), state)
    assert np.isnan(first[0].score[0])
    assert np.isfinite(first[1].score[0])
    assert state.rows.tolist() == [0, 10, 0]
    state.reset(np.array([1]))
    again = walk(stepper, rows, (1,), state)
    np.testing.assert_array_equal([s.score[0] for s in again], [s.score[0] for s in first])


def test_missing_values_neither_raise_nor_hide(stepper):
    rows = np.random.default_rng(5).normal(size=(60, SIGNALS)).astype(np.float32)
    holes = rows.copy()
    holes[20:, 0] = np.nan
    said = walk(stepper, holes)
    assert np.isfinite([scored.score[0] for scored in said[1:]]).all()
    assert all(scored.contributions[0, 0] == 0 for scored in said[20:])
    nothing = walk(stepper, np.full((3, SIGNALS), np.nan, np.float32))
    assert np.isnan([scored.score[0] for scored in nothing]).all()


def test_a_state_grows_and_says_what_it_weighs(stepper):
    state = stepper.begin()
    state.grow(5)
    state.grow(3)
    assert len(state.rows) >= 5
    assert state.bytes_per_asset == sum(array[0].nbytes for array in state.arrays.values()) + 4


@pytest.mark.parametrize("most", [7, 64, 16384])
def test_any_cut_gives_the_same_to_the_bit(stepper, most, monkeypatch):
    monkeypatch.setattr("models.stepping._MOST", most)
    rng = np.random.default_rng(6)
    assets = 70
    counts = rng.integers(1, 12, assets)
    rows = rng.normal(size=(counts.sum(), SIGNALS)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    starts = np.cumsum(counts) - counts
    together, stepped = stepper.begin(assets), stepper.begin(assets)
    whole = stepper.run(together, np.arange(assets), counts, rows)
    for step in range(counts.max()):
        chosen = np.flatnonzero(counts > step)
        place = starts[chosen] + step
        said = stepper.step(stepped, chosen, rows[place])
        for field in ("score", "contributions", "expected"):
            np.testing.assert_array_equal(getattr(said, field), getattr(whole, field)[place])
    np.testing.assert_array_equal(together.rows, stepped.rows)
    for name, array in together.arrays.items():
        np.testing.assert_array_equal(array, stepped.arrays[name])


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the kernels are those of x86")
def test_the_bits_hold_on_a_cpu_with_avx2_alone():
    tests = "test_any_cut_gives_the_same_to_the_bit or test_a_row_is_the_same_to_the_bit_in_any_company"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", tests, __file__],
        env={**os.environ, "OPENBLAS_CORETYPE": "Haswell"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
