"""Windows to scores: the third stage.

``score`` remembers nothing; a window scored twice gives the same number. ``carry`` steps detectors that carry their
state, which is an argument.
"""

from __future__ import annotations

from itertools import pairwise
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


def carry(stepper: Stepper, state: Any, found: Runs, rows: Float32, due: Int64) -> Scored:
    """Step through a batch's rows (row, signal), scaled: the first of every asset together, then the second, ...

    Updates ``state``; returns what was said of the rows in ``due`` (row numbers, ascending).
    """
    state.grow(int(found.slots[-1]) + 1)
    order = np.argsort(found.nth, kind="stable")
    bounds = np.searchsorted(found.nth[order], np.arange(int(found.nth.max()) + 2))
    parts = []
    for start, stop in pairwise(bounds.tolist()):
        chosen = order[start:stop]
        slots = found.slots[chosen]
        anew = slots[found.since[chosen] == 1]
        if len(anew):
            state.reset(anew)
        parts.append(stepper.step(state, slots, rows[chosen]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return _all(parts, place[due])


def _all(parts: list[Scored], chosen: Int64 | slice = slice(None)) -> Scored:
    """Parts one after the other, and of these the chosen rows."""
    return Scored(
        score=np.concatenate([part.score for part in parts])[chosen],
        contributions=np.concatenate([part.contributions for part in parts])[chosen],
        expected=_joined([part.expected for part in parts], chosen),
        spread=_joined([part.spread for part in parts], chosen),
        kind=_joined([part.kind for part in parts], chosen),
    )


def _joined(parts: list[npt.NDArray[T] | None], chosen: Int64 | slice) -> npt.NDArray[T] | None:
    held = [part for part in parts if part is not None]
    return np.concatenate(held)[chosen] if held else None
