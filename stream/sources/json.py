"""Readings as JSON: one object a record, which is one reading, or a frame of many (``stream.sources.frame``).

    {"asset": "pump-17", "ts": "2026-11-23T08:00:00.250Z", "values": {"temperature": 71.2, "vibration": null}}

``ts`` is RFC 3339 text with an offset, or a number in the unit that the plan's ``input.time`` says. A missing value is
``null`` or left out. ``quality`` may call a signal ``good``, ``uncertain`` or ``bad``; a bad one counts as missing.
Other keys are ignored, so that producers can grow. A topic may mix readings and frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec

from stream.errors import DecodeError
from stream.sources import frame
from stream.sources.base import EPOCH, UNITS, Rows, milliseconds


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading: version 1 of the record on ``plant.readings.v1``, key = ``asset``."""

    asset: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    ts: datetime | int | float
    values: Annotated[dict[str, float | None], msgspec.Meta(min_length=1)]
    quality: dict[str, Literal["good", "uncertain", "bad"]] = {}


class Source:
    """Parses ``Reading`` and, where ``ts`` is an array, ``Frame``. ``time`` is the unit of a number in ``ts``."""

    def __init__(self, time: str = "ms") -> None:
        self._decode = msgspec.json.Decoder(Reading).decode
        self._frames = frame.Source(time)
        self._unit_ms = UNITS[time]

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the reading in ``value``, or those of the frame in it, to ``rows``. Raises ``DecodeError``."""
        try:
            reading = self._decode(value)
        except msgspec.ValidationError as error:
            # A frame fails at its first array, so that this try costs it next to nothing, and a reading nothing at all.
            self._frames.parse(value, rows, otherwise=error)
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not_json", str(error)) from None
        at_ms = milliseconds(reading.ts, self._unit_ms)
        if reading.quality:
            bad = {signal for signal, quality in reading.quality.items() if quality == "bad"}
            rows.add(reading.asset, at_ms, reading.values, bad)
        else:
            rows.add(reading.asset, at_ms, reading.values)


def encode(asset: str, at_ms: int, values: Mapping[str, float | None]) -> bytes:
    """A reading as bytes; floats come back to the last bit. NaN becomes null."""
    kept = {signal: None if value is None or value != value else value for signal, value in values.items()}
    return msgspec.json.encode({"asset": asset, "ts": timestamp(at_ms), "values": kept})


def timestamp(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC."""
    text = (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
