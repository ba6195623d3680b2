"""What the Kafka sink writes and what it makes of errors; with a producer that is not connected to anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from aiokafka import errors
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords

from stream.errors import SinkRefused, SinkUnavailable
from stream.plan import TopicSettings
from stream.records import Alert, DeadLetter, Output, Scores
from stream.settings import KafkaSettings
from stream.sinks.batches import pack
from stream.sinks.kafka import KafkaSink
from stream.sinks.messages import score_rows

TOPICS = TopicSettings(scores="plant.scores.v1")


def read_batches(data: bytes) -> list[list[Any]]:
    """The records of each batch, as a consumer reads them: CRC checked, decompressed."""
    found, records = [], MemoryRecords(data)
    while records.has_next():
        batch = records.next_batch()
        assert batch is not None
        assert batch.validate_crc()
        found.append(list(batch))
    return found


class FakeProducer:
    """Remembers what is sent; ``limit_bytes`` refuses larger values, ``failing`` topics raise in ``send``'s future."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.sent: list[dict[str, Any]] = []
        self.limit_bytes = 1 << 30
        self.failing: Mapping[str, BaseException] = {}
        self.starting: BaseException | None = None
        self.stopped = False
        self.batches: list[tuple[int, int]] = []

    async def start(self) -> None:
        if self.starting:
            raise self.starting

    async def stop(self) -> None:
        self.stopped = True

    async def send(self, topic: str, value: bytes | None, *, key: bytes | None, headers: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if topic in self.failing:
            future.set_exception(self.failing[topic])
        elif len(value or b"") > self.limit_bytes:
            future.set_exception(errors.MessageSizeTooLargeError())
        else:
            self.sent.append({"topic": topic, "value": value, "key": key, "headers": dict(headers)})
            future.set_result(None)
        return future

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (held,) = read_batches(bytes(batch._build()))
        if topic in self.failing:
            future.set_exception(self.failing[topic])
        elif any(len(record.value) > self.limit_bytes for record in held):
            future.set_exception(errors.MessageSizeTooLargeError())
        else:
            self.batches.append((partition, len(held)))
            self.sent += [
                {"topic": topic, "value": record.value, "key": record.key, "headers": dict(record.headers)}
                for record in held
            ]
            future.set_result(None)
        return future

    def on(self, topic: str) -> list[dict[str, Any]]:
        return [record for record in self.sent if record["topic"] == topic]


def sink_with(producer: FakeProducer) -> KafkaSink:
    def make(**options: Any) -> FakeProducer:
        producer.options = options
        return producer

    return KafkaSink(KafkaSettings(bootstrap="broker:9092"), TOPICS, site="mill", producer=make)


async def test_an_alert_is_a_cloud_event_keyed_by_its_id(make_alert: Callable[..., Alert]) -> None:
    producer = FakeProducer()
    await sink_with(producer).write(
        Output(alerts=(make_alert(state="resolved", sequence=3, resolved="2026-11-23T09:00:00Z"),))
    )
    (record,) = producer.on(TOPICS.alerts)
    assert record["key"] == b"a1"
    assert json.loads(record["value"])["causes"][0] == {
        "signal": "heat",
        "share": 0.75,
        "value": 91.0,
        "expected": 70.0,
    }
    assert record["headers"] == {
        "ce_specversion": b"1.0",
        "ce_id": b"a1:3",
        "ce_source": b"/headrace/mill",
        "ce_type": b"io.headrace.alert.resolved",
        "ce_time": b"2026-11-23T09:00:00Z",
        "ce_subject": b"pump-1",
        "content-type": b"application/json",
    }
    assert producer.options["acks"] == "all"
    assert producer.options["compression_type"] == "gzip"  # what every client can read
    assert "partitioner" not in producer.options  # aiokafka's default is murmur2 over the raw key, like Java's


async def test_a_dead_letter_keeps_every_byte_and_says_where_it_came_from(make_dead: Callable[..., DeadLetter]) -> None:
    producer = FakeProducer()
    headers = (("trace", b"\xff\x00"), ("empty", None), ("headrace.stage", b"an older life"))
    tombstone = make_dead(None)
    await sink_with(producer).write(
        Output(dead=(make_dead(b"\x00\xff", headers=headers), tombstone, make_dead(None, key=None)))
    )
    first, second, third = producer.on(TOPICS.dead_letters)
    assert (first["key"], first["value"]) == (b"pump-1", b"\x00\xff")
    assert first["headers"] == {
        "trace": b"\xff\x00",
        "empty": None,
        "headrace.error": b"not_json: it starts with 'not'",
        "headrace.reason": b"not_json",
        "headrace.stage": b"decode",
        "headrace.topic": b"plant.readings.v1",
        "headrace.partition": b"1",
        "headrace.offset": b"7",
        "headrace.timestamp": b"1764000000000",
    }
    assert second["value"] is None
    assert (third["key"], third["value"], third["headers"]["headrace.key"]) == (b"", None, b"null")


async def test_late_readings_go_to_their_own_topic(output: Output) -> None:
    producer = FakeProducer()
    await sink_with(producer).write(output)
    (record,) = producer.on(TOPICS.late)
    assert record["headers"]["headrace.detail"] == b"older than the newest reading of pump-1"
    assert [len(producer.on(topic)) for topic in (TOPICS.alerts, TOPICS.dead_letters, TOPICS.scores)] == [1, 1, 3]


async def test_a_score_row_never_holds_a_number_that_is_not_one(make_scores: Callable[..., Scores]) -> None:
    scores = make_scores(
        score=np.array([0.5, np.nan, np.inf]),
        verdict=np.array([0, 2, 0], np.uint8),
        values=np.array([[1.0, np.nan], [np.nan, np.inf], [3.0, 4.0]]),
    )
    rows = [(key, json.loads(value)) for key, value in score_rows(scores, "mill")]
    assert [key for key, _ in rows] == [b"pump-0", b"pump-1", b"pump-0"]
    assert [(row["valid"], row.get("reason"), "score" in row) for _, row in rows] == [
        (True, None, True),
        (False, "missing", False),
        (False, "no_value", False),
    ]
    assert [row["values"] for _, row in rows] == [{"flow": 1.0}, {}, {"flow": 3.0, "heat": 4.0}]
    assert rows[0][1]["ts"] == "2025-11-24T16:00:00.000Z"
    assert rows[0][1]["high"]["flow"] - rows[0][1]["low"]["flow"] == pytest.approx(6 * 0.5)


async def test_scores_go_in_batches_to_the_partition_of_their_asset(make_scores: Callable[..., Scores]) -> None:
    producer = FakeProducer()
    scores = make_scores(rows=3000, assets=50)
    await sink_with(producer).write(Output(scores=(scores,)))
    assert len(producer.batches) < 20
    assert {partition for partition, _ in producer.batches} == {0, 1, 2, 3}
    expected = list(score_rows(scores, "mill"))
    written = [(record["key"], record["value"]) for record in producer.on(TOPICS.scores)]
    assert sorted(written) == sorted(expected)
    assert all(record["headers"] == {"content-type": b"application/json"} for record in producer.on(TOPICS.scores))
    for asset in range(50):  # in order
        key = f"pump-{asset}".encode()
        assert [row for row in written if row[0] == key] == [row for row in expected if row[0] == key]


def test_a_key_has_the_partition_that_any_client_gives_it(make_scores: Callable[..., Scores]) -> None:
    partitions = [0, 1, 2, 3, 4]
    for partition, packs in pack([make_scores(rows=200, assets=100)], "", partitions).items():
        for held in packs:
            assert {DefaultPartitioner()(key, partitions, partitions) for key, _ in held.rows} == {partition}
            (records,) = read_batches(bytes(held.batch._build()))
            assert [(record.key, record.value) for record in records] == list(held.rows)
            assert [record.offset for record in records] == list(range(len(records)))


async def test_a_row_that_is_refused_takes_no_other_with_it(make_scores: Callable[..., Scores]) -> None:
    producer = FakeProducer()
    producer.limit_bytes = 2000
    names = ("pump-0", "p" * 3000)
    with pytest.raises(SinkRefused, match=r"1 records.*plant\.scores\.v1") as refused:
        await sink_with(producer).write(Output(scores=(make_scores(rows=3, names=names),)))
    assert [letter.record.key for letter in refused.value.letters] == [names[1].encode()]
    assert [record["key"] for record in producer.on(TOPICS.scores)] == [b"pump-0"] * 2


async def test_scores_wait_for_a_cluster_that_is_away(make_scores: Callable[..., Scores]) -> None:
    producer = FakeProducer()
    producer.failing = {TOPICS.scores: errors.NotEnoughReplicasError()}
    with pytest.raises(SinkUnavailable, match="broker:9092"):
        await sink_with(producer).write(Output(scores=(make_scores(rows=3),)))
    assert not producer.stopped


async def test_what_is_too_large_is_cut_and_its_batch_is_written(make_dead: Callable[..., DeadLetter]) -> None:
    producer = FakeProducer()
    producer.limit_bytes = 600_000
    await sink_with(producer).write(Output(dead=(make_dead(b"x" * 2_000_000), make_dead(b"small"))))
    by_size = sorted(producer.on(TOPICS.dead_letters), key=lambda record: len(record["value"]))
    assert [len(record["value"]) for record in by_size] == [5, 500_000]
    assert by_size[1]["headers"]["headrace.truncated"] == b"2000000"
    assert "headrace.truncated" not in by_size[0]["headers"]


async def test_what_cannot_be_cut_is_refused_with_its_letter(make_alert: Callable[..., Alert]) -> None:
    producer = FakeProducer()
    producer.failing = {TOPICS.alerts: errors.InvalidTimestampError()}
    with pytest.raises(SinkRefused, match=TOPICS.alerts) as refused:
        await sink_with(producer).write(Output(alerts=(make_alert(),)))
    (letter,) = refused.value.letters
    assert (letter.stage, letter.reason, letter.record.key, letter.record.topic) == (
        "publish",
        "refused",
        b"a1",
        TOPICS.alerts,
    )
    await sink_with(producer).write(Output(dead=refused.value.letters))
    assert len(producer.on(TOPICS.dead_letters)) == 1


@pytest.mark.parametrize(
    ("error", "retry_after_s"),
    [
        (errors.KafkaTimeoutError(), 1.0),
        (errors.NotEnoughReplicasError(), 1.0),
        (errors.TopicAuthorizationFailedError("t"), 5.0),
        (errors.UnknownTopicOrPartitionError(), 5.0),
    ],
)
async def test_trouble_that_can_pass_holds_everything(
    output: Output, error: BaseException, retry_after_s: float
) -> None:
    producer = FakeProducer()
    producer.failing = {TOPICS.alerts: error}
    with pytest.raises(SinkUnavailable, match="broker:9092") as unavailable:
        await sink_with(producer).write(output)
    assert unavailable.value.retry_after_s == retry_after_s
    assert not producer.stopped


async def test_a_producer_beyond_repair_is_replaced(output: Output) -> None:
    made: list[FakeProducer] = []

    def make(**options: Any) -> FakeProducer:
        made.append(FakeProducer(**options))
        if len(made) == 1:
            made[0].failing = {TOPICS.alerts: errors.ProducerClosed()}
        return made[-1]

    sink = KafkaSink(KafkaSettings(), TOPICS, producer=make)
    with pytest.raises(SinkUnavailable):
        await sink.write(output)
    await sink.write(output)
    assert [producer.stopped for producer in made] == [True, False]
    assert len(made[1].on(TOPICS.alerts)) == 1


async def test_no_broker_at_the_start_is_told_with_its_address() -> None:
    producer = FakeProducer()
    producer.starting = errors.KafkaConnectionError("nobody")
    with pytest.raises(SinkUnavailable, match=r"broker:9092 \(HEADRACE_KAFKA_BOOTSTRAP\)"):
        await sink_with(producer).start()
    assert producer.stopped


async def test_stops_in_time_although_the_producer_hangs() -> None:
    class Hanging(FakeProducer):
        async def stop(self) -> None:
            await asyncio.sleep(60)

    from stream.sinks import kafka

    await asyncio.wait_for(kafka._close(Hanging(), 0.05), 1.0)
