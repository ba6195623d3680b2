"""The agent in Faust's own test context: no broker, the real pipeline, sinks in memory."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from faust.types import TP

from models.datasets import Recording
from stream.app import App, create_app
from stream.errors import SinkUnavailable
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.publish import Publisher
from stream.records import Record
from stream.settings import KafkaSettings, WorkerSettings
from stream.shelf import Shelf
from stream.sinks.memory import MemorySink
from stream.sinks.prometheus import Metrics
from stream.sources.json import encode
from stream.transport import Batch
from stream.web import Health


def batch_of(recording: Recording, *extra: bytes) -> Batch:
    values = [
        encode(recording.asset, int(at_ms), dict(zip(recording.signals, row.tolist(), strict=True)))
        for at_ms, row in zip(recording.at_ms, recording.values, strict=True)
    ]
    records = [Record("plant.readings.v1", 2, offset, value) for offset, value in enumerate([*values, *extra])]
    return Batch(TP("plant.readings.v1", 2), records, end=len(records))


def app_of(plan: Plan, sink: MemorySink, pipeline: Any = None, **kafka: Any) -> App:
    return create_app(
        plan,
        pipeline or Pipeline(plan, Shelf(plan)),
        Publisher([sink]),
        kafka=KafkaSettings(**kafka),
        worker=WorkerSettings(web_port=0),
        metrics=Metrics(),
        health=Health(),
    )


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Faust's test context returns from ``put`` when the agent has the event, not when it is through with it."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what Faust leaves behind now: CPython 3.11 fails if its warnings come while an import is being parsed."""
    yield
    gc.collect()


@pytest.fixture
def batch(make_recording: Callable[..., Recording]) -> Batch:
    return batch_of(make_recording("pump-1", rows=200, seed=1, fault=(120, 150)), b"not json")


async def test_a_batch_is_scored_published_and_done(plan: Plan, batch: Batch) -> None:
    sink = MemorySink()
    async with app_of(plan, sink).agents["watch"].test_context() as agent:
        await agent.put(batch)
        await until(lambda: batch.done)
    assert {alert.state for alert in sink.alerts} >= {"open", "resolved"}
    assert [letter.reason for letter in sink.dead] == ["not_json"]


async def test_a_batch_is_not_done_before_the_sinks_have_it(plan: Plan, batch: Batch) -> None:
    seen: list[bool] = []

    class Watching(MemorySink):
        async def write(self, output: Any) -> None:
            seen.append(batch.done)
            await super().write(output)

    sink = Watching(failures=[SinkUnavailable("away", 0.01), SinkUnavailable("still away", 0.01)])
    async with app_of(plan, sink).agents["watch"].test_context() as agent:
        await agent.put(batch)
        await until(lambda: batch.done)
    assert seen == [False, False, False]
    assert len(sink.outputs) == 1


async def test_a_fault_of_ours_dead_letters_the_batch_and_the_agent_lives(plan: Plan, batch: Batch) -> None:
    class Failing(Pipeline):
        calls = 0

        def process(self, partition: int, records: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError("ours")
            return super().process(partition, records)

    sink = MemorySink()
    again = replace(batch)
    async with app_of(plan, sink, Failing(plan, Shelf(plan))).agents["watch"].test_context() as agent:
        await agent.put(batch)
        await until(lambda: batch.done)
        assert len(sink.dead) == len(again.records)
        assert sink.dead[0].reason == "pipeline_failed"
        await agent.put(again)
        await until(lambda: len(sink.outputs) == 2)
    assert sink.alerts


def test_faust_is_given_the_same_credentials_as_the_other_clients(plan: Plan) -> None:
    assert app_of(plan, MemorySink()).conf.broker_credentials is None
    sasl: Any = {"username": "me", "password": "s3cret", "sasl_mechanism": "SCRAM-SHA-512"}
    given = app_of(plan, MemorySink(), security_protocol="SASL_SSL", **sasl).conf.broker_credentials
    assert (given.username, given.password, given.mechanism.value) == ("me", "s3cret", "SCRAM-SHA-512")
    assert given.protocol.value == "SASL_SSL"
    assert given.ssl_context.check_hostname
    plain = app_of(plan, MemorySink(), security_protocol="SASL_PLAINTEXT", **sasl).conf.broker_credentials
    assert plain.protocol.value == "SASL_PLAINTEXT"
    tls = app_of(plan, MemorySink(), security_protocol="SSL").conf.broker_credentials
    assert tls.protocol.value == "SSL"
    assert tls.context.check_hostname
