"""Rows of text from arrays, by the compiled ``native/text.c``: numbers become text where they stand in their row.

A float64 is written in fifteen digits, or in sixteen or seventeen where it takes them to be read back the very same, or
in seven: ``71.25``, ``0.0031``, ``7.12e-31``, which JSON and line protocol both take. ``stream.sinks.columns`` has what
rows are made of, and weaves them where this is not built.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.compiled import NotBuilt, address, library
from stream.powers import powers
from stream.records import Int64
from stream.sinks import columns
from stream.sinks.columns import Chosen, Numbers, Part, Times, Whole, iso

_CONSTANT, _CHOICE, _WHOLE, _TIME, _EXACT, _SEVEN = range(6)
_ALWAYS, _UNLESS_FIRST = 1, 2
#: The fields of a ``Column`` of text.c.
_KIND, _KEY, _KEY_LENGTH, _COMMA, _DATA, _STRIDE, _PRESENT, _PRESENT_STRIDE, _TEXTS, _ENDS, _CHOICES = range(11)
_NO_KEY: Final = ("",)
#: So many bytes are copied at a time, and may be read or written behind the last.
_BLOCK: Final = 32
#: No number and no time is longer.
_LONGEST: Final = 32
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999


def weave(rows: int, parts: Sequence[Part]) -> bytes:
    """The parts beside each other, a line for each row. No text may have a line feed in it.

    Raises ``ValueError`` where a part has other rows, or a number of keys that is not that of its columns.
    """
    call = _function()
    if call is None:
        return columns.weave(rows, parts)
    laid = _Layout(rows)
    for part in parts:
        laid.add(part)
    table = np.concatenate([np.empty((0, _CHOICES + 1), np.int64), *laid.columns])
    out = np.empty(rows * laid.longest + _BLOCK, np.uint8)
    size = call(address(table), len(table), rows, address(powers()), address(out))
    if size < 0:
        raise ValueError("a code stands for no text")
    return out[:size].tobytes()


class _Layout:
    """What the compiled side is told of each column, and the arrays that it reads, which must live until it has."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._alive: list[Any] = []
        self.columns: list[Int64] = []
        self.longest = 1  # bytes of a row, with its line feed

    def add(self, part: Part) -> None:
        """Lay out one part, behind those before it."""
        match part:
            case str():
                self._keyed(_CONSTANT, (part,))
            case Chosen(texts, codes):
                self._chosen(texts, codes)
            case Whole(values):
                self._one(_WHOLE, values)
            case Times(at_ms):
                if len(at_ms) and not 0 <= at_ms.min() <= at_ms.max() <= _LAST_MS:
                    self._chosen(iso(at_ms), np.arange(len(at_ms)))
                else:
                    self._one(_TIME, at_ms)
            case Numbers(keys, table, exact, present, separated):
                column = self._keyed(_EXACT if exact else _SEVEN, keys)
                self._read(column, _DATA, table, np.float64)
                if present is not None:
                    self._read(column, _PRESENT, present, np.bool_)
                column[:, _COMMA] = _ALWAYS if separated else _UNLESS_FIRST
                self.longest += len(keys) * (_LONGEST + 1)

    def _keyed(self, kind: int, keys: tuple[str, ...]) -> Int64:
        held = _remembered(keys)
        column = np.zeros((len(keys), _CHOICES + 1), np.int64)
        column[:, _KIND] = kind
        column[:, _KEY] = held.begins
        column[:, _KEY_LENGTH] = held.lengths
        self._alive.append(held)
        self.columns.append(column)
        self.longest += held.size
        return column

    def _one(self, kind: int, values: Int64) -> None:
        self._read(self._keyed(kind, _NO_KEY), _DATA, values[:, None], np.int64)
        self.longest += _LONGEST

    def _chosen(self, texts: Sequence[str], codes: npt.NDArray[Any]) -> None:
        held = _remembered(texts) if isinstance(texts, tuple) else _Encoded(texts)
        column = self._keyed(_CHOICE, _NO_KEY)
        self._read(column, _DATA, codes.astype(np.int32)[:, None], np.int32)
        column[0, _TEXTS], column[0, _ENDS], column[0, _CHOICES] = held.address, held.ends_address, len(texts)
        self._alive.append(held)
        self.longest += held.longest

    def _read(self, column: Int64, field: int, table: npt.NDArray[Any], kind: type[np.generic]) -> None:
        """Where the numbers of some columns lie, and how far it is from row to row."""
        if table.shape != (self._rows, len(column)) or table.dtype != kind:
            raise ValueError(f"{table.dtype} {table.shape}, where {self._rows} rows of {len(column)} are asked for")
        column[:, field] = address(table) + np.arange(len(column)) * table.strides[1]
        column[:, field + 1] = table.strides[0]
        self._alive.append(table)


class _Encoded:
    """Texts end to end, as the compiled side reads them: where all and each of them begin, and how long they are."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._text = np.frombuffer(b"".join([*encoded, bytes(_BLOCK)]), np.uint8)
        self._ends = np.cumsum(self.lengths)
        self.address, self.ends_address = address(self._text), address(self._ends)
        self.begins = self.address + self._ends - self.lengths
        self.size = int(self.lengths.sum())
        self.longest = int(self.lengths.max(initial=0))


#: For keys, and for choices that are a tuple, which are the same again and again.
_remembered = functools.lru_cache(maxsize=1024)(_Encoded)


@functools.cache
def _function() -> ctypes._NamedFuncPointer | None:
    try:
        found = library("stream._text").headrace_text
    except NotBuilt:
        return None
    found.restype = ctypes.c_int64
    found.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    return found
