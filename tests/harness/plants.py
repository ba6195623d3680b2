"""Plants to be bridged: a mosquitto with an edge node of Sparkplug B, and an OPC UA server; real ones, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servers import Server, connects, free_port, need
from worker_process import Worker

from stream.bridge import sparkplug
from stream.settings import KafkaSettings

_MOSQUITTO = """
listener {port} 127.0.0.1
persistence true
persistence_location {folder}/
autosave_interval 1
upgrade_outgoing_qos true
queue_qos0_messages true
max_inflight_messages 0
max_queued_messages 0
"""


def mosquitto(folder: Path, more: str = "allow_anonymous true") -> tuple[Server, int]:
    """An MQTT broker that keeps what comes for those that are away, and its port; not started yet."""
    need("mosquitto", package="mosquitto")
    port = free_port()
    folder.mkdir(exist_ok=True)
    (folder / "mosquitto.conf").write_text("user root\n" + _MOSQUITTO.format(port=port, folder=folder) + more)
    return Server(["mosquitto", "-c", str(folder / "mosquitto.conf")], folder, connects(port)), port


class Publisher:
    """A client of the broker that publishes, and keeps what it hears."""

    def __init__(self, port: int, *hears: str, will: tuple[str, bytes] | None = None) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.max_queued_messages_set(0)
        if will:
            self.client.will_set(will[0], will[1], qos=1)
        self.client.on_connect = lambda *_: (
            self.client.subscribe([(text, 1) for text in hears]) if hears else self._on()
        )
        self.client.on_subscribe = lambda *_: self._on()
        self.client.on_message = lambda _, __, message: self._hear(message.topic, message.payload)
        self.client.connect("127.0.0.1", port, 60)
        self.client.loop_start()
        assert self._ready.wait(20), "the MQTT broker did not let the test's own client in"

    def _on(self) -> None:
        self._ready.set()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, payload))

    def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        self.client.publish(topic, payload, qos=qos).wait_for_publish(20)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Lose the connection without a word: the broker then publishes the will."""
        self.client._sock.close()
        self.client.loop_stop()


class EdgeNode(Publisher):
    """An edge node of Sparkplug B with devices whose metrics are doubles, named by alias in their data."""

    def __init__(self, port: int, group: str, node: str, devices: Mapping[str, Sequence[str]], bdseq: int = 0) -> None:
        self._group, self._node, self._devices, self._bdseq = group, node, devices, bdseq
        self._aliases = {
            (device, name): number
            for number, (device, name) in enumerate((d, n) for d, names in devices.items() for n in names)
        }
        self._seq = 0
        self.births = 0
        will = sparkplug.new_payload()
        will.metrics.add(name="bdSeq", datatype=sparkplug.UINT64, long_value=bdseq)
        super().__init__(port, self._topic("NCMD"), will=(self._topic("NDEATH"), will.SerializeToString()))
        self.birth()

    def _topic(self, kind: str, device: str = "") -> str:
        return "/".join(filter(None, ("spBv1.0", self._group, kind, self._node, device)))

    def _hear(self, topic: str, payload: bytes) -> None:
        super()._hear(topic, payload)
        if any(m.name == "Node Control/Rebirth" and m.boolean_value for m in sparkplug.parse(payload).metrics):
            self._birth()

    def birth(self) -> None:
        """Say who one is, and what one has; all values are null."""
        for info in self._birth():
            info.wait_for_publish(20)

    def _birth(self) -> list[Any]:
        self.births += 1
        self._seq = 0
        payload = sparkplug.new_payload()
        payload.metrics.add(name="bdSeq", datatype=sparkplug.UINT64, long_value=self._bdseq)
        payload.metrics.add(name="Node Control/Rebirth", datatype=sparkplug.BOOLEAN, boolean_value=False)
        sent = [self._send(self._topic("NBIRTH"), payload)]
        for device, names in self._devices.items():
            payload = sparkplug.new_payload()
            for name in names:
                alias = self._aliases[device, name]
                payload.metrics.add(name=name, alias=alias, datatype=sparkplug.DOUBLE, is_null=True)
            sent.append(self._send(self._topic("DBIRTH", device), payload))
        return sent

    def data(self, device: str, at_ms: int, values: dict[str, float]) -> Any:
        """Send measurements; what is returned knows when they are sent."""
        payload = sparkplug.new_payload()
        for name, value in values.items():
            payload.metrics.add(alias=self._aliases[device, name], timestamp=at_ms, double_value=value)
        return self._send(self._topic("DDATA", device), payload)

    def _send(self, topic: str, payload: Any) -> Any:
        payload.timestamp = time.time_ns() // 1_000_000
        payload.seq = self._seq
        self._seq = (self._seq + 1) % 256
        return self.client.publish(topic, payload.SerializeToString(), qos=0)


def opcua_server(
    folder: Path, assets: Mapping[str, Sequence[str]], *, history: bool = True, port: int | None = None
) -> tuple[Server, str]:
    """An OPC UA server, and its URL; not started yet. Its history outlives a restart."""
    port = port or free_port()
    script = Path(__file__).parent / "opcua_server.py"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(port), str(folder / "history.db") if history else "-"]
    command += [f"{asset}={','.join(signals)}" for asset, signals in assets.items()]
    return Server(command, folder, connects(port), 60.0), f"opc.tcp://127.0.0.1:{port}"


class OpcuaPlant:
    """Plays the plant: writes values with their source times and statuses to a server, from a loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client: Any = None
        self.connect()

    def connect(self) -> None:
        from asyncua import Client

        if self._client is not None:
            with contextlib.suppress(Exception):  # its server is gone
                self._do(asyncio.wait_for(self._client.disconnect(), 10))
        self._client = Client(self._url, timeout=20)
        self._do(self._client.connect())
        self._nodes = self._do(self._find())

    async def _find(self) -> dict[tuple[str, str], Any]:
        """(asset, signal) -> node id."""
        plant = await self._client.nodes.objects.get_child("2:Plant")
        return {
            (folder.BrowseName.Name, child.BrowseName.Name): child.NodeId
            for folder in await plant.get_children_descriptions()
            for child in await self._client.get_node(folder.NodeId).get_children_descriptions()
        }

    def _do(self, work: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(60)

    def write(self, asset: str, at_ms: int, values: Mapping[str, float | None], status: int = 0) -> None:
        """All signals of an asset at one time; ``status`` is an OPC UA status code."""
        self._do(self._write(asset, at_ms, values, status))

    async def _write(self, asset: str, at_ms: int, values: Mapping[str, float | None], status: int) -> None:
        from asyncua import ua

        params = ua.WriteParameters()
        for signal, value in values.items():
            variant = ua.Variant(value, ua.VariantType.Double if value is not None else ua.VariantType.Null)
            held = ua.DataValue(variant, ua.StatusCode(status), datetime.fromtimestamp(at_ms / 1000, UTC))
            params.NodesToWrite.append(ua.WriteValue(self._nodes[asset, signal], ua.AttributeIds.Value, "", held))
        for result in await self._client.uaclient.write(params):
            result.check()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the server may be gone
            self._do(asyncio.wait_for(self._client.disconnect(), 10))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class BridgeProcess(Worker):
    """``headrace bridge NAME`` as a process of its own."""

    def __init__(self, name: str, plan: Path, kafka: KafkaSettings, log: Path, **environment: str) -> None:
        super().__init__(plan, kafka, log, **environment)
        self._arguments = ["bridge", name, "--plan", str(plan)]
        self.environment["HEADRACE_BRIDGE_LOG_LEVEL"] = "INFO"

    def has_sent(self, readings: int, within_s: float = 60.0) -> None:
        """Wait until so many readings are in Kafka, of this process."""
        self.wait(
            lambda: self.metric("headrace_bridge_readings_total") >= readings, within_s, f"past {readings} readings"
        )

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()


def environment(**given: object) -> dict[str, str]:
    """Variables for a process, as texts."""
    return {**os.environ, **{name: str(value) for name, value in given.items()}}


def wait_for(condition: Any, what: str, within_s: float = 60.0) -> None:
    """Return when ``condition()`` holds; fail the test after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {within_s:g} s"
        time.sleep(0.05)


def rows(recordings: Iterable[Any]) -> list[tuple[str, int, dict[str, float]]]:
    """All readings in the order of time: asset, time, values."""
    found = [
        (held.asset, at_ms, dict(zip(held.signals, values, strict=True)))
        for held in recordings
        for at_ms, values in zip(held.at_ms.tolist(), held.values.tolist(), strict=True)
    ]
    return sorted(found, key=lambda row: row[1])
