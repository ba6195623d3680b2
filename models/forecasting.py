"""What the forecasters share: learn to foretell the next row, be surprised by what comes instead.

At every row of the window a causal network foretells the next one (teacher forcing), so one pass yields the innovations
of all its rows; the last of them are what ``models.innovation`` makes a score of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models import runtime
from models.base import Float32
from models.deep import DeepDetector
from models.network import Shapes
from models.ranges import within
from models.windows import fill_forward


class Forecaster(DeepDetector):
    """A detector around a network (batch, window - 1, signal) -> the next row at each of them."""

    unread = 1

    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        target = windows[:, 1:]
        known = ~np.isnan(target)
        # the first rows have hardly a past to foretell from: they would teach the network the mean
        known[:, : self.window // 8] = False
        return fill_forward(windows[:, :-1]), np.where(known, target, np.float32(0)), known.astype(np.float32)

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """(batch, window, signal) -> errors of the later half of the rows, and what the newest row should have been."""
        foretold = self._network.predict(fill_forward(windows[:, :-1]))
        half = self.window // 2
        return windows[:, -half:] - foretold[:, -half:], foretold[:, -1]


def recurrent(cell: Any, signals: int, config: Any) -> Any:
    """The Keras network around a recurrent layer of class ``cell``: (batch, window - 1, signal) -> the same shape.

    A recurrent net for what is nonlinear beside a short linear autoregression of each signal for what is not. The
    linear highway is LSTNet's (Lai et al. 2018): with a few hundred rows it does most of the foretelling, needs
    ``lags`` weights a signal, and leaves the recurrent cells the rest.
    """
    import keras  # noqa: PLC0415  # only training needs it

    from models.layers import Autoregression  # noqa: PLC0415  # likewise

    rows = keras.Input((config.window - 1, signals))  # (batch, time, signal)
    hidden = cell(config.units, return_sequences=True)(rows)  # (batch, time, unit)
    rest = keras.layers.Dense(signals, name="rest")(hidden)  # (batch, time, signal)
    linear = Autoregression(config.lags, name="linear")(rows)  # (batch, time, signal)
    return keras.Model(rows, linear + rest)


def recurrent_shapes(cell: Shapes, signals: int, config: Any) -> Shapes:
    """What ``recurrent`` learns around a cell that learns ``cell``."""
    return (*cell, ("zeros_kernel", (config.lags, signals)), *runtime.dense_shapes(config.units, signals))


def recurrent_forward(cell: Callable[..., Float32], weights: Sequence[Float32], rows: Float32) -> Float32:
    """The network that ``recurrent`` builds, in numpy, around a layer of ``models.runtime``: (time, signal, batch)."""
    *own, linear, kernel, bias = weights
    hidden = cell(rows, *own)  # (time, unit, batch)
    foretold = runtime.dense(hidden, kernel, bias)  # (time, signal, batch)
    foretold += runtime.autoregression(rows, linear)
    return foretold


def check_recurrent(config: Any) -> None:
    """Raise ``ValueError`` naming the key of a recurrent forecaster's config that cannot be."""
    within(config, window=(8, 1024), units=(1, 512), lags=(1, config.window - 1), epochs=(1, 10_000), noise=(0.0, 1.0))
