"""Keras layers of our own, for training; their numpy counterparts are in ``models.runtime``."""

from __future__ import annotations

from typing import Any

import models.detectors  # noqa: F401  # sets Keras's environment before its first import, just below

# isort: split
import keras


class Autoregression(keras.layers.Layer):
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
