"""Control topics on real brokers: two readers each have all of it, in order, and what comes later."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from stream.control import Control, ControlReader
from stream.plan import TopicSettings
from stream.settings import KafkaSettings
from stream.sinks.prometheus import Metrics

pytestmark = pytest.mark.broker


class Note(msgspec.Struct):
    number: int


async def test_every_reader_has_all_from_the_beginning_and_then_live(
    kafka: KafkaSettings, topics: TopicSettings
) -> None:
    async def write(first: int, last: int) -> None:
        producer = AIOKafkaProducer(**kafka.client_options(), acks="all")
        await producer.start()
        for number in range(first, last):
            await producer.send_and_wait(topics.labels, msgspec.json.encode(Note(number)), key=b"pump-1")
        await producer.stop()

    await write(0, 30)
    seen: list[list[Control[Note]]] = [[], []]
    readers = [ControlReader(kafka, metrics=Metrics().control) for _ in seen]
    for reader, mine in zip(readers, seen, strict=True):
        reader.handle("labels", topics.labels, Note, mine.append)
        reader.handle("actions", topics.actions, Note, mine.append)  # nothing is on it
    assert await asyncio.gather(*(reader.start() for reader in readers)) == [True, True]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    await write(30, 40)
    async with asyncio.timeout(60):
        while any(len(mine) < 40 for mine in seen):  # noqa: ASYNC110 (readers tell nobody)
            await asyncio.sleep(0.05)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for reader in readers:
        await reader.stop()
    for mine in seen:
        assert [held.value.number for held in mine if held.value] == list(range(40))
        assert [held.live for held in mine] == [False] * 30 + [True] * 10
