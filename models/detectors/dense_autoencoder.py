"""Squeezes the whole window through a few numbers and finds strange what does not come back.

What is normal moves in a few directions only: signals rise together, cycles repeat. A code of a few numbers is enough
to bring such a window back; a fault points in another direction and is lost in the squeeze. A plain net over the
flattened window sees relations between any two rows and signals at once.

Limits: its weights grow with window times signals, so it wants the most history of all; with 500 rows of 52 signals it
lies up to a seventh behind a windowed PCA, by its seed (.74 to .80 of the Tennessee Eastman process's faulty rows).
Cost here, one core, 8 signals: seconds of training on a few thousand rows, 170,000 windows a second to score in
batches, 0.2 ms for one. Needs about 150 rows of clean history without a gap. Paper: Hinton and Salakhutdinov 2006;
Sakurada and Yairi 2014, Anomaly Detection Using Autoencoders with Nonlinear Dimensionality Reduction.

>>> from models.registry import names, needs_tensorflow
>>> "dense_autoencoder" in names(), needs_tensorflow("dense_autoencoder")
(True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import runtime
from models.base import Float32
from models.network import Shapes
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are reconstructed together; units: width of the hidden layers; code: numbers in the bottleneck;
    epochs: at most so many passes, fewer if the validation loss stops falling; noise: standard deviation added to
    training inputs, scaled units.
    """

    window: int = 32
    units: int = 64
    code: int = 8
    epochs: int = 60
    noise: float = 0.2

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), units=(1, 1024), code=(1, 512), epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "units": Whole(16, 256, log=True),
    "code": Whole(2, 64, log=True),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) -> the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    rows = keras.Input((config.window, signals))  # (batch, time, signal)
    flat = keras.layers.Flatten()(rows)  # (batch, time * signal)
    hidden = keras.layers.Dense(config.units, activation="tanh", name="squeeze")(flat)
    code = keras.layers.Dense(config.code, name="code")(hidden)  # (batch, code)
    hidden = keras.layers.Dense(config.units, activation="tanh", name="unfold")(code)
    # from the code straight to the window as well: the linear part is PCA's, the hidden layer adds what bends
    back = keras.layers.Dense(config.window * signals, name="back")(keras.layers.Concatenate()([code, hidden]))
    return keras.Model(rows, keras.layers.Reshape((config.window, signals))(back))


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    flat = config.window * signals
    return (
        *runtime.dense_shapes(flat, config.units),
        *runtime.dense_shapes(config.units, config.code),
        *runtime.dense_shapes(config.code, config.units),
        *runtime.dense_shapes(config.code + config.units, flat),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:  # noqa: ARG001  # sizes: the weights'
    """In numpy, to score: (window, signal, batch) -> the same shape."""
    squeeze, code_layer, unfold, back = zip(weights[::2], weights[1::2], strict=True)  # kernel and bias of each
    flat = x.reshape(-1, x.shape[2])  # (time * signal, batch)
    hidden = runtime.tanh(runtime.dense(flat, *squeeze))  # (unit, batch)
    code = runtime.dense(hidden, *code_layer)  # (code, batch)
    hidden = runtime.tanh(runtime.dense(code, *unfold))
    return runtime.dense(np.concatenate([code, hidden]), *back).reshape(x.shape)


class DenseAutoencoder(Autoencoder):
    """Dense, bottleneck, dense; see ``models.reconstruction``."""

    name = "dense_autoencoder"
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)
