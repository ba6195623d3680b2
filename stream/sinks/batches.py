"""Scores as Kafka's record batches, made and compressed beside the event loop.

aiokafka spends 20 us a record on its future and its queue, and compresses on the event loop with gzip's ninth level,
which takes another 50 for a row of scores. Here a record takes 2, and gzip's first level, which cramjam does in two
thirds of zlib's time, 6 at most, for a fifth more bytes.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cramjam
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from stream.records import Scores
from stream.sinks.messages import score_rows

SCORE_HEADERS: Final = (("content-type", b"application/json"),)

#: Before compression; brokers take a megabyte by default, compressed.
_BATCH_BYTES: Final = 256 << 10
_LEVEL: Final = 1
_GZIP: Final = 1

# A record batch of version 2: base offset, length, leader's epoch, magic, CRC, attributes, and so on up to its records.
_LENGTH_AT: Final = 8
_CRC_AT: Final = 17
_ATTRIBUTES_AT: Final = 21
_RECORDS_AT: Final = 61


@dataclass(frozen=True, slots=True)
class Pack:
    """A batch that is ready to be sent, and the rows (key, value) that are in it."""

    batch: Any
    rows: Sequence[tuple[bytes, bytes]]


def pack(scores: Sequence[Scores], site: str, partitions: Sequence[int]) -> dict[int, list[Pack]]:
    """All rows as batches for each partition; a key's partition is the one that every Kafka client takes."""
    rows: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for held in scores:
        for row in score_rows(held, site):
            rows[partitions[_hash(row[0]) % len(partitions)]].append(row)
    return {partition: _batches(held) for partition, held in rows.items()}


@lru_cache(maxsize=1 << 16)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def _batches(rows: list[tuple[bytes, bytes]]) -> list[Pack]:
    now_ms = int(time.time() * 1000)
    packs: list[Pack] = []
    headers = list(SCORE_HEADERS)
    batch, first = BatchBuilder(_BATCH_BYTES, 0), 0
    for at, (key, value) in enumerate(rows):
        if batch.append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
            packs.append(Pack(_compressed(batch), rows[first:at]))
            batch, first = BatchBuilder(_BATCH_BYTES, 0), at
            batch.append(timestamp=now_ms, key=key, value=value, headers=headers)
    packs.append(Pack(_compressed(batch), rows[first:]))
    return packs


def _compressed(batch: Any) -> Any:
    """The batch, closed, with its records compressed; aiokafka can do no other level of gzip than the ninth."""
    plain = bytes(batch._build())  # noqa: SLF001 (it offers no other way to the bytes)
    made = bytearray(plain[:_RECORDS_AT])
    made += bytes(cramjam.gzip.compress(plain[_RECORDS_AT:], level=_LEVEL))
    struct.pack_into(">i", made, _LENGTH_AT, len(made) - _LENGTH_AT - 4)
    struct.pack_into(">h", made, _ATTRIBUTES_AT, _GZIP)
    struct.pack_into(">I", made, _CRC_AT, calc_crc32c(bytes(made[_ATTRIBUTES_AT:])))
    batch._buffer = made  # noqa: SLF001 (likewise)
    return batch
