"""Readings as JSON: one object a record, which is one reading, or a frame of many (``stream.sources.frame``).

    {"asset": "pump-17", "ts": "2026-11-23T08:00:00.250Z", "values": {"temperature": 71.2, "vibration": null}}

``ts`` is RFC 3339 text with an offset, or a number in the unit that the plan's ``input.time`` says. A missing value is
``null`` or left out. ``quality`` may call a signal ``good``, ``uncertain`` or ``bad``; a bad one counts as missing.
Other keys are ignored, so that producers can grow. A topic may mix readings, frames and packed frames.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from stream.columnar import ReaderOfSource, written_plainly
from stream.errors import DecodeError
from stream.records import Float64
from stream.sources import frame, packed
from stream.sources.base import Asset, Quality, Rows
from stream.times import EPOCH, UNITS, milliseconds, times


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading: version 1 of the record on ``plant.readings.v1``, key = ``asset``."""

    asset: Asset
    ts: datetime | int | float
    values: Annotated[dict[str, float | None], msgspec.Meta(min_length=1)]
    quality: dict[str, Quality] = {}


#: Fewer readings than this are parsed one by one: an array has its price.
_FEW: Final = 8
#: What is raised of a record that is no reading with the signals known by now.
_UNLIKE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)
#: Earlier than any bound.
_NO_TIME: Final = np.iinfo(np.int64).min
#: Signals that the quick way knows at most; readings with others are parsed one by one.
_MOST_SIGNALS: Final = 256


class Source:
    """Parses ``Reading``, ``Frame`` where ``ts`` is an array, and ``PackedFrame``.

    ``time`` is the unit of a number in ``ts``.

    Many records at once are read by ``stream.columnar``, as far as they are plain and its library was built. Of the
    others, readings are decoded into objects with a slot for each signal that was ever seen, which msgspec fills in
    half the time that it takes to make a dictionary, and which become an array without a loop.
    """

    def __init__(self, time: str = "ms") -> None:
        self._decode = msgspec.json.Decoder(Reading).decode
        self._frames = frame.Source(time)
        self._packed = packed.Source(time)
        self._unit_ms = UNITS[time]
        self._seen: dict[str, None] = {}
        self._layout: tuple[str, ...] = ()
        self._decode_flat: Callable[[bytes], Any] | None = None
        self._reader = ReaderOfSource()

    def parse_many(self, values: Sequence[bytes], rows: Rows) -> Sequence[int]:
        """Add what is plain to see in ``values``, one for each record of a batch; the places of what it left."""
        places = self._reader.take(values, rows)
        return self._parse_objects(values, places, rows) if places else ()

    def _parse_objects(self, values: Sequence[bytes], places: Sequence[int], rows: Rows) -> Sequence[int]:
        """The same of ``values`` at ``places``, by way of objects; the places of what it left."""
        if self._layout != tuple(self._seen):
            self._layout = tuple(self._seen)
            self._decode_flat = _flat(self._layout)
        decode = self._decode_flat
        if decode is None or len(places) < _FEW:
            return self._parse_frames(values, places, rows)
        flat: list[Any] = []
        others: list[int] = []
        try:
            flat = list(map(decode, map(values.__getitem__, places)))
        except _UNLIKE:  # not all are plain readings: find those that are
            for place in places:
                try:
                    flat.append(decode(values[place]))
                except _UNLIKE:
                    others.append(place)
        left = self._parse_frames(values, others, rows)
        if not flat:
            return left
        at_ms = times([reading.ts for reading in flat], self._unit_ms)
        if at_ms is None:
            at_ms = np.fromiter((self._time(reading.ts) for reading in flat), np.int64, len(flat))
        matrix = _matrix(flat, len(self._layout))
        bad = [
            (row, signal)
            for row, reading in enumerate(flat)
            if reading.quality
            for signal, quality in reading.quality.items()
            if quality == "bad" and signal in self._seen
        ]
        for row, signal in bad:
            matrix[row, self._layout.index(signal)] = np.nan
        records = np.array(places, dtype=np.int32)
        if others:
            records = np.setdiff1d(records, np.array(others, np.int32), assume_unique=True)
        added = rows.add_many(records, [reading.asset for reading in flat], at_ms, self._layout, matrix, bad)
        return left if added.all() else sorted([*left, *records[~added].tolist()])

    def _parse_frames(self, values: Sequence[bytes], places: Sequence[int], rows: Rows) -> list[int]:
        """Add the frames among ``values`` at ``places``; the places of what is no plain frame."""
        others = [place for place in places if not packed.is_packed(values[place])]
        left = self._frames.parse_some(values, others, rows)
        return sorted([*left, *(set(places) - set(others))]) if len(others) < len(places) else left

    def _time(self, ts: str | float) -> int:
        """Epoch milliseconds, or what is outside of all bounds if it is no time."""
        try:
            at_ms = milliseconds(msgspec.convert(ts, datetime | int | float), self._unit_ms)
            return at_ms if abs(at_ms) < -int(_NO_TIME) else int(_NO_TIME)
        except (DecodeError, msgspec.ValidationError, OverflowError):
            return int(_NO_TIME)

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the reading in ``value``, or those of the frame in it, to ``rows``. Raises ``DecodeError``."""
        if packed.is_packed(value):
            self._packed.parse(value, rows)
            return
        try:
            reading = self._decode(value)
        except msgspec.ValidationError as error:
            # A frame fails at its first array, so that this try costs it next to nothing, and a reading nothing at all.
            self._frames.parse(value, rows, otherwise=error)
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not_json", str(error)) from None
        at_ms = milliseconds(reading.ts, self._unit_ms)
        if len(self._seen) < _MOST_SIGNALS:
            self._seen.update((signal, None) for signal in reading.values if written_plainly(signal))
        if reading.quality:
            bad = {signal for signal, quality in reading.quality.items() if quality == "bad"}
            rows.add(reading.asset, at_ms, reading.values, bad)
        else:
            rows.add(reading.asset, at_ms, reading.values)


def _flat(signals: tuple[str, ...]) -> Callable[[bytes], Any] | None:
    """A decoder of readings that have no other signals than these, or None if there are too many."""
    if not 0 < len(signals) <= _MOST_SIGNALS:
        return None
    slots = {f"s{place}": signal for place, signal in enumerate(signals)}
    values = msgspec.defstruct(
        "Values",
        [(slot, float | None, math.nan) for slot in slots],
        rename=slots,
        forbid_unknown_fields=True,
        gc=False,
    )
    reading = msgspec.defstruct(
        "FlatReading",
        [
            ("asset", Asset),
            ("ts", str | int | float),
            ("values", values),
            ("quality", dict[str, Quality], {}),
        ],
        gc=False,
    )
    return msgspec.json.Decoder(reading).decode


def _matrix(flat: Sequence[Any], width: int) -> Float64:
    """The values of flat readings, (row, width) float64, NaN where there is none."""
    numbers = list(chain.from_iterable([msgspec.structs.astuple(reading.values) for reading in flat]))
    try:
        packed = struct.pack(f"{len(numbers)}d", *numbers)  # two to three times as fast as numpy with a list
    except struct.error:  # there is a null among them
        return np.array(numbers, dtype=np.float64).reshape(len(flat), width)
    return np.frombuffer(bytearray(packed), np.float64).reshape(len(flat), width)


def encode(
    asset: str, at_ms: int, values: Mapping[str, float | None], quality: Mapping[str, Quality] | None = None
) -> bytes:
    """A reading as bytes; floats come back to the last bit. NaN becomes null; ``quality`` of what is not good."""
    kept = {signal: None if value is None or value != value else value for signal, value in values.items()}
    reading: dict[str, Any] = {"asset": asset, "ts": timestamp(at_ms), "values": kept}
    if quality:
        reading["quality"] = quality
    return msgspec.json.encode(reading)


def timestamp(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC."""
    text = (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
