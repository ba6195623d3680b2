"""Whether a series of samples grows: a trend that single jumps and a busy machine do not make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.records import Float64

_BLOCKS = 24


def slope(at: Sequence[float] | Float64, samples: Sequence[float] | Float64) -> float:
    """By how much ``samples`` (sample,) grow for one more of ``at`` (sample,), which ascends.

    The median of the slopes between all pairs of block medians (Theil, 1950; Sen, 1968): up to 29 % of the blocks may
    be anything, so what a burst or a collection of garbage does for a while does not count, and what goes on does.
    """
    if len(samples) < 2 * _BLOCKS:
        raise ValueError(f"{len(samples)} samples: a slope needs {2 * _BLOCKS}")
    x, y = (
        np.array([np.median(block) for block in np.array_split(np.asarray(given, dtype=np.float64), _BLOCKS)])
        for given in (at, samples)
    )
    first, second = np.triu_indices(_BLOCKS, 1)
    slopes: Float64 = (y[second] - y[first]) / (x[second] - x[first])
    return float(np.median(slopes))
