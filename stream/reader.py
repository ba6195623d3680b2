"""A topic as it stands: what it holds now, from an offset or a time on, in batches of one partition."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream.door import knock
from stream.errors import BrokerError, ConfigError
from stream.settings import KafkaSettings

_BATCH: Final = 5000
_FETCH_S: Final = 3.0


def read_records(
    kafka: KafkaSettings,
    topic: str,
    *,
    offsets: Mapping[int, int] | None = None,
    since_ms: int | None = None,
    progress: Any = None,
) -> Iterator[list[Any]]:
    """Every record that ``topic`` holds when this begins; each partition in its order. Moves no group's position.

    offsets   partition -> the offset to begin with; partitions that it does not name are left out
    since_ms  begin with records written at this time (epoch milliseconds, by the records' own timestamps) or later
    progress  called with (records read of all, records there are), roughly

    Raises ``BrokerError``, and ``ConfigError`` for a partition that there is not.
    """
    knock(kafka)
    try:
        consumer = KafkaConsumer(**kafka.client_options(), enable_auto_commit=False)
    except KafkaError as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap}: {error}") from None
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise BrokerError(f"{kafka.bootstrap}: there is no topic {topic!r}")
        if offsets is not None and (unknown := offsets.keys() - numbers):
            raise ConfigError(f"{topic} has no partition {min(unknown)}; it has {', '.join(map(str, sorted(numbers)))}")
        partitions = [TopicPartition(topic, number) for number in sorted(offsets or numbers)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        _seek(consumer, partitions, offsets, since_ms, ends)
        starts = {partition: consumer.position(partition) for partition in partitions}
        while behind := [partition for partition, end in ends.items() if consumer.position(partition) < end]:
            for partition, batch in consumer.poll(timeout_ms=1000, max_records=_BATCH).items():
                # Some brokers answer the base offset of the last batch as the end: what comes with a fetch is right.
                ends[partition] = max(ends[partition], consumer.highwater(partition) or 0)
                yield batch
            if progress is not None and behind:
                done = sum(consumer.position(partition) - start for partition, start in starts.items())
                progress(done, sum(max(ends[partition] - start, 0) for partition, start in starts.items()))
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        consumer.close()


def edges(kafka: KafkaSettings, topic: str, count: int, most_partitions: int = 8) -> list[tuple[list[Any], list[Any]]]:
    """About the first and the last ``count`` records of the partitions that hold most; nothing of those that are empty.

    Raises ``BrokerError``.
    """
    knock(kafka)
    try:
        consumer = KafkaConsumer(**kafka.client_options(), enable_auto_commit=False)
    except KafkaError as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap}: {error}") from None
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        fullest = sorted(partitions, key=lambda partition: begins[partition] - ends[partition])[:most_partitions]
        found = []
        for partition in fullest:
            if ends[partition] > begins[partition]:
                consumer.assign([partition])
                last = max(begins[partition], ends[partition] - count)
                found.append(
                    (_some(consumer, partition, begins[partition], count), _some(consumer, partition, last, count))
                )
        return [pair for pair in found if all(pair)]
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        consumer.close()


def _some(consumer: Any, partition: Any, offset: int, count: int) -> list[Any]:
    """What a fetch from ``offset`` on brings; nothing if nothing comes within three seconds."""
    consumer.seek(partition, offset)
    deadline = time.monotonic() + _FETCH_S
    while time.monotonic() < deadline:
        if batch := consumer.poll(timeout_ms=500, max_records=count).get(partition):
            return list(batch)
    return []


def writable(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """Headers as kafka-python writes them: it refuses a null, which becomes empty."""
    return [(name, value or b"") for name, value in headers]


def _seek(
    consumer: Any,
    partitions: list[Any],
    offsets: Mapping[int, int] | None,
    since_ms: int | None,
    ends: Mapping[Any, int],
) -> None:
    consumer.seek_to_beginning(*partitions)
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        for partition in partitions:
            at = found.get(partition)
            consumer.seek(partition, ends[partition] if at is None else at.offset)
    elif offsets is not None:
        for partition in partitions:
            consumer.seek(partition, max(offsets[partition.partition], consumer.position(partition)))
