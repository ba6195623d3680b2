"""A disk that is full: a small tmpfs where this user may mount one (root), else these are skipped and say so.

``tests/unit/stream/test_spool.py`` and ``test_backlog.py`` inject the same error (ENOSPC) into every user's run.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from influx_stub import InfluxStub
from oracle import judge
from worker_process import Worker

from models import artifact as artifacts
from models.datasets import Recording
from stream.plan import Plan, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.timeout(240)]

_SMALL = 192 << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.broker
@pytest.mark.fault(16, "disk full: the spool's")
def test_a_full_disk_delays_no_alert_and_what_is_dropped_is_counted_and_said(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    small_disk: Path,
    tmp_path: Path,
) -> None:
    plan = load_plan(own_plan)
    stub = InfluxStub().start()
    stub.stop()  # nobody there, on a port that is known
    worker = start_worker(
        own_plan,
        HEADRACE_INFLUX_URL=stub.url,
        HEADRACE_INFLUX_SPOOL_DIR=str(small_disk),
        HEADRACE_INFLUX_HELD_LINES="1000",
        HEADRACE_INFLUX_BATCH_LINES="200",
    )
    feeder = Feeder(kafka, plan.topics.readings, plant(assets=4, rows=1500)).start()
    feeder.finish()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    dropped = outcome(worker, "dropped")
    log = (tmp_path / "worker.log").read_text()
    assert dropped > 0
    assert "No space left on device" in log
    assert "there is no room for more: the oldest in memory are dropped from now on" in log
    stub.start()
    worker.wait(lambda: worker.metric("headrace_sink_held_lines") == 0, 60, "all written")
    assert outcome(worker, "dropped") == dropped
    written = outcome(worker, "written")
    assert written == len(stub.lines)
    scores, alerts = worker.metric("headrace_scores_total"), worker.metric("headrace_alert_transitions_total")
    assert written + dropped == scores + alerts
    assert worker.stop() == 0
    stub.stop()
    fault.tried(judge(kafka, plan).must_hold())


@pytest.mark.fault(16, "disk full: the artifacts'")
def test_training_on_a_full_disk_is_told_and_leaves_what_serves(
    fault: Fault,
    plan: Plan,
    small_disk: Path,
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    data = write_csv(make_recording("pump-1", rows=600, seed=1), tmp_path)
    text = (plan.folder / "headrace.toml").read_text()
    (small_disk / "headrace.toml").write_text(text)
    train = [sys.executable, "-m", "stream.cli", "train", str(data), "--detector", "quick"]
    train += ["--plan", str(small_disk / "headrace.toml")]
    done = subprocess.run(train, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    path = small_disk / "artifacts" / "quick"
    version = artifacts.load(path).version
    fill(small_disk / "filler")
    done = subprocess.run([*train, "--seed", "5"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("headrace: detectors.quick.artifact: "), done.stderr
    assert "No space left on device" in line
    assert artifacts.load(path).version == version
    assert sorted(each.name for each in (small_disk / "artifacts").iterdir()) == ["quick"]
    fault.tried()


def fill(path: Path) -> None:
    """Leave no byte of the disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def outcome(worker: Worker, name: str) -> int:
    lines = (worker.get("/metrics") or "").splitlines()
    wanted = f'headrace_sink_lines_total{{outcome="{name}",sink="influxdb"}}'
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted)))
