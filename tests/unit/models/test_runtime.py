"""Each layer in numpy against Keras's own."""

import numpy as np
import pytest

from models import runtime


def of(shape, seed=0, scale=0.3):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def transposed(x):
    return np.ascontiguousarray(x.transpose(1, 2, 0))


def given(layer, x):
    """Keras's output, (time, channel, batch), and the weights that it was given."""
    layer.build(x.shape)
    layer.set_weights([of(weights.shape, place, 0.4) for place, weights in enumerate(layer.get_weights())])
    return np.asarray(layer(x)).transpose(1, 2, 0), layer.get_weights()


@pytest.mark.tensorflow
@pytest.mark.parametrize(("rows", "channels", "units"), [(31, 8, 16), (8, 1, 3), (9, 3, 1)])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_layers(cell, rows, channels, units):
    import models.layers  # noqa: F401  # sets Keras's backend

    # isort: split
    import keras

    x = of((5, rows, channels), 9, 1.0)
    wanted, weights = given(getattr(keras.layers, cell)(units, return_sequences=True), x)
    name = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}[cell]
    assert tuple(w.shape for w in weights) == tuple(
        shape for _, shape in getattr(runtime, f"{name}_shapes")(channels, units)
    )
    np.testing.assert_allclose(getattr(runtime, name)(transposed(x), *weights), wanted, atol=3e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("rows", [4, 8, 20])
@pytest.mark.parametrize("taps", range(1, 12))
def test_convolutions(taps, rows):
    import models.layers  # noqa: F401  # sets Keras's backend

    # isort: split
    import keras

    x = of((5, rows, 3), 9, 1.0)
    wanted, weights = given(keras.layers.Conv1D(4, taps, strides=2, padding="same"), x)
    kernel, bias = weights
    np.testing.assert_allclose(runtime.conv(transposed(x), kernel, bias, stride=2), wanted, atol=1e-5)
    wanted, weights = given(keras.layers.Conv1DTranspose(4, taps, strides=2, padding="same"), x)
    np.testing.assert_allclose(runtime.conv_transposed(transposed(x), *weights), wanted, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize(("taps", "dilation", "filters"), [(1, 1, 4), (3, 1, 1), (2, 8, 4), (3, 4, 4), (5, 2, 3)])
def test_causal_convolutions(taps, dilation, filters, rows):
    import models.layers  # noqa: F401  # sets Keras's backend

    # isort: split
    import keras

    x = of((5, rows, 3), 9, 1.0)
    layer = keras.layers.Conv1D(filters, taps, padding="causal", dilation_rate=dilation)
    wanted, weights = given(layer, x)
    assert tuple(w.shape for w in weights) == tuple(shape for _, shape in runtime.conv_shapes(taps, 3, filters))
    kernel, bias = weights
    np.testing.assert_allclose(runtime.conv_causal(transposed(x), kernel, bias, dilation), wanted, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("lags", [1, 4, 9])
def test_autoregression(lags):
    from models.layers import Autoregression

    x = of((5, 9, 3), 9, 1.0)
    wanted, weights = given(Autoregression(lags), x)
    np.testing.assert_allclose(runtime.autoregression(transposed(x), *weights), wanted, atol=1e-6)


def test_a_dense_layer_works_on_rows_and_without():
    x, kernel, bias = of((6, 3, 5)), of((3, 4), 1), of((4,), 2)
    wanted = np.einsum("tib,io->tob", x, kernel) + bias[:, None]
    np.testing.assert_allclose(runtime.dense(x, kernel, bias), wanted, atol=1e-6)
    np.testing.assert_allclose(runtime.dense(x[0], kernel, bias), wanted[0], atol=1e-6)


def test_activations():
    x = np.array([-2.0, 0.0, 3.0], np.float32)
    assert runtime.relu(x.copy()).tolist() == [0.0, 0.0, 3.0]
    np.testing.assert_allclose(runtime.tanh(x.copy()), np.tanh([-2.0, 0.0, 3.0]), atol=1e-6)
    np.testing.assert_array_equal(runtime.repeat(x[:, None], 2), [x[:, None], x[:, None]])
