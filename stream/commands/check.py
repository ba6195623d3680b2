"""``headrace check``: everything that would stop or mislead a worker, found before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings
from rich.console import Console
from rich.table import Table

from models.compiled import SWITCH, missing
from stream.bridge.settings import BridgeSettings, MqttSettings, OpcuaSettings
from stream.commands.console import plain
from stream.commands.sample import inspect
from stream.decode import Decoder
from stream.errors import ConfigError, StreamError
from stream.lane import longest_gap_ms, rules_of
from stream.plan import DetectorSettings, Plan, check_together, load_plan
from stream.settings import KafkaSettings, ModelsSettings, WorkerSettings, from_environment, unknown_variables
from stream.shelf import Shelf
from stream.sinks.alertmanager import AlertmanagerSettings
from stream.sinks.influxdb import InfluxSettings
from stream.sinks.page import PageSettings
from stream.sinks.webhook import WebhookSettings
from stream.topics import reachable

_SETTINGS: Final[tuple[type[BaseSettings], ...]] = (
    KafkaSettings,
    WorkerSettings,
    InfluxSettings,
    AlertmanagerSettings,
    PageSettings,
    ModelsSettings,
    WebhookSettings,
)
#: What a bridge reads and a worker does not.
_BRIDGES: Final[tuple[type[BaseSettings], ...]] = (BridgeSettings, MqttSettings, OpcuaSettings)


def run_check(plan_path: Path, *, connect: bool = True, sample: Path | None = None) -> int:
    """Print what is right and what is not; 0 if a worker would start, else 2.

    sample  records as on the readings topic, one a line: look through their times as well (``commands.sample``)
    """
    console = Console()
    failures = 0
    plan: Plan | None = None
    try:
        plan = load_plan(plan_path)
        Decoder(plan.input, ())
        console.print(f"[green]✓[/] plan {plan_path}: {len(plan.detectors)} detectors, site {plan.site or '(none)'}")
    except StreamError as error:
        failures += _failed(console, error)
    settings = []
    for kind in _SETTINGS:
        try:
            settings.append(from_environment(kind))
        except StreamError as error:
            failures += _failed(console, error)
    for name in unknown_variables(*_SETTINGS, *_BRIDGES):
        if name not in {"HEADRACE_TF_THREADS", "HEADRACE_DATA", SWITCH}:
            console.print(f"[yellow]![/] {name}: nothing reads this variable; is it misspelt?")
    for part, reason in missing().items():
        console.print(f"[yellow]![/] without {part}, so the same takes longer: {reason}")
    if plan:
        workers = [held for held in settings if isinstance(held, WorkerSettings)]
        failures += _would_run(console, plan, workers, sample)
    kafka = next((held for held in settings if isinstance(held, KafkaSettings)), None)
    if kafka and connect:
        try:
            found = reachable(kafka)
            console.print(f"[green]✓[/] broker {kafka.bootstrap} answers ({found} topics)")
        except StreamError as error:
            failures += _failed(console, error)
    _outward(console, plan, settings)
    return 2 if failures else 0


def _outward(console: Console, plan: Plan | None, settings: Sequence[BaseSettings]) -> None:
    """Print where results go, and who may act."""
    influx = next((held for held in settings if isinstance(held, InfluxSettings)), None)
    if influx:
        console.print(f"[green]✓[/] InfluxDB {influx.url or 'is off (HEADRACE_INFLUX_URL is empty)'}")
        if influx.url:
            console.print(f"[green]✓[/] while InfluxDB is away: {_waits(influx)}")
    alertmanager = next((held for held in settings if isinstance(held, AlertmanagerSettings)), None)
    if alertmanager:
        console.print(f"[green]✓[/] Alertmanager {alertmanager.urls or 'is off (HEADRACE_ALERTMANAGER_URLS is empty)'}")
    webhook = next((held for held in settings if isinstance(held, WebhookSettings)), None)
    if webhook:
        addresses = len([url for url in webhook.urls.split(",") if url])
        waits = f"on disk in {webhook.spool_dir}" if webhook.spool_dir else "in memory: a crash loses it"
        where = f"; what waits for one that is away is {waits}" if addresses else ""
        console.print(f"[green]✓[/] webhooks: {addresses or 'off (HEADRACE_WEBHOOK_URLS is empty)'}{where}")
    page = next((held for held in settings if isinstance(held, PageSettings)), None)
    if page and page.enabled:
        acts = "with a token" if page.token.get_secret_value() else "nobody (HEADRACE_PAGE_TOKEN is empty)"
        console.print(f"[green]✓[/] acting on the page: {acts}")
    if plan and (plan.topics.scores or (influx and influx.url)):
        console.print(f"[green]✓[/] scores kept: {_kept(plan)}")


def _would_run(console: Console, plan: Plan, workers: Sequence[WorkerSettings], sample: Path | None) -> int:
    """Print the models, and what they would make of a sample; how much there is that would stop a worker."""
    try:
        shelf = Shelf(plan, from_environment(ModelsSettings).verifier())
        console.print(_table(plan, shelf))
        if sample is not None:
            _look_through(console, sample, plan, shelf)
        for worker in workers:
            check_together(plan, worker)
    except StreamError as error:
        return _failed(console, error)
    return 0


def _look_through(console: Console, sample: Path, plan: Plan, shelf: Shelf) -> None:
    """Print what is to be said of a sample. Raises ``ConfigError``."""
    try:
        lines = [line for line in sample.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"--sample: {error}") from None
    findings = list(inspect(lines, plan, shelf, time.time_ns() // 1_000_000))
    for finding in findings:
        console.print("[yellow]![/]", plain(finding), soft_wrap=True, highlight=False)
    if not findings:
        console.print(f"[green]✓[/] sample {sample}: {len(lines)} records, nothing to be said of their times")


def _waits(influx: InfluxSettings) -> str:
    """Where lines wait for InfluxDB, in words."""
    if not influx.spool_dir:
        return f"{influx.held_lines} lines wait in memory (HEADRACE_INFLUX_SPOOL_DIR is empty)"
    return f"lines wait in {influx.spool_dir}, up to {influx.spool_max_bytes / (1 << 20):.0f} MiB of each worker"


def _kept(plan: Plan) -> str:
    """Which scores reach the scores topic and InfluxDB, in words."""
    thinning = plan.thinning
    if not thinning.every_s:
        return "all (thinning.every_s is 0)"
    change = "" if thinning.change is None else f", each change of {thinning.change:g} of the threshold"
    return f"one in {thinning.every_s:g} s of each asset and detector{change}, and all around alerts"


def _gaps(settings: DetectorSettings, gap_ms: int | None) -> str:
    """What happens to gaps, in words."""
    if gap_ms is None:
        words = "keep"
    elif settings.gaps.fills:
        words = f"{settings.gaps.policy} up to {gap_ms / 1000:g} s"
    else:
        words = f"reset after {gap_ms / 1000:g} s"
    return f"{words}, on the grid" if settings.gaps.grid else words


def _failed(console: Console, error: StreamError) -> int:
    for line in str(error).splitlines():
        console.print("[red]✗[/]", plain(line), soft_wrap=True, highlight=False)
    return 1


def _table(plan: Plan, shelf: Shelf) -> Table:
    """What would run: one line a model."""
    table = Table("detector", "kind", "watches", "signals", "window", "threshold", "gap", "version")
    for name, artifact in shelf.serving():
        settings = plan.detectors[name]
        gap_ms = longest_gap_ms(settings, artifact)
        table.add_row(
            name,
            artifact.manifest.detector,
            ", ".join(settings.assets),
            str(len(artifact.signals)),
            f"{artifact.window} rows of {artifact.period_s:g} s",
            f"{rules_of(settings, artifact).threshold:.4g}",
            _gaps(settings, gap_ms),
            artifact.version,
        )
    return table
