"""Operators say which fault it was, five times each: from then on alerts say so themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeder import Feeder, wait_committed
from worker_process import Worker, run, write_plan

from models.base import NORMAL, UNKNOWN
from models.datasets import Recording
from stream.commands.operators import run_label_stretch
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings
from stream.sources.json import timestamp

pytestmark = [pytest.mark.broker, pytest.mark.tensorflow, pytest.mark.timeout(400)]

PLAN = """
[topics]
scores = "plant.scores.v1"
[models]
store = "versions"
[detectors.kinds]
kind = "fault_classifier"
artifact = "store:"
signals = ["flow", "heat", "pressure"]
false_alarms_per_day = 24
off_delay_s = 10
config = { window = 16, epochs = 8, members = 1 }
"""
PUMP = "pump-1"
#: Rows of each fault, a second each, and what it does to flow, heat and pressure.
LONG, FIRST, EVERY = 40, 200, 180
DOES = {"leak": [-9.0, 0.0, 0.0], "jam": [0.0, 6.0, 2.0]}
TIMES = [(FIRST + EVERY * number, fault) for number, fault in enumerate(["leak", "jam"] * 5)]
LEARNT, ROWS = FIRST + EVERY * len(TIMES), FIRST + EVERY * len(TIMES) + 400
NEXT = LEARNT + 150


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # labels are read as on any other: test_learning
async def test_labelled_faults_teach_a_classifier_and_the_next_alert_names_its_fault(
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    path = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path)
    store, pump = load_plan(path).open_store(), make_recording(PUMP, rows=ROWS, seed=3)
    for row, fault in (*TIMES, (NEXT, "jam")):
        pump.values[row : row + LONG] += DOES[fault]
    here = Worker(path, kafka, tmp_path / "none.log")  # nothing serves yet
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", kafka.bootstrap)

    def label(row: int, fault: str) -> None:
        since, until = (timestamp(int(pump.at_ms[at])) for at in (row, row + LONG - 1))
        run_label_stretch(path, PUMP, "true", since=since, until=until, by="anna", comment="", fault=fault)

    async def retrain() -> dict[str, Any]:
        said = await asyncio.to_thread(run, here, "retrain", "kinds", "--promote", "--json", "--plan", str(path))
        told: dict[str, Any] = json.loads(said)
        return told

    learnt = Feeder(kafka, topics.readings, [part(pump, slice(0, LEARNT))]).start()
    await asyncio.to_thread(learnt.finish)
    for row, fault in TIMES[:-1]:
        label(row, fault)
    said = await retrain()
    assert (said["version"], said["missing"]) == ("", {"jam": 1})
    assert not store.versions("kinds")

    label(*TIMES[-1])
    said = await retrain()
    assert said["lessons"] == {"jam": 5, "leak": 5}
    assert said["candidate"]["by_fault"] == {"jam": [2, 2], "leak": [2, 2]}
    assert (said["serving"]["version"], said["serving"]["right"]) == ("always jam", 2)
    assert said["promoted"], said["why"]
    assert store.now("kinds").serving == said["version"]
    assert set(store.load("kinds", said["version"]).class_names) == {NORMAL, UNKNOWN, "jam", "leak"}

    worker = start_worker(path)
    feeder = Feeder(kafka, topics.readings, [part(pump, slice(LEARNT, ROWS))]).start()
    await asyncio.to_thread(feeder.finish)
    await asyncio.to_thread(wait_committed, kafka, feeder, topics.readings, worker)
    lines = await asyncio.to_thread(run, worker, "alerts", "--until-end", "--json", "--plan", str(path))
    alerts = [json.loads(line) for line in lines.splitlines()]
    assert worker.stop() == 0
    newest = [alert for alert in alerts if onset(alert) in range(NEXT, NEXT + LONG) and alert["state"] == "resolved"]
    assert [alert["diagnosis"][0]["fault"] for alert in newest] == ["jam"]


def part(held: Recording, rows: slice) -> Recording:
    return Recording(held.asset, held.at_ms[rows], held.signals, held.values[rows], None)


def onset(alert: dict[str, Any]) -> int:
    """The row at which an alert began."""
    at = np.datetime64(alert["onset"].removesuffix("Z"), "ms").astype(np.int64)
    return int(at - 1_764_000_000_000) // 1000
