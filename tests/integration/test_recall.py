"""What workers wrote to InfluxDB is read back as it was measured, and learnt from like the topic."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from servers import InfluxDB
from worker_process import Worker, run, write_plan

from models.datasets import Recording
from models.train import train
from stream import recall
from stream.backtest import backtest
from stream.errors import ConfigError, SinkUnavailable
from stream.pipeline import Pipeline
from stream.plan import Plan, ThinningSettings, TopicSettings, load_plan
from stream.recall import read_influxdb
from stream.settings import KafkaSettings
from stream.shelf import Shelf
from stream.sinks.influxdb import InfluxSettings, InfluxSink
from stream.sinks.thin import Thinner
from stream.sources.json import timestamp

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def influx(influxdb: InfluxDB) -> InfluxSettings:
    """A bucket of the test's own."""
    bucket = f"b{uuid.uuid4().hex[:8]}"
    influxdb.create(bucket)
    return InfluxSettings(url=influxdb.url, bucket=bucket, linger_s=0.0)


async def write(plan: Plan, influx: InfluxSettings, recordings: Sequence[Recording], every_s: float = 0.0) -> None:
    """What a worker with this plan writes of these recordings."""
    sink, thinner = InfluxSink(influx, site=plan.site, stop_s=60.0), Thinner(ThinningSettings(every_s=every_s))
    await sink.start()
    for output in backtest(Pipeline(plan, Shelf(plan)), recordings):
        await sink.write(thinner.apply(output) if every_s else output)
    await sink.stop()
    assert (sink.held_lines, sink.refused_lines, sink.dropped_lines) == (0, 0, 0)


async def test_readings_come_back_as_they_were_measured_page_by_page(
    plan: Plan, influx: InfluxSettings, make_recording: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_PAGE", 70)
    recordings = [make_recording("pump-1", rows=400, seed=1), make_recording("pump-2", rows=350, seed=2)]
    recordings[0].values[200:203, 1] = np.nan
    await write(plan, influx, recordings)
    names = recordings[0].signals
    found = await asyncio.to_thread(
        read_influxdb, influx, plan, "quick", None, None, signals=names, period_s=1.0
    )  # fmt: skip
    for held, sent in zip(found, recordings, strict=True):
        judged = sent.at_ms >= held.at_ms[0]
        assert judged.sum() > 300
        assert (held.asset, held.signals) == (sent.asset, names)
        np.testing.assert_array_equal(held.at_ms, sent.at_ms[judged])
        np.testing.assert_array_equal(held.values, sent.values[judged])

    since, until = (timestamp(int(recordings[1].at_ms[row])) for row in (100, 200))
    cut = await asyncio.to_thread(
        read_influxdb, influx, plan, "quick", since, until, signals=["heat"], period_s=1.0
    )  # fmt: skip
    np.testing.assert_array_equal(cut[1].at_ms, recordings[1].at_ms[100:200])
    np.testing.assert_array_equal(cut[1].values, recordings[1].values[100:200, [1]])


async def test_history_with_holes_made_by_rule_is_refused(
    plan: Plan, influx: InfluxSettings, make_recording: Callable[..., Recording]
) -> None:
    await write(plan, influx, [make_recording("pump-1", rows=400, seed=1)], every_s=10.0)

    def ask(plan: Plan, detector: str = "quick", settings: InfluxSettings = influx) -> None:
        read_influxdb(settings, plan, detector, None, None, signals=["heat"], period_s=1.0)

    with pytest.raises(ConfigError, match=r"longer than the 1 s from one reading to the next: it was thinned"):
        await asyncio.to_thread(ask, plan)  # it was thinned before the plan said no more
    with pytest.raises(ConfigError, match="thinning: what is in InfluxDB is thinned"):
        ask(plan.model_copy(update={"thinning": ThinningSettings(every_s=10)}))
    with pytest.raises(ConfigError, match=r"detectors\.slow\.hop: InfluxDB has only every 3th reading"):
        ask(plan, "slow")
    with pytest.raises(ConfigError, match="HEADRACE_INFLUX_URL"):
        ask(plan, settings=InfluxSettings())
    with pytest.raises(ConfigError, match="has no readings of quick"):
        await asyncio.to_thread(ask, plan.model_copy(update={"site": "south"}))
    with pytest.raises(ConfigError, match="database not found"):
        await asyncio.to_thread(ask, plan, settings=influx.model_copy(update={"bucket": "none"}))
    with pytest.raises(SinkUnavailable):
        await asyncio.to_thread(ask, plan, settings=influx.model_copy(update={"url": "http://127.0.0.1:9"}))


PLAN = """
[topics]
scores = "plant.scores.v1"
[models]
store = "versions"
[detectors.states]
kind = "mset"
artifact = "store:"
false_alarms_per_day = 1
"""


@pytest.mark.broker
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # only the labels are read from it
async def test_a_model_is_retrained_on_what_lies_in_influxdb(
    kafka: KafkaSettings,
    topics: TopicSettings,
    influx: InfluxSettings,
    make_recording: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    path = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path)
    made = load_plan(path)
    store = made.open_store()
    first = store.add("states", train([make_recording("pump-1", rows=2000, seed=11)], detector="mset", seed=1))
    store.decide("states", "promote", serving=first)
    since = make_recording("pump-1", rows=1600, seed=3)
    await write(made, influx, [since])
    here = Worker(
        path, kafka, tmp_path / "none.log", HEADRACE_INFLUX_URL=influx.url, HEADRACE_INFLUX_BUCKET=influx.bucket
    )
    arguments = ("retrain", "states", "--from", "influxdb", "--json", "--plan", str(path))
    said = json.loads(await asyncio.to_thread(run, here, *arguments))
    assert said["rows"] > 1500
    assert said["version"] not in ("", first)
    manifest = store.load("states", said["version"]).manifest
    assert manifest.assets == ("pump-1",)
    assert store.now("states").serving == first
