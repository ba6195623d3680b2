"""The MQTT bridge: Sparkplug B and plain topics from a plant's broker to the readings topic, at least once.

The broker keeps what comes under the bridge's client id while it is away (a persistent session), and the bridge
acknowledges a message only when what was made of it is in Kafka; in the order in which messages came, as MQTT asks.
What was not acknowledged comes again after a new connection. While Kafka is away no more than ``max_held`` messages are
taken: then the bridge stops reading from its socket. What was published with QoS 0 the broker keeps only if it is told
to: docs/bridges.md. The client is Eclipse Paho; docs/adr/0012 says why.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from stream.bridge import sparkplug
from stream.bridge.edges import Edges, Taken
from stream.bridge.gather import Gatherer, Group, WorkingClock
from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.plain import PlainTopics, Value
from stream.bridge.plan import BridgePlan
from stream.bridge.reading import Outlet, PlantReading, Ticket
from stream.bridge.settings import MqttSettings
from stream.errors import ConfigError, DecodeError

_log = logging.getLogger(__name__)

_REBIRTH_S: Final = (5.0, 300.0)
_RETRY_S: Final = (1, 30)
_SPARKPLUG: Final = f"{sparkplug.PREFIX}/"


class _Held:
    """A message that was taken and is not settled: ``connection`` is the one that it may be acknowledged on."""

    __slots__ = ("connection", "mid", "payload", "qos", "retain", "settled", "topic")

    def __init__(self, message: Any, connection: int) -> None:
        self.topic: str = message.topic
        self.payload: bytes = message.payload
        self.qos: int = message.qos
        self.mid: int = message.mid
        self.retain: bool = message.retain
        self.connection = connection
        self.settled = False


class Bridge:
    """A bridge from one MQTT broker.

    births     what was remembered of edge nodes: key -> a BIRTH's payload
    transient  only look: a session of its own that is gone afterwards
    """

    name = "mqtt"

    def __init__(
        self,
        plan: BridgePlan,
        settings: MqttSettings,
        outlet: Outlet,
        metrics: BridgeMetrics,
        health: BridgeHealth,
        *,
        births: Mapping[str, bytes] | None = None,
        transient: bool = False,
    ) -> None:
        if plan.mqtt is None:
            raise ConfigError("the plan has no [bridge.mqtt]: docs/bridges.md shows one")
        self._plan, self._settings = plan.mqtt, settings
        self._outlet, self._metrics, self._health = outlet, metrics, health
        self._transient = transient
        self._sparkplug = plan.mqtt.sparkplug
        self._edges = Edges(self._sparkplug, plan.mqtt.rename) if self._sparkplug else None
        self._plain = PlainTopics(plan.mqtt.topics, plan.mqtt.rename)
        self._clock = WorkingClock()
        self._gatherer = Gatherer(plan.wait_s, clock=self._clock)
        self._tick_s = min(plan.wait_s / 4, 0.25)
        self._room = threading.Semaphore(plan.mqtt.max_held)
        self._order: deque[_Held] = deque()
        self._queue: asyncio.Queue[_Held] = asyncio.Queue()
        self._closing = threading.Event()
        self._connection = 0
        self._session_kept = False
        self._asked: dict[tuple[str, str], tuple[float, float]] = {}
        self._announced: bool | None = None
        self._state_ms = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._restore(births or {})

    @staticmethod
    def prefix(plan: BridgePlan) -> str:
        """What the keys begin with under which it remembers."""
        return f"mqtt/{plan.mqtt.client_id if plan.mqtt else ''}/"

    def status(self) -> str:
        """In a few words, for the status line."""
        edges = self._edges.count() if self._edges else None
        nodes = f", {edges['online']} edge nodes online, {edges['stale']} stale" if edges else ""
        return f"{len(self._order)} messages held{nodes}"

    async def run(self, stop: asyncio.Event) -> None:
        """Bridge until ``stop`` is set, then give on what was taken. Raises ``ConfigError``."""
        self._loop = asyncio.get_running_loop()
        self._client = client = self._make_client()
        client.connect_async(self._settings.host, self._settings.port, self._settings.keepalive_s, **self._session())
        client.loop_start()
        stopped = asyncio.create_task(stop.wait())
        observing = asyncio.create_task(self._observe())
        try:
            while not stop.is_set():
                waiting = asyncio.create_task(self._queue.get())
                await asyncio.wait((waiting, stopped), timeout=self._tick_s, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await self._handle(waiting.result())
                    while not self._queue.empty() and not stop.is_set():
                        await self._handle(self._queue.get_nowait())
                        await self._give(self._gatherer.due())
                else:
                    waiting.cancel()
                await self._give(self._gatherer.due())
        finally:
            stopped.cancel()
            observing.cancel()
        self._closing.set()
        await self._give(self._gatherer.drain())
        await self._outlet.flushed()
        self._announce(online=False)
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # What follows is about the connection. Paho calls ``_on_...`` in a thread of its own.

    def _make_client(self) -> Any:
        try:
            from paho.mqtt import client as paho  # noqa: PLC0415  # of an extra
            from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415
        except ImportError:
            raise ConfigError("the MQTT bridge needs its client: pip install 'headrace[mqtt]'") from None
        version5 = self._settings.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._plan.client_id
            if not self._transient
            else f"{self._plan.client_id}-check-{time.time_ns():x}",
            protocol=paho.MQTTv5 if version5 else paho.MQTTv311,
            clean_session=None if version5 else self._transient,
            manual_ack=True,
        )
        client.reconnect_delay_set(*_RETRY_S)
        if self._settings.username:
            client.username_pw_set(self._settings.username, self._settings.password.get_secret_value() or None)
        if context := self._settings.ssl_context():
            client.tls_set_context(context)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _session(self) -> dict[str, Any]:
        """Options of the connection for a session that the broker keeps."""
        if self._settings.protocol != "5":
            return {}
        from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
        from paho.mqtt.properties import Properties  # noqa: PLC0415

        properties = Properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = self._plan.max_held
        properties.SessionExpiryInterval = 0 if self._transient else self._settings.session_s
        return {"clean_start": self._transient, "properties": properties}

    def _filters(self) -> list[str]:
        filters = self._plain.filters
        for group in self._sparkplug.groups if self._sparkplug else ():
            filters += [f"{_SPARKPLUG}{group}/{kind}/{'+' if kind[0] == 'N' else '+/+'}" for kind in sparkplug.KINDS]
        return list(dict.fromkeys(filters))

    def _on_pre_connect(self, client: Any, _: Any) -> None:
        if self._announces:
            self._state_ms = time.time_ns() // 1_000_000
            client.will_set(self._state_topic, self._state(online=False), qos=1, retain=True)

    def _on_connect(self, client: Any, _: Any, flags: Any, reason: Any, __: Any) -> None:
        if reason.is_failure:
            _log.error(
                "the MQTT broker at %s does not let us in: %s (HEADRACE_MQTT_USERNAME, _PASSWORD)", self._where, reason
            )
            return
        self._connection += 1
        self._call(self._connected, bool(flags.session_present), self._connection)
        client.subscribe([(text, 1) for text in self._filters()])

    def _on_connect_fail(self, _: Any, __: Any) -> None:
        _log.warning("no MQTT broker answers at %s (HEADRACE_MQTT_HOST, _PORT, _TLS): trying again", self._where)

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self._call(self._disconnected, str(reason))

    def _on_subscribe(self, _: Any, __: Any, ___: Any, reasons: Any, ____: Any) -> None:
        if not any(reason.is_failure for reason in reasons):
            self._call(self._subscribed, self._connection)
        for text, reason in zip(self._filters(), reasons, strict=False):
            if reason.is_failure:
                _log.error("the MQTT broker at %s does not let us read %s: %s", self._where, text, reason)

    def _on_message(self, _: Any, __: Any, message: Any) -> None:
        while not self._room.acquire(timeout=0.2):  # not reading on is what holds the broker back
            if self._closing.is_set():
                return
        if self._closing.is_set():  # not acknowledged: it comes again at the next start
            return
        self._call(self._take, _Held(message, self._connection))

    def _call(self, function: Any, *arguments: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)

    # From here on everything is in the event loop.

    @property
    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _connected(self, session_kept: bool, connection: int) -> None:
        _log.info(
            "connected to the MQTT broker at %s%s", self._where, ", which kept our session" if session_kept else ""
        )
        self._session_kept = session_kept
        if self._edges is None:
            return
        self._edges.forget_order()
        if not session_kept and connection > 1:
            for edge in self._edges.edges.values():  # nobody kept what came meanwhile: births may be among it
                edge.restored = True

    def _subscribed(self, connection: int) -> None:
        """From here on the broker sends us, or keeps for us, all that is published."""
        self._health.plant = True
        self._metrics.connected("plant", True)
        self._announced = None
        self._announce(online=self._health.kafka)
        if self._edges is not None and not self._session_kept and connection > 1:
            for edge_id in self._edges.edges:
                self._ask(edge_id, "no_birth")

    def _disconnected(self, reason: str) -> None:
        if not self._closing.is_set() and self._health.plant:
            _log.warning("lost the MQTT broker at %s: %s", self._where, reason)
            self._metrics.lost("plant")
        self._health.plant = False

    def _take(self, held: _Held) -> None:
        self._order.append(held)
        self._queue.put_nowait(held)

    def _settle(self, held: _Held) -> None:
        """All that was made of a message is in Kafka: acknowledge what may be, in order."""
        held.settled = True
        while self._order and self._order[0].settled:
            first = self._order.popleft()
            if first.qos == 1 and first.connection == self._connection:
                self._client.ack(first.mid, 1)
            self._room.release()

    async def _handle(self, held: _Held) -> None:
        ticket = Ticket(lambda: self._settle(held))
        now_ms = time.time_ns() // 1_000_000
        try:
            if self._edges is not None and held.topic.startswith(_SPARKPLUG):
                await self._handle_sparkplug(self._edges, held, ticket, now_ms)
            else:
                await self._handle_plain(held, ticket, now_ms)
        except DecodeError as error:
            await self._refuse(held, error, ticket)
        except Exception as error:  # a fault on one message must not cost the others
            _log.exception("the bridge failed on a message of %s", held.topic)
            await self._refuse(held, DecodeError("bridge_failed", f"{type(error).__name__}: {error}"), ticket)
        finally:
            ticket.release()

    async def _refuse(self, held: _Held, error: DecodeError, ticket: Ticket) -> None:
        with self._clock.stopped():
            await self._outlet.refuse(held.topic, held.payload, error.reason, error.detail, ticket)

    async def _handle_sparkplug(self, edges: Edges, held: _Held, ticket: Ticket, now_ms: int) -> None:
        address = sparkplug.address(held.topic)
        if address is None:
            return
        self._metrics.took(address.kind.lower())
        try:
            taken: Taken = edges.take(address, held.payload, now_ms, kept=held.qos >= 1 and self._session_kept)
        except DecodeError as error:
            if error.reason == "no_birth":
                self._ask(address.edge, "no_birth")
            raise
        for reason, count in taken.skipped.items():
            self._metrics.skipped(reason, count)
        if taken.birth:
            if not address.device:
                self._asked.pop(address.edge, None)
            # what came before it was read with the births of before it: it must be safe first
            with self._clock.stopped():
                await self._outlet.flushed()
            await self._outlet.remember("/".join((*self._key, *address.edge, address.device)), held.payload)
        if taken.rebirth:
            self._ask(address.edge, taken.rebirth)
        if address.kind.endswith("DEATH"):
            self._metrics.staled(len(taken.readings))
        for reading in taken.readings:
            await self._send(reading, (ticket,))

    async def _handle_plain(self, held: _Held, ticket: Ticket, now_ms: int) -> None:
        self._metrics.took("plain")
        told = self._plain.read(held.topic, held.payload, now_ms)
        if isinstance(told, PlantReading):
            await self._send(told, (ticket,))
        elif isinstance(told, Value) and told.at_ms is None:
            if held.retain:
                self._metrics.skipped("retained")
                return
            reading = PlantReading(told.asset, now_ms, {})
            reading.put(told.signal, told.value, told.quality)
            await self._send(reading, (ticket,))
        else:
            before = self._gatherer.split
            at_ms = now_ms if told.at_ms is None else told.at_ms
            ready = self._gatherer.add(told.asset, told.signal, at_ms, told.value, told.quality, ticket)
            self._metrics.splits(self._gatherer.split - before)
            await self._give(ready)

    async def _give(self, groups: list[Group]) -> None:
        for group in groups:
            tickets = tuple(group.tickets.values())
            await self._send(group.reading, tickets)
            for ticket in tickets:
                ticket.release()

    async def _send(self, reading: PlantReading, tickets: tuple[Ticket, ...]) -> None:
        qualities = list(reading.quality.values())
        self._metrics.judged(qualities, len(reading.values) - len(qualities))
        with self._clock.stopped():
            await self._outlet.reading(reading, tickets)

    async def _observe(self) -> None:
        """Tell how it goes, also while all waits for Kafka."""
        while True:
            self._metrics.holds(len(self._order))
            if self._edges is not None:
                self._metrics.edges(self._edges.count())
            self._announce(online=self._health.kafka)
            await asyncio.sleep(0.5)

    # Sparkplug B: what a host application says.

    @property
    def _key(self) -> tuple[str, str]:
        return "mqtt", self._plan.client_id

    def _restore(self, births: Mapping[str, bytes]) -> None:
        if self._edges is None:
            return
        for key in sorted(births):  # an edge node before its devices
            try:
                _, _, group, node, device = key.split("/")
                self._edges.restore(
                    sparkplug.Address(group, node, device, "DBIRTH" if device else "NBIRTH"), births[key]
                )
            except (ValueError, DecodeError) as error:
                _log.warning("the birth of %s cannot be read back, it will be asked for: %s", key, error)

    def _ask(self, edge: tuple[str, str], reason: str) -> None:
        """Ask an edge node for its births; again ever more rarely while it does not answer."""
        if self._sparkplug is None or not self._sparkplug.rebirth or not self._health.plant:
            return
        now = time.monotonic()
        asked, pause_s = self._asked.get(edge, (-_REBIRTH_S[1], _REBIRTH_S[0] / 2))
        if now - asked < pause_s:
            return
        self._asked[edge] = now, min(pause_s * 2, _REBIRTH_S[1])
        _log.info("asking edge node %s/%s for its births (%s)", *edge, reason)
        self._metrics.asked(reason)
        group, node = edge
        self._client.publish(f"{_SPARKPLUG}{group}/NCMD/{node}", sparkplug.rebirth(time.time_ns() // 1_000_000), qos=0)

    @property
    def _announces(self) -> bool:
        return bool(self._sparkplug and self._sparkplug.host_id and not self._transient)

    @property
    def _state_topic(self) -> str:
        return f"{_SPARKPLUG}STATE/{self._sparkplug.host_id if self._sparkplug else ''}"

    def _state(self, *, online: bool) -> bytes:
        return json.dumps({"online": online, "timestamp": self._state_ms}).encode()

    def _announce(self, *, online: bool) -> None:
        """Say whether edge nodes may send: they keep their data for a host that is offline."""
        if self._announces and self._health.plant and self._announced is not online:
            self._announced = online
            self._client.publish(self._state_topic, self._state(online=online), qos=1, retain=True)
