"""Keeps a few dozen typical windows and finds strange what is far from all of them.

Normal operation repeats itself: k-means sums thousands of windows up as k centroids, and a window's score is its
distance to the nearest. It assumes nothing about how signals depend on each other, so several operating modes are no
trouble (each has its centroids), and it is among the best of all in TSB-AD's comparison of forty detectors.

Shapes: a window (time, signal) is one point; the squared distance is a sum over signals, which is what they contribute.
A missing value is left out, and the distance is over what is known.

Limits: a fault that stays among known windows (right shape, wrong time) is not seen; resolution is that of the
centroids, so small faults drown. Cost here, one core, 8 signals: no TensorFlow; trains in less than a second, scores
410,000 windows a second in batches, 0.05 ms for one. Papers: Yairi et al. 2001, Fault Detection by Mining Association
Rules from House-keeping Data; Liu and Paparrizos 2024 (TSB-AD); Arthur and Vassilvitskii 2007 for the start.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> def plant(rows):
...     return (np.sin(np.arange(rows) / 2)[:, None] + 0.1 * rng.normal(size=(rows, 2))).astype("f4")
>>> detector = Kmeans(signals=2, config=Config(window=8, clusters=12))
>>> _ = detector.fit([plant(400)], [plant(100)])
>>> window = plant(8)[None]
>>> calm = detector.score(window).score[0]
>>> window[0, :, 1] = 0.0  # a dead sensor
>>> strange = detector.score(window)
>>> bool(strange.score[0] > 3 * calm), int(strange.contributions[0].argmax())
(True, 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import FitReport, Float32, Float64, Progress
from models.ranges import within
from models.search import Space, Whole
from models.weights import checked
from models.whole import WholeWindowDetector, squared_distances
from models.windows import WindowSet, fill_forward

_ROUNDS: Final = 30
_STARTS: Final = 1500  # windows that the first centroids are chosen among


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows seen together; clusters: typical windows that are kept (fewer where there are fewer windows)."""

    window: int = 32
    clusters: int = 32

    def __post_init__(self) -> None:
        within(self, window=(1, 1024), clusters=(1, 4096))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {"window": Whole(1, 128, log=True), "clusters": Whole(2, 256, log=True)}


class Kmeans(WholeWindowDetector):
    """Distance to the nearest centroid, by signal; see the top of this file."""

    name = "kmeans"
    terms = 1

    def __init__(self, signals: int, config: Config) -> None:
        super().__init__(signals, config)
        self._centroids = np.zeros((0, 0), np.float32)  # (cluster, window x signal)

    def _learn(self, windows: WindowSet, seed: int, progress: Progress) -> FitReport:
        points = fill_forward(windows.take()).reshape(len(windows), -1)
        rng = np.random.default_rng(seed)
        centroids = _spread_out(points, self.config.clusters, rng)
        everything = np.ones(points.shape, bool)
        for done in range(1, _ROUNDS + 1):
            nearest = squared_distances(points, everything, centroids).argmin(axis=1)
            belongs = (nearest == np.arange(len(centroids))[:, None]).astype(np.float32)  # (cluster, window)
            sizes = belongs.sum(axis=1, keepdims=True)
            moved = np.where(sizes > 0, belongs @ points / np.maximum(sizes, 1), centroids)
            progress(done, _ROUNDS, "moving the centroids")
            if np.array_equal(moved, centroids):
                break
            centroids = moved
        # as many rows as the config says, whatever the history: a repeated centroid changes no distance
        self._centroids = np.resize(centroids, (self.config.clusters, points.shape[1]))
        return FitReport({"clusters": float(len(centroids))})

    def _distances(self, windows: Float32) -> tuple[Float64, Float32]:
        flat = (len(windows), self.window * self.signals)
        known = ~np.isnan(windows)
        points = np.where(known, windows, np.float32(0)).reshape(flat)
        nearest = squared_distances(points, known.reshape(flat), self._centroids).argmin(axis=1)
        centroids = self._centroids[nearest].reshape(windows.shape)
        squares = np.where(known, (windows - centroids).astype(np.float64), 0.0) ** 2
        return (squares.sum(axis=1) / np.maximum(known.sum(axis=1), 1))[None], centroids[:, -1]

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return {"centroids": self._centroids}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self._centroids = checked(weights, "centroids", (self.config.clusters, self.window * self.signals))


def _spread_out(points: Float32, count: int, rng: np.random.Generator) -> Float32:
    """First centroids: each drawn with a chance that grows with the square of its distance to those before."""
    points = points[rng.permutation(len(points))[:_STARTS]]
    chosen = [0]
    nearest = ((points - points[0]) ** 2).sum(axis=1).astype(np.float64)
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(int(rng.choice(len(points), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]
