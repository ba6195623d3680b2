"""The reader of control topics against a consumer of our own; the real one is in tests/integration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition, errors
from aiokafka.structs import OffsetAndTimestamp

from stream.control import MOST_BYTES, Control, ControlReader
from stream.records import DeadLetter, Record
from stream.settings import KafkaSettings
from stream.sinks.prometheus import Metrics

TOPIC = "plant.labels.v1"


class Note(msgspec.Struct):
    text: str


@dataclass
class Broker:
    """A topic of one partition, and what its consumers do: they fail with the first of ``failures``, one a call."""

    records: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    connections: int = 0
    slow: bool = False
    written_ms: list[int] = field(default_factory=list)

    def __call__(self, *topics: str, **options: Any) -> Broker:
        assert options["group_id"] is None
        self.at, self.connections = 0, self.connections + 1
        return self

    async def start(self) -> None:
        if self.slow:
            await asyncio.sleep(3600)

    async def stop(self) -> None: ...

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, 0)}

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.records) for place in places}

    def highwater(self, place: TopicPartition) -> int | None:
        return None

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        (since_ms,) = times.values()
        at = next((at for at, written in enumerate(self.written_ms) if written >= since_ms), None)
        return dict.fromkeys(times, None if at is None else OffsetAndTimestamp(at, self.written_ms[at]))

    async def position(self, place: TopicPartition) -> int:
        return self.at

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        if self.failures:
            raise self.failures.pop(0)
        if self.at >= len(self.records):
            await asyncio.sleep(0.001)
            return {}
        key, value = self.records[self.at]
        self.at += 1
        return {TopicPartition(TOPIC, 0): [Record(TOPIC, 0, self.at - 1, value, key, 1_764_000_000_000)]}


def note(text: str) -> tuple[bytes, bytes]:
    return text.encode(), msgspec.json.encode(Note(text))


class Desk:
    """A reader with what it handed on and buried."""

    def __init__(self, broker: Broker, handler: Callable[[Control[Note]], Any] | None = None, **options: Any) -> None:
        self.seen: list[Control[Note]] = []
        self.buried: list[DeadLetter] = []
        self.metrics = Metrics()
        self.reader = ControlReader(
            KafkaSettings(), metrics=self.metrics.control, bury=self._bury, consumer=broker, **options
        )
        self.reader.handle("labels", TOPIC, Note, handler or self.seen.append)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        self.buried += letters

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def until(self, condition: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.reader.run())
        try:
            async with asyncio.timeout(30):
                while not condition():  # noqa: ASYNC110 (the reader tells nobody)
                    await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("ages_s", "read"), [((900, 500, 10, 5), 2), ((900, 500, 400, 300), 0), ((3, 2, 1, 0), 4)])
async def test_what_was_written_too_long_ago_is_passed_over_and_what_comes_is_read(
    ages_s: Sequence[int], read: int
) -> None:
    now_ms = round(time.time() * 1000)
    broker = Broker([note(str(age)) for age in ages_s], written_ms=[now_ms - 1000 * age for age in ages_s])
    desk = Desk(broker, back_s=100.0)
    assert await desk.reader.start()
    broker.records.append(note("live"))
    broker.failures.append(errors.KafkaConnectionError())  # a new connection goes on where the old one was
    await desk.until(lambda: len(desk.seen) > read)
    assert [held.value and held.value.text for held in desk.seen] == [
        *(str(age) for age in ages_s[len(ages_s) - read :]), "live",
    ]  # fmt: skip


async def test_all_that_is_there_comes_before_the_start_is_over_and_the_rest_live() -> None:
    broker = Broker([note("one"), note("two"), (b"one", None)])
    desk = Desk(broker)
    assert await desk.reader.start()
    assert [(held.key, held.value and held.value.text, held.live) for held in desk.seen] == [
        ("one", "one", False),
        ("two", "two", False),
        ("one", None, False),
    ]
    assert desk.metric("headrace_control_ready") == 1
    broker.records.append(note("three"))
    await desk.until(lambda: len(desk.seen) == 4)
    assert desk.seen[-1].live
    assert desk.seen[-1].offset == 3
    assert desk.metric("headrace_control_records_total", control="labels", outcome="applied") == 4


@pytest.mark.parametrize(
    "value",
    [b"{", b'{"text": 1}', b"\xff", b'{"text": "' + b"x" * MOST_BYTES + b'"}'],
    ids=["cut", "type", "utf", "big"],
)
async def test_a_malformed_record_is_told_and_buried_once_and_what_follows_is_taken(value: bytes) -> None:
    broker = Broker([note("one"), (b"bad", value), note("two")])
    desk = Desk(broker)
    await desk.reader.start()
    assert [held.key for held in desk.seen] == ["one", "two"]
    assert desk.buried == []  # it was there before: whoever read it live has buried it
    broker.records += [(b"bad", value), note("three")]
    await desk.until(lambda: len(desk.seen) == 3)
    assert [(letter.stage, letter.reason, letter.record.value) for letter in desk.buried] == [
        ("control", "malformed", value)
    ]
    assert desk.metric("headrace_control_records_total", control="labels", outcome="malformed") == 2


async def test_only_one_worker_buries() -> None:
    broker = Broker()
    desk = Desk(broker, buries=lambda: False)
    await desk.reader.start()
    broker.records += [(b"bad", b"{"), note("one")]
    await desk.until(lambda: bool(desk.seen))
    assert desk.buried == []


async def test_a_handler_that_fails_costs_its_record_only() -> None:
    seen: list[str] = []

    async def handler(held: Control[Note]) -> None:
        if held.key == "two":
            raise RuntimeError("unforeseen")
        seen.append(held.key)

    broker = Broker()
    desk = Desk(broker, handler)
    await desk.reader.start()
    broker.records += [note("one"), note("two"), note("three")]
    await desk.until(lambda: seen == ["one", "three"])
    assert [(letter.reason, letter.detail) for letter in desk.buried] == [("failed", "RuntimeError: unforeseen")]


async def test_a_broker_that_goes_away_is_asked_again_from_where_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.control._FIRST_PAUSE_S", 0.01)
    broker = Broker([note("one"), note("two")])
    desk = Desk(broker)
    await desk.reader.start()
    broker.failures = [errors.KafkaConnectionError("away"), OSError("away")]
    broker.records.append(note("three"))
    await desk.until(lambda: len(desk.seen) == 3)
    assert [held.key for held in desk.seen] == ["one", "two", "three"]
    assert broker.connections == 3
    assert desk.metric("headrace_control_reconnects_total") == 2


async def test_the_start_has_a_deadline_and_the_rest_is_read_beside_the_work() -> None:
    broker = Broker([note("one")], slow=True)
    desk = Desk(broker, start_s=0.05)
    assert not await desk.reader.start()
    assert desk.metric("headrace_control_ready") == 0
    broker.slow = False
    await desk.until(lambda: desk.metric("headrace_control_ready") == 1)
    assert [held.key for held in desk.seen] == ["one"]


async def test_a_topic_has_one_handler() -> None:
    desk = Desk(Broker())
    with pytest.raises(ValueError, match="has a handler already"):
        desk.reader.handle("labels", TOPIC, Note, desk.seen.append)
