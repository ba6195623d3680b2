"""Arithmetic of rows with one number a column, as quick as that of rows with rows.

For ``rows * vector`` numpy goes through the array a row at a time, and a row of eight signals is over before its loop
has begun: 3.3 ns a row, of which 0.6 are arithmetic. Here the vector stands ``_ABREAST`` times behind itself, and as
many rows are taken as one long one: 1.1 ns. The numbers are the same to the last bit.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_ABREAST: Final = 32


class Columns:
    """One number for each column: (column,) of any float dtype, which must be the rows' own."""

    __slots__ = ("_abreast", "_vector")

    def __init__(self, vector: npt.NDArray[Any]) -> None:
        self._vector = np.ascontiguousarray(vector)
        self._abreast = np.tile(self._vector, _ABREAST)

    def __call__(self, ufunc: np.ufunc, rows: npt.NDArray[Any], out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``out`` = ufunc(rows, vector): (row, column) both, C-contiguous; ``out`` may be ``rows``. Returns ``out``."""
        full = len(rows) // _ABREAST * _ABREAST
        if full:
            wide = full // _ABREAST, -1
            ufunc(rows[:full].reshape(wide), self._abreast, out=out[:full].reshape(wide))
        if full < len(rows):
            ufunc(rows[full:], self._vector, out=out[full:])
        return out
