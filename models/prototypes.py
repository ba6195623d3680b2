"""A memory of what each class looked like: a few prototypes of each, and how far from all of them is too far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float64
from models.errors import InvalidArtifact
from models.weights import checked

_ROUNDS: Final = 12  # of Lloyd's algorithm: by then prototypes hardly move
_LIMIT: Final = 0.995  # share of the held-back windows that count as known
_CLIP: Final = 1e3  # spreads: a distance beyond says no more
_FLOOR: Final = 0.05  # a smaller spread than this, scaled, is not believed
_CHUNK: Final = 64  # rows compared at once
_FURTHEST: Final = 4.0  # times as far along a ray as its prototype again
_TOLERANCE: Final = 0.5  # of how far out a window is: what is off the ray by less is no other fault


@dataclass(frozen=True, slots=True, eq=False)
class Prototypes:
    """Points in a space of ``axes`` dimensions.

    A fault that goes on goes further the same way, past where it was last seen. So a prototype of a fault stands for
    the whole ray from normal's middle through it and beyond, and the distance to it counts against how far out it is.

    points (prototype, axis) float64; classes (prototype,) int64, 0 is normal; spread (axis,) float64: how far a window
    usually is from its prototype; limits: the distances beyond which a window is none of them, and not normal.
    """

    points: Float64
    classes: npt.NDArray[np.int64]
    spread: Float64
    limits: tuple[float, float]

    @classmethod
    def fit(
        cls,
        rows: Float64,
        classes: npt.NDArray[np.int64],
        held_back: Float64,
        held_back_classes: npt.NDArray[np.int64],
        *,
        each: int,
        rng: np.random.Generator,
    ) -> Prototypes:
        """Learn ``each`` prototypes for every class from rows (row, axis), and the limits from ``held_back``."""
        overall = np.maximum(rows.std(axis=0), _FLOOR)
        points, owners, errors = [], [], []
        for number in np.unique(classes).tolist():
            mine = rows[classes == number]
            centres = _lloyd(mine / overall, min(each, len(mine)), rng) * overall
            points.append(centres)
            owners.append(np.full(len(centres), number))
            errors.append(mine - centres[_nearest(mine / overall, centres / overall)])
        spread = np.maximum(np.sqrt((np.concatenate(errors) ** 2).mean(axis=0)), _FLOOR)
        draft = cls(np.concatenate(points), np.concatenate(owners).astype(np.int64), spread, (1.0, 1.0))
        nearest, to_normal = draft.distances(held_back, np.ones(held_back.shape, bool))
        normal = np.sqrt(to_normal.mean(axis=1))[held_back_classes == 0]
        least = 1e-3
        limits = (
            max(float(np.quantile(nearest, _LIMIT)), least),
            max(float(np.quantile(normal, _LIMIT)), least) if len(normal) else 1.0,
        )
        return replace(draft, limits=limits)

    def distances(self, rows: Float64, shown: npt.NDArray[np.bool_]) -> tuple[Float64, Float64]:
        """How far rows (row, axis) are, axes that are not ``shown`` left out.

        Returns (row,) the distance to the nearest prototype, in usual ones (root mean square over the axes), and (row,
        axis) the squares of each axis to the nearest prototype of normal.
        """
        nearest, to_normal = np.empty(len(rows)), np.empty(rows.shape)
        normal = np.flatnonzero(self.classes == 0)
        middle = self.points[normal].mean(axis=0)
        rays = np.where((self.classes > 0)[:, None], self.points - middle, 0.0) / self.spread
        for start in range(0, len(rows), _CHUNK):
            part, seen = rows[start : start + _CHUNK], shown[start : start + _CHUNK, None]
            away = np.clip((part[:, None] - self.points) / self.spread, -_CLIP, _CLIP) * seen
            total = (away**2).sum(axis=2)
            chosen = normal[total[:, normal].argmin(axis=1)]
            to_normal[start : start + len(part)] = away[np.arange(len(part)), chosen] ** 2
            # how much further along the ray than its prototype the nearest point of it is, and what is left then
            beyond = np.maximum((away * rays).sum(axis=2), 0.0) / np.maximum((rays**2 * seen).sum(axis=2), 1.0)
            left = ((away - np.minimum(beyond, _FURTHEST)[:, :, None] * rays * seen) ** 2).sum(axis=2)
            out = (np.clip((part - middle) / self.spread, -_CLIP, _CLIP) ** 2 * seen[:, 0]).sum(axis=1)
            # an axis that is missing counts as usual: a mean over fewer would swing more
            count = rows.shape[1]
            usual = (left.min(axis=1) + (~seen[:, 0]).sum(axis=1)) / count
            nearest[start : start + len(part)] = np.sqrt(usual / (1.0 + (_TOLERANCE**2) * out / count))
        return nearest, to_normal

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays for the artifact."""
        return {
            "prototypes.points": self.points,
            "prototypes.classes": self.classes.astype(np.float64),
            "prototypes.spread": self.spread,
            "prototypes.limits": np.array(self.limits),
        }

    @classmethod
    def from_weights(cls, weights: Mapping[str, npt.NDArray[Any]], axes: int, classes: int) -> Prototypes:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        count = len(weights.get("prototypes.points", ()))
        points = checked(weights, "prototypes.points", (count, axes), np.float64)
        owners = checked(weights, "prototypes.classes", (count,), np.float64).astype(np.int64)
        spread = checked(weights, "prototypes.spread", (axes,), np.float64)
        limits = checked(weights, "prototypes.limits", (2,), np.float64)
        if not count or (spread <= 0).any() or (limits <= 0).any() or not (owners == 0).any():
            raise InvalidArtifact(
                "weights: array 'prototypes.classes' has no normal, or a spread or limit is not above 0"
            )
        if (owners < 0).any() or (owners >= classes).any():
            raise InvalidArtifact(f"weights: array 'prototypes.classes' names others than the {classes} classes")
        return cls(points, owners, spread, (float(limits[0]), float(limits[1])))


def _lloyd(rows: Float64, count: int, rng: np.random.Generator) -> Float64:
    """K-means, seeded far apart (Arthur and Vassilvitskii 2007): rows (row, axis) -> (count, axis)."""
    centres = rows[[rng.integers(len(rows))]]
    for _ in range(count - 1):
        away = ((rows - centres[_nearest(rows, centres)]) ** 2).sum(axis=1)
        total = float(away.sum())
        chance = away / total if total > 0 else None
        centres = np.concatenate([centres, rows[[rng.choice(len(rows), p=chance)]]])
    for _ in range(_ROUNDS):
        owner = _nearest(rows, centres)
        centres = np.stack(
            [rows[owner == n].mean(axis=0) if (owner == n).any() else centres[n] for n in range(len(centres))]
        )
    return centres


def _nearest(rows: Float64, centres: Float64) -> npt.NDArray[np.int64]:
    """(row,) the number of the nearest centre."""
    squares = (centres**2).sum(axis=1) - 2 * rows @ centres.T
    return np.asarray(squares.argmin(axis=1), np.int64)
