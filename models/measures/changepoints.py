"""SKAB's score of change points: NAB's idea with windows that begin at the change (Katser and Kozitsin 2020).

Each change has a window of ``window_s`` seconds from its moment on; of the alarms within, the first counts, by a tanh
that falls from 1 at the window's begin to the cost of a false alarm at its end. All alarms elsewhere are false. Follows
``chp_score(metric="nab", window_width="60s", anomaly_window_destination="righter")`` of the benchmark's ``metrics.py``,
its thousand steps included.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from models.base import Float64
from models.measures.nab import PROFILES, Profile

Times = npt.NDArray[np.int64]
WINDOW_S = 60.0
_STEPS = 1000


def changepoint_score(
    files: Iterable[tuple[Times, Times]], profile: Profile = PROFILES["standard"], window_s: float = WINDOW_S
) -> float:
    """The normalised score of several files: (times of the changes, times of the alarms), epoch ms, ascending."""
    raw, windows = 0.0, 0
    for changes, alarms in files:
        raw += _raw(changes, alarms, profile, window_s)
        windows += len(changes)
    if not windows:
        raise ValueError("no file has a change")
    nothing, perfect = -profile.missed * windows, profile.found * windows
    return 100 * (raw - nothing) / (perfect - nothing)


def _raw(changes: Times, alarms: Times, profile: Profile, window_s: float) -> float:
    total, inside = 0.0, np.zeros(len(alarms), bool)
    earliest = np.int64(-1)
    for change in changes:
        begin, end = max(change, earliest), change + round(window_s * 1000)
        earliest = end  # where windows meet, the later one is cut
        mine = (alarms >= begin) & (alarms <= end)
        inside |= mine
        if mine.any():
            first = alarms[mine][0]
            total += (
                _FALL[min(int((first - begin) / (end - begin) * _STEPS), _STEPS - 1)]
                * (profile.found + profile.false_alarm)
                - profile.false_alarm
            )
        else:
            total -= profile.missed
    return total - profile.false_alarm * int((~inside).sum())


def _fall() -> Float64:
    """What is left of a find's worth by its place in the window: from 1 to 0, most of it in the middle."""
    x = np.linspace(-np.pi / 2, np.pi / 2, _STEPS)
    return np.asarray(0.5 - 0.5 * np.tanh(x) / np.tanh(np.pi / 2), np.float64)


_FALL = _fall()
