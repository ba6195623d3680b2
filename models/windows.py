"""Windows over stretches of history, and what stands in for a missing value inside one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Float32
from models.errors import TrainingError


def fill_forward(windows: Float32) -> Float32:
    """(batch, time, signal) -> the same without NaN: the last value known in the window, else 0 (the scaled median).

    Only for what a network reads: a filled value is never a target and never part of a score.
    """
    missing = np.isnan(windows)
    if not missing.any():
        return windows
    steps = np.arange(windows.shape[1])[None, :, None]
    last_known = np.maximum.accumulate(np.where(missing, -1, steps), axis=1)
    filled = np.take_along_axis(windows, np.maximum(last_known, 0), axis=1)
    return np.where(last_known < 0, np.float32(0), filled)


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """All windows of ``length`` rows that lie within one of several stretches, cut out only when asked for.

    rows (row, signal) float32: the stretches end to end; starts (window,) int64: where each window begins in them.
    """

    rows: Float32
    starts: npt.NDArray[np.int64]
    length: int

    @classmethod
    def over(cls, stretches: Sequence[Float32], length: int, *, signals: int, most: int | None = None) -> WindowSet:
        """Every window of the stretches, or at most ``most``, evenly spread. A short stretch just yields none.

        Raises ``ValueError`` if a stretch is not (row, signal) with ``signals`` signals.
        """
        offset, parts = 0, []
        for stretch in stretches:
            if stretch.ndim != 2 or stretch.shape[1] != signals:
                raise ValueError(f"expected stretches of shape (row, {signals}), got {stretch.shape}")
            parts.append(offset + np.arange(max(len(stretch) - length + 1, 0)))
            offset += len(stretch)
        starts = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
        if most is not None and len(starts) > most:
            starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
        rows = np.concatenate(stretches) if stretches else np.empty((0, signals), np.float32)
        return cls(rows.astype(np.float32, copy=False), starts, length)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, which: npt.NDArray[np.int64] | slice = slice(None)) -> Float32:
        """Cut out the chosen windows: (window, time, signal) float32."""
        chosen: Float32 = self.rows[self.starts[which][:, None] + np.arange(self.length)]
        return chosen

    def require(self, least: int, purpose: str) -> WindowSet:
        """Itself if it holds ``least`` windows, else ``TrainingError`` with the remedy."""
        if len(self) < least:
            raise TrainingError(
                f"{purpose}: {len(self.rows)} rows hold {len(self)} windows of {self.length} rows, at least {least} "
                f"are needed; give more history without gaps, or a smaller `window` in the config"
            )
        return self


def check_windows(windows: npt.NDArray[Any], window: int, signals: int) -> None:
    """Raise ``ValueError`` unless ``windows`` is (batch, window, signals) float32."""
    if windows.ndim != 3 or windows.shape[1:] != (window, signals) or windows.dtype != np.float32:
        raise ValueError(f"expected windows (batch, {window}, {signals}) float32, got {windows.shape} {windows.dtype}")
