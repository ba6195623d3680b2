"""A bridge's process: everything put together from plan and environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, Protocol

from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.memory import remembered
from stream.bridge.outbox import Outbox
from stream.bridge.reading import Outlet
from stream.bridge.settings import BridgeSettings, MqttSettings, OpcuaSettings
from stream.errors import ConfigError
from stream.plan import Plan, load_plan
from stream.redact import redact, secrets_of
from stream.settings import KafkaSettings, from_environment
from stream.sinks.kafka import KafkaSink
from stream.sources import BRIDGES, mqtt, opcua
from stream.topics import ensure_bridge_topics
from stream.web import WebServer

_log = logging.getLogger(__name__)

_BEAT_S: Final = 1.0


class Bridge(Protocol):
    """What every bridge offers."""

    name: str

    def status(self) -> str:
        """In a few words, for the status line."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Bridge until ``stop`` is set, then give on what was taken."""
        ...


def make_bridge(
    name: str,
    plan: Plan,
    outlet: Outlet,
    metrics: BridgeMetrics,
    health: BridgeHealth,
    *,
    kafka: KafkaSettings | None = None,
    transient: bool = False,
) -> Bridge:
    """The bridge of this name, with what it has remembered on ``kafka``. Raises ``ConfigError``, ``BrokerError``."""
    state = plan.bridge.state
    if name == mqtt.Bridge.name:
        settings = from_environment(MqttSettings)
        births = remembered(kafka, state, mqtt.Bridge.prefix(plan.bridge)) if kafka else {}
        return mqtt.Bridge(plan.bridge, settings, outlet, metrics, health, births=births, transient=transient)
    if name == opcua.Bridge.name:
        server = from_environment(OpcuaSettings)
        positions = remembered(kafka, state, opcua.Bridge.prefix(server)) if kafka else {}
        return opcua.Bridge(plan.bridge, server, outlet, metrics, health, positions=positions, transient=transient)
    raise ConfigError(f"there is no bridge {name!r}; there are {', '.join(BRIDGES)}")


def hide_secrets(kafka: KafkaSettings) -> None:
    """From now on keep all passwords out of the log. Raises ``ConfigError``."""
    redact(secrets_of([kafka, from_environment(MqttSettings), from_environment(OpcuaSettings)]))


def run_bridge(name: str, plan_path: Path | None, *, web_port: int | None = None, version: str = "") -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises ``ConfigError``, ``BrokerError`` before anything starts."""
    settings = from_environment(BridgeSettings, plan=plan_path, web_port=web_port)
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.log_level != "DEBUG":
        for chatty in ("aiokafka", "kafka"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        # a lost connection is a page of tracebacks for it; what matters of it we say ourselves
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    plan, kafka = load_plan(settings.plan), from_environment(KafkaSettings)
    hide_secrets(kafka)
    ensure_bridge_topics(kafka, plan.topics, plan.bridge.state)
    metrics = BridgeMetrics(name, version=version, site=plan.site)
    health = BridgeHealth(kafka=True)
    sink = KafkaSink(kafka, plan.topics, site=plan.site, client_id=f"headrace-bridge-{name}")
    outbox = Outbox(sink, plan.topics, plan.bridge.state, metrics, health)
    bridge = make_bridge(name, plan, outbox, metrics, health, kafka=kafka)
    return asyncio.run(_run(bridge, outbox, sink, metrics, health, settings))


async def _run(
    bridge: Bridge,
    outbox: Outbox,
    sink: KafkaSink,
    metrics: BridgeMetrics,
    health: BridgeHealth,
    settings: BridgeSettings,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    web = WebServer(metrics.registry, health, host=settings.web_host, port=settings.web_port)
    await web.start()
    _log.info("metrics and health at %s", web.url)
    metrics.connected("kafka", True)
    others: list[asyncio.Task[None]] = [asyncio.create_task(outbox.run()), asyncio.create_task(_beat(health))]
    others.append(asyncio.create_task(_status(bridge, metrics, settings.status_every_s)))
    work = asyncio.create_task(bridge.run(stop))
    stopping = asyncio.create_task(stop.wait())
    everything: list[asyncio.Task[Any]] = [work, stopping, *others]
    try:
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            if task.done():
                task.result()  # they only end by a fault of ours: raise it
        if not work.done():
            _log.info("stopping: giving on what was taken")
            health.stopping = True
            await asyncio.wait({work}, timeout=settings.grace_s)
        if not work.done():
            _log.warning("Kafka did not take all within %g s: the rest comes again at the next start", settings.grace_s)
            return 1
        work.result()
        return 0
    finally:
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        await sink.stop()
        await web.stop()


async def _beat(health: BridgeHealth) -> None:
    while True:
        health.beat()
        await asyncio.sleep(_BEAT_S)


async def _status(bridge: Bridge, metrics: BridgeMetrics, every_s: float) -> None:
    """Say now and then how it goes."""
    if not every_s:
        await asyncio.Event().wait()
    before, at = 0, time.monotonic()
    while True:
        await asyncio.sleep(every_s)
        totals, now = metrics.totals, time.monotonic()
        rate = (totals["readings"] - before) / (now - at)
        before, at = totals["readings"], now
        _log.info(
            "%d messages, %d readings (%.3g/s), %d dead letters, %d values left out; %s",
            totals["messages"],
            totals["readings"],
            rate,
            totals["dead_letters"],
            totals["skipped"],
            bridge.status(),
        )
