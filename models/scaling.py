"""The one scaler of training and serving: robust, per signal, and carried by the artifact.

Scaling written twice is the classic way for a served model to see numbers it was never trained on; so training,
backtest and serving all go through ``RobustScaler.transform``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64
from models.columns import Columns
from models.errors import InvalidArtifact, TrainingError

#: Scaled values are clipped here: far outside anything normal, and small enough never to overflow a network.
CLIP: Final = 20.0

_IQR_OF_NORMAL = 1.349
_RELATIVE_ZERO = 1e-9  # a spread below this share of the value itself is rounding, not movement


@dataclass(frozen=True, eq=False)
class RobustScaler:
    """``(x - centre) / scale`` with the median and a robust standard deviation of every signal.

    centre, scale: (signal,) float64, in the signal's own unit; scale is above 0. ``clips``: whether scaled values are
    clipped at ``CLIP``.
    """

    centre: Float64
    scale: Float64
    clips: bool = True

    @classmethod
    def none(cls, signals: int) -> RobustScaler:
        """Values stay as they are: for detectors that judge each signal by its own past."""
        return cls(np.zeros(signals), np.ones(signals), clips=False)

    @classmethod
    def fit(cls, stretches: Sequence[npt.NDArray[np.floating[Any]]]) -> RobustScaler:
        """Learn from clean stretches, each (row, signal); NaN and infinity are left out.

        scale = IQR / 1.349 where that exceeds a fifth of the standard deviation (robust against spikes), else the
        standard deviation (a signal that rests most of the time has no IQR). A signal that never moves is not divided:
        its scale is 1, or a thousandth of its value where that is more, so that rounding never looks like an event.

        Raises ``TrainingError`` if there is no row at all.
        """
        rows = np.concatenate([np.asarray(part, np.float64) for part in stretches]) if stretches else np.empty((0, 0))
        if not rows.size:
            raise TrainingError("there is no row to scale by: give at least one clean stretch")
        centre, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        for signal, column in enumerate(rows.T):
            finite = column[np.isfinite(column)]
            if not finite.size:
                continue  # never seen: nothing to learn, and every later value stays as it is
            low, centre[signal], high = np.percentile(finite, [25, 50, 75])
            with np.errstate(over="ignore"):
                deviation, robust = float(np.std(finite)), float(high - low) / _IQR_OF_NORMAL
            spread = robust if robust > 0.2 * deviation else deviation
            size = float(abs(centre[signal]))
            moves = np.isfinite(spread) and spread > _RELATIVE_ZERO * size and spread > np.finfo(np.float32).tiny
            scale[signal] = spread if moves else max(1.0, 1e-3 * size)
        return cls(centre, scale)

    @property
    def signals(self) -> int:
        """How many signals it scales."""
        return len(self.centre)

    @cached_property
    def _centre(self) -> Columns:
        return Columns(self.centre)

    @cached_property
    def _scale(self) -> Columns:
        return Columns(self.scale)

    def transform(self, values: npt.NDArray[np.floating[Any]]) -> Float32:
        """(..., signal) in the signals' own units -> (..., signal) float32, scaled, clipped at ``CLIP`` with its sign.

        NaN stays NaN; infinity is no measurement and becomes NaN.
        """
        wide = np.asarray(values, np.float64)
        self._check(wide)
        rows = np.ascontiguousarray(wide).reshape(-1, self.signals)
        scaled = np.empty_like(rows)
        with np.errstate(invalid="ignore", over="ignore"):
            self._centre(np.subtract, rows, scaled)
            self._scale(np.divide, scaled, scaled)
        if self.clips:
            np.clip(scaled, -CLIP, CLIP, out=scaled)
        finite = np.isfinite(rows)
        if not finite.all():
            scaled[~finite] = np.nan
        return scaled.astype(np.float32).reshape(wide.shape)

    def inverse(self, scaled: npt.NDArray[np.floating[Any]]) -> Float64:
        """(..., signal) scaled -> (..., signal) float64 in the signals' own units (what was clipped stays clipped)."""
        wide = np.asarray(scaled, np.float64)
        self._check(wide)
        rows = np.ascontiguousarray(wide).reshape(-1, self.signals)
        plain = self._scale(np.multiply, rows, np.empty_like(rows))
        return self._centre(np.add, plain, plain).reshape(wide.shape)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; Python writes and reads floats without losing a bit."""
        return {"centre": self.centre.tolist(), "scale": self.scale.tolist(), "clips": self.clips}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobustScaler:
        """Restore what ``to_dict`` gave. Raises ``InvalidArtifact`` on anything else."""
        try:
            centre, scale = (np.asarray(data[key], np.float64) for key in ("centre", "scale"))
            clips = bool(data.get("clips", True))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArtifact(f"scaler: {type(error).__name__}: {error}") from None
        if (
            centre.ndim != 1
            or centre.shape != scale.shape
            or not np.isfinite([centre, scale]).all()
            or (scale <= 0).any()
        ):
            raise InvalidArtifact("scaler: centre and scale must be equally many finite numbers, scale above 0")
        return cls(centre, scale, clips)

    def _check(self, values: Float64) -> None:
        if values.ndim < 1 or values.shape[-1] != self.signals:
            raise ValueError(f"expected {self.signals} signals on the last axis, got shape {values.shape}")
