"""The processes that are compared: the worker, the worker with a part left out, and what others would write.

    python benchmarks/variants.py worker --plan PLAN --board FILE [--core 0] [--ticker]

``worker``, ``sinkless``, ``unscored`` and ``agent`` are ``headrace worker`` with one class changed each; address and
group come from ``HEADRACE_KAFKA_*`` as for any worker. Each counts on its ``Board`` what it has done with.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import faust
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

import stream.app
import stream.worker
from figures.board import Board
from models.artifact import Artifact
from models.base import Float32, Scored
from models.stepping import CarriedState
from stream.pipeline import Pipeline
from stream.plan import DetectorSettings, load_plan
from stream.records import Output, RawRecord
from stream.settings import KafkaSettings, from_environment
from stream.shelf import Shelf
from stream.sinks.memory import MemorySink
from stream.sinks.prometheus import PrometheusSink


class Silent:
    """A detector that finds nothing strange without looking; all else about it is the trained one's."""

    def __init__(self, trained: Any) -> None:
        self.name, self.signals, self.config = trained.name, trained.signals, trained.config
        self.window = trained.window
        self.stepper = SilentStepper(trained.signals) if getattr(trained, "stepper", None) else None

    def score(self, windows: Float32) -> Scored:
        """0, with expectations as the trained one gives them, so that all that follows has its work."""
        rows = (len(windows), self.signals)
        nothing = np.zeros(rows, dtype=np.float32)
        return Scored(np.zeros(len(windows)), np.zeros(rows), expected=nothing, spread=nothing)


class SilentStepper:
    """The same for a detector that carries its state: rows are counted, and a step does nothing."""

    def __init__(self, signals: int) -> None:
        self._signals = signals

    def begin(self, slots: int = 0) -> CarriedState:
        """A state of nothing but the count of rows."""
        return CarriedState({}, np.zeros(slots, np.int32))

    def run(self, state: CarriedState, slots: Any, counts: Any, rows: Float32, at_ms: Any = None) -> Scored:  # noqa: ARG002
        """0 for each row."""
        state.rows[slots] += counts.astype(np.int32)
        nothing = np.zeros((len(rows), self._signals), dtype=np.float32)
        return Scored(np.zeros(len(rows)), np.zeros(nothing.shape), expected=nothing, spread=nothing)


class UnscoredShelf(Shelf):
    """Loads what it should, then leaves the scoring out."""

    def _load(self, name: str, settings: DetectorSettings, path: Path) -> Artifact:
        held = super()._load(name, settings, path)
        silent: Any = Silent(held.detector)
        return dataclasses.replace(held, detector=silent)


class IdlePipeline(Pipeline):
    """Counts records and does nothing with them: what is left is our agent, its transport and its sinks."""

    def process(self, partition: int, records: Sequence[RawRecord]) -> Output:
        """Count, and remember how far, as snapshots and the order of batches want it."""
        self._of(partition).applied = records[-1].offset
        return Output(counts={"records": len(records), "readings": len(records)})


class NoSink(MemorySink):
    """In the place of Kafka's: takes all and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__("kafka")

    async def write(self, output: Output) -> None:
        """Nothing."""


def run_ours(options: argparse.Namespace, board: Board) -> int:
    """``headrace worker``, with the counts of what was published put on the board after the essential sinks."""

    class Metered(PrometheusSink):
        async def write(self, output: Output) -> None:
            if options.kind != "sinkless":
                await super().write(output)
            scores = sum(len(held) for held in output.scores)
            board.add(output.counts["records"], output.counts["readings"], scores, len(output.dead) + len(output.late))

    def create_app(*args: Any, **kwargs: Any) -> Any:
        app = plain(*args, **kwargs)
        watch_assignment(app, board)
        if options.ticker:
            app.task(lambda: tick(board))
        return app

    plain: Callable[..., Any] = stream.app.create_app
    replaced: dict[str, Any] = {"PrometheusSink": Metered, "create_app": create_app}
    if options.kind == "unscored":
        replaced["Shelf"] = UnscoredShelf
    elif options.kind == "agent":
        replaced["Pipeline"] = IdlePipeline
    elif options.kind == "sinkless":
        replaced["KafkaSink"] = NoSink
    with mock.patch.multiple("stream.worker", **replaced):
        return stream.worker.run_worker(options.plan, web_port=0)


def watch_assignment(app: Any, board: Board) -> None:
    """Show on the board how many partitions are assigned."""

    async def assigned(_: Any, assigned: set[Any], **__: Any) -> None:
        board.assigned(len(assigned))

    app.on_partitions_assigned.connect(assigned, weak=False)


async def tick(board: Board) -> None:
    """Sleep a millisecond again and again, and note how much longer it took."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(0.001)
        board.tick(loop.time() - before - 0.001)


class JsonReading(faust.Record):
    """A reading as a Faust tutorial declares it."""

    asset: str
    ts: float
    values: dict[str, float]


def run_faust(options: argparse.Namespace, board: Board) -> None:
    """A bare Faust agent on Faust's own transport: JSON to a Record, and nothing is done with it."""
    kafka = from_environment(KafkaSettings)
    app = faust.App(
        kafka.group,
        broker=[f"kafka://{server}" for server in kafka.servers],
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 6,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    topic = app.topic(
        load_plan(options.plan).topics.readings, key_type=bytes, key_serializer="raw", value_type=JsonReading
    )

    @app.agent(topic)
    async def nothing(readings: Any) -> None:
        count = 0
        async for _ in readings:
            count += 1
            if count % 100 == 0:  # rounds are whole hundreds; once for each record would be part of the cost
                board.add(100, 100)

    watch_assignment(app, board)
    app.Worker(loglevel="WARNING", quiet=True, redirect_stdouts=False, console_port=0).execute_from_commandline()


async def run_getmany(options: argparse.Namespace, board: Board) -> None:
    """Bare aiokafka: ``getmany`` in a loop, records counted and dropped."""
    kafka = from_environment(KafkaSettings)
    topic = load_plan(options.plan).topics.readings
    consumer = AIOKafkaConsumer(**kafka.client_options(), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in range(kafka.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    board.assigned(len(partitions))
    while True:
        found = await consumer.getmany(timeout_ms=1000, max_records=4096)
        if found:
            count = sum(len(records) for records in found.values())
            board.add(count, count)


def main() -> None:
    """Be one of the variants until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("worker", "sinkless", "unscored", "agent", "faust", "getmany"))
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--ticker", action="store_true")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    board = Board(options.board)
    board.sign()
    if options.kind == "faust":
        run_faust(options, board)
    elif options.kind == "getmany":
        asyncio.run(run_getmany(options, board))
    else:
        run_ours(options, board)


if __name__ == "__main__":
    main()
