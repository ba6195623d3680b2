"""The frame of every detector that judges by its innovations: a subclass says what it expected, this does the rest."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.base import FitReport, Float32, Progress, Scored, no_progress
from models.innovation import Yardstick
from models.windows import WindowSet, check_windows

_MOST_VALIDATION = 1024  # windows: more only cost time


class SurpriseDetector(abc.ABC):
    """Windows -> innovations (the subclass) -> score and contributions (``models.innovation``)."""

    name: ClassVar[str]

    def __init__(self, signals: int, config: Any) -> None:
        self.signals, self.config = signals, config
        self._yardstick: Yardstick | None = None

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
        """Learn from ``segments``; when to stop, and which errors are usual, from ``validation``."""
        windows = WindowSet.over(segments, self.window, signals=self.signals).require(8, "training")
        later = WindowSet.over(validation, self.window, signals=self.signals, most=_MOST_VALIDATION)
        later.require(4, "validation")
        report = self._learn(windows, later, seed, progress)
        self._yardstick = Yardstick.fit(self._innovations(later.take())[0])
        return report

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        yardstick = self._trained()
        innovations, expected = self._innovations(windows)
        score, contributions = yardstick.score(innovations)
        spread = np.broadcast_to(yardstick.spread, expected.shape)
        return Scored(score, contributions, expected, spread)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learnt, as named arrays."""
        return self._trained().weights() | self._learnt()

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        self._restore(weights)
        self._yardstick = Yardstick.from_weights(weights, self.signals)

    @abc.abstractmethod
    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """(batch, window, signal), NaN where missing -> (batch, rows, signal) value less expectation of the newest rows
        (NaN where missing), and (batch, signal) the expectation of the newest one.
        """

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:  # noqa: ARG002
        """Learn what ``_innovations`` needs; nothing by default."""
        progress(1, 1, "measuring the usual errors")
        return FitReport({})

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:  # noqa: B027  # most have nothing to take
        """Take back ``_learnt``; nothing by default."""

    def _trained(self) -> Yardstick:
        if self._yardstick is None:
            raise RuntimeError(f"{self.name} is neither trained nor loaded")
        return self._yardstick
