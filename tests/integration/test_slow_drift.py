"""A fault that grows by a standard deviation a day, for a week of event time, through the real worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from server_fixtures import one_broker
from worker_process import Worker, run, write_plan

from models.datasets import Recording
from models.train import train
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

START_MS = 1_764_000_000_000
STEP_MS = 300_000
DAY = 86_400_000 // STEP_MS  # rows
PLAN = """
[topics]
scores = "plant.scores.v1"
[detectors.pumps]
kind = "innovations"
artifact = "artifacts/pumps"
false_alarms_per_day = 0.05
on_delay_s = 3600
off_delay_s = 7200
update_every_s = 86400
"""


def recording(asset: str, days: int, seed: int, per_day: float = 0.0) -> Recording:
    """A reading in five minutes; the bearing warms by ``per_day`` standard deviations of its noise."""
    rng = np.random.default_rng(seed)
    rows = np.arange(days * DAY)
    load = np.sin(rows / 9.0)
    values = np.stack([50 + load, 40 + 5 * load, 70 + 2 * load], axis=1)
    values += rng.normal(0, [0.4, 0.5, 0.3], values.shape)
    values[:, 0] += 0.4 * per_day * rows / DAY
    return Recording(asset, START_MS + rows * STEP_MS, ("bearing", "flow", "heat"), values, None)


@one_broker  # it is about what is learnt; test_worker goes on after a restart on both
def test_a_slow_fault_stays_alarmed_over_a_restart_and_is_never_learnt(
    tmp_path: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    write_csv: Callable[..., Path],
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    plan_file = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path / "artifacts")
    plan = load_plan(plan_file)
    train([recording("pump-1", 6, 1)], detector="innovations", seed=0).save(plan.artifact_path("pumps"))
    parts = [tmp_path / "first", tmp_path / "second"]
    held = [recording("pump-1", 10, 2, per_day=1.0), recording("pump-2", 10, 3)]
    worker: Worker | None = None
    for number, part in enumerate(parts):
        part.mkdir()
        rows = slice(number * 5 * DAY, (number + 1) * 5 * DAY)
        for one in held:
            write_csv(Recording(one.asset, one.at_ms[rows], one.signals, one.values[rows], None), part)
        worker = start_worker(plan_file)
        run(worker, "replay", str(part), "--plan", str(plan_file))
        worker.has_read(2 * 5 * DAY)
        if number == 0:
            assert worker.stop() == 0  # the week is longer than a worker's life
    assert worker is not None
    lines = run(worker, "alerts", "--plan", str(plan_file), "--until-end", "--json").splitlines()
    alerts = [json.loads(line) for line in lines]
    assert worker.stop() == 0
    assert {alert["asset"] for alert in alerts} == {"pump-1"}
    assert {alert["state"] for alert in alerts} == {"open", "updated"}  # never resolved
    assert len({alert["id"] for alert in alerts}) == 1
    assert len({alert["threshold"] for alert in alerts}) == 1  # nothing was learnt meanwhile
    assert _day(max(alert["last_seen"] for alert in alerts)) - _day(alerts[0]["opened"]) >= 7


def _day(time: str) -> float:
    return float((np.datetime64(time.rstrip("Z"), "ms").astype(int) - START_MS) / 86_400_000)
