import numpy as np
import pytest

from models.artifact import load
from models.datasets import Recording
from models.errors import TrainingError
from models.train import untrained
from stream.backtest import backtest
from stream.commands.train import run_cold
from stream.errors import ConfigError
from stream.pipeline import Pipeline
from stream.settings import load_plan
from stream.shelf import Shelf

PLAN = """
[detectors.new]
kind = "novelty"
assets = ["pump-*"]
signals = ["flow"]
artifact = "artifacts/new"

[detectors.mean]
kind = "ewma"
assets = ["pump-*"]
artifact = "artifacts/mean"
"""


def test_a_plan_s_detector_is_of_use_with_no_history_at_all(tmp_path):
    (tmp_path / "headrace.toml").write_text(PLAN)
    run_cold(tmp_path / "headrace.toml", period_s=60)
    artifact = load(tmp_path / "artifacts" / "new")
    assert not (tmp_path / "artifacts" / "mean").exists()
    rows = np.random.default_rng(0).normal(5, 1, size=(90, 1)).astype(np.float32)
    rows[80] = 30
    stepper = artifact.stepper
    assert stepper is not None
    said = stepper.run(stepper.begin(1), np.zeros(1, int), np.array([90]), rows, np.arange(90) * 60_000)
    assert said.score[80] > artifact.threshold(1.0)


def test_what_needs_history_says_so(tmp_path):
    (tmp_path / "headrace.toml").write_text(PLAN)
    with pytest.raises(TrainingError, match="no use without history"):
        run_cold(tmp_path / "headrace.toml", period_s=60, only=["mean"])
    with pytest.raises(ConfigError, match="the plan has"):
        run_cold(tmp_path / "headrace.toml", period_s=60, only=["nobody"])
    with pytest.raises(TrainingError, match="signals"):
        untrained("novelty", signals=(), period_s=60)
    (tmp_path / "headrace.toml").write_text(PLAN.replace("artifacts/new", "artifacts/{asset}/new"))
    with pytest.raises(ConfigError, match="asset"):
        run_cold(tmp_path / "headrace.toml", period_s=60)


def test_in_the_pipeline_it_knows_the_time_of_day_and_outlives_gaps(tmp_path):
    (tmp_path / "headrace.toml").write_text(PLAN.split("[detectors.mean]", maxsplit=1)[0])
    run_cold(tmp_path / "headrace.toml", period_s=3600)
    plan = load_plan(tmp_path / "headrace.toml")
    hours = np.arange(24 * 20)
    daily = 10 + 5 * np.sin(2 * np.pi * hours / 24) + np.random.default_rng(0).normal(0, 0.1, len(hours))
    daily[400] = daily[412]  # noon's value at midnight
    at_ms = hours * 3_600_000
    at_ms[300:] += 4 * 86_400_000  # four days of silence
    recording = Recording("pump-1", at_ms, ("flow",), daily[:, None])
    scores = np.concatenate(
        [part.score for out in backtest(Pipeline(plan, Shelf(plan)), [recording]) for part in out.scores]
    )
    stepper = load(tmp_path / "artifacts" / "new").stepper
    assert stepper is not None
    rows = daily.astype(np.float32)[:, None]
    alone = stepper.run(stepper.begin(1), np.zeros(1, int), np.array([len(rows)]), rows, at_ms).score
    assert scores.tobytes() == alone[49:].tobytes()  # from the fiftieth row on, none missing after the silence
    assert scores[400 - 49] > 1
