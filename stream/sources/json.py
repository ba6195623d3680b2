"""Readings as JSON: one object a record.

    {"asset": "pump-17", "ts": "2026-11-23T08:00:00.250Z", "values": {"temperature": 71.2, "vibration": null}}

``ts`` is RFC 3339 text with an offset, or a number in the unit that the plan's ``input.time`` says. A missing value is
``null`` or left out. ``quality`` may call a signal ``good``, ``uncertain`` or ``bad``; a bad one counts as missing.
Other keys are ignored, so that producers can grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec

from stream.errors import DecodeError
from stream.sources.base import Rows

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
#: Milliseconds in one unit of a numeric ``ts``.
UNITS: Final = {"s": 1000, "ms": 1}


class Reading(msgspec.Struct, frozen=True):
    """One reading: version 1 of the record on ``plant.readings.v1``, key = ``asset``."""

    asset: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    ts: datetime | int | float
    values: Annotated[dict[str, float | None], msgspec.Meta(min_length=1)]
    quality: dict[str, Literal["good", "uncertain", "bad"]] = {}


class Source:
    """Parses ``Reading``. ``time`` is the unit of a number in ``ts``: ``s`` or ``ms``."""

    def __init__(self, time: str = "ms") -> None:
        self._decode = msgspec.json.Decoder(Reading).decode
        self._unit_ms = UNITS[time]

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the reading in ``value`` to ``rows``. Raises ``DecodeError``."""
        try:
            reading = self._decode(value)
        except msgspec.ValidationError as error:
            raise DecodeError("wrong_type", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not_json", str(error)) from None
        bad = [signal for signal, quality in reading.quality.items() if quality == "bad"] if reading.quality else ()
        rows.add(reading.asset, self._milliseconds(reading.ts), reading.values, bad)

    def _milliseconds(self, ts: datetime | float) -> int:
        if isinstance(ts, datetime):
            if ts.tzinfo is None:
                raise DecodeError("bad_time", "ts has no offset from UTC: end it with Z or +hh:mm")
            return (ts - _EPOCH) // _MILLISECOND
        try:
            return int(ts * self._unit_ms)
        except (OverflowError, ValueError):
            raise DecodeError("absurd_time", "ts is not a finite number") from None


def encode(asset: str, at_ms: int, values: Mapping[str, float | None]) -> bytes:
    """A reading as bytes; floats come back to the last bit. NaN becomes null."""
    kept = {signal: None if value is None or value != value else value for signal, value in values.items()}
    return msgspec.json.encode({"asset": asset, "ts": timestamp(at_ms), "values": kept})


def timestamp(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC."""
    text = (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
