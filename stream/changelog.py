"""The topic of states, written and read: all the Kafka that snapshots need, and nothing of what is in them.

It has as many partitions as the readings' topic, and the state of a partition lies in the partition of the same number,
so whoever is assigned one knows where to read. It is compacted: of each key the broker keeps the newest record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors

from stream.errors import BrokerError
from stream.settings import KafkaSettings

Pair = tuple[bytes | None, bytes | None]

_CHUNK: Final = 64  # records handed on at once: up to as many blocks
_FETCH_BYTES: Final = 4 << 20
_ANSWER_S: Final = 5.0


class Changelog:
    """Writes and reads records of ``topic``, partition by partition.

    timeout_s   how long a record is offered to the cluster before ``write`` raises
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, timeout_s: float = 15.0) -> None:
        self._kafka = kafka
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def write(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write records; on return every replica in sync has them. A value of None deletes its key.

        Raises ``BrokerError``; some of the records may have been written then.
        """
        if not records:
            return
        sent: list[asyncio.Future[Any]] = []
        try:
            producer = await self._connected()
            for key, value in records:
                sent.append(await producer.send(self._topic, value, key=key, partition=partition))
        except (errors.KafkaError, OSError, TimeoutError) as error:
            await asyncio.gather(*sent, return_exceptions=True)
            await self._give_up(error)
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, BaseException):
                await self._give_up(result)

    async def read(
        self, partition: int, progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> AsyncIterator[list[Pair]]:
        """All records that the partition holds, in their order. Raises ``BrokerError``.

        progress   called with (records read, of how many), roughly: compaction leaves holes
        """
        place = TopicPartition(self._topic, partition)
        consumer = AIOKafkaConsumer(
            **self._kafka.client_options(),
            client_id="headrace-state",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
            consumer.assign([place])
            begin = (await consumer.beginning_offsets([place]))[place]
            end = (await consumer.end_offsets([place]))[place]
            consumer.seek(place, begin)
            at = begin
            while at < end:
                batch = (await consumer.getmany(place, timeout_ms=500, max_records=_CHUNK)).get(place, ())
                # some brokers answer the base offset of the last batch as the end: what comes with a fetch is right
                end = max(end, consumer.highwater(place) or 0)
                at = await consumer.position(place)
                progress(at - begin, end - begin)
                if batch:
                    yield [(record.key, record.value) for record in batch]
        except (errors.KafkaError, OSError, TimeoutError) as error:
            raise BrokerError(f"{self._kafka.bootstrap}: {self._topic}: {_say(error)}") from error
        finally:
            await consumer.stop()

    async def answers(self) -> bool:
        """Whether the cluster answers a request for its metadata now."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                producer = await self._connected()
                return bool(await producer.client.force_metadata_update())
        except (errors.KafkaError, OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Disconnect. Safe to call twice, or without anything written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    async def _connected(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._kafka.client_options(),
                    client_id="headrace-state",
                    acks="all",
                    max_request_size=self._kafka.max_record_bytes,
                    request_timeout_ms=int(self._timeout_s * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await _close(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _give_up(self, error: BaseException) -> None:
        """Raise what the caller should make of ``error``; a producer that is beyond repair is replaced next time."""
        if not isinstance(error, errors.KafkaError) or isinstance(error, errors.ProducerClosed):
            await self.stop()
        if isinstance(error, (errors.KafkaError, OSError, TimeoutError)):
            raise BrokerError(f"{self._kafka.bootstrap}: {self._topic}: {_say(error)}") from error
        raise error


async def _close(producer: Any) -> None:
    with contextlib.suppress(errors.KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), 5.0)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
