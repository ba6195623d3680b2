"""Text for many rows at once: what is in a row, part by part, and how numpy and msgspec weave it into lines.

A row of forty numbers takes 4 us so; a format string for each row, or a dict and its JSON, takes 10. It is the measure
of ``stream.sinks.text``, which weaves the same parts in less, and what is used where that is not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from stream.records import Bool, Float64, Int64

#: One text for each row, or the same for all.
Column = list[str] | str


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One of ``texts`` for each row: ``codes``, (row,) of integers or bool, say which.

    A tuple of texts is remembered, as keys are: for those that come again.
    """

    texts: Sequence[str]
    codes: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """(row,) whole numbers."""

    values: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """(row,) epoch milliseconds, as RFC 3339 has them."""

    at_ms: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Columns of numbers, each behind its key.

    keys       one for each column, with what stands between it and the number
    table      (row, column); what is not finite is left out, with its key
    exact      read back as the very same; else with at least seven significant digits
    present    (row, column): what else is left out; None: nothing
    separated  a comma before each; else before all but the first of a row, which then follows an opening brace
    """

    keys: tuple[str, ...]
    table: Float64
    exact: bool
    present: Bool | None = None
    separated: bool = True


#: What is in each row: a text that is the same in all, or columns.
Part = str | Chosen | Whole | Times | Numbers

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


def texts(choices: Sequence[str], chosen: list[int]) -> Column:
    """One of some texts for each row, by its place among them."""
    if chosen and chosen.count(chosen[0]) == len(chosen):
        return choices[chosen[0]]
    return [choices[place] for place in chosen]


def weave(rows: int, parts: Sequence[Part]) -> bytes:
    """What ``stream.sinks.text.weave`` gives, where that is not built."""
    columns: list[Column] = []
    for part in parts:
        match part:
            case str():
                columns.append(part)
            case Chosen(choices, codes):
                columns.append(texts(choices, codes.tolist()))
            case Whole(values):
                columns.append(list(map(str, values.tolist())))
            case Times(at_ms):
                columns.append(iso(at_ms))
            case Numbers(keys, table, exact, present, separated):
                there = np.isfinite(table) if present is None else np.isfinite(table) & present
                columns += fields(keys, numbers(table if exact else seven_digits(table)), there, separated=separated)
    return beside(rows, columns).encode()


def beside(rows: int, columns: Sequence[Column]) -> str:
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


def iso(at_ms: Int64) -> list[str]:
    """Times as RFC 3339 has them, in UTC, with three decimals."""
    return cast("list[str]", np.datetime_as_string(at_ms.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist())
