"""Text for many rows at once: numbers become text a whole table at a time, and columns of text are woven into rows.

A row of forty numbers takes 4 us so; a format string for each row, or a dict and its JSON, takes 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from stream.records import Bool, Float64

#: One text for each row, or the same for all.
Column = list[str] | str

_BINARY: Final = np.arange(2048)  # exponents of float64 as they are stored
#: What a number with that exponent is multiplied by to have seven digits before its point; limited, as a float64 is.
_SEVEN: Final = 10.0 ** np.clip(6 - np.floor((_BINARY - 1023) * np.log10(2.0)), -300, 300)


def seven_digits(table: Float64) -> Float64:
    """The nearest numbers of seven significant digits (a few have eight); what is not finite stays."""
    scale = _SEVEN[(np.ascontiguousarray(table).view(np.int64) >> 52) & 2047]
    with np.errstate(invalid="ignore", over="ignore"):
        rounded: Float64 = np.where(np.isfinite(table), np.rint(table * scale) / scale, table)
    return rounded


def numbers(table: Float64) -> list[list[str]]:
    """(row, column) float64 -> the texts of each column: the shortest that is read back the same, as JSON writes it.

    What is not finite is ``null``.
    """
    columns = table.shape[1]
    if not table.size:
        return [[] for _ in range(columns)]
    written = msgspec.json.encode(table.ravel().tolist()).decode()[1:-1].split(",")
    return [written[column::columns] for column in range(columns)]


def fields(keys: Sequence[str], values: Sequence[list[str]], present: Bool, *, separated: bool = True) -> list[Column]:
    """Columns of ``,key`` and value, for those (row, column) that are ``present``.

    ``keys`` include what stands between key and value. ``separated``: a comma before each; else before all but the
    first of a row.
    """
    columns: list[Column] = []
    everywhere, anywhere = np.all(present, axis=0).tolist(), np.any(present, axis=0).tolist()
    # Where the first column is in every row, it is the first of every row.
    starts = None if separated or not keys or everywhere[0] else present & (np.cumsum(present, axis=1) == 1)
    for at, (key, column) in enumerate(zip(keys, values, strict=True)):
        named = key if at == 0 and not separated else f",{key}"
        if everywhere[at] and starts is None:
            columns += [named, column]
        elif anywhere[at]:
            there = present[:, at]
            names = np.where(there, named if starts is None else np.where(starts[:, at], key, f",{key}"), "")
            columns.append(names.tolist())
            columns.append([value if shown else "" for value, shown in zip(column, there.tolist(), strict=True)])
    return columns


def either(yes: str, no: str, column: Bool) -> Column:
    """One of two texts for each row."""
    if column.all():
        return yes
    return [yes if on else no for on in column.tolist()] if column.any() else no


def texts(choices: Sequence[str], chosen: list[int]) -> Column:
    """One of some texts for each row, by its place among them."""
    if chosen and chosen.count(chosen[0]) == len(chosen):
        return choices[chosen[0]]
    return [choices[place] for place in chosen]


def weave(rows: int, columns: Sequence[Column]) -> str:
    """The columns beside each other, a line for each row. No column may have a line feed in it."""
    merged: list[Column] = []
    for column in (*columns, "\n"):
        if isinstance(column, str) and merged and isinstance(merged[-1], str):
            merged[-1] += column
        else:
            merged.append(column)
    pieces = [""] * (rows * len(merged))
    for at, column in enumerate(merged):
        pieces[at :: len(merged)] = [column] * rows if isinstance(column, str) else column
    return "".join(pieces)[:-1]
