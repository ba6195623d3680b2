"""A linear forecast of all signals from the last rows of all signals, and its errors on rows it has not seen.

Ridge regression (Hoerl and Kennard 1970) of each row on the ``LAGS`` rows before it. The error a row would have had,
had it been left out of the fit, follows from its leverage without fitting again (Allen 1974, the PRESS residual): with
a few hundred rows and dozens of weights, errors on the rows fitted are far too small to be a yardstick.

Weights are drawn not towards 0 but towards what each signal does by itself (the idea of the Minnesota prior; Litterman
1986): one that is still where it was after ``_MEMORY`` rows is taken for a random walk, one that has forgotten for
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.base import Float32, Float64

LAGS: Final = 5
_RIDGE: Final = 10.0
_MEMORY: Final = 32  # rows
_CLIP: Final = 10.0  # a spike beyond this must not foretell the next rows, nor shape the weights
_MOST_LEVERAGE: Final = 0.95  # a row that nearly fixes its own forecast tells nothing of the error
_MOST_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Autoregression:
    """``weights`` (signal, lag * signal + 1) float32: by lag, the newest first; the last column is the constant."""

    weights: Float32

    @classmethod
    def fit(cls, stretches: Sequence[Float32]) -> tuple[Autoregression, list[Float64]]:
        """Learn from stretches (row, signal) without NaN; also the left-out errors of each, ``LAGS`` rows shorter.

        Stretches too short for one forecast give an empty array. At least one has to be long enough.
        """
        pairs = [_pairs(rows) for rows in stretches]
        long = [pair for pair in pairs if len(pair[0])]
        past, now = (np.concatenate(part) for part in zip(*long, strict=True))
        step = -(-len(past) // _MOST_ROWS)  # evenly thinned where there is more than it takes
        some = past[::step].astype(np.float64)
        ridge = _RIDGE * np.eye(some.shape[1])
        ridge[-1, -1] = 1e-6  # the constant is free
        inverse = np.linalg.inv(some.T @ some + ridge)
        target = now[::step].astype(np.float64)
        start = prior(some, target)
        weights = start + inverse @ some.T @ (target - some @ start)
        errors = []
        for own, target in pairs:
            leverage = (
                np.minimum(np.einsum("ij,ij->i", own @ inverse, own), _MOST_LEVERAGE) if len(own) else np.empty(0)
            )
            errors.append((target - own @ weights) / (1 - leverage)[:, None])
        return cls(weights.T.astype(np.float32)), errors


def prior(past: Float64, now: Float64) -> Float64:
    """Weights to draw towards, (lag * signal + 1, signal): on a signal's newest row, what is left after a while."""
    signals = now.shape[1]
    own = past[:, :signals]
    kept = np.clip((own * now).sum(axis=0) / ((own * own).sum(axis=0) + _RIDGE), 0.0, 1.0)
    weights = np.zeros((past.shape[1], signals))
    weights[:signals] = np.diag(kept**_MEMORY)
    return weights


def clipped(rows: Float32) -> Float32:
    """Rows as the forecast reads them."""
    return np.asarray(np.clip(rows, -_CLIP, _CLIP), np.float32)


def _pairs(rows: Float32) -> tuple[Float64, Float64]:
    """(row, signal) -> what each row from ``LAGS`` on is foretold from, and the row."""
    held = clipped(rows).astype(np.float64)
    count = max(len(held) - LAGS, 0)
    past = [held[LAGS - lag : LAGS - lag + count] for lag in range(1, LAGS + 1)]
    return np.concatenate([*past, np.ones((count, 1))], axis=1), held[LAGS : LAGS + count]
