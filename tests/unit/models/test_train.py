import dataclasses

import numpy as np
import pytest

from models.artifact import load
from models.datasets import Recording
from models.errors import TrainingError, UnknownDetector
from models.train import infer_period_s, score_series, train


def history(rows=300, *, asset="pump-1", period_ms=1000, seed=0, signals=("a", "b")):
    values = np.random.default_rng(seed).normal(size=(rows, len(signals)))
    return Recording(asset, np.arange(rows) * period_ms, signals, values)


def test_the_rows_are_split_by_time_and_all_are_used():
    rows = train([history(1_000)], detector="ewma").manifest.rows
    assert rows == {"fit": 750, "validation": 250, "calibration": 250}


@pytest.mark.parametrize(("rows", "config"), [(400, {}), (100, {"window": 16})], ids=str)
def test_short_histories_do(rows, config):
    trained = train([history(rows)], detector="ewma", config=config)
    assert np.isfinite(trained.threshold(1.0))


def test_too_short_a_history_names_the_remedy():
    with pytest.raises(TrainingError, match="smaller `window`"):
        train([history(60)], detector="ewma")


def test_no_window_crosses_a_gap():
    recording = history(400)
    at_ms = recording.at_ms.copy()
    at_ms[350:] += 60_000
    gappy = dataclasses.replace(recording, at_ms=at_ms)
    cut = train([gappy], detector="ewma")
    assert cut.period_s == 1.0
    kept = train([gappy], detector="ewma", max_gap_s=float("inf"))
    assert kept.calibration.count == cut.calibration.count + cut.window - 1


def test_labelled_and_excluded_rows_are_left_out():
    recording = history(600)
    values = recording.values.copy()
    values[100:120] = 1e9
    wrong = np.zeros(600, bool)
    wrong[100:120] = True
    spoilt = dataclasses.replace(recording, values=values)
    labelled = train([dataclasses.replace(spoilt, labels=wrong)], detector="ewma")
    excluded = train([spoilt], detector="ewma", exclude=[(100_000, 119_000)])
    assert labelled.manifest.weights == excluded.manifest.weights
    assert abs(labelled.scaler.scale - 1).max() < 0.2


def test_assets_are_pooled():
    trained = train([history(300, asset="b", seed=1), history(300, asset="a")], detector="ewma")
    assert trained.manifest.assets == ("a", "b")
    assert trained.manifest.rows["fit"] + trained.manifest.rows["validation"] == 600


def test_signals_are_chosen_by_name_and_order():
    trained = train([history(300, signals=("a", "b", "c"))], detector="ewma", signals=("c", "a"))
    assert trained.signals == ("c", "a")
    with pytest.raises(TrainingError, match="no signal x; it has a, b"):
        train([history()], detector="ewma", signals=("x",))


def test_the_period_is_the_median_step():
    assert infer_period_s([history(50, period_ms=250)]) == 0.25
    with pytest.raises(TrainingError, match="give period_s"):
        infer_period_s([history(1)])


def test_a_detector_with_its_own_threshold_keeps_it():
    assert train([history()], detector="data_quality").threshold(0.01) == 1.0


def test_a_series_is_scored_row_by_row_and_causally():
    trained = train([history()], detector="ewma")
    values = history(100, seed=9).values
    scored = score_series(trained, values)
    assert scored.score.shape == (100,)
    assert np.isnan(scored.score[: trained.window - 1]).all()
    assert np.isfinite(scored.score[trained.window - 1 :]).all()
    assert score_series(trained, values[:70]).score.tobytes() == scored.score[:70].tobytes()
    assert np.isnan(score_series(trained, values[:5]).score).all()


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(TrainingError, match="no recording"):
        train([], detector="ewma")
    with pytest.raises(UnknownDetector):
        train([history()], detector="crystal_ball")
    with pytest.raises(ValueError, match="splits"):
        train([history()], detector="ewma", splits=(0.9, 0.2, 0.1))
    with pytest.raises(ValueError, match="unknown key"):
        train([history()], detector="ewma", config={"x": 1})


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["lstm_forecaster", "gru_forecaster", "rnn_forecaster"])
@pytest.mark.parametrize("carried", [False, True])
def test_stacked_layers_give_keras_numbers_and_are_saved(kind, carried, tmp_path):
    # training refuses a network that gives other numbers in numpy than in Keras, and loading does so again
    config = {"units": 6, "layers": 3, "window": 12, "epochs": 1, "carried": carried}
    trained = train([history(300)], detector=kind, config=config)
    trained.save(tmp_path / "artifact")
    loaded = load(tmp_path / "artifact")
    values = history(50, seed=1).values
    np.testing.assert_array_equal(score_series(loaded, values).score, score_series(trained, values).score)
