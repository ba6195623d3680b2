"""Frames: many readings of one asset in one record, as columns of JSON; for gateways that batch.

    {"asset": "pump-17",
     "ts": ["2026-11-23T08:00:00Z", "2026-11-23T08:00:01Z", "2026-11-23T08:00:02Z"],
     "values": {"temperature": [71.2, 71.3, null], "vibration": [0.31, 0.30, 0.33]},
     "quality": {"vibration": ["good", "good", "bad"]}}

A frame is its readings, sent together: row ``i`` is the reading with ``ts[i]`` and the i-th value of every signal, and
means what it would mean alone. All arrays are of one length. A time is text or a number as in a single reading; a
missing value is ``null``; a value whose quality is ``bad`` counts as missing. Other keys are ignored. A frame is taken
whole or not at all: one impossible time refuses all of it. Rows should be in the order of time: as with single
readings, what is older than the asset's newest is late.

A topic in the format ``json`` takes readings and frames alike; in the format ``frame``, frames alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Literal

import msgspec
import numpy as np

from stream.columnar import Kind, ReaderOfSource
from stream.errors import DecodeError
from stream.records import Float64, Int64
from stream.sources.base import Asset, Quality, Rows
from stream.times import UNITS, milliseconds, times


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Many readings of one asset: version 1 of the frame on ``plant.readings.v1``, key = ``asset``.

    ``ts`` and every array in ``values`` and ``quality`` have the same length.
    """

    asset: Asset
    ts: Annotated[list[datetime | int | float], msgspec.Meta(min_length=1)]
    values: Annotated[dict[str, list[float | None]], msgspec.Meta(min_length=1)]
    quality: dict[str, list[Quality]] = {}


class _FlatFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame with its times as they are written: what they mean is found out for all of them at once."""

    asset: Asset
    ts: Annotated[list[str | int | float], msgspec.Meta(min_length=1)]
    values: Annotated[dict[str, list[float | None]], msgspec.Meta(min_length=1)]
    quality: dict[str, list[Quality]] = {}


class _Shape(msgspec.Struct):
    """As much of a record as tells what it was meant to be."""

    ts: msgspec.Raw = msgspec.Raw(b"")


class Source:
    """Parses ``Frame``. ``time`` is the unit of a number in ``ts``: ``s`` or ``ms``."""

    def __init__(self, time: str = "ms") -> None:
        self._decode = msgspec.json.Decoder(Frame).decode
        self._decode_flat = msgspec.json.Decoder(_FlatFrame).decode
        self._shape = msgspec.json.Decoder(_Shape).decode
        self._unit_ms = UNITS[time]
        self._reader = ReaderOfSource(Kind.FRAME)

    def parse_many(self, values: Sequence[bytes], rows: Rows) -> Sequence[int]:
        """Add what is plain to see in ``values``, one for each record of a batch; the places of what it left."""
        places = self._reader.take(values, rows)
        return self.parse_some(values, places, rows) if places else ()

    def parse_some(self, values: Sequence[bytes], places: Sequence[int], rows: Rows) -> list[int]:
        """The same for some of them. The times of all frames become an array at once."""
        flat: list[tuple[int, _FlatFrame]] = []
        left: list[int] = []
        for place in places:
            try:
                flat.append((place, self._decode_flat(values[place])))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                left.append(place)
        at_ms = times(list(chain.from_iterable(frame.ts for _, frame in flat)), self._unit_ms) if flat else None
        if at_ms is None:  # in other forms: one by one
            return sorted([*left, *(place for place, _ in flat)])
        start = 0
        for place, frame in flat:
            stop = start + len(frame.ts)
            rows.record = place
            try:
                rows.add_block(frame.asset, at_ms[start:stop], tuple(frame.values), *_columns(frame))
            except DecodeError:
                left.append(place)
            start = stop
        return sorted(left)

    def parse(self, value: bytes, rows: Rows, otherwise: msgspec.ValidationError | None = None) -> None:
        """Add the readings of the frame in ``value`` to ``rows``, or none. Raises ``DecodeError``.

        otherwise  what is wrong with ``value`` if it was not meant to be a frame
        """
        try:
            frame = self._decode(value)
        except msgspec.ValidationError as error:
            raise DecodeError("wrong_type", str(error if self._is_frame(value) else otherwise or error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not_json", str(error)) from None
        rows.add_block(frame.asset, self._times(frame.ts), tuple(frame.values), *_columns(frame))

    def _is_frame(self, value: bytes) -> bool:
        try:
            return bytes(self._shape(value).ts).startswith(b"[")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _times(self, ts: Sequence[datetime | float]) -> Int64:
        """Epoch milliseconds of each row, (row,) int64. Raises ``DecodeError``."""
        try:
            return np.array([milliseconds(at, self._unit_ms) for at in ts], dtype=np.int64)
        except OverflowError:
            raise DecodeError("absurd_time", "ts holds a time beyond all calendars") from None


def _columns(frame: Frame | _FlatFrame) -> tuple[Float64, list[tuple[int, str]]]:
    """The values as (row, signal) float64, NaN where missing or bad, and the (row, signal) of those that are bad.

    Raises ``DecodeError``.
    """
    count = len(frame.ts)
    for name, columns in (("values", frame.values), ("quality", frame.quality)):
        for signal, column in columns.items():
            if len(column) != count:
                detail = f"{name} of {signal!r} has {len(column)} entries, ts has {count}"
                raise DecodeError("ragged_frame", detail)
    # (signal, row) as it came; the view turns it, so that nothing is copied here.
    numbers = list(chain.from_iterable(frame.values.values()))
    try:  # a third faster than numpy with a list
        matrix: Float64 = np.frombuffer(bytearray(struct.pack(f"{len(numbers)}d", *numbers)), np.float64)
    except struct.error:  # there is a null among them
        matrix = np.array(numbers, dtype=np.float64)
    matrix = matrix.reshape(len(frame.values), count).T
    bad: list[tuple[int, str]] = []
    for signal, quality in frame.quality.items():
        if "bad" in quality:
            bad += [(row, signal) for row, said in enumerate(quality) if said == "bad"]
    if bad:
        place_of = {signal: index for index, signal in enumerate(frame.values)}
        known = [(row, place_of[signal]) for row, signal in bad if signal in place_of]
        matrix[[row for row, _ in known], [place for _, place in known]] = np.nan
    return matrix, bad


def encode_frame(
    asset: str, at_ms: Int64, signals: Sequence[str], values: Float64, *, time: Literal["s", "ms"] | None = None
) -> bytes:
    """A frame as bytes; floats come back to the last bit. NaN becomes null.

    at_ms   (row,) epoch milliseconds
    values  (row, signal) in the plant's units
    time    None writes RFC 3339 text, which is right whatever the plan says; ``s`` or ``ms`` writes numbers, which are
            shorter and quicker to read, for a plan whose ``input.time`` says the same

    >>> encode_frame("pump-17", np.array([1795420800250]), ["flow"], np.array([[40.5]]))
    b'{"asset":"pump-17","ts":["2026-11-23T08:00:00.250Z"],"values":{"flow":[40.5]}}'
    """
    at_ms, values = np.asarray(at_ms, dtype=np.int64), np.asarray(values, dtype=np.float64)
    if values.shape != (len(at_ms), len(signals)):
        raise ValueError(f"values are {values.shape}, not (row, signal) = {(len(at_ms), len(signals))}")
    ts: list[str] | list[int] | list[float]
    if time is None:
        ts = [f"{text}Z" for text in np.datetime_as_string(at_ms.astype("datetime64[ms]"), unit="ms").tolist()]
    else:
        ts = at_ms.tolist() if time == "ms" else (at_ms / 1000).tolist()
    # msgspec writes NaN as null; infinity, which JSON does not have either, likewise.
    columns = {signal: values[:, index].tolist() for index, signal in enumerate(signals)}
    return msgspec.json.encode({"asset": asset, "ts": ts, "values": columns})
