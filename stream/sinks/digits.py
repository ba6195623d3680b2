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
#: All powers of ten by which digits are divided: at 2 * exponent, and behind it for numbers that were made ten times as
#: large. Infinite, which no digits but 0 survive, where a float64 does not hold it exactly.
_ALL_POWERS: Final = np.stack([_POWERS, _POWERS + 1], axis=1).ravel()
_DIVISORS: Final = np.where((_ALL_POWERS >= 0) & (_ALL_POWERS <= _EXACT_POWER), 10.0**_ALL_POWERS, np.inf)


def _words(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint32)


_SIGN_AND_THREE: Final = _words([f"{sign}{digits:03d}" for sign in "0-" for digits in range(1000)])
_FOUR: Final = _words([f"{digits:04d}" for digits in range(10_000)])
_TENS: Final = _words([f"e{-power:+03d}" for power in _ALL_POWERS.tolist()])


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
    columns = np.flatnonzero(size.max(axis=0, initial=0.0) < _LARGEST)
    if len(columns) < table.shape[1]:
        table, size = table.take(columns, axis=1), size.take(columns, axis=1)
    place = size.view(np.int64) >> 52
    scaled = _SCALES.take(place)
    scaled *= size
    short = scaled < 999_999.5
    np.multiply(scaled, 10.0, out=scaled, where=short)
    digits = np.rint(scaled, out=scaled).astype(np.int32)
    np.minimum(digits, 9_999_999, out=digits)
    place += place
    place += short
    high = digits // 10_000
    words = np.empty((*digits.shape, 3), dtype=np.uint32)
    words[..., 1] = _FOUR.take(digits - high * 10_000)
    np.add(high, 1000, out=high, where=np.signbit(table))
    words[..., 0] = _SIGN_AND_THREE.take(high)
    words[..., 2] = _TENS.take(place)
    text = words.view(f"V{_WIDTH}")[..., 0]
    asked = np.flatnonzero(exact[columns])
    # a reader rounds digits / 10**power as a division does
    same = digits.take(asked, axis=1) / _DIVISORS.take(place.take(asked, axis=1)) == size.take(asked, axis=1)
    kept = np.delete(np.arange(len(columns)), asked[~same.all(axis=0)])
    return Cells(text, columns) if len(kept) == len(columns) else Cells(text.take(kept, axis=1), columns[kept])


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
