"""What the sinks write, read back from the real servers."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest

from stream.errors import BrokerError
from stream.plan import TopicSettings
from stream.publish import Publisher
from stream.records import Alert, DeadLetter, Output, Scores
from stream.settings import KafkaSettings
from stream.sinks.influxdb import InfluxSettings, InfluxSink
from stream.sinks.kafka import KafkaSink
from stream.sinks.memory import MemorySink
from stream.sinks.prometheus import Metrics, PrometheusSink
from stream.topics import ensure_topics
from stream.web import Health, WebServer

AT_MS = 1_764_000_000_000

only_apache = pytest.mark.parametrize("broker", ["apache"], indirect=True)


class Restartable(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


class InfluxDB(Protocol):
    url: str
    server: Restartable

    def create(self, database: str) -> None: ...
    def query(self, database: str, influxql: str) -> list[dict[str, Any]]: ...


async def read(kafka: KafkaSettings, topic: str, count: int) -> list[Any]:
    """The first ``count`` records of a topic, all partitions."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.servers,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=kafka.max_record_bytes * 2,
        fetch_max_bytes=kafka.max_record_bytes * 4,
    )
    await consumer.start()
    records: list[Any] = []
    deadline = time.monotonic() + 20
    while len(records) < count and time.monotonic() < deadline:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            records += batch
    await consumer.stop()
    return records


async def get(url: str, **query: str) -> bytes:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        answer.raise_for_status()
        return await answer.read()


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


@pytest.mark.broker
def test_topics_are_created_once(kafka: KafkaSettings) -> None:
    mine = uuid.uuid4().hex[:8]
    kinds = ("readings", "alerts", "state", "dead_letters", "late", "actions", "labels", "models")
    names = {kind: f"{mine}.{kind}" for kind in kinds}
    topics = TopicSettings(**names)
    assert ensure_topics(kafka, topics) == list(names.values())
    assert ensure_topics(kafka, topics) == []
    assert ensure_topics(kafka, topics.model_copy(update={"scores": f"{mine}.s"})) == [f"{mine}.s"]

    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    assert {len(topic["partitions"]) for topic in admin.describe_topics([topics.readings, topics.state])} == {4}
    admin.close()


@pytest.mark.broker
@only_apache  # the embedded broker does not tell a topic's configuration
def test_the_alerts_topic_is_compacted_and_dead_letters_have_room(kafka: KafkaSettings, topics: TopicSettings) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    alerts, dead = (
        str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]))
        for name in (topics.alerts, topics.dead_letters)
    )
    admin.close()
    assert "compact" in alerts
    assert str(kafka.max_record_bytes + (64 << 10)) in dead


@pytest.mark.broker
@only_apache  # the embedded broker takes any replication factor
def test_a_replication_that_the_cluster_cannot_give_is_told(kafka: KafkaSettings) -> None:
    three = kafka.model_copy(update={"replication_factor": 3})
    with pytest.raises(BrokerError, match="HEADRACE_KAFKA_REPLICATION_FACTOR"):
        ensure_topics(three, TopicSettings(readings=uuid.uuid4().hex))


@pytest.mark.broker
async def test_alerts_come_back_keyed_ordered_and_as_cloud_events(
    kafka: KafkaSettings, topics: TopicSettings, make_alert: Callable[..., Alert]
) -> None:
    from kafka.partitioner import murmur2

    sink = KafkaSink(kafka, topics, site="mill")
    await sink.start()
    for sequence, state in enumerate(("open", "updated", "resolved")):
        await sink.write(
            Output(alerts=tuple(make_alert(id=f"alert-{i}", sequence=sequence, state=state) for i in range(50)))
        )
    await sink.stop()
    records = await read(kafka, topics.alerts, 150)
    assert len(records) == 150
    for i in range(50):
        mine = [record for record in records if record.key == f"alert-{i}".encode()]
        assert [json.loads(record.value)["state"] for record in mine] == ["open", "updated", "resolved"]
        assert dict(mine[2].headers)["ce_type"] == b"io.headrace.alert.resolved"
        assert {record.partition for record in mine} == {(murmur2(mine[0].key) & 0x7FFFFFFF) % 4}


@pytest.mark.broker
async def test_dead_letters_come_back_byte_for_byte_or_cut(
    kafka: KafkaSettings, topics: TopicSettings, make_dead: Callable[..., DeadLetter]
) -> None:
    headers = (("trace", b"\x00\xff"), ("empty", None))
    small = kafka.model_copy(update={"max_record_bytes": 4 << 20})
    letters = [
        make_dead(b"\x00\xff", key=b"bytes", headers=headers),
        make_dead(None, key=b"tombstone"),
        make_dead(None, key=None),
        make_dead(b"x" * (3 << 20), key=b"large"),
        make_dead(b"y" * (5 << 20), key=b"too large"),
    ]
    sink = KafkaSink(small, topics)
    await sink.start()
    await sink.write(Output(dead=tuple(letters)))
    await sink.stop()
    records = {record.key: record for record in await read(kafka, topics.dead_letters, 5)}
    assert records[b"bytes"].value == b"\x00\xff"
    assert dict(records[b"bytes"].headers).items() >= dict(headers).items()
    assert dict(records[b"bytes"].headers)["headrace.offset"] == b"7"
    assert records[b"tombstone"].value is None
    assert records[b""].value is None
    assert len(records[b"large"].value) == 3 << 20
    assert records[b"too large"].value == b"y" * 1_000_000
    assert dict(records[b"too large"].headers)["headrace.truncated"] == str(5 << 20).encode()


@pytest.mark.broker
@only_apache  # the embedded broker has no limit of its own
async def test_the_brokers_own_limit_cuts_too(kafka: KafkaSettings, make_dead: Callable[..., DeadLetter]) -> None:
    """Topics made by someone else may take less than our settings say; one large record fails its whole batch."""
    from kafka import KafkaAdminClient

    name = uuid.uuid4().hex
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    configs = {"max.message.bytes": "2000"}
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})
    admin.close()
    noise = np.random.default_rng(0).bytes(9_000)  # compression does not help
    sink = KafkaSink(kafka, TopicSettings(dead_letters=name))
    await sink.start()
    await sink.write(Output(dead=(make_dead(b"before"), make_dead(noise), make_dead(b"after"))))
    await sink.stop()
    values = {record.value for record in await read(kafka, name, 3)}
    assert values == {b"before", b"after", noise[:500]}


@pytest.mark.broker
async def test_no_broker_is_told_and_the_publisher_waits_for_one(
    kafka: KafkaSettings, topics: TopicSettings, make_alert: Callable[..., Alert]
) -> None:
    publisher = Publisher([KafkaSink(KafkaSettings(bootstrap="127.0.0.1:9"), topics)])
    publishing = asyncio.create_task(publisher.publish(Output(alerts=(make_alert(),))))
    await asyncio.sleep(0.5)
    assert not publishing.done()
    await publisher.stop()
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        await publishing


@pytest.mark.broker
@pytest.mark.slow  # the cluster itself takes ten seconds to let a killed broker in again
async def test_a_killed_broker_holds_the_alerts_back_and_gets_each_when_it_returns(
    killable_kafka: tuple[Restartable, str], make_alert: Callable[..., Alert]
) -> None:
    server, address = killable_kafka
    kafka, topics = KafkaSettings(bootstrap=address), TopicSettings()
    await asyncio.to_thread(ensure_topics, kafka, topics)
    publisher = Publisher([KafkaSink(kafka, topics, timeout_s=1.0)], max_wait_s=0.5)
    await publisher.start()
    await publisher.publish(Output(alerts=(make_alert(id="before"),)))
    server.stop()

    async def publish() -> None:
        for i in range(20):
            await publisher.publish(Output(alerts=(make_alert(id="during", sequence=i),)))

    publishing = asyncio.create_task(publish())
    await asyncio.sleep(3.0)
    assert not publishing.done()
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(publishing, 30.0)
    await publisher.stop()
    records = await read(kafka, topics.alerts, 21)
    sequences = [json.loads(record.value)["sequence"] for record in records if record.key == b"during"]
    assert list(dict.fromkeys(sequences)) == list(range(20))  # in order; repeats are allowed


@pytest.mark.servers
async def test_points_come_back_from_influxdb(
    influxdb: InfluxDB, make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]
) -> None:
    influxdb.create("plant")
    sink = InfluxSink(InfluxSettings(url=influxdb.url, bucket="plant"), site="mill")
    scores = make_scores(
        rows=4,
        names=("pump 1,=", "Überdruck"),
        score=np.array([0.5, np.nan, 4.0, 0.1]),
        verdict=np.array([0, 2, 0, 0], np.uint8),
        anomalous=np.array([False, False, True, False]),
    )
    output = Output(scores=(scores,), alerts=(make_alert(), make_alert(state="resolved", sequence=1)))
    await sink.start()
    for _ in range(2):  # writing twice leaves the same points
        await sink.write(output)
    await sink.stop()
    assert (sink.written_lines, sink.refused_lines) == (12, 0)

    rows = influxdb.query("plant", "SELECT * FROM headrace_score")
    assert [row["time"] for row in rows] == [(AT_MS + 10 * i) * 1_000_000 for i in range(4)]
    assert [row["asset"] for row in rows] == ["pump 1,=", "Überdruck"] * 2
    assert {row["site"] for row in rows} == {"mill"}
    assert [row["score"] for row in rows] == [0.5, None, 4.0, 0.1]
    assert [(row["valid"], row["reason"], row["anomalous"]) for row in rows[1:3]] == [
        (False, "missing", False),
        (True, None, True),
    ]
    assert [row["value_heat"] for row in rows] == scores.values[:, 1].tolist()
    assert rows[2]["share_flow"] == 0.5
    assert rows[0]["share_flow"] is None

    alerts = influxdb.query("plant", "SELECT * FROM headrace_alert")
    assert [(row["state"], row["active"], row["sequence"]) for row in alerts] == [
        ("open", True, 0),
        ("resolved", False, 1),
    ]
    tags = influxdb.query("plant", "SHOW TAG KEYS FROM headrace_score")
    assert [row["tagKey"] for row in tags] == ["asset", "detector", "site"]


@pytest.mark.servers
async def test_a_conflict_of_types_costs_only_its_own_lines(
    influxdb: InfluxDB, make_scores: Callable[..., Scores]
) -> None:
    import aiohttp

    influxdb.create("conflict")
    body = 'headrace_score,asset=pump-1,detector=pumps value_flow="text" 1763999999000000000'
    async with aiohttp.ClientSession() as session:
        await session.post(f"{influxdb.url}/api/v2/write?bucket=conflict&org=o&precision=ns", data=body)
    sink, letters = InfluxSink(InfluxSettings(url=influxdb.url, bucket="conflict")), MemorySink()
    publisher = Publisher([letters, sink])
    good = make_scores(rows=40, assets=4, signals=("heat",))
    bad = make_scores(rows=1, names=("pump-9",), assets=1, signals=("flow",))
    await publisher.start()
    await publisher.publish(Output(scores=(good, bad, make_scores(rows=1, detector="last", signals=("heat",)))))
    await publisher.stop()
    assert (sink.written_lines, sink.refused_lines) == (41, 1)
    (letter,) = letters.dead
    assert (letter.stage, letter.reason) == ("publish", "influxdb_refused")
    assert "field type conflict" in letter.detail
    assert (letter.record.value or b"").startswith(b"headrace_score,asset=pump-9,")
    (count,) = influxdb.query("conflict", "SELECT count(score) FROM headrace_score")
    assert count["count"] == 41


@pytest.mark.servers
async def test_an_outage_is_held_and_replayed_in_order_while_nothing_is_delayed(
    influxdb: InfluxDB, make_scores: Callable[..., Scores]
) -> None:
    influxdb.create("outage")
    sink = InfluxSink(InfluxSettings(url=influxdb.url, bucket="outage", linger_s=0.0, batch_lines=500))
    alerts = MemorySink()
    publisher = Publisher([alerts, sink])
    await publisher.start()

    async def publish(batch: int) -> float:
        at_ms = AT_MS + batch * 1000 + np.arange(100, dtype=np.int64) * 10
        began = time.monotonic()
        await publisher.publish(Output(scores=(make_scores(rows=100, assets=1, at_ms=at_ms),)))
        return time.monotonic() - began

    await publish(0)
    await until(lambda: sink.written_lines == 100)
    influxdb.server.stop()
    slowest_s = max([await publish(batch) for batch in range(1, 40)])
    await until(lambda: sink.failed_writes >= 2)
    assert slowest_s < 0.2
    assert (len(alerts.outputs), sink.held_lines) == (40, 3900)
    influxdb.server.start()  # not from a thread: it is to die with the one that started it
    await until(lambda: sink.written_lines == 4000, 30.0)
    await publisher.stop()
    rows = influxdb.query("outage", "SELECT score FROM headrace_score")
    assert [row["time"] for row in rows] == [
        (AT_MS + batch * 1000 + row * 10) * 1_000_000 for batch in range(40) for row in range(100)
    ]


@pytest.mark.servers
async def test_points_come_back_from_victoriametrics(
    victoria: str, make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]
) -> None:
    mine = uuid.uuid4().hex[:8]
    now_ms = int(time.time() * 1000) - 60_000
    sink = InfluxSink(InfluxSettings(url=victoria), site=mine)
    scores = make_scores(
        rows=4, score=np.array([0.5, np.nan, 4.0, 0.1]), at_ms=now_ms + np.arange(4, dtype=np.int64) * 10
    )
    await sink.start()
    await sink.write(Output(scores=(scores,), alerts=(make_alert(),)))
    await sink.stop()
    assert (sink.written_lines, sink.refused_lines) == (5, 0)
    await get(f"{victoria}/internal/force_flush")
    lines = (await get(f"{victoria}/api/v1/export", **{"match[]": f'{{site="{mine}"}}'})).decode().splitlines()
    series = {(s["metric"]["__name__"], s["metric"]["asset"]): s for s in map(json.loads, lines)}
    assert series["headrace_score_score", "pump-0"]["values"] == [0.5, 4]
    assert series["headrace_score_score", "pump-0"]["timestamps"] == [now_ms, now_ms + 20]
    assert series["headrace_score_score", "pump-1"]["values"] == [0.1]
    assert series["headrace_score_valid", "pump-1"]["values"] == [0, 1]
    query = f'max_over_time(headrace_score_score{{asset="pump-0",site="{mine}"}}[10m])'
    answer = json.loads(await get(f"{victoria}/api/v1/query", query=query))
    assert [float(result["value"][1]) for result in answer["data"]["result"]] == [4.0]


@pytest.mark.servers
async def test_prometheus_scrapes_the_metrics(prometheus: Callable[[str], str], output: Output) -> None:
    metrics, health = Metrics(version="0.1"), Health()
    await PrometheusSink(metrics).write(output)
    metrics.lag(42, partitions=4)
    web = WebServer(metrics.registry, health)
    await web.start()
    url = await asyncio.to_thread(prometheus, f"127.0.0.1:{web.port}")

    async def ask(query: str) -> dict[str, float]:
        answer = json.loads(await get(f"{url}/api/v1/query", query=query))
        return {json.dumps(r["metric"], sort_keys=True): float(r["value"][1]) for r in answer["data"]["result"]}

    deadline = time.monotonic() + 20
    while not await ask("headrace_readings_total"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    assert list((await ask("headrace_readings_total")).values()) == [3]
    assert list((await ask("headrace_consumer_lag_records")).values()) == [42]
    assert list((await ask('headrace_open_alerts{severity="major"}')).values()) == [1]
    assert max((await ask("histogram_quantile(0.5, headrace_score_threshold_ratio_bucket)")).values()) < 1.5
    names = json.loads(await get(f"{url}/api/v1/label/{urllib.parse.quote('__name__')}/values"))["data"]
    assert {"headrace_build_info", "headrace_stage_seconds_bucket", "headrace_dead_letters_total"} <= set(names)
    labels = json.loads(await get(f"{url}/api/v1/labels"))["data"]
    assert not {"asset", "signal", "id"} & set(labels)
    await web.stop()
