"""Named arrays from an artifact, checked before a detector believes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import InvalidArtifact


class Part(Mapping[str, npt.NDArray[Any]]):
    """The arrays of one part of a whole, under the part's own names; errors name the whole's."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], prefix: str) -> None:
        self.prefix = prefix
        self._weights = {key.removeprefix(prefix): array for key, array in weights.items() if key.startswith(prefix)}

    def __getitem__(self, key: str) -> npt.NDArray[Any]:
        return self._weights[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def checked(
    weights: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], dtype: Any = np.float32
) -> npt.NDArray[Any]:
    """Return the named array if it is as it must be. Raises ``InvalidArtifact`` naming it if it is not."""
    shown = weights.prefix + name if isinstance(weights, Part) else name
    if name not in weights:
        raise InvalidArtifact(f"weights: array {shown!r} is missing")
    array = np.asarray(weights[name])
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise InvalidArtifact(
            f"weights: array {shown!r} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidArtifact(f"weights: array {shown!r} holds NaN or infinity")
    return array
