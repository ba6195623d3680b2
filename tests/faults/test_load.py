"""Much at once, and for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import judge
from worker_process import Worker

from models.datasets import Recording
from stream.settings import KafkaSettings, load_plan

pytestmark = [pytest.mark.broker, pytest.mark.timeout(5000)]


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


@pytest.mark.fault(20, "a soak")
def test_nothing_grows(
    fault: Fault,
    long: bool,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    warm_s, soak_s = (300, 3300) if long else (25, 45)
    worker = start_worker(own_plan, HEADRACE_WORKER_SNAPSHOT_EVERY_S="1")
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=500_000 if long else 50_000), rate=1000).start()
    time.sleep(warm_s)
    samples = []
    end = time.monotonic() + soak_s
    while time.monotonic() < end:
        samples.append(
            (worker.memory_mb(), worker.threads(), worker.files(), worker.metric("headrace_event_loop_tasks"))
        )
        time.sleep(soak_s / 30)
    worker.must_live()
    assert feeder.busy
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    memory_mb, threads, files, on_loop = (np.array(column) for column in zip(*samples, strict=True))
    half = len(samples) // 2
    growth_mb = np.median(memory_mb[half:]) - np.median(memory_mb[:half])
    # what Python's allocator gives back late is a few MB whatever the time; a leak of a byte a reading is 30 MB an hour
    assert growth_mb < 10, memory_mb.tolist()
    for name, held in (("threads", threads), ("files", files), ("tasks", on_loop)):
        assert np.median(held[half:]) <= np.median(held[:half]) + 2, f"{name}: {held.tolist()}"
    fault.tried()
