"""Restores what was hidden from it: each value of the window is judged by what all the others say of it.

In training stretches of signals are hidden at random and the network must restore them, so it learns how signals and
rows depend on each other. In scoring the newer half of the window is hidden piece by piece, each piece in one of a few
passes, and restored from the rest: a fault cannot be copied through, since its own values are not read. A missing value
is just one more that is hidden, which is what the network was trained for.

Shapes: (window, 2 signal) in, values (0 where hidden) and whether they are seen; the restored (window, signal) out.

Limits: a fault that touches many signals at once hides its own cause; with one signal it restores each piece from the
rows around it. ``passes`` passes a window. Cost here, one core, 8 signals: seconds of training on a few thousand rows,
78,000 windows a second to score in batches, 0.7 ms for one. Needs about 150 rows of clean history without a gap.
Papers: Vincent et al. 2008, Extracting and Composing Robust Features with Denoising Autoencoders; Vincent et al. 2010
for the emphasis on what was hidden.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("denoising_autoencoder")
True
>>> hidden = _hidden(8, 3, create("denoising_autoencoder", signals=3, config={"window": 8, "passes": 2}).config.passes)
>>> hidden.sum(axis=0).astype(int)[:, 0].tolist()  # each newer row once, whichever pass it is
[0, 0, 0, 0, 1, 1, 1, 1]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import runtime
from models.base import Float32
from models.network import Shapes
from models.objective import Call, Objective
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are seen together; units: width of the hidden layers; code: numbers in the bottleneck; passes: in
    how many parts the newer half is hidden, and hidden in training is about one stretch in so many; epochs: at most so
    many passes over the data, fewer if the validation loss stops falling; noise: standard deviation added to training
    inputs, scaled units.
    """

    window: int = 32
    units: int = 96
    code: int = 24
    passes: int = 4
    epochs: int = 60
    noise: float = 0.1

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), units=(1, 1024), code=(1, 512), passes=(2, 8))
        within(self, epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "units": Whole(16, 256, log=True),
    "code": Whole(2, 64, log=True),
    "passes": Whole(2, 8),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, 2 signal) -> (batch, window, signal)."""
    import keras  # noqa: PLC0415  # only training needs it

    rows = keras.Input((config.window, 2 * signals))  # (batch, time, values and whether they are seen)
    hidden = keras.layers.Dense(config.units, activation="relu", name="squeeze")(keras.layers.Flatten()(rows))
    code = keras.layers.Dense(config.code, name="code")(hidden)  # (batch, code)
    hidden = keras.layers.Dense(config.units, activation="relu", name="unfold")(code)
    # from the code straight to the window as well: the linear part is PCA's, the hidden layer adds what bends
    back = keras.layers.Dense(config.window * signals, name="back")(keras.layers.Concatenate()([code, hidden]))
    return keras.Model(rows, keras.layers.Reshape((config.window, signals))(back))


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    size = config.window * signals
    return (
        *runtime.dense_shapes(2 * size, config.units),
        *runtime.dense_shapes(config.units, config.code),
        *runtime.dense_shapes(config.code, config.units),
        *runtime.dense_shapes(config.code + config.units, size),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window, 2 signal, batch) -> (window, signal, batch), each value from a pass that hid it."""
    length, signals, batch = len(x), x.shape[1] // 2, x.shape[2]
    squeeze, code_layer, unfold, back = zip(weights[::2], weights[1::2], strict=True)
    restored = np.zeros((length, signals, batch), np.float32)
    for hidden in _hidden(length, signals, config.passes):
        shown = x * (1 - np.tile(hidden, (1, 2)))[:, :, None]
        wide = runtime.relu(runtime.dense(shown.reshape(-1, batch), *squeeze))  # (unit, batch)
        code = runtime.dense(wide, *code_layer)  # (code, batch)
        wide = runtime.relu(runtime.dense(code, *unfold))
        given = runtime.dense(np.concatenate([code, wide]), *back).reshape(length, signals, batch)
        restored += hidden[:, :, None] * given
    return restored


@functools.lru_cache(maxsize=64)
def _hidden(length: int, signals: int, passes: int) -> Float32:
    """What each pass hides, 1 or 0: (pass, time, signal) float32; every value of the newer half in one of them.

    A pass hides every ``passes``-th signal's first part, the next ones' second part and so on: of each row and of each
    signal most is seen in every pass.
    """
    half = length // 2
    parts = np.arange(half) * passes // half  # (newer row,): which part it belongs to
    turn = (parts[:, None] + np.arange(signals)) % passes  # (newer row, signal): the pass that hides it
    hidden = np.zeros((passes, length, signals), np.float32)
    hidden[:, -half:] = turn == np.arange(passes)[:, None, None]
    hidden.flags.writeable = False
    return hidden


@dataclass(frozen=True)
class Restoring(Objective):
    """Restore what was hidden; what was seen does not count.

    passes: about one stretch in so many is hidden, each an eighth of the window long.
    """

    passes: int = 2

    def spoil(self, x: Float32, weight: Float32, rng: np.random.Generator) -> tuple[Float32, Float32]:
        """Noise on what is seen; hidden stretches."""
        batch, length, signals = weight.shape
        stretch = -(-length // 8)
        drawn = rng.random((batch, -(-length // stretch), signals)) < 1 / self.passes
        hidden = np.repeat(drawn, stretch, axis=1)[:, :length]
        values = x[:, :, :signals] + rng.normal(0.0, self.noise, weight.shape).astype(np.float32)
        seen = np.where(hidden, np.float32(0), x[:, :, signals:])
        return np.concatenate([values * seen, seen], axis=2), weight * hidden

    def examine(self, x: Float32, weight: Float32) -> tuple[Float32, Float32]:
        """The first pass of scoring."""
        hidden = _hidden(weight.shape[1], weight.shape[2], self.passes)[0]
        return x * (1 - np.tile(hidden, (1, 2))), weight * hidden

    def answer(self, call: Call, x: Float32) -> Float32:
        """All passes of scoring, as ``forward`` makes them."""
        passes = _hidden(x.shape[1], x.shape[2] // 2, self.passes)
        parts = [hidden * call(x * (1 - np.tile(hidden, (1, 2))), None)[0] for hidden in passes]
        return np.asarray(np.sum(parts, axis=0), np.float32)


class DenoisingAutoencoder(Autoencoder):
    """Hide, restore, compare; see the top of this file and ``models.reconstruction``."""

    name = "denoising_autoencoder"
    reads = 2
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def _objective(self) -> Objective:
        return Restoring(noise=self.config.noise, passes=self.config.passes)

    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        known = ~np.isnan(windows)
        values = np.where(known, windows, np.float32(0))
        weight = known.astype(np.float32)
        return np.concatenate([values, weight], axis=2), values, weight

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """What was restored against what is there, for the newer half of the rows; the newest row restored."""
        restored = self._network.predict(self._prepare(windows)[0])[:, -(self.window // 2) :]
        return windows[:, -(self.window // 2) :] - restored, restored[:, -1]
