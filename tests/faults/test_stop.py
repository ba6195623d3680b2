"""A worker that is asked to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import judge
from worker_process import Worker

from models.datasets import Recording
from stream.plan import load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


@pytest.mark.both_brokers
@pytest.mark.fault(2, "SIGTERM under load")
def test_sigterm_under_load_drains_commits_and_ends_well(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=500)
    worker = start_worker(own_plan, HEADRACE_WORKER_GRACE_S="20", HEADRACE_KAFKA_INSTANCE_ID="w1")
    feeder.start()
    for _ in range(1 if fault.broker == "embedded" else 2):  # it lets a group wait 14 s
        time.sleep(3)
        started = time.monotonic()
        assert worker.stop() == 0
        fault.tried(recovery_s=time.monotonic() - started)
        worker.start_again()
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    judgement = judge(kafka, plan).must_hold()
    assert judgement.repeated == 0, "a worker that ends in order has committed all that it has published"
    fault.tried(judgement, tries=0)
