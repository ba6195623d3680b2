"""The worker's process: everything put together from plan and environment.

``headrace worker`` calls ``run_worker``; ``faust -A stream.worker worker`` finds ``app``, which is made when it is
asked for, so that importing this module does nothing.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from models.compiled import missing
from stream.app import App, create_app
from stream.assembly import Image
from stream.changelog import Changelog
from stream.cli import installed_version
from stream.control import Control, ControlReader
from stream.controlwriter import ControlWriter
from stream.growing import Growing
from stream.incidentbook import IncidentBook
from stream.page.acting import Acting
from stream.partition import Restored
from stream.pipeline import Pipeline
from stream.plan import Plan, check_together, load_plan
from stream.publish import Publisher
from stream.records import Alert, Output, RawRecord
from stream.redact import redact, secrets_of
from stream.settings import KafkaSettings, ModelsSettings, WorkerSettings, from_environment
from stream.shelf import Shelf
from stream.sinks.alertmanager import AlertmanagerSettings, AlertmanagerSink
from stream.sinks.base import Sink
from stream.sinks.control_metrics import Aside
from stream.sinks.influxdb import InfluxSettings, InfluxSink
from stream.sinks.kafka import KafkaSink
from stream.sinks.page import PageSettings, PageSink
from stream.sinks.prometheus import Metrics, PrometheusSink
from stream.sinks.thin import Thinner
from stream.sinks.webhook import WebhookSettings, WebhookSink
from stream.state import Block
from stream.swap import Swap
from stream.topics import ensure_topics
from stream.watchdog import Watchdog
from stream.web import Health
from stream.whereabouts import Whereabouts

#: Of glibc's malloc.h; arrays up to so many bytes come from the heap.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 32 << 20
#: What other workers have said of alerts is read so far back: one that is open is published again within minutes.
_ALERTS_BACK_S: Final = 2 * 86400.0

_log = logging.getLogger(__name__)


class ThinningPipeline(Pipeline):
    """The pipeline, with what is to be kept of the scores chosen in its thread, by a state that each partition has."""

    def __init__(self, plan: Plan, shelf: Shelf) -> None:
        super().__init__(plan, shelf)
        self._settings = plan.thinning
        self._thinners: dict[int, Thinner] = {}
        self._kept_at: dict[str, Whereabouts] = {}

    def process(self, partition: int, records: Sequence[RawRecord]) -> Output:
        """One partition's batch of records, in the order of their offsets."""
        output = super().process(partition, records)
        thinner = self._thinners.get(partition)
        if thinner is None:
            thinner = self._thinners[partition] = Thinner(self._settings, self._kept_at)
        return thinner.apply(output)

    def keep_only(self, partitions: set[int]) -> None:
        """Drop the state of partitions that have gone to another worker."""
        super().keep_only(partitions)
        for partition in self._thinners.keys() - partitions:
            del self._thinners[partition]

    def take(self, partition: int, numbers: Sequence[int]) -> list[Block]:
        """Copies of blocks as they are now, with what was last kept of their assets beside each detector's memory."""
        blocks = super().take(partition, numbers)
        if thinner := self._thinners.get(partition):
            for block in blocks:
                for lane in block.lanes:
                    names = [block.names[place] for place in lane.places.tolist()]
                    lane.arrays |= thinner.take(lane.detector, names)
        return blocks

    def restore(self, partition: int, image: Image) -> Restored:
        """Begin a partition with what a snapshot has of it."""
        thinner = Thinner(self._settings, self._kept_at)
        for block in image.blocks.values():
            for lane in block.lanes:
                thinner.put(lane.detector, [block.names[place] for place in lane.places.tolist()], lane.arrays)
        restored = super().restore(partition, image)
        self._thinners[partition] = thinner
        return restored


def pipeline_of(plan: Plan, shelf: Shelf) -> Pipeline:
    """The pipeline that a worker runs for ``plan``."""
    return ThinningPipeline(plan, shelf) if plan.thinning.every_s else Pipeline(plan, shelf)


def build(
    plan: Plan,
    kafka: KafkaSettings,
    worker: WorkerSettings,
    influx: InfluxSettings,
    alertmanager: AlertmanagerSettings,
    page: PageSettings,
    webhook: WebhookSettings,
) -> App:
    """Load the models, make the topics that are missing, put the application together."""
    check_together(plan, worker)
    metrics = Metrics(version=installed_version(), site=plan.site)
    health = Health(stall_after_s=worker.stall_after_s)
    shelf = Shelf(plan, from_environment(ModelsSettings).verifier())
    shelf.warm()
    metrics.loaded(_serving(shelf))
    health.models_loaded = True
    incidents = IncidentBook(plan.lines)
    sinks: list[Sink] = [KafkaSink(kafka, plan.topics, site=plan.site)]
    if influx.url:
        sinks.append(InfluxSink(influx, site=plan.site))
    if alertmanager.urls:
        sinks.append(AlertmanagerSink(alertmanager, incidents=incidents))
    if webhook.urls:
        sinks.append(WebhookSink(webhook, incidents=incidents))
    sinks.append(PrometheusSink(metrics))
    token = page.token.get_secret_value()
    board = page.board(site=plan.site, units=plan.units, incidents=incidents) if page.enabled else None
    if board is not None:
        sinks.append(PageSink(board))
    ensure_topics(kafka, plan.topics)
    control = ControlReader(kafka, metrics=metrics.control, start_s=worker.control_s)
    others = None
    if plan.lines and (alertmanager.urls or webhook.urls or board is not None):
        others = others_alerts(kafka, plan, incidents, metrics)
    pipeline = pipeline_of(plan, shelf)

    def make_swap(beside: Callable[..., Awaitable[Any]], changed: Callable[[], object]) -> Swap:
        return Swap(
            plan,
            shelf,
            pipeline,
            Changelog(kafka, plan.topics.models),
            metrics=metrics.models,
            beside=beside,
            changed=changed,
            worker=kafka.instance_id or f"{socket.gethostname()}-{os.getpid()}",
        )

    def make_growing(swap: Swap) -> Growing:
        return Growing(
            plan,
            worker.plan,
            kafka,
            after_s=worker.grow_after_s,
            metrics=metrics.models,
            young=lambda detector: plan.detectors[detector].is_young(swap.serves_as(detector)),
            owns=lambda: 0 in pipeline.partitions,
            promoted=swap.look,
        )

    if shelf.store is not None and not worker.snapshot_every_s:
        _log.warning("without snapshots (HEADRACE_WORKER_SNAPSHOT_EVERY_S) other models take a restart")
    return create_app(
        plan,
        pipeline,
        Publisher(sinks, metrics=metrics),
        kafka=kafka,
        worker=worker,
        metrics=metrics,
        health=health,
        changelog=Changelog(kafka, plan.topics.state),
        board=board,
        control=control,
        others=others,
        acting=Acting(token, plan.topics, ControlWriter(kafka)) if token else None,
        make_swap=None if shelf.store is None else make_swap,
        make_growing=make_growing if _may_grow(plan, worker, from_environment(ModelsSettings)) else None,
    )


def others_alerts(kafka: KafkaSettings, plan: Plan, incidents: IncidentBook, metrics: Metrics) -> ControlReader:
    """What reads the alert topic into ``incidents``: a line's assets are on several workers."""
    reader = ControlReader(
        kafka,
        metrics=Aside(metrics.control),
        about="other workers' alerts",
        client_id="headrace-alerts",
        back_s=_ALERTS_BACK_S,
    )

    def take(held: Control[Alert]) -> None:
        if held.value is not None:
            incidents.take([held.value])

    reader.handle("alerts", plan.topics.alerts, Alert, take)
    return reader


def _may_grow(plan: Plan, worker: WorkerSettings, models: ModelsSettings) -> bool:
    """Whether models are to be grown, and what is grown could serve."""
    growing = [name for name, settings in plan.detectors.items() if settings.grows]
    if not growing or not worker.grow_after_s:
        return False
    if models.verifier() is not None and models.signer() is None:
        _log.warning(
            "nothing is grown for %s: only signed models serve here, and there is no HEADRACE_MODELS_PRIVATE_KEY_FILE",
            ", ".join(growing),
        )
        return False
    return True


def _build_from_environment(settings: WorkerSettings) -> App:
    for part, reason in missing().items():
        _log.warning("without %s, so the same takes longer: %s", part, reason)
    plan, kafka, influx = load_plan(settings.plan), from_environment(KafkaSettings), from_environment(InfluxSettings)
    alertmanager = from_environment(AlertmanagerSettings)
    page, webhook = from_environment(PageSettings), from_environment(WebhookSettings)
    redact(secrets_of([kafka, influx, alertmanager, page, webhook]))
    return build(plan, kafka, settings, influx, alertmanager, page, webhook)


def _serving(shelf: Shelf) -> list[tuple[str, str, str]]:
    """(detector, kind, version) for the metrics: one each, however many assets have a model of their own."""
    versions: dict[tuple[str, str], set[str]] = {}
    for detector, held in shelf.serving():
        versions.setdefault((detector, held.detector.name), set()).add(held.version)
    return [
        (detector, kind, next(iter(found)) if len(found) == 1 else f"{len(found)} models")
        for (detector, kind), found in versions.items()
    ]


def run_worker(plan_path: Path | None = None, *, web_port: int | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises ``ConfigError``, ``BrokerError`` before anything starts."""
    settings = from_environment(WorkerSettings, plan=plan_path, web_port=web_port)
    app = _build_from_environment(settings)
    app.overdue = _end_now
    Watchdog(app.health, _end_now).start()
    calm_collector()
    keep_memory()
    worker = app.Worker(loglevel=settings.log_level, quiet=False, redirect_stdouts=False, console_port=0, debug=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def calm_collector() -> None:
    """Let the garbage collector look less often, and never at what is loaded by now.

    A record that Kafka's client parses is an object the collector tracks. By default it looks after 700 of them, and
    every so often at all modules, which took a microsecond a record: as long as all else before decoding.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def keep_memory() -> None:
    """Let glibc keep what large arrays were freed, up to 64 MiB, in place of giving it back after each batch.

    The kernel hands out memory page by page, zeroed: with arrays of a few hundred kilobytes that took a fifth of a
    frame's scoring. Elsewhere (macOS, musl) there is no such knob, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def _end_now() -> None:
    """The last resort of a stop that hangs: a status that lets the orchestrator start the worker again."""
    logging.getLogger(__name__).critical("the worker did not end by itself: ending the process")
    os._exit(os.EX_SOFTWARE)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    return _build_from_environment(from_environment(WorkerSettings))
