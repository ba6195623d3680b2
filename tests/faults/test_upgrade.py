"""Releases that follow each other, and a stretch that is scored once more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import judge, published
from worker_process import Worker, run

from models.datasets import Recording
from stream.plan import Plan, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

OFTEN = {"HEADRACE_WORKER_SNAPSHOT_EVERY_S": "0.5", "HEADRACE_KAFKA_INSTANCE_ID": "w1"}


@pytest.mark.fault(19, "upgrade N to N+1 in mid-stream, and back")
def test_a_release_reads_the_state_of_the_one_before_and_begins_anew_with_one_it_does_not_know(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    worker = start_worker(own_plan, **OFTEN)
    time.sleep(4)
    assert worker.stop() == 0
    worker.run_module(Path(__file__).parents[1] / "harness" / "next_release.py")
    started = time.monotonic()
    worker.start_again()
    fault.tried(recovery_s=time.monotonic() - started)
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    assert worker.metric("headrace_state_begun_anew_total") == 0
    fault.tried(judge(kafka, plan).must_hold(), tries=0)
    assert worker.stop() == 0

    # back: this release does not know that format. It says so, and goes on with every reading
    more = Feeder(kafka, plan.topics.readings, plant(assets=9, rows=300)[8:])
    more.start().finish()
    worker.run_module(None)
    worker.start_again()
    wait_committed(kafka, more, plan.topics.readings, worker)
    assert worker.metric("headrace_state_begun_anew_total") > 0
    assert worker.metric("headrace_records_total") == 300
    fault.tried()


@pytest.mark.fault(21, "replay of the topic")
def test_a_replay_gives_what_the_live_run_gave(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    tmp_path: Path,
) -> None:
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=400), rate=600).start()
    worker = start_worker(own_plan, **OFTEN)
    time.sleep(2)
    worker.kill()
    worker.start_again()
    feeder.finish()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    assert worker.stop() == 0

    mine = uuid.uuid4().hex[:8]
    again = tmp_path / "again"
    again.mkdir()
    text = own_plan.read_text()
    for name in (plan.topics.alerts, plan.topics.scores, plan.topics.dead_letters, plan.topics.late, plan.topics.state):
        text = text.replace(f'"{name}"', f'"{mine}.{name}"')
    text = text.replace(f'"{plan.topics.readings}"', f'"{mine}.again"')
    path = again / "headrace.toml"
    path.write_text(text)
    replayed: Plan = load_plan(path)
    second = start_worker(path, **OFTEN, HEADRACE_KAFKA_GROUP=mine)
    second.wait(lambda: second.metric("headrace_assigned_partitions") == 4, 60, "given its partitions")
    run(
        worker,
        "replay",
        "--from-offset",
        "0:0,1:0,2:0,3:0",
        "--topic",
        replayed.topics.readings,
        "--plan",
        str(own_plan),
    )
    second.has_read(feeder.sent)
    for topic in ("alerts", "scores"):
        live, copy = (published(kafka, getattr(each.topics, topic)) for each in (plan, replayed))
        assert live
        assert copy.keys() == live.keys()
    fault.tried()


@pytest.mark.fault(15, "a bad artifact at the start")
def test_a_bad_artifact_is_refused_before_anything_starts(fault: Fault, plan: Plan, tmp_path: Path) -> None:
    shutil.copytree(plan.folder, tmp_path / "plan")
    for weights in (tmp_path / "plan" / "artifacts" / "quick").glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    command = [sys.executable, "-m", "stream.cli", "worker", "--plan", str(tmp_path / "plan" / "headrace.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert "detectors.quick.artifact" in done.stderr
    assert "Traceback" not in done.stderr
    fault.tried()
