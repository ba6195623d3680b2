"""The Faust application: its agent takes a partition's batch, runs the pipeline beside the event loop, publishes it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import faust
from faust.tables import TableManager
from faust.types import TP

from stream.actions import Action
from stream.assembly import prefix
from stream.belt import Belt, Taken
from stream.changelog import Changelog
from stream.control import Control, ControlReader
from stream.growing import Growing
from stream.labels import Label
from stream.orders import Message
from stream.page.acting import Acting
from stream.page.board import Board
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.publish import Publisher
from stream.settings import KafkaSettings, WorkerSettings
from stream.sinks.prometheus import Metrics
from stream.snapshots import Snapshots
from stream.swap import Swap
from stream.transport import PlainTransport, RawSchema, Transport, by_partition, of_batch
from stream.web import Health, WebServer

_log = logging.getLogger(__name__)

#: Batches that wait for the agent; a batch holds up to ``max_poll_records`` of one partition. From three quarters of it
#: on Faust pauses partitions, and a paused one holds up the fetch of all: with 4 that was so with four partitions.
_BATCHES_WAITING = 8
#: With an event a message: how long a reading waits for others to be scored with.
_TAKE_S = 0.02
#: How often the event loop shows that it turns, and the broker is asked whether it answers.
_BEAT_S = 0.5
_PROBE_S = 2.0
#: What closing sinks and connections may take after the grace.
_CLOSE_S = 20.0


class NoTables(TableManager):
    """Faust's table manager where there are no tables: it need not wait a second for them to be registered."""

    async def on_start(self) -> None:
        """As Faust's, without the second."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class App(faust.App):
    """Faust's application, which starts and stops the publisher and the web server around the consumer.

    others   reads what other workers say of alerts, for those who are told of them
    beside   what runs from start to stop on the event loop; an error in one of them ends the application
    """

    publisher: Publisher
    web_server: WebServer
    health: Health
    grace_s: float
    snapshots: Snapshots | None = None
    changelog: Changelog | None = None
    control: ControlReader | None = None
    others: ControlReader | None = None
    swap: Swap | None = None
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    overdue: Callable[[], None] | None = None

    def _create_directories(self) -> None:
        """Make none: they are for tables on disk, which we have not, and the root may be read-only."""

    async def on_start(self) -> None:
        """Sinks first: the first batch must find them open."""
        await self.publisher.start()
        await self.web_server.start()
        if self.control is not None:
            await self.control.start()  # what operators have said holds for the first batch
        if self.swap is not None:
            await self.swap.settle()
        beside = self.beside if self.others is None else (*self.beside, self.others.run)
        self._running = [self.add_future(work()) for work in beside]
        await super().on_start()

    async def on_stop(self) -> None:
        """The consumer first: it waits for the batch in hand, which still needs the sinks, and commits.

        After ``grace_s`` it is left as it is: what was not committed will be read again. ``overdue`` is called when the
        process is still there twenty seconds later.
        """
        self.health.stopping = True
        if self.overdue is not None:
            timer = threading.Timer(self.grace_s + _CLOSE_S, self.overdue)
            timer.daemon = True
            timer.start()
        try:
            await asyncio.wait_for(super().on_stop(), self.grace_s)
        except TimeoutError:
            _log.error("not drained within %g s: what is not committed will be read again", self.grace_s)
        for running in getattr(self, "_running", ()):
            running.cancel()
        if self.snapshots is not None:
            await self.snapshots.stop()
        if self.changelog is not None:
            await self.changelog.stop()
        for reader in (self.control, self.others):
            if reader is not None:
                await reader.stop()
        await self.publisher.stop()
        await self.web_server.stop()

    def hurry(self, on: bool) -> None:
        """Faust waits, or waits no longer, until all that is in hand is acknowledged (``transport``)."""
        if self.snapshots is not None:
            self.snapshots.hurry(on)


def create_app(
    plan: Plan,
    pipeline: Pipeline,
    publisher: Publisher,
    *,
    kafka: KafkaSettings,
    worker: WorkerSettings,
    metrics: Metrics,
    health: Health,
    changelog: Changelog | None = None,
    board: Board | None = None,
    control: ControlReader | None = None,
    others: ControlReader | None = None,
    acting: Acting | None = None,
    make_swap: Callable[[Callable[..., Awaitable[Any]], Callable[[], object]], Swap] | None = None,
    make_growing: Callable[[Swap], Growing] | None = None,
) -> App:
    """The application; nothing is connected before it starts. Topics must exist (``topics.ensure_topics``).

    Without ``changelog``, or where the worker's settings want no snapshots, the state is in memory only, and a batch is
    acknowledged when the sinks have its output. ``board`` is what the live page shows; without one there is no page.
    ``control`` reads the control topics, which it has handlers for; ``others`` reads what other workers publish, with
    handlers of its own, and nothing waits for it; ``acting`` takes what operators do on the page. ``make_swap`` makes,
    of what runs beside the batches and what is to be called when other versions are wanted, what exchanges models; that
    takes snapshots. ``make_growing`` makes, of that, what grows models.
    """
    app = _configured(kafka, worker)
    app.publisher = publisher
    app.grace_s = worker.grace_s
    app.health = health
    app.web_server = WebServer(metrics.registry, health, board, acting, host=worker.web_host, port=worker.web_port)
    belt = Belt(pipeline.process, publisher.publish, ThreadPoolExecutor(1, thread_name_prefix="pipeline"))

    async def show_open() -> None:
        still_open = await belt.beside(pipeline.open_alerts)
        metrics.restore_open(still_open)
        metrics.operators.moved(await belt.beside(pipeline.moved))
        publisher.reopen(still_open)
        if board is not None:
            board.settle(await belt.beside(pipeline.names), still_open)

    app.changelog, app.others = changelog, others
    app.beside = (partial(_beat, health, metrics),)
    if control is not None:
        _listen(app, control, plan, pipeline, belt, metrics)
    if changelog is not None:
        app.beside = (*app.beside, partial(_probe, changelog, health))
    if changelog is not None and worker.snapshot_every_s:
        app.snapshots = Snapshots(
            pipeline,
            belt,
            changelog,
            prefix=prefix(kafka.group, plan.topics.readings),
            every_s=worker.snapshot_every_s,
            recovery_s=worker.recovery_s,
            highwater=lambda partition: app.consumer.highwater(TP(plan.topics.readings, partition)),
            metrics=metrics.state,
            restored=show_open,
            health=health,
        )
        app.beside = (*app.beside, app.snapshots.run)
        if make_swap is not None and control is not None:
            app.swap = app.snapshots.versions = make_swap(belt.beside, app.snapshots.look)
            control.handle("models", plan.topics.models, Message, app.swap.hear)
            app.beside = (*app.beside, app.swap.run, *([make_growing(app.swap).run] if make_growing else []))
    topic = app.topic(plan.topics.readings, schema=RawSchema(), internal=False)

    async def pass_on(taken: Taken) -> None:
        # acknowledged by hand, when the sinks have it and it is part of a snapshot: by then the agent is further on
        if app.snapshots is None:
            await belt.put(taken.partition, taken.records, taken.done)
        else:
            await app.snapshots.put(taken)

    @app.agent(topic, name="watch")
    async def watch(readings: Any) -> None:
        if worker.events == "batches":
            async for event in readings.noack().events():
                await pass_on(of_batch(event))
        else:
            async for events in readings.noack_take(worker.max_poll_records, within=_TAKE_S):
                for taken in by_partition(events):
                    await pass_on(taken)

    @app.on_partitions_assigned.connect
    async def assigned(_: App, assigned: set[TP], **__: Any) -> None:
        held = {tp.partition for tp in assigned if tp.topic == plan.topics.readings}
        if app.snapshots is None:
            await belt.beside(pipeline.keep_only, held)
            await show_open()
        else:
            await app.snapshots.assigned(held)
        health.connected, health.partitions = True, len(held)
        health.progressed()
        metrics.rebalanced()
        _log.info("watching partitions %s of %s", sorted(held) or "(none)", plan.topics.readings)

    app.timer(interval=worker.commit_every_s, name="lag")(_Measure(app, plan.topics.readings, metrics).once)
    return app


def _listen(app: App, control: ControlReader, plan: Plan, pipeline: Pipeline, belt: Belt, metrics: Metrics) -> None:
    """Let the application read the control topics, and the pipeline hear what operators do and say."""
    app.control, app.beside = control, (*app.beside, control.run)
    # a malformed record is read by every worker, and dead-lettered by the one that has the first partition
    control.bury, control.buries = app.publisher.bury, lambda: 0 in pipeline.partitions

    async def act(held: Control[Action]) -> None:
        if held.value is not None:
            await belt.apply(pipeline.act, held.value)
            metrics.operators.acted(held.value.action)

    async def label(held: Control[Label]) -> None:
        await belt.apply(pipeline.label, held.key, held.value)
        metrics.operators.labelled("taken_back" if held.value is None else held.value.verdict)
        metrics.operators.moved(await belt.beside(pipeline.moved))

    control.handle("actions", plan.topics.actions, Action, act)
    control.handle("labels", plan.topics.labels, Label, label)


def _configured(kafka: KafkaSettings, worker: WorkerSettings) -> App:
    app = App(
        kafka.group,
        broker=[f"kafka://{server}" for server in kafka.servers],
        broker_credentials=_credentials(kafka),
        broker_client_id="headrace",
        broker_commit_interval=worker.commit_every_s,
        broker_max_poll_records=worker.max_poll_records,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 6,
        broker_request_timeout=max(90.0, kafka.session_timeout_s),
        # ours to decide, and not what Faust would do by itself:
        consumer_auto_offset_reset="earliest",  # a new group starts with what the topic still has
        consumer_group_instance_id=kafka.instance_id or None,  # a quick restart keeps its partitions
        store="memory://",  # no tables
        TableManager=NoTables,
        stream_buffer_maxsize=_BATCHES_WAITING if worker.events == "batches" else worker.max_poll_records,
        stream_wait_empty=True,  # the batch in hand is finished before partitions go
        topic_allow_declare=False,  # the topics are made with our settings before the worker starts
        topic_disable_leader=True,
        web_enabled=False,  # /table would show state to anyone; our own server binds narrowly
        web_tables_enabled=False,
        processing_guarantee="at_least_once",
    )
    app.transport = (Transport if worker.events == "batches" else PlainTransport)(app.conf.broker_consumer, app)
    return app


class _Measure:
    """Keeps the lag, and whether the committed offsets move, in health and metrics."""

    def __init__(self, app: App, topic: str, metrics: Metrics) -> None:
        self._app = app
        self._topic = topic
        self._metrics = metrics
        self._committed: dict[TP, int] = {}

    async def once(self) -> None:
        """Look now."""
        consumer, health = self._app.consumer, self._app.health
        partitions = [tp for tp in consumer.assignment() if tp.topic == self._topic]
        now = {tp: consumer.committed_offset(tp) for tp in partitions}
        health.lag = sum(max((consumer.highwater(tp) or 0) - offset, 0) for tp, offset in now.items())
        self._metrics.lag(health.lag, len(partitions))
        if now != self._committed:
            self._committed = now
            self._metrics.committed()
            health.progressed()
        elif not health.lag:
            health.progressed()


async def _beat(health: Health, metrics: Metrics) -> None:
    """Show the watchdog that the event loop turns, and the metrics what is on it."""
    while True:
        health.beat()
        metrics.tasks(len(asyncio.all_tasks()))
        await asyncio.sleep(_BEAT_S)


async def _probe(changelog: Changelog, health: Health) -> None:
    """Keep ``health.connected`` true to the facts; what does not move while the broker is away does not stall."""
    while True:
        health.connected = await changelog.answers()
        if not health.connected:
            health.progressed()
        await asyncio.sleep(_PROBE_S)


def _credentials(kafka: KafkaSettings) -> Any:
    context = kafka.ssl_context()
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism,
            username=kafka.username,
            password=kafka.password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
