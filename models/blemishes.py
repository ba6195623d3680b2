"""Defects that nobody has seen, laid over good pictures: what an inspector of surfaces learns from.

With good pictures alone a network can still be taught to tell a defect from a surface: by defects that are made up
(CutPaste, Li et al. 2021; DRAEM, Zavrtanik et al. 2021). Five sorts, each in many sizes and contrasts: holes, cracks,
patches of another brightness and texture, pieces of another picture, and damage at the edge. They look like no real
defect in particular, and that is the point: what they have in common is not to be part of the surface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from models.base import Bool, Float32
from models.raster import smooth

#: A change of the logarithm of brightness below this is nothing that anyone could see.
VISIBLE: Final = 0.07

_Sort = Callable[[Float32, Float32, np.random.Generator], Float32]


def spoil(light: Float32, other: Float32, rng: np.random.Generator) -> tuple[Float32, Bool]:
    """Lay a defect over ``light`` (row, column); ``other`` is a piece of another picture, of the same shape.

    Returns the change (row, column) to add, and where it can be seen.
    """
    sort: _Sort = rng.choice(np.array([_holes, _crack, _patch, _piece, _edge]), p=[0.3, 0.15, 0.2, 0.2, 0.15])
    change = sort(light, other, rng).astype(np.float32)
    return change, np.abs(change) > VISIBLE


def _holes(light: Float32, other: Float32, rng: np.random.Generator) -> Float32:  # noqa: ARG001  # as all are called
    rows, columns = light.shape
    change = np.zeros_like(light)
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform(1.2, 6)
        far = _away(light.shape, rng.uniform(0, rows), rng.uniform(0, columns), size, size * rng.uniform(0.4, 1.2), rng)
        far += 0.25 * _clouds(light.shape, 2.5, rng)
        change -= np.clip((1.15 - far) / 0.35, 0, 1) * rng.uniform(0.25, 1.2) * (1 if rng.random() < 0.85 else -1)
        if rng.random() < 0.3:  # a bright rim
            change += np.clip(1 - np.abs(far - 1.4) / 0.3, 0, 1) * rng.uniform(0.1, 0.4)
    return change


def _crack(light: Float32, other: Float32, rng: np.random.Generator) -> Float32:  # noqa: ARG001  # as all are called
    steps = 2 * int(rng.uniform(15, 110))
    turns = rng.normal(0, 0.05, steps)
    heading = rng.uniform(0, 2 * np.pi) + 2 * np.cumsum(turns) + rng.normal(0, 0.25, steps)
    path = np.cumsum(0.5 * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    path += rng.uniform(0, 1, 2) * light.shape
    depth, width = np.zeros_like(light), rng.uniform(0.5, 1.3)
    for offset in np.ndindex(5, 5):
        cells = np.round(path).astype(int) + np.array(offset) - 2
        inside = ((cells >= 0) & (cells < light.shape)).all(axis=1)
        near = np.exp(-((cells - path) ** 2).sum(axis=1) / (2 * width**2)).astype(np.float32)
        np.maximum.at(depth, tuple(cells[inside].T), near[inside])
    return -depth * np.float32(rng.uniform(0.2, 0.7))


def _patch(light: Float32, other: Float32, rng: np.random.Generator) -> Float32:  # noqa: ARG001  # as all are called
    return _retouched(light, _region(light.shape, rng), rng)


def _edge(light: Float32, other: Float32, rng: np.random.Generator) -> Float32:  # noqa: ARG001  # as all are called
    rows, columns = light.shape
    centre = [(0, rng.uniform(0, columns)), (rows - 1, rng.uniform(0, columns)),
              (rng.uniform(0, rows), 0), (rng.uniform(0, rows), columns - 1)][rng.integers(4)]  # fmt: skip
    size = rng.uniform(5, 25)
    far = _away(light.shape, *centre, size, size * rng.uniform(0.3, 1.5), rng)
    far += 0.3 * _clouds(light.shape, max(3, size / 3), rng)
    return _retouched(light, _inside(far, rng), rng)


def _piece(light: Float32, other: Float32, rng: np.random.Generator) -> Float32:
    region = _region(light.shape, rng)
    chosen = region > 0.5
    if not chosen.any():
        return np.zeros_like(light)
    taken = other[::-1] if rng.random() < 0.5 else other
    taken = taken - np.median(taken[chosen]) + np.median(light[chosen]) + rng.normal(0, 0.12)
    change: Float32 = region * (taken - light)
    return change


def _retouched(light: Float32, region: Float32, rng: np.random.Generator) -> Float32:
    """Another brightness and texture where ``region`` is."""
    base = smooth(light, rng.uniform(1.5, 4)) if rng.random() < 0.6 else light
    size = rng.uniform(0.08, 0.25) if rng.random() < 0.5 else rng.uniform(0.1, 0.7)
    level = (1 if rng.random() < 0.4 else -1) * size * (1 + 0.3 * _clouds(light.shape, 8, rng))
    texture = _clouds(light.shape, rng.uniform(1, 4), rng) * rng.uniform(0, 0.2)
    change: Float32 = region * ((base - light) * rng.uniform(0.3, 1) + texture + level)
    return change


def _region(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """(row, column), 1 inside a blot or a block somewhere, 0 outside, with a more or less soft rim."""
    rows, columns = shape
    size, row, column = rng.uniform(6, 40), rng.uniform(0, rows), rng.uniform(0, columns)
    if rng.random() < 0.4:
        down, across = np.abs(np.arange(rows) - row)[:, None], np.abs(np.arange(columns) - column)[None]
        far = np.maximum(down / size, across / (size * rng.uniform(0.5, 3))).astype(np.float32)
        return _inside(far + 0.1 * _clouds(shape, max(3, size / 3), rng), rng)
    far = _away(shape, row, column, size, size * rng.uniform(0.3, 1.5), rng)
    return _inside(far + 0.3 * _clouds(shape, max(3, size / 3), rng), rng)


def _inside(far: Float32, rng: np.random.Generator) -> Float32:
    region: Float32 = np.clip((1 - far) / rng.uniform(0.03, 0.25), 0, 1)
    return region


def _away(
    shape: tuple[int, ...], row: float, column: float, height: float, width: float, rng: np.random.Generator
) -> Float32:
    """(row, column): the distance from an ellipse's middle, 1 on the ellipse; it lies at any angle."""
    angle = rng.uniform(0, np.pi)
    down, across = np.arange(shape[0], dtype=np.float32)[:, None] - row, np.arange(shape[1], dtype=np.float32) - column
    along, beside = down * np.cos(angle) + across * np.sin(angle), across * np.cos(angle) - down * np.sin(angle)
    distance: Float32 = np.sqrt((along / height) ** 2 + (beside / width) ** 2).astype(np.float32)
    return distance


def _clouds(shape: tuple[int, ...], cells: float, rng: np.random.Generator) -> Float32:
    """(row, column): smooth noise with a standard deviation of about a half, its lumps so many cells wide."""
    coarse = rng.normal(size=[int(n / cells) + 3 for n in shape]).astype(np.float32)
    for axis in (0, 1):
        at = np.linspace(0, coarse.shape[axis] - 2.001, shape[axis])
        low = at.astype(int)
        part = (at - low).astype(np.float32)
        part = np.expand_dims(part * part * (3 - 2 * part), 1 - axis)
        coarse = np.take(coarse, low, axis) * (1 - part) + np.take(coarse, low + 1, axis) * part
    return coarse
