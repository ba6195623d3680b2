"""Simulated inspection pictures: ground metal with streaks under uneven light, and three kinds of defects."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from models.base import NORMAL, Bool, Float32, UInt8
from models.pictures import Picture
from models.raster import smooth

DEFECTS: Final = ("hole", "crack", "stain")
_ROWS: Final = 128
_COLUMNS: Final = 160


def tile(rng: np.random.Generator, defect: str = NORMAL) -> Picture:
    """One picture, in order or with a defect of ``DEFECTS`` and its mask."""
    shape = (_ROWS, _COLUMNS)
    streaks = smooth(rng.normal(size=(1, _COLUMNS)).astype(np.float32), 1.0)
    grain = smooth(rng.normal(size=shape).astype(np.float32), 0.7)
    slope = np.linspace(-1, 1, _COLUMNS)[None] * rng.normal(0, 12) + np.linspace(-1, 1, _ROWS)[:, None] * rng.normal(
        0, 8
    )
    light = 120 + rng.normal(0, 12) + 14 * streaks + 5 * grain + slope
    light[:3] *= 0.6  # the chamfers
    light[-3:] *= 0.6
    depth = np.zeros(shape, np.float32) if defect == NORMAL else _depth(rng, defect)
    pixels = np.clip(light * np.exp(-depth), 0, 255).astype(np.uint8)
    return Picture(defect, pixels, defect, depth > 0.1)


def jpeg(pixels: UInt8) -> bytes:
    """(row, column) uint8 as a camera would send it."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=92)
    return sink.getvalue()


def _depth(rng: np.random.Generator, defect: str) -> Float32:
    """(row, column): how much darker the defect makes each place, as a logarithm."""
    down, across = np.arange(_ROWS, dtype=np.float32)[:, None], np.arange(_COLUMNS, dtype=np.float32)[None]
    row, column = rng.uniform(20, _ROWS - 20), rng.uniform(20, _COLUMNS - 20)
    if defect == "crack":
        sway = np.cumsum(rng.normal(0, 0.7, _ROWS)).astype(np.float32)[:, None]
        near = np.exp(-(((across - column - sway) / 1.2) ** 2))
        long: Bool = np.abs(down - row) < rng.uniform(25, 50)
        return np.asarray(0.9 * near * long, np.float32)
    far = np.sqrt((down - row) ** 2 + ((across - column) / rng.uniform(0.8, 1.6)) ** 2)
    if defect == "hole":
        return np.asarray(1.2 * np.clip(rng.uniform(3, 6) - far, 0, 1), np.float32)
    return np.asarray(0.45 * np.clip((rng.uniform(14, 22) - far) / 4, 0, 1), np.float32)
