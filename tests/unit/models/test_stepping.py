"""Stepping equals the network run over the whole history; the carried means equal those over all rows."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.compiled import SWITCH, library
from models.convolution import CausalLayer, Convolutions
from models.detectors import tcn_forecaster
from models.innovation import LEVEL, RECENT, Yardstick
from models.recurrence import CELLS, Layer, Recurrence, recurrence_of
from models.stepping import Stepper

SIGNALS, UNITS, LAGS = 5, 12, 3
BODIES = (*sorted(CELLS), "Conv1D")


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


def convolving(layers):
    """The config of a convolutional forecaster that looks back over several of its dilations."""
    return tcn_forecaster.Config(window=301, filters=UNITS, taps=3, layers=2 * layers, lags=LAGS)


def convolution_weights_of(rng, layers):
    shapes = tcn_forecaster.shapes(SIGNALS, convolving(layers))
    return [rng.normal(0, 0.2, shape).astype(np.float32) for _, shape in shapes]


def body_of(layer, rng, layers=1):
    if layer != "Conv1D":
        return recurrence_of(layer, weights_of(layer, rng, layers))
    *convolutions, linear, rest, rest_bias = convolution_weights_of(rng, layers)
    pairs = zip(convolutions[::2], convolutions[1::2], strict=True)
    return Convolutions(tuple(CausalLayer(*p, dilation=2**n) for n, p in enumerate(pairs)), rest, rest_bias, linear)


def yardstick_of(rng):
    mixing = rng.normal(0, 0.2, (SIGNALS, SIGNALS))
    return Yardstick(
        rng.uniform(0.5, 1.5, SIGNALS).astype(np.float32), np.eye(SIGNALS) + mixing + mixing.T, np.ones((2, 3))
    )


@pytest.fixture(params=["compiled", "numpy"], scope="module", autouse=True)
def way(request):
    """Both ways keep the promises; the compiled one fails where it was not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, str(request.param == "compiled"))
        library.cache_clear()
        if request.param == "compiled":
            library("models._steps")
        yield request.param
    library.cache_clear()


@pytest.fixture(params=BODIES)
def layer(request):
    return request.param


@pytest.fixture(params=[1, 2])
def layers(request):
    return request.param


@pytest.fixture
def stepper(layer, layers):
    rng = np.random.default_rng(3)
    return Stepper(body_of(layer, rng, layers), yardstick_of(rng))


def walk(stepper, rows, slots=(0,), state=None):
    """Step one asset, kept at ``slots[0]`` among idle others, through (row, signal); what each step said."""
    state = state or stepper.begin(max(slots) + 1)
    return [stepper.step(state, np.array(slots[:1]), row[None]) for row in rows]


@pytest.mark.tensorflow
def test_a_step_foretells_what_keras_foretells_from_the_whole_history(layer, layers, stepper):
    import keras

    from models.forecasting import recurrent

    rows = np.random.default_rng(0).normal(size=(300, SIGNALS)).astype(np.float32)

    rng = np.random.default_rng(3)
    if layer == "Conv1D":
        model = tcn_forecaster.build(SIGNALS, convolving(layers))
        model.set_weights(convolution_weights_of(rng, layers))
    else:
        sizes = SimpleNamespace(window=len(rows) + 1, units=UNITS, layers=layers, lags=LAGS)
        model = recurrent(getattr(keras.layers, layer), SIGNALS, sizes)
        model.set_weights(list(weights_of(layer, rng, layers).values()))
    foretold = np.asarray(model(rows[None]))[0]
    stepped = np.concatenate([scored.expected for scored in walk(stepper, rows)])
    np.testing.assert_allclose(stepped[1:], foretold[:-1], atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_convolutions_carried_are_those_over_the_whole_history_however_it_is_cut(data):
    """Of any size, in runs of any length, among assets with more or fewer rows."""
    draw = data.draw
    signals, config = draw(st.integers(1, 6)), tcn_forecaster.Config(
        filters=draw(st.integers(1, 9)), taps=draw(st.integers(2, 4)), layers=draw(st.integers(1, 4)),
        lags=draw(st.integers(1, 4)),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weights = [rng.normal(0, 0.4, shape).astype(np.float32) for _, shape in tcn_forecaster.shapes(signals, config)]
    *convolutions, linear, rest, rest_bias = weights
    pairs = zip(convolutions[::2], convolutions[1::2], strict=True)
    layers = tuple(CausalLayer(*pair, dilation=2**number) for number, pair in enumerate(pairs))
    yardstick = Yardstick(np.ones(signals, np.float32), np.eye(signals), np.ones((2, 3)))
    stepper = Stepper(Convolutions(layers, rest, rest_bias, linear), yardstick)
    lengths = draw(st.lists(st.integers(2, 60), min_size=1, max_size=4))
    histories = [rng.normal(size=(length, signals)).astype(np.float32) for length in lengths]
    state, done = stepper.begin(len(lengths)), [0] * len(lengths)
    said: list[list[np.ndarray]] = [[] for _ in lengths]
    while some := [asset for asset, length in enumerate(lengths) if done[asset] < length]:
        counts = [draw(st.integers(1, lengths[asset] - done[asset])) for asset in some]
        rows = [histories[asset][done[asset] : done[asset] + count] for asset, count in zip(some, counts, strict=True)]
        expected = stepper.run(state, np.array(some), np.array(counts), np.concatenate(rows)).expected
        assert expected is not None
        for asset, part in zip(some, np.split(expected, np.cumsum(counts)[:-1]), strict=True):
            done[asset] += len(part)
            said[asset].append(part)
    for history, parts in zip(histories, said, strict=True):
        whole = tcn_forecaster.forward(weights, history[:, :, None], config)[:, :, 0]
        np.testing.assert_allclose(np.concatenate(parts)[1:], whole[:-1], atol=2e-4, rtol=1e-4)


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


@pytest.mark.parametrize("layer", sorted(CELLS))
def test_columns_without_an_asset_change_no_bit(layer):
    """A step works on the columns that hold assets alone: with one asset as with more than a tile of them."""
    random = np.random.default_rng(5)
    units, signals, assets = 24, 5, 70

    def some(*shape):
        return random.normal(size=shape, scale=0.4).astype(np.float32)

    gates = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[layer]
    bias = some(2, gates * units) if layer == "GRU" else some(gates * units)
    cell = Layer(CELLS[layer], some(signals, gates * units), bias, some(units, gates * units))
    body = Recurrence((cell,), some(units, signals), some(signals), some(3, signals))
    stepper = Stepper(body, Yardstick(np.ones(signals, np.float32), np.eye(signals), np.ones((2, 3))))
    rows = some(assets, 6, signals)
    together = stepper.begin(assets)
    whole = stepper.run(together, np.arange(assets), np.full(assets, 6), rows.reshape(-1, signals))
    assert whole.expected is not None
    expected = whole.expected.reshape(assets, 6, signals)
    for count in (1, 8, 9, 31, 32, 33):
        state = stepper.begin(count)
        alone = stepper.run(state, np.arange(count), np.full(count, 6), rows[:count].reshape(-1, signals))
        assert alone.expected is not None
        assert np.array_equal(alone.expected.reshape(count, 6, signals), expected[:count])
        for name, held in state.arrays.items():
            assert np.array_equal(held, together.arrays[name][:count])
