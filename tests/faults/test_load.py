"""Much at once."""

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
@pytest.mark.fault(17, "ten times the load")
def test_ten_times_the_load_is_drained_without_a_rebalance(
    fault: Fault,
    long: bool,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    # the session of a worker in production: that the machine of the tests is busy is not what is tried here
    settings = {"HEADRACE_WORKER_SNAPSHOT_EVERY_S": "1", "HEADRACE_KAFKA_SESSION_TIMEOUT_S": "30"}
    if fault.broker == "embedded":
        settings["HEADRACE_KAFKA_SESSION_TIMEOUT_S"] = "6"  # it takes half of that for a join
    worker = start_worker(own_plan, **settings)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    time.sleep(3)
    assert worker.metric("headrace_rebalances_total") == 1
    feeder.rate = 3000
    time.sleep(60 if long else 6)
    feeder.rate = 300
    time.sleep(2)
    feeder.stop()
    drained_s = wait_committed(kafka, feeder, plan.topics.readings, worker)
    assert worker.metric("headrace_rebalances_total") == 1
    fault.tried(judge(kafka, plan).must_hold(), recovery_s=drained_s)
    assert fault.repeated == 0
