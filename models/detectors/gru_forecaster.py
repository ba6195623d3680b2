"""Foretells every signal's next value with a GRU, and finds strange what it could not foretell.

Like ``lstm_forecaster`` with a quarter fewer weights: often as good, and sooner trained where history is short.

Limits: a fault that was there in training is normal; a slow drift is followed, so only its bias shows (the score's
``level`` view looks for that). Cost here, one core, 8 signals: a few seconds of training on a few thousand rows, 75,000
windows a second to score in batches, 0.7 ms for one. Needs about 150 rows of clean history without a gap.
Paper: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder.

>>> from models.registry import names, needs_tensorflow
>>> "gru_forecaster" in names(), needs_tensorflow("gru_forecaster")
(True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models import runtime
from models.base import Float32
from models.forecasting import RecurrentForecaster, check_recurrent, recurrent, recurrent_forward, recurrent_shapes
from models.network import Shapes
from models.search import Real, Space, Whole


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows the detector looks back over; units: GRU cells in each of so many layers; lags: rows of the linear
    part; epochs: at most so many passes, fewer if the validation loss stops falling; noise: standard deviation added to
    training inputs, scaled units;
    carried: take one step for each reading, with its state carried, in place of a window.
    """

    window: int = 32
    units: int = 32
    layers: int = 1
    lags: int = 5
    epochs: int = 60
    noise: float = 0.1
    carried: bool = False

    def __post_init__(self) -> None:
        check_recurrent(self)


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "units": Whole(8, 96, log=True),
    "layers": Whole(1, 2),
    "lags": Whole(1, 7),
    "noise": Real(0.0, 0.4),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window - 1, signal) -> the next row at each step, the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    return recurrent(keras.layers.GRU, signals, config)


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    return recurrent_shapes(runtime.gru_shapes, signals, config)


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:  # noqa: ARG001  # sizes: the weights'
    """In numpy, to score: (window - 1, signal, batch) -> the next row at each step, the same shape."""
    return recurrent_forward(runtime.gru, weights, x)


class GruForecaster(RecurrentForecaster):
    """A GRU over the window beside a linear autoregression of each signal; see ``models.forecasting``."""

    name = "gru_forecaster"
    layer = "GRU"
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)
