"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015), as its ``sweeper`` computes it.

Of each labelled window the best alarm counts, the more the earlier it is (a sigmoid from 1 at the window's first row to
0 at its last); a window without an alarm costs; every alarm outside costs, less just behind a window. The first 15 %
of a file (at most 750 rows) are for learning and do not count. 0 is what a detector that says nothing gets, 100 a
perfect one. Besides the benchmark's own optimum over all thresholds, which looks at the labels, stands the score at a
threshold that was fixed before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float64

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a window found in time, an alarm outside, and a window missed are worth."""

    found: float = 1.0
    false_alarm: float = 0.11
    missed: float = 1.0


PROFILES: Final[Mapping[str, Profile]] = {
    "standard": Profile(),
    "reward_low_fp": Profile(false_alarm=0.22),
    "reward_low_fn": Profile(missed=2.0),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One file: ``scores`` (row,), higher is stranger, and windows as (first, last) row, both included, in order."""

    scores: npt.NDArray[np.floating[Any]]
    windows: Sequence[tuple[int, int]]


def probation(rows: int) -> int:
    """How many rows at a file's beginning do not count."""
    return int(min(math.floor(0.15 * rows), 0.15 * 5000))


def nab_score(series: Sequence[Series], threshold: float, profile: Profile = PROFILES["standard"]) -> float:
    """The normalised score of several files at one threshold; a row alarms from ``threshold`` on.

    Raises ``ValueError`` if no file has a window that counts.
    """
    return _normalised(sum(_raw(one, threshold, profile) for one in series), _windows(series), profile)


def best_threshold(series: Sequence[Series], profile: Profile = PROFILES["standard"]) -> tuple[float, float]:
    """The threshold with the highest score, and that score: what the benchmark publishes. It looks at the labels."""
    gains: list[Float64] = []
    levels: list[Float64] = []
    for one in series:
        level, gain = _steps(one, profile)
        levels.append(level)
        gains.append(gain)
    level, gain = np.concatenate(levels), np.concatenate(gains)
    order = np.argsort(-level, kind="stable")
    level, total = level[order], np.cumsum(gain[order]) - profile.missed * _windows(series)
    last = np.append(level[1:] != level[:-1], True)  # rows of equal score alarm together
    level, total = level[last], total[last]
    if not len(total) or total.max() <= -profile.missed * _windows(series):
        return math.inf, 0.0
    best = int(total.argmax())
    return float(level[best]), _normalised(float(total[best]), _windows(series), profile)


def worth(rows: int, windows: Sequence[tuple[int, int]], profile: Profile) -> tuple[Float64, _Ints]:
    """What an alarm at each row is worth, (row,), and the row's window, (row,) with -1 outside and in probation."""
    position, owner = np.full(rows, 3.0), np.full(rows, -1)
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        inside = np.arange(first, last + 1)
        position[inside] = -(last - inside + 1) / width
        owner[inside] = number
        behind = np.arange(last + 1, windows[number + 1][0] if number + 1 < len(windows) else rows)
        position[behind] = (behind - last) / max(width - 1, 1)
    sigmoid = np.where(position >= 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 3))) - 1)
    most = 2 / (1 + math.exp(-5)) - 1
    value = np.where(owner >= 0, sigmoid * profile.found / most, sigmoid * profile.false_alarm)
    return value, owner


def _steps(one: Series, profile: Profile) -> tuple[Float64, Float64]:
    """By falling score: each scorable row's level, and what the total gains when the threshold falls to it."""
    value, owner = worth(len(one.scores), one.windows, profile)
    rows = np.arange(probation(len(one.scores)), len(one.scores))
    rows = rows[np.argsort(-one.scores[rows], kind="stable")]
    rows = rows[np.isfinite(one.scores[rows])]
    best: dict[int, float] = {}
    gains = np.empty(len(rows))
    for place, (number, gain) in enumerate(zip(owner[rows].tolist(), value[rows].tolist(), strict=True)):
        if number < 0:
            gains[place] = gain
        else:
            before = best.get(number, -profile.missed)
            best[number] = max(before, gain)
            gains[place] = best[number] - before
    return np.asarray(one.scores[rows], np.float64), gains


def _raw(one: Series, threshold: float, profile: Profile) -> float:
    level, gain = _steps(one, profile)
    return float(gain[level >= threshold].sum()) - profile.missed * _windows([one])


def _windows(series: Sequence[Series]) -> int:
    """How many windows reach beyond their file's probation."""
    return sum(last >= probation(len(one.scores)) for one in series for _, last in one.windows)


def _normalised(raw: float, windows: int, profile: Profile) -> float:
    if not windows:
        raise ValueError("no file has a labelled window that counts")
    nothing, perfect = -profile.missed * windows, profile.found * windows
    return 100 * (raw - nothing) / (perfect - nothing)
