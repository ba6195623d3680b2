"""Workers that die without a word."""

from __future__ import annotations

import random
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

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]


@pytest.mark.parametrize("events", [pytest.param("batches", marks=pytest.mark.both_brokers), "messages"])
@pytest.mark.fault(1, "kill -9 in mid-batch")
def test_killed_at_random_moments_it_publishes_what_an_undisturbed_run_does(
    events: str,
    fault: Fault,
    long: bool,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    settings = {
        "HEADRACE_WORKER_EVENTS": events,
        "HEADRACE_WORKER_SNAPSHOT_EVERY_S": "0.5",
        "HEADRACE_KAFKA_INSTANCE_ID": "w1",  # so that nobody waits for the session of the dead
    }
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=600).start()
    moments = random.Random(7)
    worker = start_worker(own_plan, **settings)
    many = 10 if long or (events == "batches" and fault.broker != "embedded") else 2  # that one lets a group wait 14 s
    for _ in range(many):
        time.sleep(moments.uniform(0.0, 1.5))
        worker.kill()
        killed = time.monotonic()
        worker.start_again()
        fault.tried(recovery_s=time.monotonic() - killed)
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    fault.tried(judge(kafka, plan).must_hold(), tries=0)
