"""A broker that goes and comes back, with what it had."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import judge
from servers import free_port
from worker_process import Worker, write_plan

from stream.plan import Plan, TopicSettings, load_plan
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


@pytest.mark.fault(3, "broker killed and started again")
def test_a_broker_that_goes_and_comes_back_costs_nothing(
    fault: Fault, long: bool, killable_kafka: tuple[Any, str], plan: Plan, plant: Any, tmp_path: Path
) -> None:
    fault.broker = "apache"
    server, address = killable_kafka
    kafka = KafkaSettings(bootstrap=address, group="g", partitions=4)
    topics = TopicSettings()
    ensure_topics(kafka, topics)
    path = write_plan(plan.folder / "headrace.toml", topics, tmp_path, artifacts=plan.folder / "artifacts")
    feeder = Feeder(kafka, topics.readings, plant(rows=100_000), rate=300)
    worker = Worker(path, kafka, tmp_path / "worker.log", HEADRACE_WORKER_SNAPSHOT_EVERY_S="0.5")
    try:
        worker.start(free_port())
        feeder.start()
        time.sleep(2)
        before_mb = worker.memory_mb()
        for away_s in (1, 1, 1, 1, 60 if long else 8):
            server.stop()
            gone = time.monotonic()
            time.sleep(away_s)
            if away_s > 5:
                worker.wait(lambda: worker.get("/health/ready") is None, 30, "unready: it is cut off from the broker")
                assert worker.get("/health/live") is not None, "and starting it again would not help"
            server.start()
            back = time.monotonic()
            worker.wait(lambda: worker.get("/health/ready") is not None, 60, "ready again")
            fault.tried(recovery_s=time.monotonic() - back)
            assert time.monotonic() - gone > away_s
        feeder.stop()
        fault.tried(tries=0, recovery_s=wait_committed(kafka, feeder, topics.readings, worker))
        assert worker.memory_mb() < before_mb + 100
        fault.tried(judge(kafka, load_plan(path)).must_hold(), tries=0)
        assert worker.stop() == 0
    finally:
        worker.kill()
