"""Remembers typical states of the plant, estimates each new one from those that are like it, and watches the residual.

The multivariate state estimation technique (MSET), known from nuclear plants, in the form of auto-associative kernel
regression: an estimate is the mean of the remembered states, weighted by likeness. It is always a mixture of states
that were seen, so a fault cannot be copied through, and it follows several operating modes without being told of them.
What is left is judged as every innovation is (``models.innovation``): newest, recent and lasting, plain and whitened.

Shapes: a state is one row (signal,); ``window`` rows are needed for the lasting views alone. A missing value is left
out of the likeness and estimated from the others.

Limits: blind to the order of rows; in many signals all states are far from each other and the estimate becomes a mean.
Cost here, one core, 8 signals: no TensorFlow; trains in less than a second, scores 31,000 windows a second in batches,
0.1 ms for one. Papers: Gross et al. 1997, Application of a Model-based Fault Detection System to Nuclear Plant Signals;
Baraldi et al. 2011 for the kernel regression.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> def plant(rows):  # the second signal is the square of the first: no linear method sees it
...     first = rng.uniform(-2, 2, size=(rows, 1))
...     return (np.hstack([first, first**2 - 1]) + 0.05 * rng.normal(size=(rows, 2))).astype("f4")
>>> detector = Mset(signals=2, config=Config(window=8))
>>> _ = detector.fit([plant(600)], [plant(200)])
>>> window = plant(8)[None]
>>> calm = detector.score(window).score[0]
>>> window[0, -1] = [0.0, 2.0]
>>> bool(detector.score(window).score[0] > 2 * calm)
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import FitReport, Float32, Progress
from models.errors import InvalidArtifact
from models.ranges import within
from models.search import Space, Whole
from models.surprise import SurpriseDetector
from models.tiles import product
from models.weights import checked
from models.whole import squared_distances
from models.windows import WindowSet, fill_forward

#: Widths of the likeness that are tried, as shares of the median distance between remembered states.
_WIDTHS: Final = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4)
_CHUNK: Final = 256  # windows worked on at once
_MOST_ROWS: Final = 4096  # of history that the memory is chosen from, and as many to choose the width by


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows that the score looks back over, twice as many as its slowest view; memory: states remembered."""

    window: int = 32
    memory: int = 256

    def __post_init__(self) -> None:
        within(self, window=(4, 1024), memory=(2, 8192))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {"window": Whole(8, 128, log=True), "memory": Whole(32, 1024, log=True)}


class Mset(SurpriseDetector):
    """Innovations against the mean of like states; see the top of this file."""

    name = "mset"

    def __init__(self, signals: int, config: Config) -> None:
        super().__init__(signals, config)
        self._memory = np.zeros((0, signals), np.float32)
        self._width = np.zeros(1, np.float32)  # mean squared difference at which likeness has fallen to 1 / e

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        del seed  # nothing is drawn by lot
        history = fill_forward(windows.rows[None])[0]
        self._memory = _remembered(_thinned(history), self.config.memory)
        distances = squared_distances(self._memory, np.ones(self._memory.shape, bool), self._memory)
        typical = max(float(np.median(distances)), 1e-6)
        rows = _thinned(later.rows)
        losses = []
        for done, share in enumerate(_WIDTHS, 1):
            self._width = np.array([share * typical], np.float32)
            errors = np.abs(rows - self._estimates(rows))
            losses.append(float(np.nanmean(np.minimum(errors, 3.0))) if np.isfinite(errors).any() else 0.0)
            progress(done, len(_WIDTHS), f"likeness of width {share:g}: error {losses[-1]:.3g}")
        best = int(np.argmin(losses))
        self._width = np.array([_WIDTHS[best] * typical], np.float32)
        return FitReport({"states": float(len(self._memory)), "validation_error": losses[best]})

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        newest = windows[:, -(self.window // 2) :]
        parts = [
            self._estimates(newest[start : start + _CHUNK].reshape(-1, self.signals))
            for start in range(0, max(len(newest), 1), _CHUNK)
        ]
        expected = np.concatenate(parts).reshape(newest.shape)
        return newest - expected, expected[:, -1]

    def _estimates(self, rows: Float32) -> Float32:
        """(row, signal), NaN where missing -> the mean of the remembered states, weighted by likeness."""
        known = ~np.isnan(rows)
        distances = squared_distances(np.where(known, rows, np.float32(0)), known, self._memory)
        # the nearest state has weight 1 however far it is: an estimate is always one of the plant's states
        likeness = np.exp((distances.min(axis=1, keepdims=True) - distances) / self._width)
        likeness /= likeness.sum(axis=1, keepdims=True)
        return product(np.ascontiguousarray(self._memory.T), likeness)

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return {"memory": self._memory, "width": self._width}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        states = len(weights["memory"]) if "memory" in weights and weights["memory"].ndim else 0
        memory = checked(weights, "memory", (states, self.signals))
        width = checked(weights, "width", (1,))
        if not 1 <= states <= self.config.memory or not width[0] > 0:
            raise InvalidArtifact("weights: array 'memory' must hold 1 to `memory` states, 'width' a number above 0")
        self._memory, self._width = memory, width


def _thinned(rows: Float32) -> Float32:
    """Evenly spaced rows, where there are too many."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).round().astype(np.int64)]


def _remembered(history: Float32, count: int) -> Float32:
    """MSET's choice: the states with each signal's extremes, then others evenly spaced in their distance from 0."""
    if len(history) <= count:
        return np.ascontiguousarray(history)
    extremes = np.unique(np.concatenate([history.argmin(axis=0), history.argmax(axis=0)]))[: count // 2]
    rest = np.setdiff1d(np.argsort((history**2).sum(axis=1), kind="stable"), extremes, assume_unique=True)
    chosen = rest[np.linspace(0, len(rest) - 1, count - len(extremes)).round().astype(np.int64)]
    return np.ascontiguousarray(history[np.sort(np.concatenate([extremes, chosen]))])
