"""What the pretrained backbone sees of a picture: features of patches of eight by eight pixels, at four depths.

A picture is read at its own size. Its light is taken out by its own mean and spread, and each depth is averaged over
three by three patches (Roth et al. 2022), so that a feature does not hang on where a cell's border happens to lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from models import backbone
from models.base import Float32, Float64, UInt8
from models.errors import InvalidArtifact
from models.weights import checked

#: Pixels of a side of a patch.
PATCH: Final = 8
#: Blocks of the backbone that are read: what they give is of 4, 8, 16 and 16 pixels.
LEVELS: Final = (2, 4, 7, 10)
CHANNELS: Final = tuple(backbone.BLOCKS[level].outputs for level in LEVELS)
#: Blocks that it takes to compute them.
BLOCKS: Final = LEVELS[-1] + 1
_LEAST_SPREAD: Final = 4.0  # grey values: noise in the dark must not fill the range
_CONTRAST: Final = 0.5  # of the network's range, for one spread
_MOST: Final = 1.5
_RIDGE: Final = 0.01  # of the mean variance, on each


def read(weights: Mapping[str, npt.NDArray[Any]], pixels: UInt8) -> tuple[Float32, ...]:
    """(row, column) grey -> of each level (row / 8, column / 8, channel), rounded up; ``weights``: the backbone's."""
    light = pixels.astype(np.float32)
    seen = (light - light.mean()) / (light.std() + np.float32(_LEAST_SPREAD)) * np.float32(_CONTRAST)
    seen = np.repeat(np.clip(seen, -_MOST, _MOST)[..., None], 3, axis=-1)
    shape = (-(-pixels.shape[0] // PATCH), -(-pixels.shape[1] // PATCH))
    found = backbone.forward(weights, seen, LEVELS)
    return tuple(_on_grid(found[level], shape) for level in LEVELS)


def enlarged(heat: Float32, shape: tuple[int, int]) -> Float32:
    """(row, column) -> ``shape``, up to twice as many of both, between neighbours a straight line."""
    for axis, wanted in enumerate(shape):
        places = np.clip((np.arange(wanted) + 0.5) / 2 - 0.5, 0, heat.shape[axis] - 1)
        low = places.astype(np.int64)
        share = (places - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        high = np.minimum(low + 1, heat.shape[axis] - 1)
        heat = heat.take(low, axis) * (1 - share) + heat.take(high, axis) * share
    return heat


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """What features of good patches usually are: ``mean`` (channel,), ``whitening`` (channel, channel), float32."""

    mean: Float32
    whitening: Float32

    @classmethod
    def of(cls, pictures: list[Float32]) -> Self:
        """Learn from all patches of pictures (row, column, channel)."""
        rows = [picture.reshape(-1, picture.shape[-1]).astype(np.float64) for picture in pictures]
        count = sum(map(len, rows))
        mean = sum(part.sum(axis=0) for part in rows) / count
        covariance = sum((part - mean).T @ (part - mean) for part in rows) / count
        covariance += np.eye(len(mean)) * (_RIDGE * np.trace(covariance) / len(mean) + 1e-9)
        whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        return cls(mean.astype(np.float32), whitening.astype(np.float32))

    def surprise(self, features: Float32) -> Float64:
        """(row, column, channel) -> (row, column): the logarithm of Mahalanobis' distance."""
        whitened = (features - self.mean).reshape(-1, len(self.mean)) @ self.whitening
        distances = np.sqrt(np.square(whitened, dtype=np.float64).sum(axis=1))
        return np.asarray(np.log(distances + 1e-3).reshape(features.shape[:2]), np.float64)

    def weights(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """As an artifact keeps it."""
        return {f"{name}.mean": self.mean, f"{name}.whitening": self.whitening}

    @classmethod
    def load(cls, weights: Mapping[str, npt.NDArray[Any]], name: str, channels: int) -> Self:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        return cls(
            checked(weights, f"{name}.mean", (channels,)),
            checked(weights, f"{name}.whitening", (channels, channels)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A network of one hidden layer over the features of a patch, all levels together.

    mean, spread (channel,): what features are scaled by; hidden (channel, unit), hidden_bias (unit,), out
    (unit, class), out_bias (class,); all float32.
    """

    mean: Float32
    spread: Float32
    hidden: Float32
    hidden_bias: Float32
    out: Float32
    out_bias: Float32

    def logits(self, features: Float32) -> Float64:
        """(row, column, channel) -> (row, column, class) over the first class, which is good: its own are left out."""
        rows = (features.reshape(-1, features.shape[-1]) - self.mean) / self.spread
        seen = np.maximum(rows @ self.hidden + self.hidden_bias, np.float32(0))
        given = (seen @ self.out + self.out_bias).astype(np.float64)
        return np.asarray((given[:, 1:] - given[:, :1]).reshape(*features.shape[:2], -1), np.float64)

    def weights(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """As an artifact keeps it."""
        return {f"{name}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, weights: Mapping[str, npt.NDArray[Any]], name: str, hidden: int, classes: int) -> Self:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        channels = sum(CHANNELS)
        shapes = (channels,), (channels,), (channels, hidden), (hidden,), (hidden, classes), (classes,)
        arrays = [checked(weights, f"{name}.{f.name}", shape) for f, shape in zip(fields(cls), shapes, strict=True)]
        if (arrays[1] <= 0).any():
            raise InvalidArtifact(f"weights: array '{name}.spread' must be above 0")
        return cls(*arrays)


def _on_grid(x: Float32, shape: tuple[int, int]) -> Float32:
    """Cells of another size to patches: finer ones averaged two by two, coarser ones repeated; each with those around.

    Sides are rounded up at each halving, so a grid has at most one row or column too many, which is cut.
    """
    if x.shape[0] > shape[0] or x.shape[1] > shape[1]:
        x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge")
        x = x.reshape(len(x) // 2, 2, -1, 2, x.shape[2]).mean(axis=(1, 3))
    x = _averaged(x)
    if x.shape[:2] != shape:
        x = x.repeat(2, axis=0).repeat(2, axis=1)
    return np.ascontiguousarray(x[: shape[0], : shape[1]])


def _averaged(x: Float32) -> Float32:
    rows, columns = x.shape[:2]
    held = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    held = held[:rows] + held[1:-1] + held[2:]
    return (held[:, :columns] + held[:, 1:-1] + held[:, 2:]) / np.float32(9)
