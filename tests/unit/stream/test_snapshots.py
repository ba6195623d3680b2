"""Acknowledgements wait for snapshots, snapshots for the sinks, and batches for the state that was read back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from models.datasets import Recording
from stream.assembly import prefix
from stream.belt import Belt, Taken
from stream.errors import BrokerError
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.records import Output, Record
from stream.shelf import Shelf
from stream.sinks.prometheus import Metrics
from stream.snapshots import Snapshots
from stream.sources.json import encode as encode_reading
from stream.state import Meta, decode
from stream.web import Health


class Log:
    """A changelog in memory. ``away``: writing and reading fail; ``gate``: reading waits for it."""

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        if self.away:
            raise BrokerError("away")
        self.records[partition] += records

    async def read(self, partition: int, progress: Any) -> AsyncIterator[list[tuple[bytes, bytes | None]]]:
        if self.away:
            raise BrokerError("away")
        await self.gate.wait()
        for number, record in enumerate(list(self.records[partition]), 1):
            progress(number, len(self.records[partition]))
            yield [record]

    def applied(self, partition: int = 0) -> list[int]:
        """What each complete snapshot is of."""
        values = [decode(value) for _, value in self.records[partition] if value is not None]
        return [held.applied for held in values if isinstance(held, Meta)]


class Bench:
    """Snapshots over a real pipeline and belt; what is published is kept, and may be held up by ``sink``."""

    def __init__(self, plan: Plan, log: Log, executor: ThreadPoolExecutor, **settings: Any) -> None:
        self.pipeline = Pipeline(plan, Shelf(plan))
        self.log = log
        self.outputs: list[Output] = []
        self.done: list[int] = []
        self.skipped: list[int] = []
        self.sink = asyncio.Event()
        self.sink.set()
        self.metrics, self.health = Metrics(), Health(connected=True)
        self.highwater: int | None = None
        made: dict[str, Any] = {"every_s": 3600.0, "recovery_s": 60.0, **settings}
        self.belt = Belt(self.pipeline.process, self._publish, executor)
        self.snapshots = Snapshots(
            self.pipeline,
            self.belt,
            log,  # type: ignore[arg-type]  # what it needs of a changelog
            prefix=prefix("group", "readings"),
            highwater=lambda _: self.highwater,
            metrics=self.metrics.state,
            restored=self._restored,
            health=self.health,
            **made,
        )

    async def _publish(self, output: Output) -> None:
        await self.sink.wait()
        self.outputs.append(output)

    async def _restored(self) -> None:
        pass

    def batch(self, records: Sequence[Record]) -> Taken:
        first, last = records[0].offset, records[-1].offset
        return Taken(0, records, first, last, lambda: self.done.append(last), lambda: self.skipped.append(last))

    async def put(self, records: Sequence[Record]) -> None:
        await self.snapshots.put(self.batch(records))

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"headrace_{name}", labels) or 0.0


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.snapshots.run())
    await bench.snapshots.assigned({0})
    try:
        yield bench
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await bench.snapshots.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.005)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as held:
        yield held


@pytest.fixture
def records(make_recording: Callable[..., Recording]) -> list[Record]:
    held = make_recording("pump-1", rows=200, seed=1, fault=(80, 130))
    rows = zip(held.at_ms.tolist(), held.values.tolist(), strict=True)
    return [
        Record("readings", 0, offset, encode_reading("pump-1", at, dict(zip(held.signals, values, strict=True))))
        for offset, (at, values) in enumerate(rows)
    ]


async def test_a_batch_is_acknowledged_by_the_next_snapshot_not_before(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    async with running(Bench(plan, Log(), executor, every_s=0.05)) as bench:
        await bench.put(records[:50])
        await until(lambda: bench.done)
        assert bench.done == [49]
        assert bench.log.applied()[-1] == 49
        bench.log.away = True
        await bench.put(records[50:60])
        await until(lambda: bench.metric("snapshot_failures_total") >= 2)
        assert bench.done == [49]
        bench.log.away = False
        await until(lambda: bench.done == [49, 59])
        assert bench.log.applied()[-1] == 59


async def test_nothing_is_written_of_what_the_sinks_do_not_have(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    async with running(Bench(plan, Log(), executor, every_s=0.02)) as bench:
        bench.sink.clear()
        await bench.put(records[:50])
        await asyncio.sleep(0.2)
        assert bench.log.records[0] == []
        bench.sink.set()
        await until(lambda: bench.done == [49])


async def test_a_snapshot_tells_how_many_readings_are_held_back(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    patient = plan.model_copy(update={"input": plan.input.model_copy(update={"lateness_s": 8.0})})
    async with running(Bench(patient, Log(), executor, every_s=0.02)) as bench:
        await bench.put(records[:50])
        await until(lambda: bench.done == [49])
        await until(lambda: bench.metric("state_held_back_readings") == 8)  # one a second
    async with running(Bench(plan, Log(), executor, every_s=0.02)) as bench:
        await bench.put(records[:50])
        await until(lambda: bench.done == [49])
        assert bench.metric("state_held_back_readings") == 0


async def test_a_hurry_writes_at_once_and_lets_go_where_that_fails(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.snapshots._GIVE_UP_S", 0.3)
    async with running(Bench(plan, Log(), executor)) as bench:
        await bench.put(records[:50])
        bench.snapshots.hurry(True)
        await until(lambda: bench.done == [49])
        bench.log.away = True
        await bench.put(records[50:60])
        await until(lambda: bench.skipped == [59])
        assert bench.done == [49]
        bench.snapshots.hurry(False)


async def test_who_comes_after_goes_on_from_the_snapshot_and_passes_over_what_it_has(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as first:
        await first.put(records[:100])
        await until(lambda: first.done == [99])
    log.gate.clear()
    async with running(Bench(plan, log, executor, every_s=0.02)) as second:
        waiting = asyncio.create_task(second.put(records[90:]))
        await asyncio.sleep(0.05)
        assert second.health.recovering
        assert not waiting.done()
        log.gate.set()
        await waiting
        await until(lambda: second.done == [199])
        assert not second.health.recovering
    outputs = [*first.outputs, *second.outputs]
    assert sum(output.counts["repeated"] for output in outputs) == 10
    whole = Pipeline(plan, Shelf(plan)).process(0, records)
    assert [alert for output in outputs for alert in output.alerts] == list(whole.alerts)
    assert sum(len(held) for output in outputs for held in output.scores) == sum(map(len, whole.scores))


async def test_a_hurry_does_not_wait_for_a_state_that_is_being_read(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    log.gate.clear()
    async with running(Bench(plan, log, executor)) as bench:
        waiting = asyncio.create_task(bench.put(records))
        await asyncio.sleep(0.05)
        bench.snapshots.hurry(True)
        await waiting
        assert bench.skipped == [199]
        assert bench.outputs == []


async def test_what_comes_behind_a_batch_that_was_let_go_is_let_go_too_until_it_is_read_again(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as before:
        await before.put(records[:60])
        await until(lambda: before.done == [59])
    log.gate.clear()
    async with running(Bench(plan, log, executor, every_s=0.02)) as bench:
        waiting = asyncio.create_task(bench.put(records[60:75]))
        await asyncio.sleep(0.05)
        bench.snapshots.hurry(True)
        await waiting
        log.gate.set()  # the state is there in time for the next batch of the queue
        await until(lambda: not bench.health.recovering)
        bench.snapshots.hurry(False)
        await bench.put(records[75:90])
        assert bench.skipped == [74, 89]
        await bench.snapshots.assigned({0})
        await bench.put(records[60:])
        await until(lambda: bench.done == [199])
    alerts = [alert for each in (before, bench) for output in each.outputs for alert in output.alerts]
    whole = Pipeline(plan, Shelf(plan)).process(0, records)
    assert sorted(alerts, key=lambda a: (a.id, a.sequence)) == sorted(whole.alerts, key=lambda a: (a.id, a.sequence))


async def test_a_batch_whose_forerunner_was_passed_over_is_not_taken(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    async with running(Bench(plan, Log(), executor, every_s=0.02)) as bench:
        await bench.put(records[:60])
        behind = replace(bench.batch(records[75:90]), after=75)  # 60 to 74 were fetched, and Faust passed over them
        await bench.snapshots.put(behind)
        await bench.put(records[90:100])
        assert bench.skipped == [89, 99]
        await bench.put(records[60:75])
        await bench.snapshots.put(replace(bench.batch(records[80:]), after=75))  # a hole of the log's own is none
        await until(lambda: bench.done == [59, 74, 199])


async def test_a_recovery_has_a_deadline_and_older_blocks_do_not_come_back(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as first:
        await first.put(records[:100])
        await until(lambda: first.done == [99])
    log.gate.clear()
    async with running(Bench(plan, log, executor, every_s=0.02, recovery_s=0.1)) as second:
        await second.put(records[100:120])
        await until(lambda: second.done == [119])
        assert second.metric("state_begun_anew_total", reason="deadline") == 1
    log.gate.set()
    async with running(Bench(plan, log, executor)) as third:
        await until(lambda: not third.health.recovering)
        assert third.pipeline.applied(0) == 119


async def test_the_state_of_a_topic_that_was_made_anew_is_not_used(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as first:
        await first.put(records[:100])
        await until(lambda: first.done == [99])
    second = Bench(plan, log, executor, every_s=0.02)
    second.highwater = 50
    async with running(second):
        await second.put(records[:50])
        await until(lambda: second.done == [49])
        assert second.outputs[0].counts["records"] == 50
        assert second.metric("state_begun_anew_total", reason="topic_made_anew") == 1


async def test_a_memory_that_others_have_overtaken_is_read_back(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as frozen:
        await frozen.put(records[:60])
        await until(lambda: frozen.done == [59])
        async with running(Bench(plan, log, executor, every_s=0.02)) as other:
            await other.put(records[60:150])
            await until(lambda: other.done == [149])
        await frozen.snapshots.assigned({0})  # it has the partition again, and remembers it as it was
        await frozen.put(records[150:])
        await until(lambda: frozen.done == [59, 199])
    alerts = [alert for bench in (frozen, other) for output in bench.outputs for alert in output.alerts]
    whole = Pipeline(plan, Shelf(plan)).process(0, records)
    assert sorted(alerts, key=lambda a: (a.id, a.sequence)) == sorted(whole.alerts, key=lambda a: (a.id, a.sequence))


async def test_a_hurry_lets_go_at_once_while_some_blocks_are_ahead(
    plan: Plan, records: list[Record], executor: ThreadPoolExecutor
) -> None:
    log = Log()
    async with running(Bench(plan, log, executor, every_s=0.02)) as first:
        await first.put(records[:50])
        await until(lambda: first.done == [49])
        first.snapshots.hurry(True)  # so that the next snapshot is one of its own
        await until(lambda: len(log.applied()) == 1)
        await first.put(records[50:100])
        await until(lambda: first.done == [49, 99])
    log.records[0] = log.records[0][:-1]  # and the record that ends it was never written
    async with running(Bench(plan, log, executor)) as second:
        await second.put(records[40:90])
        second.snapshots.hurry(True)
        await until(lambda: second.skipped == [89])
        assert second.done == []
        second.snapshots.hurry(False)
        await second.put(records[40:150])
        second.snapshots.hurry(True)
        await until(lambda: second.done == [149])
