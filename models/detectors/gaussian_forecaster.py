"""Foretells every signal some rows ahead, and how far off it may be: an error counts by how sure the forecast was.

A GRU gives each coming value a mean and a spread. In a start-up or at a load step, where nobody could know better, the
spread is wide and a miss is no alarm; in steady running it is narrow and the same miss is. The band that is shown is
therefore real: about 95 % of clean values lie within two spreads (a test holds it), narrow and wide ones alike. What
the network has learnt too narrow or too wide is set right, signal by signal, on the validation part (split conformal).

With ``ahead`` above 1 a value is foretold that many rows before it comes (a direct multi-step forecast). A forecaster
of the next row follows a fault after a few rows and calls it normal; one that looks further ahead does not see the
fault's first rows when it foretells the next ones.

Shapes: (window - ahead, signal) in; the mean and the log spread of the value ``ahead`` rows later out, at each row.

Limits: as of every forecaster: a fault that was there in training is normal. With a few hundred rows to learn from it
ranks a little worse than a windowed PCA (by a ninth on SKAB): a state never seen gets a wide spread, which excuses the
very errors that would give it away (spreads in faulty rows are a quarter wider). Spreads far from all that was seen are
guesses, so they are bounded. No state is carried. Cost here, one core, 8 signals: a few seconds of training on a few
thousand rows, 100,000 windows a second to score in batches, 0.6 ms for one. Needs about 150 rows of clean history
without a gap. Papers: Nix and Weigend 1994, Estimating the Mean and Variance of the Target Probability Distribution;
Seitzer et al. 2022, On the Pitfalls of Heteroscedastic Uncertainty Estimation, for the loss; Lei et al. 2018,
Distribution-free Predictive Inference for Regression; Hundman et al. 2018 (Telemanom) for steps ahead.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("gaussian_forecaster")
True
>>> create("gaussian_forecaster", signals=2, config={"ahead": 5}).unread
5
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import runtime
from models.base import FitReport, Float32, Progress, Scored
from models.deep import DeepDetector
from models.errors import InvalidArtifact
from models.forecasting import targets
from models.network import Shapes
from models.objective import Call, Loss, Objective, mean
from models.ranges import within
from models.search import Real, Space, Whole
from models.weights import checked
from models.windows import WindowSet, check_windows, fill_forward

#: Log of the least and the largest spread that a value is given, scaled units.
_SPREADS: Final = (np.float32(-3.0), np.float32(1.5))
#: Errors beyond so many spreads count linearly: training data are never quite clean.
_FAR: Final = 3.0
#: The share of clean values that lies within so many spreads is set right.
_WITHIN: Final = 0.95
_DEVIATIONS: Final = 1.96


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows the detector looks back over; ahead: rows between the newest that a forecast knows and what it
    foretells; units: GRU cells; lags: rows of the linear part; epochs: at most so many passes, fewer if the validation
    loss stops falling; noise: standard deviation added to training inputs, scaled units.
    """

    window: int = 32
    ahead: int = 1
    units: int = 32
    lags: int = 5
    epochs: int = 60
    noise: float = 0.1

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), ahead=(1, self.window // 2), units=(1, 512), lags=(1, self.window // 2))
        within(self, epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(16, 96, log=True),
    "ahead": Whole(1, 4),
    "units": Whole(8, 96, log=True),
    "lags": Whole(1, 7),
    "noise": Real(0.0, 0.4),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window - ahead, signal) -> mean and log spread, each of the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    from models.layers import Autoregression  # noqa: PLC0415  # likewise

    rows = keras.Input((config.window - config.ahead, signals))  # (batch, time, signal)
    hidden = keras.layers.GRU(config.units, return_sequences=True)(rows)  # (batch, time, unit)
    rest = keras.layers.Dense(signals, name="rest")(hidden)  # (batch, time, signal)
    spread = keras.layers.Dense(signals, name="spread")(hidden)
    linear = Autoregression(config.lags, name="linear")(rows)
    return keras.Model(rows, [linear + rest, keras.ops.clip(spread, *_SPREADS)])


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    return (
        *runtime.gru_shapes(signals, config.units),
        ("zeros_kernel", (config.lags, signals)),
        *runtime.dense_shapes(config.units, signals),
        *runtime.dense_shapes(config.units, signals),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:  # noqa: ARG001  # sizes: the weights'
    """In numpy, to score: (window - ahead, signal, batch) -> (window - ahead, 2 signal, batch), mean and log spread."""
    hidden = runtime.gru(x, *weights[:3])  # (time, unit, batch)
    foretold = runtime.dense(hidden, *weights[4:6])  # (time, signal, batch)
    foretold += runtime.autoregression(x, weights[3])
    return np.concatenate([foretold, np.clip(runtime.dense(hidden, *weights[6:]), *_SPREADS)], axis=1)


class Probability(Objective):
    """Negative log probability of the value under its mean and spread, weighted by the spread itself.

    The weight (Seitzer's beta of a half) keeps the mean learning where the spread has given a value up.
    """

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """The weighted one."""
        import keras  # noqa: PLC0415  # only training needs it

        del progress
        trust = keras.ops.stop_gradient(keras.ops.exp(outputs[1]))
        return [(mean(self.worth(outputs, target, weight) * trust, weight), ("",))]

    def worth(self, outputs: list[Any], target: Any, weight: Any) -> Any:
        """The plain one."""
        import keras  # noqa: PLC0415  # only training needs it

        del weight
        far = keras.ops.abs(outputs[0] - target) * keras.ops.exp(-outputs[1])
        near = keras.ops.minimum(far, _FAR)
        return near * far - 0.5 * near * near + outputs[1]

    def answer(self, call: Call, x: Float32) -> Float32:
        """Mean and log spread."""
        return np.concatenate(call(x, None), axis=2)


class GaussianForecaster(DeepDetector):
    """A GRU that gives mean and spread beside a linear autoregression of the mean; see the top of this file."""

    name = "gaussian_forecaster"
    gives = 2
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def __init__(self, signals: int, config: Config) -> None:
        super().__init__(signals, config)
        self._band = np.ones(signals, np.float32)  # (signal,): what the network's spreads have to be taken times

    @property
    def unread(self) -> int:
        """The newest rows are foretold, not read."""
        return int(self.config.ahead)

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        yardstick = self._trained()
        errors, expected, spread = self._foretold(windows)
        score, contributions = yardstick.score(errors / spread)
        return Scored(score, contributions, expected, spread[:, -1] * self._band)

    def _objective(self) -> Objective:
        return Probability(noise=self.config.noise)

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        report = super()._learn(windows, later, seed, progress)
        errors, _, spread = self._foretold(later.take())
        off = np.abs(errors[:, -1] / spread[:, -1]).astype(np.float64)
        for signal, column in enumerate(off.T):
            known = column[np.isfinite(column)]
            if len(known):
                self._band[signal] = max(float(np.quantile(known, _WITHIN)) / _DEVIATIONS, 1e-3)
        return report

    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        return targets(windows, self.unread)

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """Errors in spreads of the later half of the rows, and what the newest row should have been."""
        errors, expected, spread = self._foretold(windows)
        return errors / spread, expected

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return super()._learnt() | {"band": self._band}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(weights)
        band = checked(weights, "band", (self.signals,))
        if (band <= 0).any():
            raise InvalidArtifact("weights: array 'band' must hold numbers above 0")
        self._band = band

    def _foretold(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        """Errors (batch, later rows, signal), the newest row's expectation, and the spreads of the errors."""
        given = self._network.predict(fill_forward(windows[:, : -self.unread]))
        given = given[:, -min(self.window // 2, given.shape[1]) :]
        foretold, spread = given[:, :, : self.signals], np.exp(given[:, :, self.signals :])
        return windows[:, -given.shape[1] :] - foretold, foretold[:, -1], spread
