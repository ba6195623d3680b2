"""Three brokers, of which one dies: topics with three replicas, two of which must have what is acknowledged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from kafka.errors import KafkaError
from kafka_servers import Cluster, apache_kafka_cluster
from oracle import committed, judge
from servers import free_port
from worker_process import Worker, write_plan

from models.datasets import Recording
from stream.plan import Plan, TopicSettings, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

_OFFSETS = "__consumer_offsets"
_MORE = 100


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    held = apache_kafka_cluster(tmp_path)
    try:
        held.start()
        yield held
    finally:
        held.stop()


def until(condition: Callable[[], bool], what: str, within_s: float = 120.0) -> None:
    """Wait. What is asked may meet the broker that is away: then it is asked again."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(KafkaError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not {what} within {within_s:g} s"
        time.sleep(0.2)


@pytest.mark.fault(3, "one of three brokers killed and started again, each in its turn")
def test_a_cluster_that_loses_a_broker_goes_on_and_loses_nothing(
    fault: Fault, long: bool, cluster: Cluster, plan: Plan, plant: Callable[..., list[Recording]], tmp_path: Path
) -> None:
    fault.broker = "three"
    kafka = KafkaSettings(bootstrap=cluster.bootstrap, group="g", partitions=4, replication_factor=3)
    topics = TopicSettings()
    path = write_plan(plan.folder / "headrace.toml", topics, tmp_path, artifacts=plan.folder / "artifacts")
    settings = {"HEADRACE_WORKER_SNAPSHOT_EVERY_S": "0.5", "HEADRACE_KAFKA_REPLICATION_FACTOR": "3"}
    worker = Worker(path, kafka, tmp_path / "worker.log", **settings)
    feeder = Feeder(kafka, topics.readings, plant(rows=100_000), rate=300)
    names = [topic for topic in load_plan(path).topics.model_dump().values() if topic]
    try:
        worker.start(free_port())  # it makes the topics
        until(lambda: cluster.whole(*names), "three replicas in sync")
        feeder.start()
        until(lambda: all(committed(kafka, topics.readings).values()), "committing on every partition")
        for node in [1, 2, 3] * (3 if long else 1):
            # after a loss the leaders move back by and by: one that leads nothing would be no loss
            until(lambda node=node: node in cluster.leads(topics.readings).values(), f"led by {node}")  # type: ignore[misc]
            goal = {number: at + _MORE for number, at in committed(kafka, topics.readings).items()}
            cluster.servers[node - 1].stop()
            killed = time.monotonic()
            until(
                lambda goal=goal: all(at >= goal[n] for n, at in committed(kafka, topics.readings).items()),  # type: ignore[misc]
                f"{_MORE} readings further on every partition with two of three brokers",
            )
            fault.tried(recovery_s=time.monotonic() - killed)
            worker.must_live()
            assert worker.get("/health/live") is not None
            cluster.servers[node - 1].start()
            until(lambda: cluster.whole(*names, _OFFSETS), "three replicas in sync again")
        feeder.stop()
        wait_committed(kafka, feeder, topics.readings, worker)
        fault.tried(judge(kafka, load_plan(path)).must_hold(), tries=0)
        assert worker.stop() == 0
    finally:
        worker.kill()
