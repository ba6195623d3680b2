"""The OPC UA bridge against asyncua's real server: restarts on either side, bad statuses, encryption and a user."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridge_fixtures import OPCUA, readings_of, road
from plants import BridgeProcess, OpcuaPlant, opcua_server, wait_for
from servers import Server, need
from worker_process import read_all

from stream.plan import Plan
from stream.settings import KafkaSettings

pytest.importorskip("asyncua", reason="the OPC UA bridge comes with headrace[opcua]")
pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(240)]

#: for what does not depend on Kafka
ONE_BROKER = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
AT_MS = 1_764_000_000_000
ASSETS = {"pump-1": ("flow", "heat"), "pump-2": ("flow", "heat")}
_BAD_SENSOR, _UNCERTAIN = 0x808C0000, 0x40900000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server with a history that outlives a restart."""
    held, url = opcua_server(tmp_path / "server", ASSETS)
    held.start()
    yield held, url
    held.stop()


def write(plant: OpcuaPlant, start: int, stop: int, pause_s: float = 0.0) -> None:
    """Readings ``start`` to ``stop`` of every asset."""
    for number in range(start, stop):
        for asset in ASSETS:
            plant.write(asset, AT_MS + number * 1000, {"flow": float(number), "heat": 70.0 + number})
        time.sleep(pause_s)


def must_be_complete(readings: list[dict[str, Any]], count: int) -> None:
    """Every reading is there, with both signals; first ones in the order of time."""
    for asset in ASSETS:
        times: dict[str, Any] = {}
        for reading in readings:
            if reading["asset"] == asset:
                again = times.setdefault(reading["ts"], reading["values"])
                assert again == reading["values"]
        assert list(times) == sorted(times)
        assert list(times.values()) == [{"flow": float(number), "heat": 70.0 + number} for number in range(count)]


def test_a_bridge_that_is_killed_reads_the_rest_from_the_history(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    server: tuple[Server, str],
    tmp_path: Path,
) -> None:
    path, topics = road(plan, kafka, tmp_path / "plan", OPCUA)
    bridge = bridges("opcua", path, kafka, HEADRACE_OPCUA_URL=server[1])
    plant = OpcuaPlant(server[1])
    write(plant, 0, 20)
    bridge.has_sent(40)
    remembered = f"{topics.readings.split('.')[0]}.bridge"
    bridge.wait(lambda: len(read_all(kafka, remembered)) >= len(ASSETS), 60, "sure of how far it is")
    writing = threading.Thread(target=write, args=(plant, 20, 200, 0.005))
    writing.start()
    bridge.has_sent(100)
    bridge.kill()
    writing.join()
    bridge.start_again()
    bridge.wait(lambda: bridge.metric("headrace_bridge_history_values_total") > 0, 60, "reading the history")
    write(plant, 200, 210)
    bridge.wait(lambda: len({(r["asset"], r["ts"]) for r in readings_of(kafka, topics)}) == 2 * 210, 60, "complete")
    must_be_complete(readings_of(kafka, topics), 210)
    assert not read_all(kafka, topics.dead_letters)
    plant.close()
    assert bridge.stop() == 0


def test_a_server_that_restarts_is_subscribed_to_anew(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    server: tuple[Server, str],
    tmp_path: Path,
) -> None:
    held, url = server
    path, topics = road(plan, kafka, tmp_path / "plan", OPCUA)
    bridge = bridges("opcua", path, kafka, HEADRACE_OPCUA_URL=url)
    plant = OpcuaPlant(url)
    write(plant, 0, 20)
    bridge.has_sent(40)
    held.stop()
    bridge.wait(lambda: bridge.get("/health/ready") is None, 60, "aware that the server is away")
    assert bridge.get("/health/live") is not None
    held.start()
    plant.connect()
    write(plant, 20, 40)
    bridge.wait(lambda: bridge.get("/health/ready") is not None, 90, "connected again")
    write(plant, 40, 60)
    bridge.wait(lambda: len({(r["asset"], r["ts"]) for r in readings_of(kafka, topics)}) == 2 * 60, 60, "complete")
    must_be_complete(readings_of(kafka, topics), 60)
    plant.close()
    assert bridge.stop() == 0


def test_while_kafka_is_away_the_history_keeps_what_does_not_fit(
    plan: Plan,
    killable_kafka: tuple[Server, str],
    bridges: Callable[..., BridgeProcess],
    server: tuple[Server, str],
    tmp_path: Path,
) -> None:
    broker, address = killable_kafka
    kafka = KafkaSettings(bootstrap=address, group="bridge", partitions=2)
    section = OPCUA.replace("queue = 5000", "queue = 5000\nmax_held = 100")
    path, topics = road(plan, kafka, tmp_path / "plan", section)
    bridge = bridges("opcua", path, kafka, HEADRACE_OPCUA_URL=server[1])
    plant = OpcuaPlant(server[1])
    write(plant, 0, 20)
    bridge.has_sent(40)
    broker.stop()
    write(plant, 20, 220)
    broker.start()
    bridge.wait(lambda: bridge.metric("headrace_bridge_connected") == 2, 120, "well again")
    write(plant, 220, 230)
    complete: Callable[[], bool] = lambda: len({(r["asset"], r["ts"]) for r in readings_of(kafka, topics)}) == 2 * 230  # noqa: E731
    bridge.wait(complete, 90, "complete")
    must_be_complete(readings_of(kafka, topics), 230)
    plant.close()
    assert bridge.stop() == 0


@ONE_BROKER
def test_status_codes_are_kept(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    server: tuple[Server, str],
    tmp_path: Path,
) -> None:
    path, topics = road(plan, kafka, tmp_path / "plan", OPCUA)
    bridge = bridges("opcua", path, kafka, HEADRACE_OPCUA_URL=server[1])
    plant = OpcuaPlant(server[1])
    plant.write("pump-1", AT_MS, {"flow": 40.0, "heat": 70.0})
    plant.write("pump-1", AT_MS + 1000, {"flow": None, "heat": None}, _BAD_SENSOR)
    plant.write("pump-1", AT_MS + 2000, {"flow": 40.0, "heat": 70.0}, _UNCERTAIN)
    plant.write("pump-1", AT_MS + 3000, {"flow": 40.0, "heat": 70.0}, _UNCERTAIN)
    bridge.has_sent(4)
    good, bad, uncertain, again = readings_of(kafka, topics)
    assert {**again, "ts": ""} == {**uncertain, "ts": ""}, "a value that stays the same is still measured"
    assert "quality" not in good
    assert bad["values"] == {"flow": None, "heat": None}
    assert bad["quality"] == {"flow": "bad", "heat": "bad"}
    assert uncertain["values"] == good["values"]
    assert uncertain["quality"] == {"flow": "uncertain", "heat": "uncertain"}
    plant.close()
    assert bridge.stop() == 0


PASSWORD = "opcua-p4ssw0rd-of-the-tests"


def key(folder: Path, name: str, uri: str) -> None:
    """A certificate that signs itself, as OPC UA's are, with the application's URI in it."""
    usage = "keyUsage=digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=URI:{uri},DNS:localhost,IP:127.0.0.1", "-addext", usage,
         "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


@ONE_BROKER
def test_an_encrypted_session_with_a_user(
    plan: Plan,
    kafka: KafkaSettings,
    bridges: Callable[..., BridgeProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("openssl", package="openssl")
    for name, uri in (("server", "urn:freeopcua:python:server"), ("bridge", "urn:headrace:bridge"), ("other", "urn:x")):
        key(tmp_path, name, uri)
    monkeypatch.setenv("OPCUA_CERT", str(tmp_path / "server.pem"))
    monkeypatch.setenv("OPCUA_KEY", str(tmp_path / "server-key.pem"))
    monkeypatch.setenv("OPCUA_USERS", f"headrace:{PASSWORD}")
    held, url = opcua_server(tmp_path / "server", ASSETS, history=False)
    held.start()
    path, _ = road(plan, kafka, tmp_path / "plan", OPCUA)
    (tmp_path / "password").write_text(PASSWORD)
    given = {
        "HEADRACE_OPCUA_URL": url,
        "HEADRACE_OPCUA_SECURITY": "Basic256Sha256",
        "HEADRACE_OPCUA_CERT_FILE": str(tmp_path / "bridge.pem"),
        "HEADRACE_OPCUA_KEY_FILE": str(tmp_path / "bridge-key.pem"),
        "HEADRACE_OPCUA_SERVER_CERT_FILE": str(tmp_path / "server.pem"),
        "HEADRACE_OPCUA_USERNAME": "headrace",
        "HEADRACE_OPCUA_PASSWORD_FILE": str(tmp_path / "password"),
        "HEADRACE_BRIDGE_LOG_LEVEL": "DEBUG",
    }
    try:
        bridge = bridges("opcua", path, kafka, **given)
        wait_for(lambda: bridge.metric("headrace_bridge_connected") == 2, "let in")
        assert bridge.stop() == 0
        assert PASSWORD not in bridge.log()
        wrong = {**given, "HEADRACE_OPCUA_SERVER_CERT_FILE": str(tmp_path / "other.pem")}
        assert sampled(path, wrong).returncode == 2, "another server's certificate"
        (tmp_path / "password").write_text("another-password")
        refused = sampled(path, given)
        assert refused.returncode == 2
        assert "another-password" not in refused.stdout + refused.stderr
    finally:
        held.stop()


def sampled(path: Path, environment: dict[str, str], seconds: float = 5.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "bridge", "opcua", "--plan", str(path), "--check"]
    return subprocess.run(
        [*command, "--sample", str(seconds)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip


@ONE_BROKER
def test_a_sample_shows_what_would_come(
    plan: Plan, kafka: KafkaSettings, server: tuple[Server, str], tmp_path: Path
) -> None:
    path, topics = road(plan, kafka, tmp_path / "plan", OPCUA)
    plant = OpcuaPlant(server[1])
    plant.write("pump-1", AT_MS, {"flow": 40.5, "heat": 70.0})
    done = sampled(path, {"HEADRACE_OPCUA_URL": server[1], "COLUMNS": "160"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "path Plant/{asset}/{signal} below i=85" in done.stdout
    assert "40.5" in done.stdout
    assert "the server has no value of it yet" in done.stdout, "of pump-2"
    assert not readings_of(kafka, topics)
    plant.close()
