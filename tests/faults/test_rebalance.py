"""Workers that come, go, freeze, or do not get on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from kafka import KafkaAdminClient
from oracle import judge
from worker_process import Worker

from models.datasets import Recording
from stream.plan import load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

OFTEN = {"HEADRACE_WORKER_SNAPSHOT_EVERY_S": "0.5"}


@pytest.mark.fault(4, "rebalances: one worker to four and back")
def test_workers_that_come_and_go_lose_nothing(
    fault: Fault,
    long: bool,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    if fault.broker == "embedded":
        pytest.skip("the embedded broker takes half a session time-out for a join (docs/adr/0002)")
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    stays = start_worker(own_plan, **OFTEN)
    for _ in range(10 if long else 1):
        others = [start_worker(own_plan, **OFTEN) for _ in range(3)]
        time.sleep(2)
        others[0].kill()
        for other in others[1:]:
            assert other.stop() == 0
        fault.tried()
    feeder.stop()
    recovery_s = wait_committed(kafka, feeder, plan.topics.readings, stays)
    fault.tried(judge(kafka, plan).must_hold(), tries=0, recovery_s=recovery_s)


@pytest.mark.fault(5, "a frozen worker (SIGSTOP)")
def test_a_frozen_worker_is_noticed_and_its_partitions_move_on(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    if fault.broker == "embedded":
        pytest.skip("the embedded broker takes half a session time-out for a join (docs/adr/0002)")
    plan = load_plan(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    first, second = (start_worker(own_plan, **OFTEN) for _ in range(2))
    first.wait(lambda: first.metric("headrace_assigned_partitions") == 2, 60, "sharing the partitions")
    first.freeze()
    frozen = time.monotonic()
    assert first.get("/health/live", timeout_s=1) is None, "it does not answer: its orchestrator sees that"
    second.wait(lambda: second.metric("headrace_assigned_partitions") == 4, 60, "given the partitions of the frozen")
    fault.tried(recovery_s=time.monotonic() - frozen)
    time.sleep(2)
    first.thaw()
    first.wait(lambda: first.metric("headrace_rebalances_total") >= 3, 60, "back in the group")
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, first, second)
    fault.tried(judge(kafka, plan).must_hold(), tries=0)


@pytest.mark.fault(5, "commits stand still: the state cannot be written")
def test_a_worker_that_does_not_get_on_ends_itself_to_be_started_again(
    request: pytest.FixtureRequest,
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    if fault.broker == "embedded":
        pytest.skip("the embedded broker goes on writing to a topic that was deleted")
    plan = load_plan(own_plan)
    settings = {**OFTEN, "HEADRACE_WORKER_STALL_AFTER_S": "6"}
    worker = start_worker(own_plan, **settings)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    worker.wait(lambda: worker.metric("headrace_snapshot_seconds_count") >= 4, 60, "writing snapshots")
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    admin.delete_topics([plan.topics.state])
    admin.close()
    broken = time.monotonic()
    assert worker.process is not None
    assert worker.process.wait(90) == 70
    fault.tried(recovery_s=time.monotonic() - broken)
    feeder.stop()
    worker.start_again()  # it makes the topic anew; what it knew is gone with the topic, and no reading is
    wait_committed(kafka, feeder, plan.topics.readings, worker)
