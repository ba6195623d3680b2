"""Bytes to readings: the first stage. What cannot be used comes out as dead letters with a reason; nothing is lost."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import cast

from stream import sources
from stream.errors import ConfigError, DecodeError
from stream.plan import InputSettings
from stream.records import DeadLetter, RawRecord, Readings, payloads
from stream.sources.base import BatchSource, Bounds, RecordSource, Rows, Source

_log = logging.getLogger(__name__)


class Decoder:
    """Decodes batches of records in the plan's format into columns of the signals that the plan watches."""

    def __init__(self, settings: InputSettings, signals: Sequence[str]) -> None:
        self.signals = tuple(signals)
        self._source = source_of(settings)
        # a protocol is slow to be asked: once, not at each batch
        self._by_batch = self._source if isinstance(self._source, BatchSource) else None
        self._by_record = self._source if isinstance(self._source, RecordSource) else None
        self._max_bytes = settings.max_record_bytes
        self._bounds = Bounds(
            self.signals,
            _milliseconds("input.earliest", settings.earliest),
            _milliseconds("input.latest", settings.latest),
            settings.time,
            settings.max_readings_per_record,
        )

    def decode(self, records: Sequence[RawRecord]) -> tuple[Readings, list[DeadLetter], int]:
        """Readings in the order of the records, the records that gave none, and how many values no detector watches."""
        rows = Rows(self._bounds)
        dead: list[DeadLetter] = []
        values = payloads(records)
        for index in self._parse_many(values, rows):
            rows.record, value = index, values[index]
            try:
                if not value:
                    raise DecodeError("empty", "the record has no value" if value is None else "the value is empty")
                if len(value) > self._max_bytes:
                    raise DecodeError("too_large", f"{len(value)} bytes, input.max_record_bytes is {self._max_bytes}")
                if self._by_record is not None:
                    self._by_record.parse_record(records[index], rows)
                else:
                    self._source.parse(value, rows)
            except DecodeError as error:
                dead.append(DeadLetter(records[index], "decode", error.reason, error.detail))
            except Exception as error:  # a fault of the parser on one record must not cost the others of the batch
                _log.exception("the decoder failed at offset %d", records[index].offset)
                dead.append(DeadLetter(records[index], "decode", "decoder_failed", f"{type(error).__name__}: {error}"))
        readings = rows.readings()
        if rows.pictures:
            readings = replace(readings, pictures=rows.pictures)
        return readings, dead, rows.unknown_signals

    def _parse_many(self, values: Sequence[bytes | None], rows: Rows) -> Sequence[int]:
        """Let the source take what it can together; the places of the records that must be taken one by one."""
        everything = range(len(values))
        if self._by_batch is None:
            return everything
        try:
            plain = max(map(len, values), default=0) <= self._max_bytes  # type: ignore[arg-type]
        except TypeError:  # a record without a value
            plain = False
        fits = values if plain else [value if value and len(value) <= self._max_bytes else b"" for value in values]
        try:
            return self._by_batch.parse_many(cast("Sequence[bytes]", fits), rows)
        except Exception:  # a fault of ours must not cost what the other way can read
            _log.exception("reading %d records together failed: reading them one by one", len(values))
            rows.clear()
            return everything


def formats() -> list[str]:
    """Names of the payload formats: the files in ``stream/sources`` that are no bridges."""
    folder = Path(sources.__file__).parent
    others = {"__init__", "base", *sources.BRIDGES}
    return sorted(file.stem for file in folder.glob("*.py") if file.stem not in others)


def source_of(settings: InputSettings) -> Source:
    """The parser of the plan's format. Raises ``ConfigError`` if there is none of that name."""
    if settings.format not in formats():
        raise ConfigError(f"input.format: no format {settings.format!r}; there are {', '.join(formats())}")
    module = importlib.import_module(f"stream.sources.{settings.format}")
    return cast("Source", module.Source(settings.time))


def _milliseconds(key: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{key}: {text!r} is not a time such as 2026-11-23T08:00:00Z") from None
    if at.tzinfo is None:
        raise ConfigError(f"{key}: {text!r} has no offset from UTC: end it with Z")
    return int(at.timestamp() * 1000)
