"""From evidence at every spot of a picture to its heat map and its score, against what is usual at that place.

What is usual at an edge is not usual in the middle: there are chamfers, shadows and half of what a network reads is
padding. So each spot's evidence counts against the mean at that distance from the edges on good pictures, and against
how far above it the highest spots of good pictures are. Shared by all inspectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64
from models.errors import InvalidArtifact
from models.weights import checked

#: Pixels of a side of a spot.
SPOT: Final = 4
_BINS: Final = 10  # spots from the edge; from there on all is middle
_HIGHEST: Final = 5  # spots that make the score
_LEAST_SPREAD: Final = 0.25  # of the highest evidence, in nats or in spreads at its place
_LEAST_SHARE: Final = 0.25  # of the spread of all evidence, for that of a place
_LEAST_UNIT: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """``mean``, ``spread`` (down, across) float64: what is usual for the highest evidence of a good picture, and how
    much that varies, at each distance from the edges in spots.
    """

    mean: Float64
    spread: Float64

    @classmethod
    def of(cls, maps: Sequence[Float64], *, by_place: bool = False) -> Self:
        """Learn from the evidence (row, column) of good pictures.

        The mean is taken place by place, over many spots; what the highest of a picture usually is above it, and how
        much that differs from picture to picture, over all places: a few dozen pictures say no more than that. With
        ``by_place`` evidence counts in spreads at its place, and down and across are not taken for alike.
        """
        total, squares, count = (np.zeros((_BINS, _BINS)) for _ in range(3))
        for evidence in maps:
            bins = _bins(evidence.shape)
            np.add.at(total, bins, evidence)
            np.add.at(squares, bins, evidence**2)
            np.add.at(count, bins, 1.0)
        overall = total.sum() / count.sum()
        mean = np.where(count > 0, total / np.maximum(count, 1.0), overall)
        unit = np.ones_like(mean)
        if by_place:
            usual = max(float(np.sqrt(squares.sum() / count.sum() - overall**2)), _LEAST_UNIT)
            variance = squares / np.maximum(count, 1.0) - mean**2
            unit = np.where(count > 1, np.sqrt(np.maximum(variance, (_LEAST_SHARE * usual) ** 2)), usual)
        else:
            mean = (mean + mean.T) / 2  # down and across alike: twice as many spots to learn from
        tops = [_top((evidence - mean[bins]) / unit[bins]) for evidence in maps if (bins := _bins(evidence.shape))]
        return cls(mean + unit * np.mean(tops), unit * max(float(np.std(tops)), _LEAST_SPREAD))

    def heat(self, evidence: Float64) -> Float32:
        """(row, column) -> the same: spreads above what is usual, above 0.

        Where evidence is below that, which is nearly everywhere, it still says how much: log(1 + e^spreads), which is
        as good as the spreads themselves where there is a defect.
        """
        bins = _bins(evidence.shape)
        return np.logaddexp(0.0, (evidence - self.mean[bins]) / self.spread[bins]).astype(np.float32)

    def weights(self, name: str = "usual") -> dict[str, npt.NDArray[Any]]:
        """As an artifact keeps it."""
        return {f"{name}.mean": self.mean, f"{name}.spread": self.spread}

    @classmethod
    def load(cls, weights: Mapping[str, npt.NDArray[Any]], name: str = "usual") -> Self:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        mean, spread = (checked(weights, f"{name}.{part}", (_BINS, _BINS), np.float64) for part in ("mean", "spread"))
        if (spread <= 0).any():
            raise InvalidArtifact(f"weights: array '{name}.spread' must be above 0")
        return cls(mean, spread)


def highest(heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """The spots that make a picture's score, as places in ``heat.ravel()``: their mean is the score."""
    return np.argpartition(heat.ravel(), -_HIGHEST)[-_HIGHEST:]


def _top(evidence: Float64) -> float:
    return float(evidence.ravel()[highest(evidence)].mean())


def _bins(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each spot's distance from the edges, down and across, (row, column) each."""
    down, across = (np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), _BINS - 1) for n in shape)
    return np.broadcast_to(down[:, None], shape), np.broadcast_to(across[None], shape)
