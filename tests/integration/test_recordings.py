"""Real recordings through the broker: the public SKAB testbed, each file with models of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_process import Worker, backtest_scores, live_scores, run, write_plan

from models.datasets import read
from stream.plan import TopicSettings
from stream.settings import KafkaSettings
from stream.sources.json import timestamp

DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).parents[3] / "shared" / "data"))
# A recording lasts a quarter of an hour: what one false alarm a day would mean cannot be learnt from 100 seconds of
# held-back data, one an hour can.
PLAN = """
[topics]
scores = "plant.scores.v1"
[detectors.forecast]
kind = "lstm_forecaster"
artifact = "artifacts/{asset}/forecast"
false_alarms_per_day = 24
[detectors.rebuild]
kind = "dense_autoencoder"
artifact = "artifacts/{asset}/rebuild"
false_alarms_per_day = 24
"""


@pytest.mark.broker
@pytest.mark.recordings
@pytest.mark.tensorflow
@pytest.mark.slow  # 32 models are trained
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # it is about scores; offsets are other tests'
def test_skab_trained_on_its_first_400_rows_and_streamed_from_there(
    kafka: KafkaSettings, topics: TopicSettings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    folder = DATA / "skab" / "valve1"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set HEADRACE_DATA to the folder that holds skab/")
    (tmp_path / "source.toml").write_text(PLAN)
    plan = write_plan(tmp_path / "source.toml", topics, tmp_path, artifacts=tmp_path / "artifacts")
    command = [sys.executable, "-m", "stream.cli", "train", str(folder), "--plan", str(plan), "--first", "400"]
    trained = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert trained.returncode == 0, trained.stdout + trained.stderr

    worker = start_worker(plan)
    run(worker, "replay", str(folder), "--plan", str(plan), "--skip", "400")
    recordings = read(folder)
    worker.has_read(sum(len(recording.at_ms) - 400 for recording in recordings))
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    assert worker.stop() == 0

    run(worker, "backtest", str(folder), "--plan", str(plan), "--skip", "400", "--scores", f"{tmp_path}/s.csv")
    assert live_scores(kafka, f"{topics.readings}.scores") == backtest_scores(tmp_path / "s.csv")

    alerts = [json.loads(line) for line in lines]
    noticed = 0
    for recording in recordings:
        assert recording.labels is not None
        faulty = [timestamp(int(at)) for at in recording.at_ms[400:][recording.labels[400:]]]
        mine = [alert for alert in alerts if alert["asset"] == recording.asset]
        noticed += any(
            alert["opened"] <= faulty[-1]
            and any(other["last_seen"] >= faulty[0] for other in mine if other["id"] == alert["id"])
            for alert in mine
            if alert["state"] == "open"
        )
    assert noticed >= 14, f"alerts in the faults of {noticed} of {len(recordings)} files"
