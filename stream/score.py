"""Windows to scores: the third stage.

``score`` remembers nothing; a window scored twice gives the same number. ``carry`` steps detectors that carry their
state, which is an argument.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from models.base import Detector, Scored, Stepper
from stream.records import Float32, Int64, Runs, Windows

T = TypeVar("T", bound=np.generic)

#: Windows laid out at once: bounds the memory of a burst, and is a multiple of the detectors' own batches.
CHUNK: Final = 2048


def score(detector: Detector, windows: Windows) -> Scored:
    """The detector's word on each window, in their order."""
    if len(windows) <= CHUNK:
        return detector.score(windows.take(0, len(windows)))
    return _all([detector.score(windows.take(start, start + CHUNK)) for start in range(0, len(windows), CHUNK)])


def carry(stepper: Stepper, state: Any, found: Runs, rows: Float32, at_ms: Int64, due: Int64) -> Scored:
    """Step through a batch's rows (row, signal), scaled, measured at ``at_ms`` (row,).

    Updates ``state``; returns what was said of the rows in ``due`` (row numbers, ascending).
    """
    state.grow(int(found.slots[-1]) + 1)
    anew = found.since == 1
    fresh = found.starts[anew[found.starts]]
    state.reset(found.slots[fresh])
    if np.count_nonzero(anew) == len(fresh):
        said = stepper.run(state, found.slots[found.starts], found.ends - found.starts, rows, at_ms)
        return said if len(due) == len(rows) else _all([said], due)
    # Some assets begin anew within the batch: their rows up to there first, then those up to the next beginning, ...
    begins = anew.copy()
    begins[found.starts] = True
    starts = np.flatnonzero(begins)
    counts = np.diff(starts, append=len(rows))
    turn = np.arange(len(starts)) - np.searchsorted(starts, found.starts)[found.group[starts]]
    parts, places = [], []
    for number in range(int(turn.max()) + 1):
        chosen = turn == number
        place = np.flatnonzero(np.repeat(chosen, counts))
        slots = found.slots[starts[chosen]]
        if number:
            state.reset(slots)
        parts.append(stepper.run(state, slots, counts[chosen], rows[place], at_ms[place]))
        places.append(place)
    back = np.empty(len(rows), dtype=np.int64)
    back[np.concatenate(places)] = np.arange(len(rows))
    return _all(parts, back[due])


def _all(parts: list[Scored], chosen: Int64 | slice = slice(None)) -> Scored:
    """Parts one after the other, and of these the chosen rows."""
    return Scored(
        score=np.concatenate([part.score for part in parts])[chosen],
        contributions=np.concatenate([part.contributions for part in parts])[chosen],
        expected=_joined([part.expected for part in parts], chosen),
        spread=_joined([part.spread for part in parts], chosen),
        kind=_joined([part.kind for part in parts], chosen),
        classes=_joined([part.classes for part in parts], chosen),
    )


def _joined(parts: list[npt.NDArray[T] | None], chosen: Int64 | slice) -> npt.NDArray[T] | None:
    held = [part for part in parts if part is not None]
    return np.concatenate(held)[chosen] if held else None
