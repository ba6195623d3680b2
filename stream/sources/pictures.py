"""Inspection pictures: one JPEG or PNG a record, on a topic of their own (``plant.pictures.v1``).

The key is the asset or station, the value the picture's bytes, as the camera made them. The header ``ts`` says when it
was taken: RFC 3339 with an offset, or a number in the plan's unit; without it, the record's own timestamp does. A
picture becomes a reading with one signal, ``picture``, its mean grey value; its pixels go beside.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np

from models.pictures import PictureRefused, decode
from stream.errors import DecodeError
from stream.records import RawRecord
from stream.sources.base import Rows
from stream.times import UNITS, milliseconds

#: The one signal of a picture.
SIGNAL: Final = "picture"
_TS: Final = "ts"


class Source:
    """Parses pictures. ``time``: the unit of a ``ts`` that is a number."""

    def __init__(self, time: str = "ms") -> None:
        self._unit_ms = UNITS[time]

    def parse(self, value: bytes, rows: Rows) -> None:  # noqa: ARG002  # as every source has it
        """A picture without its record has neither asset nor time. Raises ``DecodeError``."""
        raise DecodeError("bad_asset", "the record has no key: it names the asset or station of the picture")

    def parse_record(self, record: RawRecord, rows: Rows) -> None:
        """Add the picture in ``record`` to ``rows``. Raises ``DecodeError``."""
        if not record.key:
            self.parse(record.value or b"", rows)
        try:
            asset = (record.key or b"").decode()
        except UnicodeDecodeError:
            raise DecodeError("bad_asset", "the record's key is not UTF-8") from None
        at_ms = self._at_ms(record)
        try:
            pixels = decode(record.value or b"")
        except PictureRefused as error:
            raise DecodeError(error.reason, str(error)) from None
        rows.add(asset, at_ms, {SIGNAL: float(np.mean(pixels))})
        rows.pictures[rows.record] = pixels

    def _at_ms(self, record: RawRecord) -> int:
        told = next((value for name, value in record.headers if name == _TS), None)
        if told is None:
            return record.timestamp
        text = told.decode("ascii", "replace")
        try:
            return milliseconds(float(text) if "." in text else int(text), self._unit_ms)
        except ValueError:
            pass
        try:
            return milliseconds(datetime.fromisoformat(text), self._unit_ms)
        except ValueError:
            raise DecodeError("bad_time", f"header ts: {text!r:.80} is neither a number nor RFC 3339") from None
