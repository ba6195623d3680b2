"""The broker that is measured against, and producers that are fast enough not to be what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from stream.broker import EmbeddedBroker

PARTITIONS: Final = 4
#: The size of a producer's batch: what a plant's gateways send under load.
BATCH_BYTES: Final = 64 << 10

Payloads = Sequence[tuple[bytes, bytes]]


@contextlib.contextmanager
def broker_at(bootstrap: str | None) -> Iterator[str]:
    """The address given, or that of an embedded broker of our own."""
    if bootstrap:
        yield bootstrap
        return
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


class Sender:
    """Sends payloads to a topic, key by murmur2 as every client does it. ``partition`` keeps what it has worked out."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._known: dict[bytes, int] = {}

    def partition(self, key: bytes) -> int:
        """The partition of ``key``."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        return found

    async def send(self, payloads: Payloads) -> list[Any]:
        """Send all, in batches made here (a ``send`` for each would cost more than what is measured); the futures."""
        by_partition: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        for payload in payloads:
            by_partition[self.partition(payload[0])].append(payload)
        futures = []
        now_ms = int(time.time() * 1000)
        for partition, held in by_partition.items():
            batch = self._producer.create_batch()
            for key, value in held:
                if batch.append(key=key, value=value, timestamp=now_ms) is None:
                    futures.append(await self._flush(batch, partition))
                    batch = self._producer.create_batch()
                    batch.append(key=key, value=value, timestamp=now_ms)
            futures.append(await self._flush(batch, partition))
        return futures

    async def _flush(self, batch: Any, partition: int) -> Any:
        batch.close()
        return await self._producer.send_batch(batch, self._topic, partition=partition)


def produce(bootstrap: str, topic: str, payloads: Payloads) -> None:
    """Send all and wait until the broker has them."""

    async def work() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES)
        await producer.start()
        try:
            await asyncio.gather(*await Sender(producer, topic).send(payloads))
        finally:
            await producer.stop()

    asyncio.run(work())
