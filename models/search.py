"""Where ``headrace tune`` looks: what of a detector's config it may turn, declared beside the config as ``SEARCH``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from models import registry
from models.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from ``low`` to ``high``, both included, in steps; ``log``: evenly spread by their logarithm."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers from ``low`` to ``high``; ``log`` as in ``Whole``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these values, without an order."""

    values: tuple[bool | int | float | str, ...]


Space = Mapping[str, Whole | Real | OneOf]


def space_of(detector: str) -> Space:
    """Where to look for a detector. Raises ``UnknownDetector``, ``TrainingError`` where nothing is to be turned."""
    module = inspect.getmodule(registry.detector_class(detector))
    space: Space | None = getattr(module, "SEARCH", None)
    if not space:
        raise TrainingError(f"{detector} declares nothing that could be tuned (`SEARCH` beside its `Config`)")
    return space
