"""Numbers as text of one width, made by numpy for a whole table: 13 ns each, where Python needs 90 at best.

    50.72117  ->  05072117e-05
    -3.1      ->  -3100000e-06

A sign or a zero, seven digits without a point, and the exponent: what every reader of line protocol takes for a float.
As the width is always the same, a row is the same bytes but for its digits, and a block of rows is filled in by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream.records import Bool, Float64

_WIDTH: Final = 12
_LARGEST: Final = 1e100  # two digits of exponent
_EXACT_POWER: Final = 22  # 10**22 is the last power of ten that a float64 holds exactly

_EXPONENTS: Final = np.arange(2048)  # of two, as float64 stores them
#: What makes any number with that exponent less than 10**7 and, times ten if need be, at least 10**6.
_POWERS: Final = np.clip(6 - np.floor((_EXPONENTS - 1022) * np.log10(2.0) + 1e-12), -99, 98).astype(np.int64)
_SCALES: Final = 10.0**_POWERS


def _words(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint32)


_SIGN_AND_THREE: Final = _words([f"{sign}{digits:03d}" for sign in "0-" for digits in range(1000)])
_FOUR: Final = _words([f"{digits:04d}" for digits in range(10_000)])
_TENS: Final = _words([f"e{-power - more:+03d}" for power in _POWERS.tolist() for more in (0, 1)])


@dataclass(frozen=True, slots=True)
class Cells:
    """A table as text.

    text     (row, column) of 12 bytes
    columns  (column,) int64, which columns of the table these are; the others cannot be written so
    """

    text: npt.NDArray[np.void]
    columns: npt.NDArray[np.int64]


def cells(table: Float64, exact: Bool) -> Cells:
    """The columns of ``table``, (row, column), that have only finite numbers below 1e100.

    Of those that are ``exact``, (column,), only where each number is read back the very same; of the others seven
    digits are enough. Numbers nearer to 0 than 1e-92 become 0.
    """
    size = np.abs(table)
    columns = np.flatnonzero((size < _LARGEST).all(axis=0))
    if len(columns) < table.shape[1]:
        size = size[:, columns]
    chosen = np.ascontiguousarray(table[:, columns])
    bits = chosen.view(np.int64) >> 52
    negative = bits < 0
    bits &= 2047
    scaled = size * _SCALES[bits]
    short = scaled < 999_999.5
    scaled *= np.where(short, 10.0, 1.0)
    digits = np.minimum(np.rint(scaled), 9_999_999.0).astype(np.int32)
    high = digits // 10_000
    words = np.empty((*chosen.shape, 3), dtype=np.uint32)
    words[..., 1] = _FOUR[digits - high * 10_000]
    high += 1000 * negative
    words[..., 0] = _SIGN_AND_THREE[high]
    words[..., 2] = _TENS[2 * bits + short]
    kept = np.ones(len(columns), dtype=bool)
    asked = np.flatnonzero(exact[columns])
    if len(asked):
        kept[asked] = _same(size[:, asked], digits[:, asked], _POWERS[bits[:, asked]] + short[:, asked])
    text = words.view(f"V{_WIDTH}")[..., 0]
    return Cells(text, columns) if kept.all() else Cells(text[:, kept], columns[kept])


def _same(size: Float64, digits: npt.NDArray[Any], power: npt.NDArray[Any]) -> Bool:
    """(column,): whether digits / 10**power, which a reader rounds as a division does, is the number in each row."""
    certain = (power >= 0) & (power <= _EXACT_POWER)
    same: Bool = ((digits / 10.0 ** np.clip(power, 0, _EXACT_POWER) == size) & (certain | (digits == 0))).all(axis=0)
    return same


def blocks(keys: Sequence[str], held: Cells) -> list[str]:
    """One text a row: each of ``keys``, one a column of ``held``, followed by its number."""
    row = b"".join(key.encode() + b" " * _WIDTH for key in keys)
    ends = np.cumsum([len(key.encode()) + _WIDTH for key in keys])
    names = [str(at) for at in range(len(keys))]
    layout = {
        "names": names,
        "formats": [f"V{_WIDTH}"] * len(keys),
        "offsets": (ends - _WIDTH).tolist(),
        "itemsize": len(row),
    }
    rows = np.full(len(held.text), np.frombuffer(row, dtype=f"V{len(row)}")[0])
    fields: Any = rows.view(np.dtype(layout))  # type: ignore[call-overload]
    for at, name in enumerate(names):
        fields[name] = held.text[:, at]
    text = rows.tobytes().decode()
    width = len(text) // len(rows) if len(rows) else 1
    return [text[at : at + width] for at in range(0, len(text), width)]
