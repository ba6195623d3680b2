"""``headrace retrain --every --if-drifted --promote``, left to itself: nothing without drift, promoted if better."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeder import Feeder, wait_committed
from worker_process import Worker, write_plan

from models.datasets import Recording
from models.train import train
from stream.commands.operators import run_label_stretch
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings
from stream.sources.json import timestamp

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

PLAN = """
[topics]
scores = "plant.scores.v1"
[models]
store = "versions"
[detectors.states]
kind = "mset"
artifact = "store:"
false_alarms_per_day = 1
on_delay_s = 5
off_delay_s = 20
"""
PUMP = "pump-1"
CLEANING, CALM, ROWS = slice(300, 360), 900, 1300


def life(seed: int, rows: int = ROWS, *, high_from: int = ROWS) -> Recording:
    """A pump whose load jumps from second to second; from ``high_from`` on it is always high, as it was at times."""
    random = np.random.default_rng(seed)
    load = random.uniform(-1.0, 1.0, rows)
    load[high_from:] = random.uniform(0.6, 1.0, len(load[high_from:]))
    values = np.stack([40 + 5 * load, 70 + 2 * load, 3 - 0.4 * load], axis=1)
    values += random.normal(0, [0.4, 0.2, 0.05], values.shape)
    return Recording(PUMP, 1_764_000_000_000 + 1000 * np.arange(rows), ("flow", "heat", "pressure"), values, None)


class Rounds:
    """What the schedule has said so far, a round each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.told: list[dict[str, Any]] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(json.loads(line))

    def wait(self, condition: Callable[[dict[str, Any]], bool], count: int = 1, within_s: float = 90.0) -> Any:
        """The last of ``count`` rounds from now on of which the condition is true."""
        first, deadline = len(self.told), time.monotonic() + within_s
        while len(met := [told for told in self.told[first:] if condition(told)]) < count:
            assert self._process.poll() is None, f"it ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {self.told[-2:]}"
            time.sleep(0.05)
        return met[-1]


@contextmanager
def schedule(worker: Worker, path: Path, folder: Path) -> Iterator[Rounds]:
    command = [sys.executable, "-m", "stream.cli", "retrain", "states", "--every", "0.5", "--if-drifted", "--promote"]
    with (folder / "schedule.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--json", "--plan", str(path)],
            env=worker.environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            yield Rounds(process)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # the topics are read as in test_learning, on each
async def test_only_drift_retrains_and_only_what_is_better_serves(
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    path = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path)
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", kafka.bootstrap)
    store, pump = load_plan(path).open_store(), life(1, high_from=CALM)
    pump.values[CLEANING] += [12.0, -8.0, 0.0]
    first = store.add("states", train([life(seed, 2000) for seed in (11, 12)], detector="mset", seed=1))
    store.decide("states", "promote", serving=first)
    worker = start_worker(path)

    async def play(rows: slice) -> None:
        held = Recording(PUMP, pump.at_ms[rows], pump.signals, pump.values[rows], None)
        feeder = Feeder(kafka, topics.readings, [held]).start()
        await asyncio.to_thread(feeder.finish)
        await asyncio.to_thread(wait_committed, kafka, feeder, topics.readings, worker)

    await play(slice(0, CALM))
    with schedule(worker, path, tmp_path) as rounds:
        # an alert that nobody has judged is no drift
        said = await asyncio.to_thread(rounds.wait, lambda told: told["why"] == "nothing has drifted", 2)
        assert said["said"]["unjudged"] == 1
        assert (store.versions("states"), len(store.history("states"))) == ([first], 1)

        # the load is high for good: a candidate, which is no better, and scores beside what serves
        await play(slice(CALM, 1200))
        said = await asyncio.to_thread(rounds.wait, lambda told: bool(told["version"]), 2)  # the first may see a part
        assert {shift["name"] for shift in said["drifted"]} >= {"pump-1 flow", "pump-1 heat", "pump-1 pressure"}
        assert (said["promoted"], said["why"]) == (False, "no better than what serves")
        assert (store.now("states").serving, store.now("states").candidate) == (first, said["version"])
        decisions = len(store.history("states"))
        await asyncio.to_thread(rounds.wait, lambda told: told["version"] == said["version"], 2)
        assert len(store.history("states")) == decisions  # the same is decided once
        await play(slice(1200, ROWS))

        def compared() -> bool:
            return worker.metric("headrace_shadow_readings", detector="states") > 0

        await asyncio.to_thread(worker.wait, compared, 60, "comparing")

        # the alert was a false alarm: what has learnt it is better, and serves
        since, until = (timestamp(int(pump.at_ms[row])) for row in (CLEANING.start - 30, CLEANING.stop + 60))
        run_label_stretch(path, PUMP, "false_alarm", since=since, until=until, by="anna", comment="cleaned", fault="")
        said = await asyncio.to_thread(rounds.wait, lambda told: told["promoted"])
        assert (said["serving"]["repeated"], said["candidate"]["repeated"]) == (1, 0)
        assert store.now("states").serving == said["version"]

        def serves() -> bool:
            return worker.metric("headrace_model_info", detector="states", version=said["version"]) == 1

        await asyncio.to_thread(worker.wait, serves, 60, "serving what is better")
        await asyncio.to_thread(rounds.wait, lambda told: told["why"] == "the same model came of it")
    assert worker.stop() == 0
