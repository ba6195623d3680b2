"""Foretells every signal's next value with causal dilated convolutions, and finds strange what it could not foretell.

Each layer looks twice as far back as the one below, so a few layers see the whole window and none has to carry a
memory through it step by step: easier to train than a recurrent net, and all rows of a window are worked out at once.

Shapes: (window - 1, signal) in, the next row at each of them out. What it sees is ``1 + (taps - 1) (2 ** layers - 1)``
rows, 31 by default. With ``carried`` each layer remembers its last inputs and a reading costs one row's work
(``models.convolution``).

Limits: a fault that was there in training is normal; a slow drift is followed, so only its bias shows; beyond its sight
it knows nothing, where a recurrent net may remember. Cost here, one core, 8 signals: a few seconds of training on a few
thousand rows, 80,000 windows a second to score in batches, 0.8 ms for one. Needs about 150 rows of clean history
without a gap. Papers: Munir et al. 2018, DeepAnT; Bai et al. 2018, An Empirical Evaluation of Generic Convolutional and
Recurrent Networks.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("tcn_forecaster")
True
>>> create("tcn_forecaster", signals=3, config={"taps": 2, "layers": 5}).config.sight
32
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models import runtime
from models.base import Float32
from models.convolution import CausalLayer, Convolutions
from models.forecasting import Forecaster
from models.network import Shapes
from models.ranges import within
from models.search import Real, Space, Whole
from models.stepping import Body


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows the detector looks back over; filters: channels of each layer; taps: rows that a filter reads; layers:
    so many, each with twice the dilation of the one below; lags: rows of the linear part; epochs: at most so many
    passes, fewer if the validation loss stops falling; noise: standard deviation added to training inputs, scaled
    units; carried: take one step for each reading, with its state carried, in place of a window.
    """

    window: int = 32
    filters: int = 32
    taps: int = 3
    layers: int = 4
    lags: int = 5
    epochs: int = 60
    noise: float = 0.1
    carried: bool = False

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), filters=(1, 512), taps=(2, 16), layers=(1, 8), lags=(1, self.window - 1))
        within(self, epochs=(1, 10_000), noise=(0.0, 1.0))

    @property
    def sight(self) -> int:
        """Rows that what it foretells depends on."""
        return 1 + (self.taps - 1) * ((1 << self.layers) - 1)


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "filters": Whole(8, 64, log=True),
    "taps": Whole(2, 5),
    "layers": Whole(2, 5),
    "lags": Whole(1, 7),
    "noise": Real(0.0, 0.4),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window - 1, signal) -> the next row at each of them, the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    from models.layers import Autoregression  # noqa: PLC0415  # likewise

    rows = keras.Input((config.window - 1, signals))  # (batch, time, signal)
    hidden = rows
    for layer in range(config.layers):
        seen = keras.layers.Conv1D(
            config.filters, config.taps, padding="causal", dilation_rate=2**layer, activation="relu"
        )(hidden)  # (batch, time, filter)
        hidden = seen + hidden if layer else seen
    rest = keras.layers.Dense(signals, name="rest")(hidden)  # (batch, time, signal)
    return keras.Model(rows, Autoregression(config.lags, name="linear")(rows) + rest)


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    widths = [signals] + [config.filters] * (config.layers - 1)
    convolutions = [shape for width in widths for shape in runtime.conv_shapes(config.taps, width, config.filters)]
    return (*convolutions, ("zeros_kernel", (config.lags, signals)), *runtime.dense_shapes(config.filters, signals))


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window - 1, signal, batch) -> the next row at each of them, the same shape."""
    hidden = x
    for layer in range(config.layers):
        kernel, bias = weights[2 * layer : 2 * layer + 2]
        seen = runtime.relu(runtime.conv_causal(hidden, kernel, bias, 1 << layer))
        hidden = seen + hidden if layer else seen  # (time, filter, batch)
    linear, kernel, bias = weights[2 * config.layers :]
    foretold = runtime.dense(hidden, kernel, bias)  # (time, signal, batch)
    foretold += runtime.autoregression(x, linear)
    return foretold


class TcnForecaster(Forecaster):
    """Residual dilated convolutions beside a linear autoregression of each signal; see ``models.forecasting``."""

    name = "tcn_forecaster"
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def _body(self) -> Body:
        *convolutions, linear, rest, rest_bias = self._network.arrays()
        pairs = zip(convolutions[::2], convolutions[1::2], strict=True)
        layers = tuple(CausalLayer(*pair, dilation=2**number) for number, pair in enumerate(pairs))
        return Convolutions(layers, rest, rest_bias, linear)
