import numpy as np
import pytest

from models.artifact import load
from models.beginning import untrained
from models.datasets import Recording
from models.errors import TrainingError
from models.train import train
from stream.backtest import backtest
from stream.commands.train import run_cold
from stream.errors import ConfigError
from stream.pipeline import Pipeline
from stream.plan import load_plan
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

BEGINS = """
[models]
store = "versions"

[detectors.pumps]
kind = "mset"
begins_as = "novelty"
period_s = 1
on_delay_s = 3
assets = ["pump-*"]
signals = ["flow", "heat", "pressure"]
artifact = "store:"
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


def begun(tmp_path, text=BEGINS):
    (tmp_path / "headrace.toml").write_text(text)
    return load_plan(tmp_path / "headrace.toml")


def test_a_detector_without_a_version_begins_as_another_kind_and_finds_a_fault(tmp_path, make_recording):
    plan = begun(tmp_path)
    assert plan.open_store().now("pumps").serving == ""
    shelf = Shelf(plan)
    recording = make_recording("pump-1", rows=900, seed=3, fault=(700, 740))
    outputs = list(backtest(Pipeline(plan, shelf), [recording]))
    opened = [alert for output in outputs for alert in output.alerts if alert.state == "open"]
    row = [int(timestamp_ms(alert.onset) - recording.at_ms[0]) // 1000 for alert in opened]
    assert any(at in range(700, 703) for at in row), "the delay of the model to come does not hold for it"
    ((_, begins),) = shelf.serving()
    assert {(alert.kind, alert.model_version) for alert in opened} == {("novelty", begins.version)}
    assert {part.kind for output in outputs for part in output.scores} == {"novelty"}
    ((_, again),) = Shelf(plan).serving()
    assert again.version == begins.version  # every worker begins with the same, whatever the day


def timestamp_ms(text):
    return np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64)


def test_what_was_trained_serves_in_place_of_the_beginning_which_stays_at_hand(tmp_path, make_recording):
    plan = begun(tmp_path)
    ((_, begins),) = Shelf(plan).serving()
    store = plan.open_store()
    signals = plan.detectors["pumps"].signals
    grown = train([make_recording("pump-1", rows=1500)], detector="mset", signals=signals)
    store.decide("pumps", "promote", serving=store.add("pumps", grown))
    shelf = Shelf(plan)
    assert [held.version for _, held in shelf.serving()] == [grown.version]
    assert shelf.fetch("pumps", begins.version).detector.name == "novelty"  # a partition may still be at work with it
    store.decide("pumps", "promote", serving=store.add("pumps", begins))  # and an operator may go back to it
    assert [held.version for _, held in Shelf(plan).serving()] == [begins.version]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", None),
        ('begins_as = "novelty"', 'begins_as = "mset"', "no use without history"),
        ('begins_as = "novelty"', 'begins_as = "nothing"', "no use without history"),
        ('begins_as = "novelty"', "", "period_s: only with begins_as"),
        ("period_s = 1", "", "how far apart readings come"),
        ('"store:"', '"artifacts/pumps"', "store:"),
        ('signals = ["flow", "heat", "pressure"]', "", "signals: name them"),
        ("on_delay_s = 3", "threshold = 4.0", "means nothing to novelty"),
    ],
)
def test_a_beginning_that_cannot_be_is_named(tmp_path, old, new, said):
    text = BEGINS.replace(old, new)
    if said is None:
        assert begun(tmp_path, text).detectors["pumps"].begins_as == "novelty"
        return
    with pytest.raises(ConfigError, match=f"detectors.pumps.*{said}"):
        begun(tmp_path, text)


def test_a_beginning_s_own_config_is_checked_at_the_start(tmp_path):
    text = BEGINS.replace('kind = "mset"', 'kind = "novelty"\nconfig = { size = 1 }')
    with pytest.raises(ConfigError, match=r"detectors.pumps.config: .*size"):
        Shelf(begun(tmp_path, text))
