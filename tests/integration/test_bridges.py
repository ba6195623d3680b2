"""Bridges over real sockets: mosquitto and asyncua's server on the plant's side, a broker and a worker on the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bridge_fixtures import OPCUA, SIGNALS, SPARKPLUG, alerts_of, road
from plants import BridgeProcess, EdgeNode, OpcuaPlant, opcua_server, rows
from roads import draw
from server_fixtures import one_broker
from servers import Server
from worker_process import Worker, run

from models.datasets import Recording
from stream.plan import Plan
from stream.settings import KafkaSettings

pytest.importorskip("paho.mqtt", reason="the MQTT bridge comes with headrace[mqtt]")
pytest.importorskip("asyncua", reason="the OPC UA bridge comes with headrace[opcua]")
pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(280)]


@one_broker  # the bridges' own tests lose nothing on both
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
    by_mqtt = through(worker, path)
    assert by_mqtt == expected
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
        by_opcua = through(worker, path)
        assert by_opcua == expected
        assert bridge.stop() == 0
    finally:
        server.stop()
    if folder := os.environ.get("HEADRACE_PICTURES"):
        by_road = {"replay": expected, "Sparkplug B": by_mqtt, "OPC UA": by_opcua}
        draw(Path(folder) / "roads.png", recordings[0], "heat", by_road)
