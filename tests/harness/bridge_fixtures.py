"""Fixtures and plans for the tests of bridges.

mqtt_broker  a mosquitto of the test's own, started, with its port
bridges      starts ``headrace bridge``; killed at the end
road         a plan with topics of its own and a bridge
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plants import BridgeProcess, mosquitto
from servers import Server, free_port
from worker_process import Worker, read_all, run, write_plan

from stream.plan import Plan, TopicSettings
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

SIGNALS = ("flow", "heat", "pressure")


@pytest.fixture
def mqtt_broker(tmp_path: Path) -> Iterator[tuple[Server, int]]:
    server, port = mosquitto(tmp_path / "mosquitto")
    server.start()
    yield server, port
    server.stop()


@pytest.fixture
def bridges(tmp_path: Path) -> Iterator[Callable[..., BridgeProcess]]:
    """``bridges("mqtt", plan, kafka, HEADRACE_...=...)`` starts one; killed at the end."""
    started: list[BridgeProcess] = []

    def start(name: str, plan: Path, kafka: KafkaSettings, **environment: str) -> BridgeProcess:
        log = tmp_path / f"bridge-{len(started)}.log"
        started.append(BridgeProcess(name, plan, kafka, log, **environment))
        started[-1].start(free_port())
        return started[-1]

    yield start
    for bridge in started:
        bridge.kill()


SPARKPLUG = """
[bridge]
state = "{state}"
[bridge.mqtt]
client_id = "bridge-{state}"
[bridge.mqtt.sparkplug]
groups = ["north"]
[[bridge.mqtt.topics]]
topic = "plant/{{asset}}/{{signal}}"
[[bridge.mqtt.topics]]
topic = "gateway/{{asset}}"
"""
OPCUA = """
[bridge]
state = "{state}"
[bridge.opcua]
publishing_ms = 50
queue = 5000
[[bridge.opcua.browse]]
path = "Plant/{{asset}}/{{signal}}"
"""


def road(plan: Plan, kafka: KafkaSettings, folder: Path, section: str) -> tuple[Path, TopicSettings]:
    """The plan with topics of its own and a bridge."""
    mine = uuid.uuid4().hex[:8]
    names = {name: f"{mine}.{name}" for name in ("readings", "alerts", "dead_letters", "late", "state")}
    topics = TopicSettings(**names)
    ensure_topics(kafka, topics)
    folder.mkdir()
    path = write_plan(plan.folder / "headrace.toml", topics, folder, artifacts=plan.folder / "artifacts")
    path.write_text(path.read_text() + section.format(state=f"{mine}.bridge"))
    return path, topics


def alerts_of(worker: Worker, plan: Path) -> list[dict[str, Any]]:
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    found = [json.loads(line) for line in lines]
    return sorted(found, key=lambda alert: (alert["id"], alert["sequence"]))


def readings_of(kafka: KafkaSettings, topics: TopicSettings) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in read_all(kafka, topics.readings)]
