"""Readings on their way to Kafka: in order, again and again until it has them, and with a bound on what waits."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.reading import PlantReading, Ticket
from stream.errors import SinkUnavailable
from stream.plan import TopicSettings
from stream.records import DeadLetter, Record
from stream.sinks.kafka import KafkaSink
from stream.sinks.messages import Message, dead_letter

_log = logging.getLogger(__name__)

_BATCH: Final = 500
_MOST_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    tickets: tuple[Ticket, ...]
    at_ms: int


class Outbox:
    """An outlet to Kafka. ``run`` writes what the others give, batch by batch, the next when the last is safe.

    room  how many messages may wait: ``reading`` and the others wait beyond
    """

    def __init__(
        self,
        sink: KafkaSink,
        topics: TopicSettings,
        state_topic: str,
        metrics: BridgeMetrics,
        health: BridgeHealth,
        *,
        room: int = 5000,
    ) -> None:
        self._sink = sink
        self._topics = topics
        self._state_topic = state_topic
        self._metrics = metrics
        self._health = health
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(room)
        self._offset = 0

    async def reading(self, reading: PlantReading, tickets: tuple[Ticket, ...] = ()) -> None:
        """Take a reading, keyed by its asset."""
        message = Message(self._topics.readings, reading.asset.encode(), reading.encoded(), ())
        for ticket in tickets:
            ticket.hold()
        await self._queue.put(_Waiting(message, tickets, reading.at_ms))

    async def refuse(self, origin: str, value: bytes | None, reason: str, detail: str, ticket: Ticket | None) -> None:
        """Take what cannot become readings: ``origin`` is its topic or node, which becomes ``headrace.topic``."""
        self._metrics.dead_lettered(reason)
        record = Record(origin, -1, -1, value, origin.encode("utf-8", "replace"))
        message = dead_letter(DeadLetter(record, "bridge", reason, detail), self._topics)
        if ticket is not None:
            ticket.hold()
        await self._queue.put(_Waiting(message, (ticket,) if ticket else (), 0))

    async def remember(self, key: str, value: bytes) -> None:
        """Keep something on the bridges' topic."""
        await self._queue.put(_Waiting(Message(self._state_topic, key.encode(), value, ()), (), 0))

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            for waiting in batch:
                for ticket in waiting.tickets:
                    ticket.release()
                self._queue.task_done()

    async def flushed(self) -> None:
        """Return when all that was given is in Kafka."""
        await self._queue.join()

    async def _write(self, batch: list[_Waiting]) -> None:
        pause_s = 0.2
        messages = [waiting.message for waiting in batch]
        while True:
            try:
                refused = await self._sink.send(messages)
            except SinkUnavailable as error:
                if self._health.kafka:
                    _log.warning("%s; holding %d messages until it is back", error, len(batch) + self._queue.qsize())
                self._health.kafka = False
                self._metrics.connected("kafka", False)
                await asyncio.sleep(max(pause_s, min(error.retry_after_s, _MOST_PAUSE_S)))
                pause_s = min(pause_s * 2, _MOST_PAUSE_S)
            else:
                break
        if not self._health.kafka:
            _log.info("Kafka answers")
        self._health.kafka = True
        self._metrics.connected("kafka", True)
        for letter in refused:
            _log.error("%s", letter.detail)
            self._metrics.dead_lettered("refused")
        if refused:
            await self._write([_Waiting(dead_letter(letter, self._topics), (), 0) for letter in refused])
        times = [waiting.at_ms for waiting in batch if waiting.message.topic == self._topics.readings]
        self._metrics.sent(times)
