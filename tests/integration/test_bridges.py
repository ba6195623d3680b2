"""Bridges over real sockets: mosquitto and asyncua's server on the plant's side, a broker and a worker on the other."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plants import BridgeProcess, EdgeNode, OpcuaPlant, mosquitto, opcua_server, rows
from servers import Server, free_port
from worker_process import Worker, read_all, run, write_plan

from models.datasets import Recording
from stream.settings import KafkaSettings, Plan, TopicSettings
from stream.topics import ensure_topics

pytest.importorskip("paho.mqtt", reason="the MQTT bridge comes with headrace[mqtt]")
pytest.importorskip("asyncua", reason="the OPC UA bridge comes with headrace[opcua]")
pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(280)]

SIGNALS = ("flow", "heat", "pressure")


@pytest.fixture
def mqtt_broker(tmp_path: Path) -> Iterator[tuple[Server, int]]:
    server, port = mosquitto(tmp_path / "mosquitto")
    server.start()
    yield server, port
    server.stop()


@pytest.fixture
def bridges(tmp_path: Path) -> Iterator[Callable[..., BridgeProcess]]:
    """``bridges("mqtt", plan, kafka, HEADRACE_...=...)`` starts one; killed at the end."""
    started: list[BridgeProcess] = []

    def start(name: str, plan: Path, kafka: KafkaSettings, **environment: str) -> BridgeProcess:
        log = tmp_path / f"bridge-{len(started)}.log"
        started.append(BridgeProcess(name, plan, kafka, log, **environment))
        started[-1].start(free_port())
        return started[-1]

    yield start
    for bridge in started:
        bridge.kill()


SPARKPLUG = """
[bridge]
state = "{state}"
[bridge.mqtt]
client_id = "bridge-{state}"
[bridge.mqtt.sparkplug]
groups = ["north"]
[[bridge.mqtt.topics]]
topic = "plant/{{asset}}/{{signal}}"
[[bridge.mqtt.topics]]
topic = "gateway/{{asset}}"
"""
OPCUA = """
[bridge]
state = "{state}"
[bridge.opcua]
publishing_ms = 50
queue = 5000
[[bridge.opcua.browse]]
path = "Plant/{{asset}}/{{signal}}"
"""


def road(plan: Plan, kafka: KafkaSettings, folder: Path, section: str) -> tuple[Path, TopicSettings]:
    """The plan with topics of its own and a bridge."""
    mine = uuid.uuid4().hex[:8]
    names = {name: f"{mine}.{name}" for name in ("readings", "alerts", "dead_letters", "late", "state")}
    topics = TopicSettings(**names)
    ensure_topics(kafka, topics)
    folder.mkdir()
    path = write_plan(plan.folder / "headrace.toml", topics, folder, artifacts=plan.folder / "artifacts")
    path.write_text(path.read_text() + section.format(state=f"{mine}.bridge"))
    return path, topics


def alerts_of(worker: Worker, plan: Path) -> list[dict[str, Any]]:
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    found = [json.loads(line) for line in lines]
    return sorted(found, key=lambda alert: (alert["id"], alert["sequence"]))


def readings_of(kafka: KafkaSettings, topics: TopicSettings) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in read_all(kafka, topics.readings)]


def test_the_same_alerts_whatever_the_road(
    plan: Plan,
    kafka: KafkaSettings,
    start_worker: Callable[..., Worker],
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Plant data by replay, by Sparkplug B and by OPC UA: the same alerts, with the same ids, byte for byte."""
    recordings = [
        make_recording("pump-1", rows=400, seed=1, fault=(200, 240)),
        *[make_recording(f"pump-{number}", rows=400, seed=number) for number in (2, 3)],
    ]
    data = tmp_path / "data"
    data.mkdir()
    for recording in recordings:
        write_csv(recording, data)
    plants = {recording.asset: SIGNALS for recording in recordings}
    total = sum(len(recording.at_ms) for recording in recordings)

    def through(worker: Worker, path: Path) -> list[dict[str, Any]]:
        worker.has_read(total)
        assert worker.metric("headrace_readings_total") == total
        assert worker.metric("headrace_late_total") == worker.metric("headrace_dead_letters_total") == 0
        found = alerts_of(worker, path)
        assert worker.stop() == 0
        return found

    path, _ = road(plan, kafka, tmp_path / "replay", "")
    worker = start_worker(path, HEADRACE_KAFKA_GROUP="by-replay")
    run(worker, "replay", str(data), "--plan", str(path))
    expected = through(worker, path)
    assert {alert["state"] for alert in expected if alert["asset"] == "pump-1"} >= {"open", "resolved"}

    path, _ = road(plan, kafka, tmp_path / "mqtt", SPARKPLUG)
    worker = start_worker(path, HEADRACE_KAFKA_GROUP="by-mqtt")
    bridge = bridges("mqtt", path, kafka, HEADRACE_MQTT_PORT=str(mqtt_broker[1]))
    edge = EdgeNode(mqtt_broker[1], "north", "line-1", plants)
    for asset, at_ms, values in rows(recordings):
        edge.data(asset, at_ms, values)
    bridge.has_sent(total)
    assert through(worker, path) == expected
    edge.close()
    assert bridge.stop() == 0

    path, _ = road(plan, kafka, tmp_path / "opcua", OPCUA)
    server, url = opcua_server(tmp_path / "server", plants)
    server.start()
    try:
        worker = start_worker(path, HEADRACE_KAFKA_GROUP="by-opcua")
        bridge = bridges("opcua", path, kafka, HEADRACE_OPCUA_URL=url)
        plant = OpcuaPlant(url)
        for asset, at_ms, values in rows(recordings):
            plant.write(asset, at_ms, values)
        plant.close()
        bridge.has_sent(total)
        assert through(worker, path) == expected
        assert bridge.stop() == 0
    finally:
        server.stop()
