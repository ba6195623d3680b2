"""What the forecasters share: learn to foretell the next row, be surprised by what comes instead.

At every row of the window a causal network foretells the next one (teacher forcing), so one pass yields the innovations
of all its rows; the last of them are what ``models.innovation`` makes a score of.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from models.base import Float32
from models.deep import DeepDetector
from models.ranges import within
from models.windows import fill_forward


class Forecaster(DeepDetector):
    """A detector around a network (batch, window - 1, signal) -> the next row at each of them."""

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
    """A recurrent net for what is nonlinear beside a short linear autoregression of each signal for what is not.

    The linear highway is LSTNet's (Lai et al. 2018): with a few hundred rows it does most of the foretelling, needs
    ``lags`` weights a signal, and leaves the recurrent cells the rest.
    """
    rows = keras.Input((config.window - 1, signals))  # (batch, time, signal)
    hidden = cell(config.units, return_sequences=True)(rows)  # (batch, time, unit)
    rest = keras.layers.Dense(signals, name="rest")(hidden)  # (batch, time, signal)
    linear = Autoregression(config.lags, name="linear")(rows)  # (batch, time, signal)
    return keras.Model(rows, linear + rest)


def check_recurrent(config: Any) -> None:
    """Raise ``ValueError`` naming the key of a recurrent forecaster's config that cannot be."""
    within(config, window=(8, 1024), units=(1, 512), lags=(1, config.window - 1), epochs=(1, 10_000), noise=(0.0, 1.0))


class Autoregression(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """Each signal's next value as a weighted sum of its last ``lags`` own values: (batch, time, signal), causal."""

    def __init__(self, lags: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._lags = lags

    def build(self, shape: tuple[int | None, ...]) -> None:
        """One weight a lag and signal, 0 at first: the network starts from the mean, not from noise."""
        self.kernel = self.add_weight(shape=(self._lags, shape[-1]), initializer="zeros", name="zeros_kernel")

    def call(self, rows: Any) -> Any:
        """(batch, time, signal) -> the same shape; rows before the window count as 0, the scaled median."""
        length = rows.shape[1]
        padded = keras.ops.pad(rows, ((0, 0), (self._lags - 1, 0), (0, 0)))
        return sum(padded[:, lag : lag + length] * self.kernel[lag] for lag in range(self._lags))
