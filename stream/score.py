"""Windows to scores: the third stage. Nothing is remembered; a window scored twice gives the same number."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from models.base import Detector, Scored
from stream.records import Windows

T = TypeVar("T", bound=np.generic)

#: Windows laid out at once: bounds the memory of a burst, and is a multiple of the detectors' own batches.
CHUNK: Final = 2048


def score(detector: Detector, windows: Windows) -> Scored:
    """The detector's word on each window, in their order."""
    if len(windows) <= CHUNK:
        return detector.score(windows.take(0, len(windows)))
    parts = [detector.score(windows.take(start, start + CHUNK)) for start in range(0, len(windows), CHUNK)]
    return Scored(
        score=np.concatenate([part.score for part in parts]),
        contributions=np.concatenate([part.contributions for part in parts]),
        expected=_joined([part.expected for part in parts]),
        spread=_joined([part.spread for part in parts]),
        kind=_joined([part.kind for part in parts]),
    )


def _joined(parts: list[npt.NDArray[T] | None]) -> npt.NDArray[T] | None:
    held = [part for part in parts if part is not None]
    return np.concatenate(held) if held else None
