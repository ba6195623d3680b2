"""Secrets are planted where one may be set; all that a worker and the commands print, serve and write is searched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from influx_stub import InfluxStub
from worker_process import Worker, read_all

from models.datasets import Recording
from stream.plan import TopicSettings
from stream.settings import KafkaSettings

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(240),
    pytest.mark.parametrize("broker", ["embedded"], indirect=True),  # what is searched does not depend on the broker
]

PLANTED = {
    "HEADRACE_INFLUX_TOKEN": "planted-influx-7f3a",
    "HEADRACE_KAFKA_PASSWORD": "planted-kafka-51bc",
    "HEADRACE_ALERTMANAGER_PASSWORD": "planted-alertmanager-90de",
}


@pytest.fixture
def stub() -> Iterator[InfluxStub]:
    """It says the token that it was given in each error."""
    held = InfluxStub().start()
    yield held
    held.stop()


def test_a_planted_secret_is_nowhere(
    own_plan: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    stub: InfluxStub,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording("pump-1", rows=300, seed=1, fault=(200, 240)), data)
    write_csv(make_recording("pump-2", rows=300, seed=2), data)
    (tmp_path / "token").write_text(PLANTED["HEADRACE_INFLUX_TOKEN"])
    environment = {
        **PLANTED,
        "HEADRACE_INFLUX_URL": stub.url,
        "HEADRACE_INFLUX_BATCH_LINES": "100",
        "HEADRACE_ALERTMANAGER_URLS": stub.url,  # answers 501, which is an error like others
        "HEADRACE_ALERTMANAGER_USERNAME": "plant",
        "HEADRACE_KAFKA_USERNAME": "plant",
        "HEADRACE_WORKER_LOG_LEVEL": "DEBUG",
    }
    plan = ("--plan", str(own_plan))
    stub.status = 503
    worker = start_worker(own_plan, **environment)
    said: dict[str, str] = {}

    def command(*arguments: str, status: int = 0, **changed: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *arguments],
            env={**worker.environment, **changed}, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        said[" ".join(arguments)] = done.stdout + done.stderr
        assert done.returncode == status, done.stdout + done.stderr

    command("replay", str(data), *plan)
    worker.has_read(600)
    worker.wait(lambda: worker.metric("headrace_sink_failed_writes_total", sink="influxdb") >= 2, 30, "failing")
    stub.status, stub.bad = 204, "asset=pump-1,"
    worker.wait(lambda: worker.metric("headrace_sink_held_lines") == 0, 60, "refused")
    command("dlq", "list", "--limit", "0", *plan)
    command("alerts", "--until-end", "--json", *plan)
    command("check", *plan)
    command("check", *plan, status=2, HEADRACE_INFLUX_TOKEN_FILE=str(tmp_path / "token"))
    command("check", *plan, status=2, HEADRACE_INFLUX_TIMEOUT_S=PLANTED["HEADRACE_INFLUX_TOKEN"])
    command("worker", *plan, status=2, HEADRACE_KAFKA_SECURITY_PROTOCOL=PLANTED["HEADRACE_KAFKA_PASSWORD"])
    command("worker", "--help")
    command("backtest", str(data), *plan, "--report", str(tmp_path / "report.html"))
    said["report"] = (tmp_path / "report.html").read_text()
    for path in ("/", "/metrics", "/health/live", "/health/ready", "/api/overview", "/api/asset?name=pump-1"):
        said[path] = worker.get(path) or ""
    assert worker.stop() == 0
    said["log"] = (tmp_path / "worker.log").read_text()
    for topic in (topics.alerts, topics.dead_letters, topics.late, f"{topics.readings}.scores"):
        records = read_all(kafka, topic)
        said[topic] = "\n".join(f"{record.key} {record.value} {record.headers}" for record in records)
    assert "influxdb_refused" in said[topics.dead_letters]
    assert "***" in said[topics.dead_letters], "the server told the token, and nobody noticed"
    assert "HTTP 503: not now, Token ***" in said["log"]
    found = {(where, secret) for where, text in said.items() for secret in PLANTED.values() if secret in text}
    assert not found
