"""The frame of detectors that judge a window as a whole: how far it lies from all that was seen in training.

A subclass gives one or several terms, each a distance that is a sum over signals (of squares, say). Each term counts
over what it mostly is on held-back clean data, so the score is about 1 there, and a signal's share of it is exact.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models.base import FitReport, Float32, Float64, Progress, Scored, no_progress
from models.innovation import robust_spread, summed
from models.tiles import product
from models.weights import checked
from models.windows import WindowSet, check_windows

_MOST_TRAINING: Final = 4096  # windows: more only cost time
_MOST_VALIDATION: Final = 1024
_CHUNK: Final = 1024  # windows worked on at once
#: A signal counts for at least this much of an average signal's usual distance: one that hardly moves is not strange
#: because it moves a little.
_LEAST_USUAL: Final = 1e-3


class WholeWindowDetector(abc.ABC):
    """Windows -> distances by signal (the subclass) -> score and contributions."""

    name: ClassVar[str]
    #: How many distances the score is made of.
    terms: ClassVar[int]

    def __init__(self, signals: int, config: Any) -> None:
        self.signals, self.config = signals, config
        self._usual: Float64 | None = None  # (term,): each distance, summed over signals, on clean data
        self._spread = np.ones(signals, np.float32)

    @property
    def window(self) -> int:
        """Rows of a window."""
        return int(self.config.window)

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn from ``segments``, and from ``validation`` which distances are usual."""
        windows = WindowSet.over(segments, self.window, signals=self.signals, most=_MOST_TRAINING)
        windows.require(8, "training")
        later = WindowSet.over(validation, self.window, signals=self.signals, most=_MOST_VALIDATION)
        later.require(4, "validation")
        report = self._learn(windows, seed, progress)
        held_back = later.take()
        distances, expected = self._distances(held_back)
        self._usual = np.maximum(np.median(distances.sum(axis=2), axis=1), _LEAST_USUAL * self.signals)
        self._spread = robust_spread((held_back[:, -1] - expected).astype(np.float64))
        return report

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        usual = self._trained()
        parts = []
        for start in range(0, max(len(windows), 1), _CHUNK):  # at least one, maybe empty
            chunk = windows[start : start + _CHUNK]
            distances, expected = self._distances(chunk)
            shares = (distances / usual[:, None, None]).mean(axis=0) * self.signals
            parts.append((*summed(shares, ~np.isnan(chunk[:, -1])), expected))
        score, contributions, expected = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Scored(score, contributions, expected, np.broadcast_to(self._spread, expected.shape))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learnt, as named arrays."""
        return self._learnt() | {"usual": self._trained(), "spread": self._spread}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        self._restore(weights)
        self._spread = checked(weights, "spread", (self.signals,))
        self._usual = checked(weights, "usual", (self.terms,), np.float64)

    @abc.abstractmethod
    def _learn(self, windows: WindowSet, seed: int, progress: Progress) -> FitReport:
        """Learn what ``_distances`` needs."""

    @abc.abstractmethod
    def _distances(self, windows: Float32) -> tuple[Float64, Float32]:
        """(batch, window, signal), NaN where missing -> (term, batch, signal) distances, 0 or more, and (batch, signal)
        what the newest row should have been.
        """

    @abc.abstractmethod
    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        """Named arrays of what ``_learn`` learnt."""

    @abc.abstractmethod
    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take back ``_learnt``. Raises ``InvalidArtifact``."""

    def _trained(self) -> Float64:
        if self._usual is None:
            raise RuntimeError(f"{self.name} is neither trained nor loaded")
        return self._usual


def squared_distances(rows: Float32, known: npt.NDArray[np.bool_], points: Float32) -> Float32:
    """(row, number) with 0 where it is not ``known``, (point, number) -> (row, point): the mean squared difference.

    The mean is over what is known. A row of which nothing is known is equally far from all. A row's bits are the same
    in any company.
    """
    mask = known.astype(np.float32)
    own = (rows * rows).sum(axis=1)[:, None]
    squares = own - 2 * product(points, rows) + product(points * points, mask)
    return np.asarray(np.maximum(squares, 0) / np.maximum(mask.sum(axis=1), 1)[:, None], np.float32)
