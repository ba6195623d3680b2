"""Judges the data rather than the plant: a signal that no longer moves ("stuck") or no longer comes ("missing").

A sensor that has died is the most common fault of all, and a model of the plant is a bad judge of it: a flat line is
easy to foretell. So the run of unchanged values (or of missing ones) at the window's end is compared with the longest
such run in the history: allowed are ``slack`` times that, and at least ``least`` rows. The score is the largest run
over what is allowed, so 1 is its natural threshold and nothing is fitted to a tail.

A signal whose longest run in training exceeds a third of the window is not judged for it: valves and set points rest.
Limits: an outage that training held is allowed from then on. Cost: no TensorFlow; microseconds a window. Shapes as in
``models.base``; a missing newest row is what it is there for, so its score is never NaN.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> detector = DataQuality(signals=2, config=Config(window=32))
>>> _ = detector.fit([rng.normal(size=(200, 2)).astype("f4")], [])
>>> window = rng.normal(size=(1, 32, 2)).astype("f4")
>>> float(detector.score(window).score[0])
0.0
>>> window[0, -9:, 1] = np.nan
>>> verdict = detector.score(window)
>>> float(verdict.score[0]), KINDS[verdict.kind[0]], int(verdict.contributions[0].argmax())
(1.125, 'missing', 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.base import KINDS, FitReport, Float32, Float64, Progress, Scored, no_progress
from models.errors import InvalidArtifact
from models.ranges import within
from models.scaling import CLIP
from models.weights import checked
from models.windows import WindowSet, check_windows

_STUCK, _MISSING = KINDS.index("stuck"), KINDS.index("missing")


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows it looks back over; slack: how many times the longest normal run is still no fault; least: nor are
    fewer rows than this.
    """

    window: int = 64
    slack: float = 3.0
    least: int = 8

    def __post_init__(self) -> None:
        within(self, window=(4, 4096), slack=(1.0, 100.0), least=(1, self.window - 1))


class DataQuality:
    """Trailing runs over allowed runs, per signal; see the top of this file."""

    name: ClassVar[str] = "data_quality"
    natural_threshold: ClassVar[float] = 1.0

    def __init__(self, signals: int, config: Config) -> None:
        self.signals, self.config = signals, config
        self._allowed: Float64 | None = None  # (2, signal): rows of stuck and missing; 0 = this signal is not judged

    @property
    def window(self) -> int:
        """Rows of a window."""
        return self.config.window

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing here is drawn by lot
        progress: Progress = no_progress,
    ) -> FitReport:
        """Measure the longest normal runs of both; all history is good for that."""
        history = [rows for rows in (*segments, *validation) if len(rows)]
        WindowSet.over(history, self.window, signals=self.signals).require(1, "training")
        longest = np.max([[_runs(part).max(axis=0) for part in self._flags(rows[None])] for rows in history], axis=0)
        longest = longest.reshape(2, self.signals)
        allowed = np.clip(self.config.slack * longest, self.config.least, self.window - 1)
        self._allowed = np.where(longest * 3 > self.window, 0.0, allowed)
        progress(1, 1, "measured the longest normal runs")
        judged = (self._allowed > 0).sum(axis=1)
        return FitReport({"judged_for_stuck": float(judged[0]), "judged_for_missing": float(judged[1])})

    def score(self, windows: Float32) -> Scored:
        """Judge the runs at the end of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        if self._allowed is None:
            raise RuntimeError("data_quality is neither trained nor loaded")
        runs = np.stack([_trailing(flags) for flags in self._flags(windows)], axis=1)  # (batch, 2, signal)
        judged = self._allowed > 0
        shares = np.divide(runs, self._allowed, out=np.zeros(runs.shape), where=judged & (runs > 1))
        by_signal = shares.max(axis=1)
        total = by_signal.sum(axis=1, keepdims=True)
        contributions = np.divide(by_signal, total, out=np.zeros_like(by_signal), where=total > 0)
        worst = shares.max(axis=2)
        kind = np.where(worst[:, 1] >= worst[:, 0], _MISSING, _STUCK).astype(np.uint8)
        return Scored(worst.max(axis=1), contributions, kind=kind)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The allowed runs."""
        if self._allowed is None:
            raise RuntimeError("data_quality is neither trained nor loaded")
        return {"allowed": self._allowed}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore the allowed runs. Raises ``InvalidArtifact``."""
        allowed = checked(weights, "allowed", (2, self.signals), np.float64)
        if (allowed < 0).any():
            raise InvalidArtifact("weights: array 'allowed' holds runs below 0")
        self._allowed = allowed

    @staticmethod
    def _flags(windows: Float32) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(batch, time, signal) -> where a value equals the one before, and where it is missing."""
        same = np.zeros(windows.shape, bool)
        # a clipped value looks unchanged and is not
        same[:, 1:] = (windows[:, 1:] == windows[:, :-1]) & (np.abs(windows[:, 1:]) < CLIP)
        return same, np.isnan(windows)


def _trailing(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(batch, time, signal) -> (batch, signal): how many of the newest rows in a row are flagged."""
    return np.asarray(np.where(flags.all(axis=1), flags.shape[1], np.argmin(flags[:, ::-1], axis=1)), np.int64)


def _runs(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(1, time, signal) -> (time, signal): how long the run of flags that ends at each row is."""
    rows = np.arange(1, flags.shape[1] + 1)[:, None]
    return rows - np.maximum.accumulate(np.where(flags[0], 0, rows), axis=0)
