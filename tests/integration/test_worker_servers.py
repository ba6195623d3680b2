"""The worker's own process, its points read back from InfluxDB and VictoriaMetrics and its metrics from Prometheus."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import one_broker
from worker_process import Worker, live_scores, run

from models.datasets import Recording
from stream.plan import TopicSettings
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.servers, pytest.mark.timeout(240)]


def fetch(url: str, **query: str) -> bytes:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return bytes(answer.read())


@one_broker  # it is about InfluxDB and Prometheus
def test_points_and_series_of_a_real_run_are_read_back(
    own_plan: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    influxdb: Any,
    prometheus: Callable[[str], str],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    bucket = f"b{uuid.uuid4().hex[:8]}"
    influxdb.create(bucket)
    worker = start_worker(own_plan, HEADRACE_INFLUX_URL=influxdb.url, HEADRACE_INFLUX_BUCKET=bucket)
    scraper = prometheus(worker.url.removeprefix("http://"))
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording("pump-1", rows=300, seed=1, fault=(200, 240)), data)
    write_csv(make_recording("pump-2", rows=300, seed=2), data)
    run(worker, "replay", str(data), "--plan", str(own_plan))
    worker.has_read(600)
    scores = live_scores(kafka, f"{topics.readings}.scores")

    def series() -> float:
        answer = json.loads(fetch(f"{scraper}/api/v1/query", query="headrace_readings_total"))
        return sum(float(result["value"][1]) for result in answer["data"]["result"])

    worker.wait(lambda: series() == 600, 20, "scraped")
    opened = json.loads(fetch(f"{scraper}/api/v1/query", query='headrace_alert_transitions_total{state="open"}'))
    assert {result["metric"]["detector"] for result in opened["data"]["result"]} == {"quick", "slow"}
    assert worker.stop() == 0  # what the sink still held is written on the way out

    rows = influxdb.query(bucket, "SELECT score, anomalous FROM headrace_score GROUP BY asset, detector")
    assert len(rows) == len(scores)
    written = {
        (row["asset"], row["detector"], row["time"] // 1_000_000): (row["score"], row["anomalous"]) for row in rows
    }
    expected = {
        (asset, detector, round(datetime.fromisoformat(ts).timestamp() * 1000)): value
        for (asset, detector, ts), value in scores.items()
    }
    assert written == expected
    alerts = influxdb.query(bucket, "SELECT state, asset FROM headrace_alert WHERE detector = 'quick'")
    assert {row["state"] for row in alerts} >= {"open", "resolved"}


@one_broker  # it is about VictoriaMetrics
def test_the_same_worker_writes_to_victoriametrics(
    own_plan: Path,
    start_worker: Callable[..., Worker],
    victoria: str,
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    worker = start_worker(own_plan, HEADRACE_INFLUX_URL=victoria)
    asset = f"pump-{uuid.uuid4().hex[:8]}"
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording(asset, rows=200, seed=1), data)
    run(worker, "replay", str(data), "--plan", str(own_plan))
    worker.has_read(200)
    assert worker.stop() == 0
    fetch(f"{victoria}/internal/force_flush")
    deadline = time.monotonic() + 20
    while True:
        match = f'headrace_score_score{{asset="{asset}",detector="quick"}}'
        lines = fetch(f"{victoria}/api/v1/export", **{"match[]": match}).decode().splitlines()
        points = sum(len(json.loads(line)["values"]) for line in lines)
        if points == 200 - 31:
            return
        assert time.monotonic() < deadline, f"{points} points"
        time.sleep(0.2)
