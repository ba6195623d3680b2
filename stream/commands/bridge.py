"""``headrace bridge NAME --check``: what the plan's section says, and with ``--sample`` what comes of live data."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.plan import BridgePlan
from stream.bridge.reading import PlantReading, Ticket
from stream.bridge.run import Bridge, hide_secrets, make_bridge
from stream.commands.console import plain
from stream.plan import Plan, load_plan
from stream.settings import KafkaSettings, from_environment
from stream.sources.json import timestamp

_MOST_ROWS = 200


class Sample:
    """An outlet that keeps the last value of each signal, and what was refused; nothing reaches Kafka."""

    def __init__(self) -> None:
        self.readings: Counter[str] = Counter()
        self.last: dict[tuple[str, str], tuple[int, float | None, str]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.refused: dict[str, tuple[int, str, str]] = {}

    async def reading(self, reading: PlantReading, tickets: tuple[Ticket, ...] = ()) -> None:  # noqa: ARG002
        """Keep what is in it."""
        self.readings[reading.asset] += 1
        for signal, value in reading.values.items():
            self.counts[reading.asset, signal] += 1
            self.last[reading.asset, signal] = (reading.at_ms, value, reading.quality.get(signal, "good"))

    async def refuse(
        self,
        origin: str,
        value: bytes | None,  # noqa: ARG002
        reason: str,
        detail: str,
        ticket: Ticket | None,  # noqa: ARG002
    ) -> None:
        """Keep the first of each reason."""
        count, first, said = self.refused.get(reason, (0, origin, detail))
        self.refused[reason] = (count + 1, first, said)

    async def remember(self, key: str, value: bytes) -> None:
        """Nothing is kept."""

    async def flushed(self) -> None:
        """Nothing waits."""


def run_check(name: str, plan_path: Path, *, sample_s: float | None) -> int:
    """Validate the section, look at live data for ``sample_s`` seconds; the exit status.

    Raises ``ConfigError``.
    """
    plan, kafka = load_plan(plan_path), from_environment(KafkaSettings)
    hide_secrets(kafka)
    sample, metrics, health = Sample(), BridgeMetrics(name), BridgeHealth(kafka=True)
    bridge = make_bridge(name, plan, sample, metrics, health, transient=True)
    click.echo(f"{plan_path}: [bridge.{name}] is valid")
    for line in _described(plan.bridge, name):
        click.echo(f"  {line}")
    if sample_s is None:
        click.echo("see what comes of live data: --sample 10")
        return 0
    click.echo(f"listening for {sample_s:g} s; nothing is sent to Kafka ...", err=True)
    reached = asyncio.run(_listen(bridge, health, sample_s))
    _show(sample, metrics, plan)
    if not reached:
        click.secho(
            "the plant did not answer: see the variables HEADRACE_MQTT_* or HEADRACE_OPCUA_*", fg="red", err=True
        )
        return 2
    return 0 if sample.readings else 1


async def _listen(bridge: Bridge, health: BridgeHealth, sample_s: float) -> bool:
    """Whether the plant answered."""
    stop, reached = asyncio.Event(), False
    work = asyncio.create_task(bridge.run(stop))
    deadline = time.monotonic() + sample_s
    while time.monotonic() < deadline and not work.done():
        reached = reached or health.plant
        await asyncio.sleep(0.1)
    stop.set()
    await work
    return reached


def _described(plan: BridgePlan, name: str) -> list[str]:
    """What is subscribed to, in lines."""
    lines = []
    if name == "mqtt" and plan.mqtt:
        lines.append(f"client id {plan.mqtt.client_id}, at most {plan.mqtt.max_held} messages held")
        if held := plan.mqtt.sparkplug:
            lines.append(f"Sparkplug B groups {', '.join(held.groups)}; metrics {', '.join(held.metrics)}")
        lines += [f"topic {mapping.topic}" for mapping in plan.mqtt.topics]
    if name == "opcua" and plan.opcua:
        lines += [f"node {node.node}: {node.signal} of {node.asset}" for node in plan.opcua.nodes]
        lines += [f"path {browse.path} below {browse.under}" for browse in plan.opcua.browse]
    return lines


def _show(sample: Sample, metrics: BridgeMetrics, plan: Plan) -> None:
    console = Console()
    table = Table("asset", "signal", "values", "last", "time", "quality")
    for (asset, signal), (at_ms, value, quality) in sorted(sample.last.items())[:_MOST_ROWS]:
        shown = "missing" if value is None else f"{value:.6g}"
        many = str(sample.counts[asset, signal])
        table.add_row(plain(asset), plain(signal), many, shown, timestamp(at_ms), quality)
    if sample.last:
        console.print(table)
    if len(sample.last) > _MOST_ROWS:
        console.print(f"... and {len(sample.last) - _MOST_ROWS} signals more")
    count = sum(sample.readings.values())
    console.print(f"{metrics.totals['messages']} messages, {count} readings of {len(sample.readings)} assets")
    unwatched = sorted(asset for asset in sample.readings if not any(d.watches(asset) for d in plan.detectors.values()))
    if unwatched:
        console.print(plain(f"no detector of the plan watches {', '.join(unwatched[:20])}"))
    for reason, skipped in metrics.skips().items():
        console.print(f"{skipped} left out, {reason}")
    for reason, (count, origin, detail) in sample.refused.items():
        console.print(plain(f"{count} refused, {reason}: {origin}: {detail}"))
