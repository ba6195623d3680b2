"""Plain readings and frames, in JSON or packed, to columns: bytes in, arrays out, no objects (``native/readings.c``).

It takes what is beyond doubt and leaves all else to the payload formats in ``stream.sources``, which are the measure:
what is taken here is to the bit what they would have made of it. The arrays are all numpy's, so that nothing is freed
twice or too soon.
"""

from __future__ import annotations

import ctypes
import functools
import secrets
from collections.abc import Sequence
from enum import Flag
from typing import Final, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from models.compiled import NotBuilt, address, library
from stream.powers import powers
from stream.records import Float64, Int32, Int64, Numbered, Readings
from stream.sources.base import MAX_NAME, Bounds, Rows
from stream.times import UNITS

#: Zero bytes behind the last record: the compiled side looks up to 31 bytes ahead.
_PAD: Final = bytes(32)
#: Rows that a batch has room for at least, and names at first.
_ROWS: Final = 64
_NAMES: Final = 1024
#: So many names are remembered at most, then it begins anew: a producer that invents names must not fill the memory.
_MOST_NAMES: Final = 1 << 20
#: ``Name`` of readings.c.
_NAME: Final = np.dtype(
    [("hash", "u8"), ("begin", "i8"), ("length", "i4"), ("last_batch", "u4"), ("code", "i4"), ("unused", "i4")]
)
_Number = TypeVar("_Number", bound=np.generic)


class Kind(Flag):
    """A kind of record, as readings.c numbers them: one reading in JSON, a frame in JSON, a packed frame."""

    SINGLE = 1
    FRAME = 2
    PACKED = 4


_ALL: Final = Kind.SINGLE | Kind.FRAME | Kind.PACKED


class _Work(ctypes.Structure):
    """``Work`` of readings.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("signals", "signal_begins", "signal_lengths")),
        *((name, ctypes.c_int64) for name in ("width", "earliest_ms", "latest_ms", "unit_ms", "max_rows", "max_name")),
        ("kinds", ctypes.c_int64),
        ("powers", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("slots_mask", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("names", "arena")),
        *((name, ctypes.c_int64) for name in ("known", "names_room", "arena_used", "arena_room")),
        ("batch", ctypes.c_int64),
        ("present", ctypes.c_void_p),
        ("present_count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("at_ms", "values", "codes", "records")),
        *((name, ctypes.c_int64) for name in ("rows", "room")),
        ("left", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("left_count", "unknown")),
        ("column_seen", ctypes.c_void_p),
        ("stamp", ctypes.c_int64),
    )


class Found(NamedTuple):
    """What was plain in a batch.

    left     the places of records that were not taken
    unknown  how many values were of signals that were not asked for
    """

    readings: Readings
    left: list[int]
    unknown: int


class _Room(NamedTuple):
    """Where rows are written."""

    at_ms: Int64
    values: Float64
    codes: Int32
    records: Int32

    @classmethod
    def of(cls, room: int, width: int) -> Self:
        """Room for so many."""
        return cls(
            np.empty(room, np.int64), np.empty((room, width)), np.empty(room, np.int32), np.empty(room, np.int32)
        )

    def taken(self, count: int) -> Self:
        """The first ``count``; copies where they are few of many, which would be held for as long as these are."""
        copy = 2 * count < len(self.at_ms)
        return type(self)(
            _first(self.at_ms, count, copy),
            _first(self.values, count, copy),
            _first(self.codes, count, copy),
            _first(self.records, count, copy),
        )


def written_plainly(name: str) -> bool:
    """Whether JSON has a name as it is, between its quotation marks."""
    return bool(name) and '"' not in name and "\\" not in name and min(name) >= " "


def _first(array: npt.NDArray[_Number], count: int, copy: bool) -> npt.NDArray[_Number]:
    return array[:count].copy() if copy else array[:count]


class Reader:
    """Reads batches within bounds. One thread at a time. Raises ``NotBuilt``.

    kinds  of records that are taken

    Signals whose names have quotation marks, backslashes or control characters cannot be read here.
    """

    def __init__(self, bounds: Bounds, kinds: Kind = _ALL) -> None:
        self._call = _functions().headrace_readings
        if not all(map(written_plainly, bounds.signals)):
            raise NotBuilt("a signal's name is not written in JSON as it is")
        named = [signal.encode() for signal in bounds.signals]
        lengths = np.array([len(name) for name in named], dtype=np.int32)
        begins = np.cumsum(lengths + 8, dtype=np.int32) - lengths - 8
        text = np.frombuffer(b"".join([*(name + bytes(8) for name in named), bytes(8)]), np.uint8)
        self._signals = bounds.signals
        self._width = len(named)
        self._fixed = (text, begins, lengths, powers())
        self._seen = np.zeros(self._width, np.uint32)
        self._work = work = _Work(
            width=self._width,
            earliest_ms=bounds.earliest_ms,
            latest_ms=bounds.latest_ms,
            unit_ms=UNITS[bounds.unit],
            max_rows=bounds.max_rows,
            max_name=MAX_NAME,
            kinds=kinds.value,
            seed=secrets.randbits(64),
            column_seen=address(self._seen),
        )
        work.signals, work.signal_begins, work.signal_lengths, work.powers = map(address, self._fixed)
        self._rows = _ROWS
        self._forget()

    def read(self, values: Sequence[bytes]) -> Found:
        """Take what is plain among ``values``, one for each record of a batch."""
        work, count = self._work, len(values)
        joined = b"".join([*values, _PAD])
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, count))
        if work.known > _MOST_NAMES:
            self._forget()
        left = np.empty(count, np.int32)
        work.batch += 1
        work.rows = work.present_count = work.left_count = work.unknown = 0
        work.left = address(left)
        rows = self._begin(max(self._rows, count))
        done = 0
        while done < count:
            done = self._call(ctypes.byref(work), joined, address(ends), done, count)
            if done == count:
                break
            if work.known == work.names_room or self._arena_is_short(len(values[done])):
                self._widen()
            else:
                rows = self._grow(rows, len(values[done]))
        taken = work.rows
        self._rows = max(_ROWS, taken, self._rows // 2)  # what this batch took, the next one will
        present = self._present[: work.present_count].copy()
        self._learn()
        held = rows.taken(taken)
        readings = Readings(
            # of many, an array gives them in half the time of a list
            names=Numbered.of(self._names.take(present).tolist(), self._book, present),
            asset=held.codes,
            at_ms=held.at_ms,
            signals=self._signals,
            values=held.values,
            record=held.records,
        )
        return Found(readings, left[: work.left_count].tolist(), work.unknown)

    def _begin(self, room: int) -> _Room:
        rows, work = _Room.of(room, self._width), self._work
        work.at_ms, work.values, work.codes, work.records = map(address, rows)
        work.room = room
        return rows

    def _grow(self, rows: _Room, record_bytes: int) -> _Room:
        """Room for the record that had none: a time takes two bytes of it at least."""
        held = self._work.rows
        grown = self._begin(2 * len(rows.at_ms) + record_bytes // 2)
        grown.at_ms[:held], grown.values[:held] = rows.at_ms[:held], rows.values[:held]
        grown.codes[:held], grown.records[:held] = rows.codes[:held], rows.records[:held]
        return grown

    def _forget(self) -> None:
        """Begin anew with the names."""
        self._names = np.empty(_NAMES, object)
        self._learnt = 0
        self._book = object()
        self._known = np.zeros(_NAMES, _NAME)
        self._arena = np.zeros(_NAMES * 16, np.uint8)
        self._present = np.zeros(_NAMES, np.int32)
        self._work.known = self._work.arena_used = 0
        self._enter()

    def _arena_is_short(self, record_bytes: int) -> bool:
        return bool(self._work.arena_used + min(record_bytes, MAX_NAME) > len(self._arena))

    def _widen(self) -> None:
        """Room for twice as many names."""
        room = 2 * len(self._known)
        self._known, self._present = _longer(self._known, room), _longer(self._present, room)
        self._names = _longer(self._names, room)
        self._arena = _longer(self._arena, 2 * len(self._arena) + MAX_NAME)
        self._enter()

    def _enter(self) -> None:
        """A table of twice as many slots as there may be names, with those that are known in it."""
        work = self._work
        self._slots = np.zeros(2 * len(self._known), np.int32)
        work.slots, work.slots_mask = address(self._slots), len(self._slots) - 1
        work.names, work.arena, work.present = map(address, (self._known, self._arena, self._present))
        work.names_room, work.arena_room = len(self._known), len(self._arena)
        _functions().headrace_readings_names(ctypes.byref(work))

    def _learn(self) -> None:
        """Names that were seen for the first time, as texts."""
        known = self._work.known
        if known > self._learnt:
            new = self._known[self._learnt : known].tolist()
            texts = [self._arena[begin : begin + length].tobytes().decode() for _, begin, length, *_ in new]
            self._names[self._learnt : known] = texts
            self._learnt = known


class ReaderOfSource:
    """The reader of a payload format, made for the bounds of its first batch; see ``Reader``."""

    def __init__(self, kinds: Kind = _ALL) -> None:
        self._kinds = kinds
        self._bounds: Bounds | None = None
        self._reader: Reader | None = None

    def take(self, values: Sequence[bytes], rows: Rows) -> Sequence[int]:
        """Add what is plain among ``values`` to ``rows``, which are empty; the places of what is left."""
        if rows.bounds != self._bounds:
            self._bounds = rows.bounds
            try:
                self._reader = Reader(rows.bounds, self._kinds)
            except NotBuilt:  # the worker said so at its start
                self._reader = None
        if self._reader is None:
            return range(len(values))
        found = self._reader.read(values)
        if len(found.readings):
            rows.add_plain(found.readings, found.unknown)
        return found.left


def _longer(array: npt.NDArray[_Number], room: int) -> npt.NDArray[_Number]:
    longer = np.zeros(room, array.dtype)
    longer[: len(array)] = array
    return longer


@functools.cache
def _functions() -> ctypes.CDLL:
    found = library("stream._readings")
    work = ctypes.POINTER(_Work)
    found.headrace_readings.argtypes = (work, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    found.headrace_readings.restype = ctypes.c_int64
    found.headrace_readings_names.argtypes = (work,)
    found.headrace_readings_names.restype = None
    return found
