"""A memory of windows: how far the newest rows lie from all the windows that training showed.

Each window is its means over ``BLOCKS`` parts, so that a small shift in time costs little. A signal that strays in
training (one quarter of it lies far from the rest) is counted down by as much: it will stray on. The distance is the
mean over the ``_NEAREST`` windows that are nearest, as in k-nearest-neighbour detectors (Ramaswamy et al. 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.base import Float32
from models.whole import squared_distances

ROWS: Final = 40
BLOCKS: Final = 10
_MOST_WINDOWS: Final = 1500
_NEAREST: Final = 4
_CHUNK: Final = 1024  # rows worked on at once
_MOST_STRAY: Final = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class WindowMemory:
    """``stray`` (signal,) float32, 1 or more, what a signal is divided by; ``windows`` (window, block * signal)."""

    stray: Float32
    windows: Float32

    @classmethod
    def fit(cls, stretches: Sequence[Float32]) -> WindowMemory:
        """Remember at most ``_MOST_WINDOWS`` windows, evenly spread, of stretches (row, signal) without NaN."""
        rows = np.concatenate(stretches).astype(np.float64)
        quarters = np.array_split(rows, 4)
        total, count = rows.sum(axis=0), len(rows)
        away = [
            np.abs(part.mean(axis=0) - (total - part.sum(axis=0)) / max(count - len(part), 1))
            for part in quarters
            if len(part)
        ]
        stray = np.clip(np.max(away, axis=0), 1.0, _MOST_STRAY).astype(np.float32)
        windows = np.concatenate([blocks(part / stray) for part in stretches])
        chosen = np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).round().astype(np.int64)
        return cls(stray, np.ascontiguousarray(windows[chosen]))

    def distances(self, held: Float32) -> tuple[Float32, Float32]:
        """Block means (row, block * signal), not yet counted down -> distance (row,) and its shares (row, signal).

        The shares are those of the nearest window, and sum to 1 where the distance is above 0.
        """
        signals = len(self.stray)
        far, shares = np.zeros(len(held), np.float32), np.zeros((len(held), signals), np.float32)
        if not len(self.windows):
            return far, shares
        nearest = min(_NEAREST, len(self.windows))
        for start in range(0, len(held), _CHUNK):
            own: Float32 = np.divide(held[start : start + _CHUNK], np.tile(self.stray, BLOCKS), dtype=np.float32)
            squares = squared_distances(own, np.ones(own.shape, bool), self.windows)
            order = np.argpartition(squares, nearest - 1, axis=1)[:, :nearest]
            near = np.sort(np.take_along_axis(squares, order, axis=1), axis=1)
            far[start : start + _CHUNK] = np.sqrt(near).mean(axis=1)
            apart = (own - self.windows[squares.argmin(axis=1)]).reshape(-1, BLOCKS, signals)
            parts = (apart * apart).sum(axis=1)
            total = parts.sum(axis=1, keepdims=True)
            shares[start : start + _CHUNK] = np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)
        return far, shares


def blocks(rows: Float32) -> Float32:
    """(row, signal) -> the block means (window, block * signal) of every window of ``ROWS`` rows."""
    width, count = ROWS // BLOCKS, len(rows) - ROWS + 1
    if count < 1:
        return np.empty((0, BLOCKS * rows.shape[1]), np.float32)
    shifted = np.stack([rows[shift : shift + len(rows) - width + 1] for shift in range(width)])
    means: Float32 = shifted.mean(axis=0, dtype=np.float32)
    return np.concatenate([means[block * width : block * width + count] for block in range(BLOCKS)], axis=1)
