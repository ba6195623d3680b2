"""The layers of picture networks in plain numpy, and what a network reads of a picture; one picture at a time.

Arrays are (row, column, channel), kernels and padding ("same") as Keras has them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from models.base import Bool, Float32, UInt8

#: Sides of what a network reads are multiples of this: it halves them so often.
MULTIPLE: Final = 8
CHANNELS: Final = 6
#: Of these, the level and its details change with a picture's light; the rest is place.
LIGHT: Final = 4
#: Grey values: noise in the dark must not grow without bound in the logarithm.
DARK: Final = 8.0
_SMOOTHING: Final = 8.0  # cells
_STREAK: Final = 16.0  # cells along a streak
_EDGE: Final = 8.0  # cells: how far in from its edge a picture still looks like one


def reduced(pixels: UInt8) -> Float32:
    """(row, column) grey -> half as many of both: logarithms of means, so that lighting is a constant to add."""
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
    means = pixels[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean(axis=(1, 3), dtype=np.float32)
    logarithms: Float32 = np.log(means + np.float32(DARK))
    return logarithms


def reduced_mask(mask: Bool) -> Bool:
    """(row, column) -> half as many of both: where any of the four is."""
    rows, columns = mask.shape[0] // 2, mask.shape[1] // 2
    return np.asarray(mask[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).any(axis=(1, 3)), np.bool_)


def read(light: Float32) -> Float32:
    """(row, column) from ``reduced`` -> (row, column, channel): level, ``details_of`` it, how near the edges are."""
    rows, columns = light.shape
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]).astype(np.float32) for n in (rows, columns))
    down, across = np.exp(-down / _EDGE)[:, None], np.exp(-across / _EDGE)[None]
    edges = (np.broadcast_to(down, light.shape), np.broadcast_to(across, light.shape))
    level = (light - np.median(light))[..., None]
    return np.concatenate([level, details_of(light), np.stack(edges, axis=-1)], axis=-1).astype(np.float32)


def details_of(light: Float32) -> Float32:
    """What is left of a picture, or of a change to one, without its slow part: (row, column) -> (row, column, 3).

    Slow in all directions, then down the columns alone and along the rows alone: ground and rolled surfaces have
    streaks, and next to its own streak a stain stands out that is nothing beside the differences between streaks.
    """
    down, across = (_gaussian(n, _STREAK) for n in light.shape)
    slow = (smooth(light, _SMOOTHING), down @ light, light @ across.T)
    return np.asarray(3 * np.stack([light - part for part in slow], axis=-1), np.float32)


def padded(x: Float32) -> Float32:
    """(row, column, channel) -> the same, its last rows and columns repeated up to a multiple of ``MULTIPLE``."""
    rows, columns = x.shape[:2]
    return np.pad(x, ((0, -rows % MULTIPLE), (0, -columns % MULTIPLE), (0, 0)), mode="edge")


def smooth(x: Float32, cells: float) -> Float32:
    """(row, column) under a Gaussian of this standard deviation, edges repeated."""
    down, across = (_gaussian(n, cells) for n in x.shape)
    return np.asarray(down @ x @ across.T, np.float32)


@lru_cache(maxsize=256)
def _gaussian(length: int, cells: float) -> Float32:
    """(cell, cell): what each smoothed cell takes of each cell; a product with it is many times a loop over taps."""
    reach = max(1, int(np.ceil(3 * cells)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / cells) ** 2)
    taken = np.clip(np.arange(length)[:, None] + np.arange(-reach, reach + 1), 0, length - 1)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], taken), weights / weights.sum())
    matrix.flags.writeable = False
    return matrix.astype(np.float32)


def conv(x: Float32, kernel: Float32, bias: Float32, stride: int = 1) -> Float32:
    """Keras's Conv2D, padding "same": (row, column, in), kernel (tap, tap, in, out) -> (row, column, out)."""
    taps, inputs, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    held, sizes = _held(x, taps, stride)
    down, across, each = held.strides
    seen = as_strided(
        held,
        (*sizes, taps, taps * inputs),
        (stride * down, stride * across, down, each),
        writeable=False,
    )
    out = seen.reshape(sizes[0] * sizes[1], taps * taps * inputs) @ kernel.reshape(-1, outputs)
    out += bias
    shaped: Float32 = out.reshape(*sizes, outputs)
    return shaped


def depthwise(x: Float32, kernel: Float32, bias: Float32, stride: int = 1) -> Float32:
    """Keras's DepthwiseConv2D, padding "same": (row, column, channel), kernel (tap, tap, channel) -> likewise."""
    held, (rows, columns) = _held(x, len(kernel), stride)
    out = np.empty((rows, columns, x.shape[2]), np.float32)
    out[:] = bias
    part = np.empty_like(out)
    for down, across in np.ndindex(kernel.shape[:2]):
        seen = held[
            down : down + stride * (rows - 1) + 1 : stride, across : across + stride * (columns - 1) + 1 : stride
        ]
        out += np.multiply(seen, kernel[down, across], out=part)
    return out


def _held(x: Float32, taps: int, stride: int) -> tuple[Float32, tuple[int, int]]:
    """``x`` with the zeros around it that "same" asks for, and rows and columns of what comes out."""
    rows, columns = (-(-n // stride) for n in x.shape[:2])
    spare = [max((out - 1) * stride + taps - n, 0) for out, n in zip((rows, columns), x.shape[:2], strict=True)]
    return np.pad(x, [(n // 2, n - n // 2) for n in spare] + [(0, 0)]), (rows, columns)


def doubled(x: Float32) -> Float32:
    """Keras's UpSampling2D: each cell as two by two."""
    return x.repeat(2, axis=0).repeat(2, axis=1)
