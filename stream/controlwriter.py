"""Writes single records to control topics: what an operator does on the live page."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from stream.errors import BrokerError
from stream.settings import KafkaSettings


class ControlWriter:
    """A producer that is made when it is first needed, for there may be no action for weeks.

    timeout_s   how long a record is offered to the cluster before ``write`` raises
    """

    def __init__(self, kafka: KafkaSettings, *, timeout_s: float = 8.0) -> None:
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def write(self, topic: str, key: str, value: bytes) -> None:
        """Write a record; on return every replica in sync has it. Raises ``BrokerError``."""
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._connected()
                await producer.send_and_wait(topic, value, key=key.encode())
        except (errors.KafkaError, OSError, TimeoutError) as error:
            await self.stop()
            why = str(error) or type(error).__name__
            raise BrokerError(f"{self._kafka.bootstrap}: {topic}: {why}") from error

    async def stop(self) -> None:
        """Disconnect. Safe to call twice, or without anything written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(errors.KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), 5.0)

    async def _connected(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._kafka.client_options(), client_id="headrace-page", acks="all")
                try:
                    await producer.start()
                except BaseException:
                    with contextlib.suppress(errors.KafkaError, OSError, TimeoutError):
                        await asyncio.wait_for(producer.stop(), 5.0)
                    raise
                self._producer = producer
            return self._producer
