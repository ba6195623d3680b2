"""Heat maps of pictures as alerts carry them: coarse, in bytes, with a box around the strangest place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.base import Scored
from stream.records import Bool, Float32, HeatMap, Int64
from stream.sources.json import timestamp

#: Columns and rows of a map in an alert, at most.
_MOST_CELLS: Final = 32
_HALF: Final = 0.5  # of the strangest cell: cells around it that reach so much are in the box


def heat_maps(
    scored: Scored, at_ms: Int64, shapes: Sequence[tuple[int, ...]], threshold: float
) -> list[HeatMap | None]:
    """One map for each picture whose score reaches ``threshold``; ``shapes``: (rows, columns) of the pictures."""
    if scored.heat is None:
        return []
    return [
        heat_map(heat, at, shape) if score >= threshold else None
        for heat, at, shape, score in zip(scored.heat, at_ms.tolist(), shapes, scored.score.tolist(), strict=True)
    ]


def heat_map(heat: Float32, at_ms: int, shape: tuple[int, ...]) -> HeatMap:
    """``heat`` (row, column), 0 or more, of a picture of ``shape`` (rows, columns) pixels."""
    step = max(-(-n // _MOST_CELLS) for n in heat.shape)
    padded = np.pad(heat, [(0, -n % step) for n in heat.shape])
    rows, columns = (n // step for n in padded.shape)
    coarse = padded.reshape(rows, step, columns, step).max(axis=(1, 3))
    highest = float(coarse.max())
    cells = np.zeros(coarse.shape, np.uint8) if highest <= 0 else np.round(255 * coarse / highest).astype(np.uint8)
    place = divmod(int(coarse.argmax()), columns)
    around = _around(coarse >= _HALF * highest, place)
    down, across = np.flatnonzero(around.any(axis=1)), np.flatnonzero(around.any(axis=0))
    height, width = shape[0] / heat.shape[0] * step, shape[1] / heat.shape[1] * step  # pixels of a cell
    box = (
        int(across[0] * width),
        int(down[0] * height),
        min(round((across[-1] + 1) * width), shape[1]),
        min(round((down[-1] + 1) * height), shape[0]),
    )
    at = timestamp(at_ms)
    return HeatMap(at=at, width=shape[1], height=shape[0], box=box, columns=columns, rows=rows, cells=cells.tobytes())


def _around(warm: Bool, start: tuple[int, int]) -> Bool:
    """(row, column): the warm cells that hang together with ``start``."""
    reached: Bool = np.zeros(warm.shape, dtype=bool)
    reached[start] = True
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= warm
        if (wider == reached).all():
            return reached
        reached = wider
