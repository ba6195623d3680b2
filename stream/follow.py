"""The alert topic, read as it grows."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream.door import knock
from stream.errors import BrokerError
from stream.records import Alert
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)


def follow(
    kafka: KafkaSettings, topic: str, *, from_start: bool = False, until_end: bool = False, wait_s: float = 0.5
) -> Iterator[Alert | None]:
    """Alerts of all partitions, without a consumer group: anyone may look, and nobody's position moves.

    from_start  begin with the oldest that the topic still has, instead of what comes from now on
    until_end   stop when all that was there at the start has been read

    Yields None after each pause of ``wait_s`` without a record, so that a caller can do other things. A tombstone (a
    compacted alert that was deleted) is passed over, and so is what is no alert, which is logged. Raises
    ``BrokerError``.
    """
    knock(kafka)
    consumer = None
    try:
        consumer = KafkaConsumer(**kafka.client_options(), enable_auto_commit=False, consumer_timeout_ms=1000)
        found = _partitions(consumer, topic)
        if not found:
            raise BrokerError(
                f"{kafka.bootstrap}: there is no topic {topic!r}; start a worker first, or check the plan"
            )
        partitions = [TopicPartition(topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        (consumer.seek_to_beginning if from_start else consumer.seek_to_end)(*partitions)
        for partition in partitions:
            consumer.position(partition)  # settles the position now, not at the first poll
        ends = consumer.end_offsets(partitions) if until_end else {}
        while not until_end or any(consumer.position(partition) < end for partition, end in ends.items()):
            batches = consumer.poll(timeout_ms=round(wait_s * 1000))
            records = sorted((record for batch in batches.values() for record in batch), key=lambda r: r.timestamp)
            for record in records:
                if record.value is None:
                    continue
                try:
                    yield msgspec.json.decode(record.value, type=Alert)
                except (msgspec.DecodeError, RecursionError) as error:
                    _log.warning("%s-%d@%d is no alert: %s", topic, record.partition, record.offset, error)
            if not records:
                yield None
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        if consumer is not None:
            consumer.close()


def _partitions(consumer: KafkaConsumer, topic: str, within_s: float = 10.0) -> set[int]:
    """The topic's partitions; a moment's patience for metadata that is not there yet."""
    deadline = time.monotonic() + within_s
    while True:
        found: set[int] | None = consumer.partitions_for_topic(topic)
        if found or time.monotonic() > deadline:
            return found or set()
        time.sleep(0.2)
