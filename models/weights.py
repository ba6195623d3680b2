"""Named arrays from an artifact, checked before a detector believes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import InvalidArtifact


def checked(
    weights: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], dtype: Any = np.float32
) -> npt.NDArray[Any]:
    """Return the named array if it is as it must be. Raises ``InvalidArtifact`` naming it if it is not."""
    if name not in weights:
        raise InvalidArtifact(f"weights: array {name!r} is missing")
    array = np.asarray(weights[name])
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise InvalidArtifact(
            f"weights: array {name!r} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidArtifact(f"weights: array {name!r} holds NaN or infinity")
    return array
