"""Two decoders share an encoder and play against each other: what is slightly wrong is made to come back very wrong.

An autoencoder gives back a small fault almost as faithfully as anything else. Here the first decoder learns to give
windows back so well that the second, fed with its output, cannot tell; the second learns to tell, by giving back badly
whatever comes from the first. On a fault the first fails a little, the second is provoked, and both errors count.

The game is kept from running away, on a CPU and on few data: the error that the second decoder drives up is bounded
(e^2 / (1 + e^2), where the paper bounds the data by a sigmoid), the game's weight grows from 0 to a half, where the
paper's goes to 1, and the weights kept are those that gave held-back windows back best.

Shapes: (window, signal) in; out are the first decoder's window and what the second makes of it. The innovation is the
root of the two errors' weighted mean square, with the first one's sign.

Limits: weights grow with window times signals; seeds differ (three of them found .75 to .86 of the faulty rows of the
Tennessee Eastman process). Cost here, one core, 8 signals: seconds of training on a few thousand rows, 270,000 windows
a second to score in batches, 0.2 ms for one. Needs about 150 rows of clean history without a gap. Paper: Audibert et
al. 2020, USAD: UnSupervised Anomaly Detection on Multivariate Time Series.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("usad")
True
>>> create("usad", signals=2, config={"second": 1.5})
Traceback (most recent call last):
ValueError: second: expected 0.0 to 1.0, got 1.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import runtime
from models.base import Float32
from models.network import Shapes
from models.objective import Call, Loss, Objective, huber, mean
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole
from models.windows import fill_forward

_GAME = 0.5  # the game's weight at the end of training


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are reconstructed together; units: width of the hidden layers; code: numbers in the bottleneck;
    second: weight of the second decoder's error in the score, 0 to 1; epochs: at most so many passes, fewer if the
    validation loss stops falling; noise: standard deviation added to training inputs, scaled units.
    """

    window: int = 32
    units: int = 64
    code: int = 8
    second: float = 0.5
    epochs: int = 60
    noise: float = 0.2

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), units=(1, 1024), code=(1, 512), second=(0.0, 1.0))
        within(self, epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "units": Whole(16, 256, log=True),
    "code": Whole(2, 64, log=True),
    "second": Real(0.0, 1.0),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) -> what the first decoder, the second, and the second of the first's
    window give, each of the same shape.
    """
    import keras  # noqa: PLC0415  # only training needs it

    def dense(width: int, name: str, activation: str | None = None) -> Any:
        return keras.layers.Dense(width, activation=activation, name=name)

    size = config.window * signals
    flatten, shape = keras.layers.Flatten(), keras.layers.Reshape((config.window, signals))
    encoder = [dense(config.units, "encoder_hidden", "tanh"), dense(config.code, "encoder_code")]
    decoders = [
        (dense(config.units, f"{which}_hidden", "tanh"), dense(size, f"{which}_back")) for which in ("first", "second")
    ]

    def encode(rows: Any) -> Any:
        return encoder[1](encoder[0](flatten(rows)))  # (batch, code)

    def decode(code: Any, which: int) -> Any:
        unfold, back = decoders[which]
        return shape(back(keras.ops.concatenate([code, unfold(code)], axis=1)))

    rows = keras.Input((config.window, signals))  # (batch, time, signal)
    code = encode(rows)
    first = decode(code, 0)
    return keras.Model(rows, [first, decode(code, 1), decode(encode(first), 1)])


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns: the encoder's two layers, then each decoder's."""
    size, both = config.window * signals, config.code + config.units
    decoder = (*runtime.dense_shapes(config.code, config.units), *runtime.dense_shapes(both, size))
    encoder = (*runtime.dense_shapes(size, config.units), *runtime.dense_shapes(config.units, config.code))
    return (*encoder, *decoder, *decoder)


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:  # noqa: ARG001  # sizes: the weights'
    """In numpy, to score: (window, signal, batch) -> (window, 2 signal, batch), first decoder and second of first."""
    layers = list(zip(weights[::2], weights[1::2], strict=True))

    def through(rows: Float32, unfold: int) -> Float32:
        hidden = runtime.tanh(runtime.dense(rows.reshape(-1, x.shape[2]), *layers[0]))  # (unit, batch)
        code = runtime.dense(hidden, *layers[1])  # (code, batch)
        hidden = runtime.tanh(runtime.dense(code, *layers[unfold]))
        return runtime.dense(np.concatenate([code, hidden]), *layers[unfold + 1]).reshape(x.shape)

    first = through(x, 2)
    return np.concatenate([first, through(first, 4)], axis=1)


@dataclass(frozen=True)
class Game(Objective):
    """The first decoder against the second; the encoder helps both."""

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """Each decoder's own window, and what the second makes of the first's: down for one, up for the other."""
        first, second, second_of_first = (output - target for output in outputs)
        played = second_of_first * second_of_first
        played = mean(played / (1 + played), weight)
        game = _GAME * progress
        return [
            ((1 - game) * mean(huber(first), weight) + game * played, ("encoder", "first")),
            ((1 - game) * mean(huber(second), weight) - game * played, ("encoder", "second")),
        ]

    def answer(self, call: Call, x: Float32) -> Float32:
        """The first decoder's window and what the second makes of it."""
        first, _, second_of_first = call(x, None)
        return np.concatenate([first, second_of_first], axis=2)


class Usad(Autoencoder):
    """One encoder, two decoders against each other; see the top of this file and ``models.reconstruction``."""

    name = "usad"
    gives = 2
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def _objective(self) -> Objective:
        return Game(noise=self.config.noise)

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """Both errors as one, for the newer half of the rows; the first decoder's newest row."""
        given = self._network.predict(fill_forward(windows))[:, -(self.window // 2) :]
        newest = windows[:, -(self.window // 2) :]
        first, second = newest - given[:, :, : self.signals], newest - given[:, :, self.signals :]
        share = np.float32(self.config.second)
        both = np.sqrt((1 - share) * first * first + share * second * second)
        return np.copysign(both, first), given[:, -1, : self.signals]
