"""What the forecasters share: learn to foretell the next row, be surprised by what comes instead.

At every row of the window a causal network foretells the next one (teacher forcing), so one pass yields the innovations
of all its rows; the last of them are what ``models.innovation`` makes a score of.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models import runtime
from models.base import FitReport, Float32, Progress, no_progress
from models.deep import DeepDetector
from models.network import Shapes
from models.ranges import within
from models.recurrence import recurrence_of
from models.stepping import Body, Stepper
from models.windows import fill_forward

_ARRAYS = 3  # that a recurrent layer of Keras learns: kernel, recurrent kernel, bias


class Forecaster(DeepDetector):
    """A detector around a network (batch, window - 1, signal) -> the next row at each of them.

    With ``carried`` in its config the network takes one step for each new row instead (``models.stepping``), and the
    window is only how many rows an asset must have shown before it is judged.
    """

    @property
    def unread(self) -> int:
        """The newest row is foretold, not read."""
        return 1

    @abc.abstractmethod
    def _body(self) -> Body:
        """The trained network as ``models.stepping`` walks it."""

    @functools.cached_property
    def _stepper(self) -> Stepper:
        return Stepper(self._body(), self._trained())

    @property
    def stepper(self) -> Stepper | None:
        """What steps with its weights; None if no state is carried. Raises ``RuntimeError`` before it is trained."""
        return self._stepper if self.config.carried else None

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn on windows; where the state is carried, measure on carried steps what is usual."""
        report = super().fit(segments, validation, seed=seed, progress=progress)
        self.__dict__.pop("_stepper", None)
        long = [rows for rows in validation if len(rows) > self.window]
        if self.config.carried and long:
            self._yardstick = replace(self._trained(), usual=self._stepper.usual(long, self.window - 1))
            del self._stepper
        return report

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        super().load_weights(weights)
        self.__dict__.pop("_stepper", None)

    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        return targets(windows, self.unread)

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """(batch, window, signal) -> errors of the later half of the rows, and what the newest row should have been."""
        foretold = self._network.predict(fill_forward(windows[:, :-1]))
        half = self.window // 2
        return windows[:, -half:] - foretold[:, -half:], foretold[:, -1]


def targets(windows: Float32, ahead: int) -> tuple[Float32, Float32, Float32]:
    """(batch, window, signal) -> what a forecaster of the row ``ahead`` rows later reads, its target, what counts."""
    target = windows[:, ahead:]
    known = ~np.isnan(target)
    # the first rows have hardly a past to foretell from: they would teach the network the mean
    known[:, : windows.shape[1] // 8] = False
    return fill_forward(windows[:, :-ahead]), np.where(known, target, np.float32(0)), known.astype(np.float32)


class RecurrentForecaster(Forecaster):
    """A forecaster around the network that ``recurrent`` builds."""

    #: The Keras layer whose step ``models.stepping`` takes.
    layer: ClassVar[str]

    def _body(self) -> Body:
        return recurrence_of(self.layer, self._learnt())


def recurrent(cell: Any, signals: int, config: Any) -> Any:
    """The Keras network around recurrent layers of class ``cell``: (batch, window - 1, signal) -> the same shape.

    A recurrent net for what is nonlinear beside a short linear autoregression of each signal for what is not. The
    linear highway is LSTNet's (Lai et al. 2018): with a few hundred rows it does most of the foretelling, needs
    ``lags`` weights a signal, and leaves the recurrent cells the rest.
    """
    import keras  # noqa: PLC0415  # only training needs it

    from models.layers import Autoregression  # noqa: PLC0415  # likewise

    rows = keras.Input((config.window - 1, signals))  # (batch, time, signal)
    hidden = rows
    for _ in range(config.layers):
        hidden = cell(config.units, return_sequences=True)(hidden)  # (batch, time, unit)
    rest = keras.layers.Dense(signals, name="rest")(hidden)  # (batch, time, signal)
    linear = Autoregression(config.lags, name="linear")(rows)  # (batch, time, signal)
    return keras.Model(rows, linear + rest)


def recurrent_shapes(cell: Callable[[int, int], Shapes], signals: int, config: Any) -> Shapes:
    """What ``recurrent`` learns around cells that learn ``cell(inputs, units)``."""
    widths = [signals] + [config.units] * (config.layers - 1)
    cells = [shape for width in widths for shape in cell(width, config.units)]
    return (*cells, ("zeros_kernel", (config.lags, signals)), *runtime.dense_shapes(config.units, signals))


def recurrent_forward(cell: Callable[..., Float32], weights: Sequence[Float32], rows: Float32) -> Float32:
    """The network that ``recurrent`` builds, in numpy, around a layer of ``models.runtime``: (time, signal, batch)."""
    *own, linear, kernel, bias = weights
    hidden = rows
    for first in range(0, len(own), _ARRAYS):
        hidden = cell(hidden, *own[first : first + _ARRAYS])  # (time, unit, batch)
    foretold = runtime.dense(hidden, kernel, bias)  # (time, signal, batch)
    foretold += runtime.autoregression(rows, linear)
    return foretold


def check_recurrent(config: Any) -> None:
    """Raise ``ValueError`` naming the key of a recurrent forecaster's config that cannot be."""
    within(config, window=(8, 1024), units=(1, 512), layers=(1, 4), lags=(1, config.window - 1))
    within(config, epochs=(1, 10_000), noise=(0.0, 1.0))
