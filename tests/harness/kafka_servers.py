"""Apache Kafka in KRaft mode from the jars at ``KAFKA_JARS``: a single node, or a cluster of three on loopback."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from servers import Server, connects, free_port, need

_NODE = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""

#: A node that was killed is let in again after three seconds rather than nine: its old session is in the way till then.
BACK_SOON = """
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

#: A node that is gone is noticed within seconds, and leads again soon after it is back, rather than after minutes.
_OF_THREE = f"""
{BACK_SOON}
min.insync.replicas=2
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=10000
leader.imbalance.check.interval.seconds=2
"""


@dataclass(frozen=True)
class Cluster:
    """Three nodes, each broker and controller; topics have three replicas, of which two must have what is acknowledged.

    servers, addresses   by node
    """

    servers: Sequence[Server]
    addresses: Sequence[str]

    @property
    def bootstrap(self) -> str:
        """All addresses, with commas."""
        return ",".join(self.addresses)

    def start(self) -> None:
        """Start all: none of them is ready before another is."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_ready()

    def stop(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.stop()

    def leads(self, topic: str) -> dict[int, int]:
        """Partition -> the node that leads it; -1 where none does."""
        return {number: leader for number, (leader, _) in self._partitions(topic).items()}

    def whole(self, *topics: str) -> bool:
        """Whether every partition has a leader and three replicas in sync."""
        return all(
            leader >= 0 and len(in_sync) == len(self.servers)
            for topic in topics
            for leader, in_sync in self._partitions(topic).values()
        )

    def _partitions(self, topic: str) -> dict[int, tuple[int, list[int]]]:
        admin = KafkaAdminClient(bootstrap_servers=list(self.addresses))
        with contextlib.closing(admin):
            (described,) = admin.describe_topics([topic])
        return {
            int(part["partition_index"]): (int(part["leader_id"]), list(part["isr_nodes"]))
            for part in described["partitions"]
        }


def apache_kafka(folder: Path, *, more: str = "", users: Sequence[str] = ()) -> tuple[Server, str]:
    """A single node with its storage formatted, and its address; not started yet.

    more    properties that are added, or stand in place of those here; ``{port}`` and ``{controller}`` are the ports
    users   SCRAM credentials as ``StorageTool format --add-scram`` takes them
    """
    ports = {"port": free_port(), "controller": free_port()}
    voters = f"1@127.0.0.1:{ports['controller']}"
    return _node(folder, 1, voters, ports, replicas=1, more=more.format(**ports), users=users)


def apache_kafka_cluster(folder: Path) -> Cluster:
    """Three nodes on loopback, not started yet."""
    nodes = {number: {"port": free_port(), "controller": free_port()} for number in (1, 2, 3)}
    voters = ",".join(f"{number}@127.0.0.1:{ports['controller']}" for number, ports in nodes.items())
    made = []
    for number, ports in nodes.items():
        (folder / f"node-{number}").mkdir()
        made.append(_node(folder / f"node-{number}", number, voters, ports, replicas=3, more=_OF_THREE))
    return Cluster([server for server, _ in made], [address for _, address in made])


def _node(
    folder: Path,
    number: int,
    voters: str,
    ports: dict[str, int],
    *,
    replicas: int,
    more: str,
    users: Sequence[str] = (),
) -> tuple[Server, str]:
    jars = os.environ.get("KAFKA_JARS", "")
    if not jars:
        pytest.skip("Apache Kafka: KAFKA_JARS is not set; make test-kafka fetches the jars and sets it")
    if not any(Path(jars).glob("kafka_2.13-*.jar")):
        pytest.fail(f"KAFKA_JARS={jars}: no kafka_2.13-*.jar there")
    need("java", package="openjdk-17-jre-headless")
    properties = folder / "server.properties"
    properties.write_text(_NODE.format(**ports, node=number, voters=voters, folder=folder, replicas=replicas) + more)
    classes = ["-cp", f"{Path(jars).resolve()}/*"]
    formatting = ["kafka.tools.StorageTool", "format", "--cluster-id", "headrace-tests-000000A", "--config"]
    formatting += [str(properties), *(part for user in users for part in ("--add-scram", user))]
    done = subprocess.run(["java", *classes, *formatting], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # it shares two cores with the tests
    command = ["java", *options, *classes, "kafka.Kafka", str(properties)]
    return Server(command, folder, _kafka_answers(ports["port"]), 90.0), f"127.0.0.1:{ports['port']}"


def _kafka_answers(port: int) -> Callable[[], object]:
    """The port accepts before the broker is registered with its controller: ask for the list of topics."""

    def ask() -> None:
        connects(port)()
        try:
            with contextlib.closing(
                KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", bootstrap_timeout_ms=2000)
            ) as a:
                a.list_topics()
        except KafkaError as error:
            raise ConnectionError(str(error)) from None

    return ask
