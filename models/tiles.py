"""Products through BLAS in tiles of one shape, so that a row's bits do not depend on its company or place.

Rows become columns: a tile is (number, column), and ``LANES`` of its columns hold a row each.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32
from models.network import EDGE

LANES: Final = 32  # rows that one call of BLAS takes
_VECTOR: Final = 8  # numbers that a core works on at once, at least


def lay(rows: Float32, tiles: Float32) -> None:
    """(row, number) into (tile, number, column): a row becomes a column, between the edges if the tiles have some."""
    full, rest = divmod(len(rows), LANES)
    edge = (tiles.shape[2] - LANES) // 2
    if full:
        tiles[:full, :, edge : edge + LANES] = rows[: full * LANES].reshape(full, LANES, -1).transpose(0, 2, 1)
    if rest:
        tiles[full, :, edge : edge + rest] = rows[full * LANES :].T


def unlay(tiles: Float32, rows: Float32) -> None:
    """The reverse of ``lay``."""
    full, rest = divmod(len(rows), LANES)
    edge = (tiles.shape[2] - LANES) // 2
    if full:
        rows[: full * LANES].reshape(full, LANES, -1)[:] = tiles[:full, :, edge : edge + LANES].transpose(0, 2, 1)
    if rest:
        rows[full * LANES :] = tiles[full, :, edge : edge + rest].T


def drawn(tiles: Float32, rows: npt.NDArray[np.integer[Any]]) -> Float32:
    """Some of the rows that ``lay`` has put into tiles: (row, number)."""
    edge = (tiles.shape[2] - LANES) // 2
    return np.asarray(tiles[rows // LANES, :, edge + rows % LANES])


def filled(count: int) -> slice:
    """The columns of tiles of which only the first ``count`` rows count: without edges, and of a lone tile few."""
    width = LANES if count > LANES else -(-count // _VECTOR) * _VECTOR
    return slice(_EDGE, _EDGE + width)


def product(weights: Float32, rows: Float32) -> Float32:
    """(out, in) times each of (row, in): (row, out), a row's bits the same in any company and place."""
    if len(weights) == 1:  # BLAS has other kernels for a single row, which mind a column's place
        return product(np.repeat(weights, 2, axis=0), rows)[:, :1]
    tiles = np.empty((-(-len(rows) // LANES), rows.shape[1], TILE), np.float32)
    if _EDGE or len(rows) % LANES:
        tiles[:] = 0
    lay(rows, tiles)
    out = np.empty((len(rows), len(weights)), np.float32)
    unlay(np.matmul(weights, tiles), out)
    return out


def _edge() -> int:
    """Columns at each side of a tile that must hold no asset.

    OpenBLAS's kernels for CPUs with AVX2 alone add the outer columns of a product in another order than those between
    (``models.network``); others do not. Which is the case depends on shapes alone, so it is tried once, on those of
    some networks, with a block whose columns are turned.
    """
    random = np.random.default_rng(0)
    for out, wide in ((136, 41), (264, 73), (8, 8), (100, 33), (50, 129)):
        weights, block = (random.normal(size=shape).astype(np.float32) for shape in ((out, wide), (wide, LANES)))
        straight = np.matmul(weights, block[None])[0]
        for turn in range(1, LANES, 5):
            turned = np.matmul(weights, np.ascontiguousarray(np.roll(block, turn, axis=1))[None])[0]
            if not np.array_equal(np.roll(straight, turn, axis=1), turned):
                return EDGE
    return 0


_EDGE: Final = _edge()
TILE: Final = LANES + 2 * _EDGE
