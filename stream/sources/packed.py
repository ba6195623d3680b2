"""Packed frames: many readings of one asset as MessagePack with arrays as bytes; decoded for next to nothing.

    {"asset": "pump-17", "ts": <int64, epoch milliseconds>, "signals": ["heat", "vibration"], "values": <float64>}

``ts`` and ``values`` are binary, little-endian: one time a row, and then, one signal after the other, its value in
every row. NaN is a missing value. A packed frame means what the frame of the same columns in JSON means, and is taken
whole or not at all. A topic in the format ``json`` takes it too: its first byte is none of JSON's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np

from stream.columnar import Kind, ReaderOfSource
from stream.errors import DecodeError
from stream.records import Float64, Int64
from stream.sources.base import Asset, Rows

_EIGHT: Final = 8


class PackedFrame(msgspec.Struct, frozen=True, gc=False):
    """Version 1 of the packed frame on ``plant.readings.v1``, key = ``asset``."""

    asset: Asset
    ts: Annotated[bytes, msgspec.Meta(min_length=_EIGHT)]
    signals: Annotated[list[str], msgspec.Meta(min_length=1)]
    values: bytes


class Source:
    """Parses ``PackedFrame``. Its times are always milliseconds."""

    def __init__(self, time: str = "ms") -> None:  # noqa: ARG002 (as every source is made)
        self._decode = msgspec.msgpack.Decoder(PackedFrame).decode
        self._reader = ReaderOfSource(Kind.PACKED)

    def parse_many(self, values: Sequence[bytes], rows: Rows) -> Sequence[int]:
        """Add what is plain to see in ``values``, one for each record of a batch; the places of what it left."""
        return self._reader.take(values, rows)

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the readings of the frame in ``value`` to ``rows``, or none. Raises ``DecodeError``."""
        try:
            frame = self._decode(value)
        except msgspec.ValidationError as error:
            raise DecodeError("wrong_type", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not_json", f"neither JSON nor a packed frame: {error}") from None
        count = len(frame.ts) // _EIGHT
        if len(frame.ts) % _EIGHT or len(frame.values) != len(frame.ts) * len(frame.signals):
            detail = (
                f"ts has {len(frame.ts)} bytes and values {len(frame.values)}, not 8 a row and 8 a row for each of "
                f"{len(frame.signals)} signals"
            )
            raise DecodeError("ragged_frame", detail)
        if len(set(frame.signals)) < len(frame.signals):
            raise DecodeError("wrong_type", "signals names one twice")
        at_ms = np.frombuffer(frame.ts, "<i8").astype(np.int64)
        matrix = np.frombuffer(frame.values, "<f8").astype(np.float64).reshape(len(frame.signals), count).T
        rows.add_block(frame.asset, at_ms, tuple(frame.signals), matrix)


def is_packed(value: bytes) -> bool:
    """Whether ``value`` begins like a map of MessagePack, which no JSON text does."""
    return value[:1] >= b"\x80" and (value[0] & 0xF0 == 0x80 or value[0] in (0xDE, 0xDF))


def encode_packed(asset: str, at_ms: Int64, signals: Sequence[str], values: Float64) -> bytes:
    """A packed frame as bytes. ``at_ms`` (row,) epoch milliseconds; ``values`` (row, signal) in the plant's units."""
    at_ms, values = np.asarray(at_ms, dtype="<i8"), np.asarray(values, dtype="<f8")
    if values.shape != (len(at_ms), len(signals)):
        raise ValueError(f"values are {values.shape}, not (row, signal) = {(len(at_ms), len(signals))}")
    return msgspec.msgpack.encode(PackedFrame(asset, at_ms.tobytes(), list(signals), values.T.tobytes()))
