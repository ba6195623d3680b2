"""How close made windows are to real ones: distances between distributions, with what real windows have among
themselves.

A distance means nothing without a yardstick: two halves of the real windows are not the same either. So each distance
is told beside that of one half of the real ones to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.base import Float64

_MOST: Final = 400  # windows of a sort: distances go by pairs


@dataclass(frozen=True, slots=True)
class Likeness:
    """energy, energy_real: energy distance (Szekely and Rizzo 2013) of made from real windows, and of real from real;
    mmd, mmd_real: the same as maximum mean discrepancy, a Gaussian kernel as wide as the median distance (Gretton et
    al. 2012); spread: standard deviation of made over that of real values, the median over signals; step: the same of
    the step from row to row, 1 is alike in both.
    """

    energy: float
    energy_real: float
    mmd: float
    mmd_real: float
    spread: float
    step: float


def likeness(real: Float64, made: Float64, *, seed: int = 0) -> Likeness:
    """Of windows (window, row, signal) of one class, in any unit. Real ones have to be in the order of time.

    The yardstick compares the windows that begin at even places with those at odd ones, ``rows`` apart, so that no two
    share more than a part of their rows; with few real windows it is small, since they overlap.
    """
    if real.shape[1:] != made.shape[1:] or min(len(real), len(made)) < 4:
        raise ValueError(f"expected at least 4 windows of one shape, got {real.shape} and {made.shape}")
    rng = np.random.default_rng(seed)
    centre, size = real.mean(axis=(0, 1)), real.std(axis=(0, 1))
    size = np.where(size > 1e-12 * np.maximum(np.abs(centre), 1.0), size, np.inf)  # a signal that rests says nothing
    one, other = (
        ((x - centre) / size)[_some(len(x), rng)].reshape(-1, real.shape[1] * real.shape[2]) for x in (real, made)
    )
    blocks = np.arange(len(real)) // real.shape[1] % 2
    halves = (one, one) if len(np.unique(blocks)) < 2 else tuple(_flat(real, centre, size, blocks == k) for k in (0, 1))
    moving = np.isfinite(size)
    return Likeness(
        energy_distance(one, other),
        energy_distance(*halves),
        mmd(one, other),
        mmd(*halves),
        _ratio(made[..., moving], real[..., moving]),
        _ratio(np.diff(made[..., moving], axis=1), np.diff(real[..., moving], axis=1)),
    )


def energy_distance(one: Float64, other: Float64) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over the root of the number of columns; (sample, column) each, 0 is alike."""
    between, first, second = _distances(one, other), _distances(one, one), _distances(other, other)
    return float((2 * between.mean() - _mean_apart(first) - _mean_apart(second)) / np.sqrt(one.shape[1]))


def mmd(one: Float64, other: Float64) -> float:
    """Squared maximum mean discrepancy, unbiased: about 0 where both are alike, at most 2."""
    between, first, second = (np.square(_distances(*pair)) for pair in ((one, other), (one, one), (other, other)))
    width = max(float(np.median(between)), 1e-12)
    kernels = [np.exp(-each / width) for each in (between, first, second)]
    return float(_mean_apart(kernels[1]) + _mean_apart(kernels[2]) - 2 * kernels[0].mean())


def _distances(one: Float64, other: Float64) -> Float64:
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)[None] - 2 * one @ other.T
    distances: Float64 = np.sqrt(np.maximum(squares, 0.0))
    return distances


def _mean_apart(pairs: Float64) -> float:
    """Mean over pairs of two different samples."""
    count = len(pairs)
    return float((pairs.sum() - np.trace(pairs)) / (count * (count - 1)))


def _ratio(made: Float64, real: Float64) -> float:
    usual = real.std(axis=(0, 1))
    return float(np.median(made.std(axis=(0, 1))[usual > 0] / usual[usual > 0])) if (usual > 0).any() else float("nan")


def _some(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.permutation(count)[:_MOST]


def _flat(real: Float64, centre: Float64, size: Float64, chosen: npt.NDArray[np.bool_]) -> Float64:
    held: Float64 = ((real[chosen] - centre) / size).reshape(int(chosen.sum()), -1)
    return held[:: -(-len(held) // _MOST)]
