"""Recordings to a topic, as a plant would send them: in the order of time, keyed by asset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.door import knock
from stream.errors import BrokerError, ConfigError
from stream.reader import read_records, writable
from stream.settings import KafkaSettings
from stream.sources.frame import encode_frame
from stream.sources.json import encode
from stream.sources.packed import encode_packed

if TYPE_CHECKING:
    from models.datasets import Recording


def replay(
    kafka: KafkaSettings,
    topic: str,
    recordings: Sequence[Recording],
    *,
    speed: float | None = None,
    frames: int | None = None,
    packed: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send every reading; returns how many were sent and acknowledged.

    speed   seconds of recorded time per second; None sends as fast as the broker takes them. Recordings start together:
            each is paced by the time since its own first reading, so recordings of different days need no waiting.
    frames  put so many readings into a record, as a gateway that batches would; None sends each by itself. A frame goes
            when the last of its readings is due.
    packed  those records are packed frames

    Raises ``BrokerError``.
    """
    knock(kafka)
    try:
        producer = KafkaProducer(
            **kafka.client_options(), acks="all", linger_ms=5, max_request_size=kafka.max_record_bytes
        )
    except KafkaError as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap}: {error}") from None
    sent = 0
    pending: list[tuple[object, int]] = []
    try:
        started = time.monotonic()
        encode_many = encode_packed if packed else encode_frame
        for since_s, asset, payload, readings in _in_order(recordings, frames, encode_many):
            if speed is not None:
                ahead = since_s / speed - (time.monotonic() - started)
                if ahead > 0.001:
                    time.sleep(ahead)
            pending.append((producer.send(topic, key=asset, value=payload), readings))
            if len(pending) >= 1000:
                sent += _settle(pending, progress)
        producer.flush()
        sent += _settle(pending, progress)
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        producer.close(timeout=5)
    return sent


def copy(
    kafka: KafkaSettings,
    source: str,
    target: str,
    *,
    offsets: Mapping[int, int] | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Copy what ``source`` holds to ``target``: key, value, headers, timestamp and partition; how many records.

    offsets, since_ms   where to begin, as for ``read_records``
    until_ms            leave out records written at this time (epoch milliseconds) or later

    Whoever reads the copy sees each asset's readings in their order, and so gives the same scores. Raises
    ``BrokerError``, and ``ConfigError`` if the target has fewer partitions.
    """
    if source == target:
        raise ConfigError(f"--topic: {target} is the topic that is read; name another")
    knock(kafka)
    producer = None
    sent = 0
    pending: list[tuple[object, int]] = []
    try:
        producer = KafkaProducer(
            **kafka.client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=kafka.max_record_bytes,
        )
        there = producer.partitions_for(target)
        for batch in read_records(kafka, source, offsets=offsets, since_ms=since_ms, progress=progress):
            if batch[0].partition not in there:
                raise ConfigError(f"{target} has {len(there)} partitions, and {source} has more: give it as many")
            for record in batch:
                if until_ms is not None and record.timestamp >= until_ms:
                    continue
                future = producer.send(
                    target,
                    key=record.key if record.value is not None else record.key or b"",
                    value=record.value,
                    headers=writable(record.headers),
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                )
                pending.append((future, 1))
            sent += _settle(pending, lambda _: None)
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {target}: {type(error).__name__}: {error}") from None
    finally:
        if producer is not None:
            producer.close(timeout=5)
    return sent


def _settle(pending: list[tuple[object, int]], progress: Callable[[int], None]) -> int:
    """Wait for what was sent; the first that the broker refused is raised. How many readings it was."""
    for future, _ in pending:
        future.get(timeout=60)  # type: ignore[attr-defined]  # kafka-python publishes no types
    count = sum(readings for _, readings in pending)
    pending.clear()
    progress(count)
    return count


def _in_order(
    recordings: Sequence[Recording], frames: int | None, encode_many: Callable[..., bytes] = encode_frame
) -> Iterator[tuple[float, bytes, bytes, int]]:
    """(seconds since the recording's first reading, key, payload, readings in it), earliest first.

    Each recording's order is kept.
    """
    recordings = [held for held in recordings if len(held.at_ms)]
    if not recordings:
        return
    step = frames or 1
    starts = [np.arange(0, len(held.at_ms), step) for held in recordings]
    which = np.concatenate([np.full(len(rows), index) for index, rows in enumerate(starts)])
    first = np.concatenate(starts)
    # A reading is never sent before its predecessor, even where a recording's clock went back.
    since = np.concatenate(
        [
            (np.maximum.accumulate(held.at_ms) - held.at_ms[0])[np.minimum(rows + step, len(held.at_ms)) - 1]
            for held, rows in zip(recordings, starts, strict=True)
        ]
    )
    for position in np.argsort(since, kind="stable").tolist():
        held = recordings[which[position]]
        rows = slice(first[position], first[position] + step)
        at_ms, values = held.at_ms[rows], held.values[rows]
        if frames is None:
            payload = encode(held.asset, int(at_ms[0]), dict(zip(held.signals, values[0].tolist(), strict=True)))
        else:
            payload = encode_many(held.asset, at_ms, held.signals, values)
        yield since[position] / 1000, held.asset.encode(), payload, len(at_ms)
