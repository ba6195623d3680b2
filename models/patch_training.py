"""How a head over patches learns: a small network on features that stay as they are, trained in numpy in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import patches, raster
from models.base import NORMAL, Bool, Float32, Float64, Int32, Progress, UInt8
from models.blemishes import spoil
from models.pictures import Picture

_CROP: Final = (40, 80)  # cells of two pixels: sides of the squares that get a made-up defect
_SPOILT: Final = 0.65  # share of these
_PLAIN: Final = 200  # patches of a good picture; of each made-up one half as many on defects, and as many beside them
_ON: Final = 0.25  # share of a patch that a defect covers, for the patch to show it
_SMALL: Final = 0.6  # of what the most covered patch shows, where no patch shows that much
_BATCH: Final = 256
_RATE: Final = 1e-3
_DECAY: Final = 4e-3  # of the weights' squares
_MOMENTS: Final = (0.9, 0.999)

_Rows = tuple[list[Float32], list[int]]


def spoilt(pixels: UInt8, others: Sequence[UInt8], rng: np.random.Generator) -> tuple[UInt8, Bool]:
    """A picture with made-up defects (``blemishes``) all over it, and where they are, in cells of two pixels."""
    light = raster.reduced(pixels)
    change, mask = np.zeros_like(light), np.zeros(light.shape, bool)
    side = min(int(rng.integers(*_CROP)), *light.shape)
    for row in range(0, light.shape[0] - side + 1, side):
        for column in range(0, light.shape[1] - side + 1, side):
            other = raster.reduced(others[int(rng.integers(len(others)))])
            if rng.random() >= _SPOILT or min(other.shape) < side:
                continue
            top, left = (int(rng.integers(n - side + 1)) for n in other.shape)
            here = slice(row, row + side), slice(column, column + side)
            piece = other[top : top + side, left : left + side] - np.median(other)
            change[here], mask[here] = spoil(light[here] - np.median(light), piece, rng)
    gain = raster.doubled(np.exp(change)[..., None])[..., 0]
    gain = np.pad(gain, [(0, n - m) for n, m in zip(pixels.shape, gain.shape, strict=True)], constant_values=1.0)
    shone = (pixels + np.float32(raster.DARK)) * gain - np.float32(raster.DARK)
    return np.clip(shone, 0, 255).astype(np.uint8), mask


def made_up_head(
    backbone: Mapping[str, npt.NDArray[Any]],
    good: Sequence[UInt8],
    features: Sequence[Float32],
    *,
    hidden: int,
    versions: int,
    epochs: int,
    rng: np.random.Generator,
    progress: Progress,
) -> patches.Head:
    """Good patches against made-up defects: what no good surface shows; ``features``: those of ``good``."""
    rows: _Rows = ([], [])
    for place, (pixels, plain) in enumerate(zip(good, features, strict=True)):
        _take(rows, plain.reshape(-1, plain.shape[-1]), 0, _PLAIN, rng)
        for _ in range(versions):
            changed, mask = spoilt(pixels, good, rng)
            seen = np.concatenate(patches.read(backbone, changed), axis=-1)
            covered = _covered(mask, seen.shape, patches.PATCH // 2)
            _take(rows, seen[covered >= _ON], 1, _PLAIN // 2, rng)
            _take(rows, seen[covered == 0], 0, _PLAIN // 2, rng)
        progress(place + 1, len(good), "made-up defects")
    return _trained(*rows, np.ones(2), hidden, epochs, rng)


def kinds_head(
    pictures: Sequence[Picture],
    features: Sequence[Float32],
    classes: Sequence[str],
    *,
    hidden: int,
    epochs: int,
    rng: np.random.Generator,
) -> patches.Head:
    """Patches of drawn defects by their kind, each kind as heavy as another, and those beside them."""
    rows: _Rows = ([], [])
    for picture, seen in zip(pictures, features, strict=True):
        kind = classes.index(picture.kind)
        mask = np.zeros(picture.pixels.shape, bool) if picture.mask is None or kind == 0 else picture.mask
        covered = _covered(mask, seen.shape, patches.PATCH)
        _take(rows, seen[covered == 0], 0, _PLAIN, rng)
        if kind:
            enough = min(_ON, _SMALL * float(covered.max()))
            _take(rows, seen[(covered >= enough) & (covered > 0)], kind, _PLAIN, rng)
    counts = np.bincount(rows[1], minlength=len(classes)).astype(np.float64)
    weights = 1.0 / np.maximum(counts, 1.0)
    weights[classes.index(NORMAL)] *= len(classes) / 2
    return _trained(*rows, weights / np.sum(weights * counts) * counts.sum(), hidden, epochs, rng)


def _take(rows: _Rows, features: Float32, label: int, most: int, rng: np.random.Generator) -> None:
    drawn = rng.permutation(len(features))[:most]
    rows[0].append(features[drawn])
    rows[1].extend([label] * len(drawn))


def _covered(mask: Bool, shape: tuple[int, ...], cells: int) -> Float64:
    """(row, column) of cells -> share of each patch that is covered, ``shape`` without its last axis."""
    held = np.pad(mask, [(0, patch * cells - n) for n, patch in zip(mask.shape, shape[:2], strict=True)])
    return np.asarray(held.reshape(shape[0], cells, shape[1], cells).mean(axis=(1, 3)), np.float64)


def _trained(
    features: Sequence[Float32],
    labels: Sequence[int],
    weights: Float64,
    hidden: int,
    epochs: int,
    rng: np.random.Generator,
) -> patches.Head:
    """Adam on the cross-entropy, each class with its weight, and a decay of the kernels."""
    rows, wanted = np.concatenate(features), np.asarray(labels, np.int32)
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + np.float32(1e-6)
    rows = (rows - mean) / spread
    sizes = (rows.shape[1], hidden), (hidden, len(weights))
    learnt = [rng.normal(0, np.sqrt(2 / sum(size)), size) for size in sizes]
    learnt += [np.zeros(size[1]) for size in sizes]
    moments = [[np.zeros_like(array) for array in learnt] for _ in _MOMENTS]
    shares = weights[wanted] / weights[wanted].mean()
    steps = 0
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            steps += 1
            _step(learnt, moments, _slopes(learnt, rows[part], wanted[part], shares[part]), steps)
    kernels = [array.astype(np.float32) for array in learnt]
    return patches.Head(mean, spread, kernels[0], kernels[2], kernels[1], kernels[3])


def _slopes(learnt: list[Float64], x: Float32, wanted: Int32, shares: Float64) -> list[Float64]:
    first, second, bias, last = learnt
    seen = np.maximum(x @ first + bias, 0.0)
    logits = seen @ second + last
    errors = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors /= errors.sum(axis=1, keepdims=True)
    errors[np.arange(len(x)), wanted] -= 1.0
    errors *= shares[:, None] / len(x)
    back = (errors @ second.T) * (seen > 0)
    return [x.T @ back + _DECAY * first, seen.T @ errors + _DECAY * second, back.sum(axis=0), errors.sum(axis=0)]


def _step(learnt: list[Float64], moments: list[list[Float64]], slopes: list[Float64], step: int) -> None:
    """Adam (Kingma and Ba 2015), in place."""
    for array, mean, square, slope in zip(learnt, *moments, slopes, strict=True):
        np.add(mean, (1 - _MOMENTS[0]) * (slope - mean), out=mean)
        np.add(square, (1 - _MOMENTS[1]) * (slope**2 - square), out=square)
        size = np.sqrt(square / (1 - _MOMENTS[1] ** step)) + 1e-8
        np.subtract(array, _RATE * mean / (1 - _MOMENTS[0] ** step) / size, out=array)
