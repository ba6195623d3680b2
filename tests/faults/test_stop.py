"""A worker that is asked to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import committed
from worker_process import Worker

from models.datasets import Recording
from stream.settings import KafkaSettings, load_plan

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.mark.fault(2, "SIGTERM under load")
def test_sigterm_under_load_drains_commits_and_ends_well(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=3000), rate=500)
    worker = start_worker(own_plan, HEADRACE_WORKER_GRACE_S="20")
    feeder.start()
    time.sleep(4)
    started = time.monotonic()
    assert worker.stop() == 0
    fault.tried(recovery_s=time.monotonic() - started)
    assert feeder.busy
    feeder.stop()
    done = sum(committed(kafka, plan.topics.readings).values())
    assert done > 0
    worker = start_worker(own_plan)
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    assert worker.metric("headrace_records_total") == feeder.sent - done
