"""The MQTT bridge against a real mosquitto: nothing lost whatever breaks, and what Sparkplug B asks of a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridge_fixtures import SPARKPLUG, readings_of, road
from certificates import authority, certificate
from plants import BridgeProcess, EdgeNode, Publisher, mosquitto, wait_for
from servers import Server, need
from worker_process import read_all

from stream.bridge import sparkplug
from stream.plan import Plan, TopicSettings
from stream.settings import KafkaSettings

pytest.importorskip("paho.mqtt", reason="the MQTT bridge comes with headrace[mqtt]")
pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(240)]

#: for what does not depend on Kafka
ONE_BROKER = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
AT_MS = 1_764_000_000_000
DEVICES = {f"pump-{number}": ("flow", "heat") for number in range(5)}


def publish(edge: EdgeNode, start: int, stop: int, pause_s: float = 0.0) -> None:
    """Readings ``start`` to ``stop`` of every device, each sent before the next is."""
    for number in range(start, stop):
        for device in DEVICES:
            edge.data(device, AT_MS + number * 1000, {"flow": float(number), "heat": 70.0 + number}).wait_for_publish(
                60
            )
        time.sleep(pause_s)


def must_be_complete(readings: list[dict[str, Any]], count: int) -> None:
    """Every reading is there with its values; each asset's first ones are in the order of time."""
    seen: dict[str, dict[str, dict[str, float]]] = {device: {} for device in DEVICES}
    for reading in readings:
        times = seen[reading["asset"]]
        again = times.setdefault(reading["ts"], reading["values"])
        assert again == reading["values"], "a repetition says the same"
    for device, times in seen.items():
        assert len(times) == count, f"{device} has {len(times)} of {count} readings"
        assert list(times) == sorted(times), device
        assert [held["flow"] for held in times.values()] == [float(number) for number in range(count)]


def test_a_bridge_that_is_killed_loses_nothing(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    tmp_path: Path,
) -> None:
    path, topics = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    port = {"HEADRACE_MQTT_PORT": str(mqtt_broker[1])}
    bridge = bridges("mqtt", path, kafka, **port)
    edge = EdgeNode(mqtt_broker[1], "north", "line-1", DEVICES)
    publish(edge, 0, 20)
    bridge.has_sent(100)
    sent, ending = 20, threading.Event()

    def live() -> None:
        nonlocal sent
        while not ending.is_set():
            publish(edge, sent, sent + 1, 0.002)
            sent += 1

    plant = threading.Thread(target=live)
    plant.start()
    try:
        for _ in range(2):
            already = bridge.metric("headrace_bridge_readings_total")
            bridge.has_sent(int(already) + 50)
            bridge.kill()
            bridge.start_again()
    finally:
        ending.set()
        plant.join()
    publish(edge, sent, sent + 10)
    count = sent + 10
    all_of_them = len(DEVICES) * count
    bridge.wait(lambda: len({(r["asset"], r["ts"]) for r in readings_of(kafka, topics)}) == all_of_them, 60, "complete")
    must_be_complete(readings_of(kafka, topics), count)
    assert not read_all(kafka, topics.dead_letters)
    assert edge.births == 1, "what it knew of the edge node has outlived it"
    edge.close()
    assert bridge.stop() == 0


def test_while_kafka_is_away_little_is_held_and_nothing_lost(
    plan: Plan,
    killable_kafka: tuple[Server, str],
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    tmp_path: Path,
) -> None:
    server, address = killable_kafka
    kafka = KafkaSettings(bootstrap=address, group="bridge", partitions=2)
    section = SPARKPLUG.replace('client_id = "bridge-{state}"', 'client_id = "bridge-{state}"\nmax_held = 50')
    section = section.replace('groups = ["north"]', 'groups = ["north"]\nhost_id = "headrace"')
    path, topics = road(plan, kafka, tmp_path / "plan", section)
    bridge = bridges("mqtt", path, kafka, HEADRACE_MQTT_PORT=str(mqtt_broker[1]))
    listener = Publisher(mqtt_broker[1], "spBv1.0/STATE/headrace")

    def online() -> bool | None:
        return json.loads(listener.heard[-1][1])["online"] if listener.heard else None

    wait_for(lambda: online() is True, "announced as a host")
    edge = EdgeNode(mqtt_broker[1], "north", "line-1", DEVICES)
    publish(edge, 0, 20)
    bridge.has_sent(100)
    server.stop()
    publish(edge, 20, 120)
    bridge.wait(lambda: bridge.metric("headrace_bridge_held_messages") >= 50, 60, "full")
    bridge.wait(lambda: online() is False, 60, "offline for edge nodes that keep their data")
    assert bridge.get("/health/ready") is None
    assert bridge.get("/health/live") is not None, "a restart would not bring Kafka back"
    assert bridge.metric("headrace_bridge_held_messages") == 50
    server.start()
    bridge.has_sent(5 * 120, within_s=120)
    wait_for(lambda: online() is True, "online again")
    must_be_complete(readings_of(kafka, topics), 120)
    edge.close()
    listener.close()
    assert bridge.stop() == 0


def test_the_mqtt_broker_may_go_and_come_back(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    tmp_path: Path,
) -> None:
    server, port = mqtt_broker
    path, topics = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    bridge = bridges("mqtt", path, kafka, HEADRACE_MQTT_PORT=str(port))
    edge = EdgeNode(port, "north", "line-1", DEVICES)
    publish(edge, 0, 20)
    bridge.has_sent(100)
    edge.close()
    server.stop()
    bridge.wait(lambda: bridge.metric("headrace_bridge_connected") == 1, 30, "aware that one side is away")
    server.start()
    bridge.wait(lambda: bridge.metric("headrace_bridge_connected") == 2, 60, "connected again")
    edge = EdgeNode(port, "north", "line-1", DEVICES, bdseq=1)
    publish(edge, 20, 40)
    bridge.has_sent(200)
    must_be_complete(readings_of(kafka, topics), 40)
    edge.close()


@ONE_BROKER
def test_births_deaths_and_rebirths(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    tmp_path: Path,
) -> None:
    port = mqtt_broker[1]
    path, topics = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    edge = EdgeNode(port, "north", "line-1", {"pump-1": ("flow", "heat")})  # nobody hears its births
    bridge = bridges("mqtt", path, kafka, HEADRACE_MQTT_PORT=str(port))
    edge.data("pump-1", AT_MS, {"flow": 1.0})
    wait_for(lambda: edge.births == 2, "asked for its births")
    bridge.wait(lambda: bridge.metric("headrace_bridge_dead_letters_total") == 1, 30, "told of what no birth explains")
    edge.data("pump-1", AT_MS + 1000, {"flow": 1.0, "heat": 70.0})
    bridge.has_sent(1)
    before_ms = int(time.time() * 1000)
    edge.vanish()
    bridge.has_sent(2)
    live, stale = readings_of(kafka, topics)
    assert live == {"asset": "pump-1", "ts": "2025-11-24T16:00:01.000Z", "values": {"flow": 1.0, "heat": 70.0}}
    assert stale["values"] == {"flow": None, "heat": None}
    assert stale["quality"] == {"flow": "bad", "heat": "bad"}
    assert stale["ts"] >= time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before_ms / 1000))
    bridge.wait(lambda: 'state="stale"} 1.0' in (bridge.get("/metrics") or ""), 10, "aware of the death")
    (letter,) = read_all(kafka, topics.dead_letters)
    about = dict(letter.headers)
    assert (about["headrace.stage"], about["headrace.reason"]) == (b"bridge", b"no_birth")
    assert about["headrace.topic"] == b"spBv1.0/north/DDATA/line-1/pump-1"
    assert sparkplug.parse(letter.value).metrics[0].double_value == 1.0
    assert bridge.stop() == 0


@ONE_BROKER
def test_plain_topics(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    mqtt_broker: tuple[Server, int],
    tmp_path: Path,
) -> None:
    path, topics = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    bridge = bridges("mqtt", path, kafka, HEADRACE_MQTT_PORT=str(mqtt_broker[1]), HEADRACE_MQTT_PROTOCOL="3.1.1")
    plant = Publisher(mqtt_broker[1])
    told = [{"value": value, "ts": AT_MS} for value in (40.25, 70.5)]
    for signal, payload in zip(("flow", "heat"), told, strict=True):
        plant.publish(f"plant/pump-1/{signal}", json.dumps(payload).encode(), qos=1)
    reading = {"ts": "2026-11-23T08:00:00Z", "values": {"flow": 41.0, "heat": None}, "quality": {"flow": "uncertain"}}
    plant.publish("gateway/pump-2", json.dumps(reading).encode(), qos=1)
    plant.publish("plant/pump-3/flow", b"on", qos=1)
    plant.publish("plant/pump-3/flow", b"42.5", qos=1)
    bridge.has_sent(3)
    bridge.wait(lambda: bridge.metric("headrace_bridge_dead_letters_total") == 1, 30, "told of what is no number")
    found = {held["asset"]: held for held in readings_of(kafka, topics)}
    assert found["pump-1"] == {
        "asset": "pump-1",
        "ts": "2025-11-24T16:00:00.000Z",
        "values": {"flow": 40.25, "heat": 70.5},
    }
    assert found["pump-2"] == {"asset": "pump-2", **reading, "ts": "2026-11-23T08:00:00.000Z"}
    assert found["pump-3"]["values"] == {"flow": 42.5}
    (letter,) = read_all(kafka, topics.dead_letters)
    assert (letter.value, dict(letter.headers)["headrace.reason"]) == (b"on", b"bad_value")
    plant.close()
    assert bridge.stop() == 0


PASSWORD = "mqtt-p4ssw0rd-of-the-tests"


@pytest.fixture
def secure_broker(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A mosquitto that lets nobody in without TLS and a password; its certificate is for ``localhost``."""
    need("openssl", package="openssl")
    need("mosquitto_passwd", package="mosquitto")
    folder = tmp_path / "secure"
    folder.mkdir()
    authority(folder, "ca")
    certificate(folder, "server", "localhost")
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "users"), "headrace", PASSWORD], check=True)
    more = f"cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    server, port = mosquitto(folder, more + f"allow_anonymous false\npassword_file {folder}/users\n")
    server.start()
    yield port, folder
    server.stop()


def sampled(path: Path, environment: dict[str, str], seconds: float = 6.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "bridge", "mqtt", "--plan", str(path), "--check"]
    return subprocess.run(
        [*command, "--sample", str(seconds)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip


@ONE_BROKER
def test_tls_and_a_password(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    secure_broker: tuple[int, Path],
    tmp_path: Path,
) -> None:
    port, folder = secure_broker
    path, _ = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    (folder / "password").write_text(PASSWORD)
    given = {
        "HEADRACE_MQTT_HOST": "localhost",
        "HEADRACE_MQTT_PORT": str(port),
        "HEADRACE_MQTT_TLS": "true",
        "HEADRACE_MQTT_CA_FILE": str(folder / "ca.pem"),
        "HEADRACE_MQTT_USERNAME": "headrace",
        "HEADRACE_MQTT_PASSWORD_FILE": str(folder / "password"),
        "HEADRACE_BRIDGE_LOG_LEVEL": "DEBUG",
    }
    bridge = bridges("mqtt", path, kafka, **given)
    bridge.wait(lambda: bridge.metric("headrace_bridge_connected") == 2, 30, "let in")
    assert bridge.stop() == 0
    assert PASSWORD not in bridge.log()
    (folder / "password").write_text("another-password")
    refused = sampled(path, given)
    assert refused.returncode == 2
    assert "does not let us in" in refused.stderr
    assert "another-password" not in refused.stdout + refused.stderr
    (folder / "password").write_text(PASSWORD)
    wrong_name = sampled(path, {**given, "HEADRACE_MQTT_HOST": "127.0.0.1"})
    assert wrong_name.returncode == 2, "the certificate is for another name"


@ONE_BROKER
def test_a_sample_shows_what_would_come_and_sends_nothing(
    plan: Plan, kafka: KafkaSettings, topics: TopicSettings, mqtt_broker: tuple[Server, int], tmp_path: Path
) -> None:
    path, mine = road(plan, kafka, tmp_path / "plan", SPARKPLUG)
    port = mqtt_broker[1]
    edge = EdgeNode(port, "north", "line-1", {"pump-1": ("flow",), "lamp-1": ("light",)})
    plant, ending = Publisher(port), threading.Event()

    def live() -> None:
        number = 0
        while not ending.wait(0.2):
            number += 1
            edge.data("pump-1", AT_MS + number * 1000, {"flow": 40.5})
            edge.data("lamp-1", AT_MS + number * 1000, {"light": 1.0})
            plant.publish("plant/pump-2/heat", b"on")

    thread = threading.Thread(target=live)
    thread.start()
    try:
        done = sampled(path, {"HEADRACE_MQTT_PORT": str(port), "COLUMNS": "160"})
    finally:
        ending.set()
        thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[bridge.mqtt] is valid" in done.stdout
    assert "40.5" in done.stdout
    assert "no detector of the plan watches lamp-1" in done.stdout
    assert "refused, bad_value: plant/pump-2/heat" in done.stdout
    assert not readings_of(kafka, mine)
    edge.close()
    plant.close()
