"""Learns how likely a window is: a code that may lie anywhere in a cloud, and a spread for everything it gives back.

A plain autoencoder says how far a value is from its reconstruction; this one also says how far it may well be, value by
value, and judges by the probability of what came: a large error where errors are usual is no alarm, a small one where
everything is exact is. The code is kept near a standard normal cloud, so windows between known ones are known too.

Scoring has no lot in it: the mean over the cloud of codes is taken at fixed points (the cubature rule: one step of
``sqrt(code)`` deviations forth and back along each of its axes), which is exact for polynomials of third degree.

Shapes: (window, signal) in; out are, for each value, the mean reconstruction, the mean squared error in spreads and the
mean log spread. The root of what its log probability lacks of the usual, with the error's sign and in the signal's own
measure, is the innovation that ``models.innovation`` judges.

Limits: weights grow with window times signals. Cost here, one core, 8 signals: seconds of training on a few thousand
rows, 34,000 windows a second to score in batches, 1.8 ms for one. Needs about 150 rows of clean history without a gap.
Papers: Kingma and Welling 2014, Auto-Encoding Variational Bayes; An and Cho 2015, Variational Autoencoder based Anomaly
Detection using Reconstruction Probability; Arasaratnam and Haykin 2009 for the cubature rule.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("variational_autoencoder")
True
>>> points = _points(create("variational_autoencoder", signals=2, config={"code": 4}).config.code)
>>> points.shape, bool(points.sum() == 0), float((points**2).mean())
((8, 4), True, 1.0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import runtime
from models.base import FitReport, Float32, Progress
from models.network import Shapes
from models.objective import Call, Loss, Objective, huber, mean
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole
from models.weights import checked
from models.windows import WindowSet, fill_forward

#: Log of the least and the largest spread that a value is given, scaled units.
_SPREADS: Final = (np.float32(-3.0), np.float32(1.5))
#: Log of the least and the largest deviation of a code: a cloud neither vanishes nor fills the world.
_CLOUD: Final = (np.float32(-4.0), np.float32(1.0))


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are judged together; units: width of the hidden layers; code: numbers in the bottleneck; epochs:
    at most so many passes, fewer if the validation loss stops falling; noise: standard deviation added to training
    inputs, scaled units.
    """

    window: int = 32
    units: int = 64
    code: int = 8
    epochs: int = 60
    noise: float = 0.2

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), units=(1, 1024), code=(1, 256), epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, log=True),
    "units": Whole(16, 256, log=True),
    "code": Whole(2, 64, log=True),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) and what is drawn (batch, code) -> see the outputs."""
    import keras  # noqa: PLC0415  # only training needs it

    size = config.window * signals
    rows, drawn = keras.Input((config.window, signals)), keras.Input((config.code,))
    hidden = keras.layers.Dense(config.units, activation="tanh", name="squeeze")(keras.layers.Flatten()(rows))
    centre = keras.layers.Dense(config.code, name="centre")(hidden)  # (batch, code)
    cloud = keras.ops.clip(keras.layers.Dense(config.code, name="cloud")(hidden), *_CLOUD)  # log deviation
    code = centre + keras.ops.exp(cloud) * drawn
    hidden = keras.layers.Dense(config.units, activation="tanh", name="unfold")(code)
    # from the code straight to the window as well: the linear part is PCA's, the hidden layer adds what bends
    both = keras.layers.Concatenate()([code, hidden])
    back, spread = (
        keras.layers.Reshape((config.window, signals))(keras.layers.Dense(size, name=name)(both))
        for name in ("back", "spread")
    )
    return keras.Model([rows, drawn], [back, keras.ops.clip(spread, *_SPREADS), centre, cloud])


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns, in Keras's order: squeeze, cloud, centre, unfold, spread, back."""
    size, both = config.window * signals, config.code + config.units
    return (
        *runtime.dense_shapes(size, config.units),
        *runtime.dense_shapes(config.units, config.code),
        *runtime.dense_shapes(config.units, config.code),
        *runtime.dense_shapes(config.code, config.units),
        *runtime.dense_shapes(both, size),
        *runtime.dense_shapes(both, size),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window, signal, batch) -> (window, 3 signal, batch); see the top of this file."""
    squeeze, cloud, centre, unfold, spread, back = zip(weights[::2], weights[1::2], strict=True)
    hidden = runtime.tanh(runtime.dense(x.reshape(-1, x.shape[2]), *squeeze))  # (unit, batch)
    middle = runtime.dense(hidden, *centre)  # (code, batch)
    deviation = np.exp(np.clip(runtime.dense(hidden, *cloud), *_CLOUD))
    means = np.zeros((len(x), 3, *x.shape[1:]), np.float32)
    points = _points(config.code)
    for point in points:
        code = middle + deviation * point[:, None]
        both = np.concatenate([code, runtime.tanh(runtime.dense(code, *unfold))])
        given = runtime.dense(both, *back).reshape(x.shape)
        log_spread = np.clip(runtime.dense(both, *spread), *_SPREADS).reshape(x.shape)
        means[:, 0] += given
        means[:, 1] += ((x - given) * np.exp(-log_spread)) ** 2
        means[:, 2] += log_spread
    means /= np.float32(len(points))
    return means.reshape(len(x), 3 * x.shape[1], -1)


def _points(code: int) -> Float32:
    """Where the mean over a cloud of codes is taken, in its deviations: (2 code, code) float32."""
    axes = np.sqrt(np.float32(code)) * np.eye(code, dtype=np.float32)
    return np.concatenate([axes, -axes])


@dataclass(frozen=True)
class Likelihood(Objective):
    """The evidence's lower bound: log probability of what is known, less the cloud's distance from a standard normal.

    code: numbers in the bottleneck.
    """

    code: int = 0

    @property
    def drawn(self) -> int:
        """A point in the cloud."""
        return self.code

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """Both parts of the bound, per value of the window."""
        import keras  # noqa: PLC0415  # only training needs it

        del progress
        _, _, centre, cloud = outputs
        strays = 0.5 * (centre**2 + keras.ops.exp(2 * cloud) - 1) - cloud  # (batch, code)
        values = target.shape[1] * target.shape[2]
        bound = mean(self.worth(outputs, target, weight), weight) + keras.ops.mean(keras.ops.sum(strays, 1)) / values
        return [(bound, ("",))]

    def worth(self, outputs: list[Any], target: Any, weight: Any) -> Any:
        """Negative log probability, its square bounded as Huber bounds it."""
        import keras  # noqa: PLC0415  # only training needs it

        del weight
        return huber((outputs[0] - target) * keras.ops.exp(-outputs[1])) + outputs[1]

    def answer(self, call: Call, x: Float32) -> Float32:
        """The means over the cloud, as ``forward`` takes them."""
        parts = []
        for point in _points(self.code):
            given, log_spread, *_ = call(x, np.broadcast_to(point, (len(x), self.code)))
            parts.append(np.concatenate([given, ((x - given) * np.exp(-log_spread)) ** 2, log_spread], axis=2))
        return np.asarray(np.mean(parts, axis=0), np.float32)


class VariationalAutoencoder(Autoencoder):
    """Dense, a cloud of codes, dense; see the top of this file and ``models.reconstruction``."""

    name = "variational_autoencoder"
    gives = 3
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def __init__(self, signals: int, config: Config) -> None:
        super().__init__(signals, config)
        self._usual_spread = np.zeros(signals, np.float32)  # (signal,): its mean logarithm on clean data

    def _objective(self) -> Objective:
        return Likelihood(noise=self.config.noise, code=self.config.code)

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        report = super()._learn(windows, later, seed, progress)
        self._usual_spread = self._given(later.take())[2].mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        return report

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """Surprise with the error's sign, for the newer half of the rows; the newest row's reconstruction."""
        returned, squares, log_spread = self._given(windows)
        surprise = np.sqrt(np.maximum(squares + 2 * (log_spread - self._usual_spread), 0)) * np.exp(self._usual_spread)
        errors = windows[:, -(self.window // 2) :] - returned
        return np.sign(errors) * surprise, returned[:, -1]

    def _given(self, windows: Float32) -> list[Float32]:
        """Reconstruction, mean squared error in spreads, mean log spread: (batch, newer half of the rows, signal)."""
        given = self._network.predict(fill_forward(windows))[:, -(self.window // 2) :]
        return [given[:, :, n * self.signals : (n + 1) * self.signals] for n in range(3)]

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return super()._learnt() | {"usual_spread": self._usual_spread}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(weights)
        self._usual_spread = checked(weights, "usual_spread", (self.signals,))
