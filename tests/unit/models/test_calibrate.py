import itertools
import json

import numpy as np
import pytest

from models.calibrate import LEAST_SCORES, Calibration, calibrate
from models.errors import InvalidArtifact, TrainingError

DAY_S = 86_400


def tails():
    return {
        "exponential": lambda rng, n: rng.exponential(size=n),
        "pareto": lambda rng, n: rng.pareto(5.0, size=n),
        "uniform": lambda rng, n: rng.uniform(size=n),
    }


@pytest.mark.parametrize("tail", sorted(tails()))
def test_as_many_false_alarms_as_asked_for_within_a_factor_of_three(tail):
    draw = tails()[tail]
    rng = np.random.default_rng(7)
    fitted = calibrate([draw(rng, 5_000)], period_s=60.0, cluster_rows=1)
    fresh = draw(rng, 2_000_000)
    for asked in (2.0, 10.0, 50.0):
        got = (fresh > fitted.threshold(asked)).mean() * DAY_S / 60.0
        assert got <= asked * 3
        if (
            tail != "uniform"
        ):  # a tail that ends abruptly is given room: the bounded shape keeps the threshold beyond it
            assert got >= asked / 3


@pytest.mark.parametrize("tail", sorted(tails()))
def test_a_hundred_scores_give_a_threshold_of_the_right_order(tail):
    draw = tails()[tail]
    rates = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        fitted = calibrate([draw(rng, 100)], period_s=60.0, cluster_rows=1)
        rates.append((draw(rng, 200_000) > fitted.threshold(10.0)).mean() * DAY_S / 60.0)
    assert np.median(rates) <= 40.0
    if tail != "uniform":  # see above
        assert np.median(rates) >= 1.0
    assert np.quantile(rates, 0.9) <= 150.0


def test_alarms_are_counted_not_readings():
    rng = np.random.default_rng(3)
    scores = np.repeat(rng.exponential(size=1_000), 8)  # each excursion lasts eight rows
    fitted = calibrate([scores], period_s=1.0, cluster_rows=8)
    fresh = np.repeat(rng.exponential(size=400_000), 8)
    above = fresh > fitted.threshold(100.0)
    alarms = int(((~above[:-1]) & above[1:]).sum())
    asked = 100.0 * len(fresh) / DAY_S
    assert asked / 3 <= alarms <= asked * 3


def test_fewer_alarms_ask_for_a_higher_score_and_all_are_finite():
    fitted = calibrate([np.random.default_rng(0).exponential(size=300)], period_s=1.0)
    asked = np.geomspace(1e-6, 1e6, 200)
    thresholds = np.array([fitted.threshold(float(a)) for a in asked])
    assert np.isfinite(thresholds).all()
    assert (np.diff(thresholds) <= 0).all()
    assert thresholds[-1] < fitted.level < thresholds[0]


@pytest.mark.parametrize(
    "scores", [np.ones(50), np.zeros(50), np.r_[np.zeros(99), 1.0]], ids=["ones", "zeros", "one step"]
)
def test_scores_that_hardly_vary_still_give_a_threshold_above_them(scores):
    fitted = calibrate([scores], period_s=1.0)
    assert np.isfinite(fitted.threshold(1.0))
    assert fitted.threshold(1.0) > np.median(scores)
    assert fitted.threshold(0.1) >= fitted.threshold(10.0)


def test_a_threshold_at_the_end_of_a_short_tail_is_not_below_what_was_seen():
    scores = np.random.default_rng(0).uniform(size=2_000)
    fitted = calibrate([scores], period_s=1.0, cluster_rows=1)
    assert fitted.threshold(0.001) >= scores.max()


def test_missing_scores_are_left_out():
    scores = np.random.default_rng(0).exponential(size=200)
    holes = np.insert(scores, [20, 90], np.nan)
    assert (
        calibrate([holes], period_s=1.0, cluster_rows=1).level
        == calibrate([scores], period_s=1.0, cluster_rows=1).level
    )


def test_too_few_scores_name_the_remedy():
    with pytest.raises(TrainingError, match="more history"):
        calibrate([np.ones(LEAST_SCORES - 1)], period_s=1.0)


def test_a_detector_with_a_threshold_of_its_own_keeps_it():
    fitted = calibrate([np.zeros(30)], period_s=1.0, natural=1.0)
    assert fitted.threshold(0.01) == fitted.threshold(100.0) == 1.0
    assert calibrate([], period_s=1.0, natural=1.0).threshold(1.0) == 1.0


def test_the_tail_probability_falls_from_one_to_nothing():
    fitted = calibrate([np.random.default_rng(0).exponential(size=1_000)], period_s=1.0)
    probabilities = [fitted.tail_probability(float(x)) for x in np.linspace(-1, 30, 100)]
    assert probabilities[0] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(probabilities))
    assert probabilities[-1] < 1e-4
    assert np.isnan(fitted.tail_probability(float("nan")))


@pytest.mark.parametrize("asked", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_wish_is_refused(asked):
    fitted = calibrate([np.random.default_rng(0).exponential(size=100)], period_s=1.0)
    with pytest.raises(ValueError, match="false_alarms_per_day"):
        fitted.threshold(asked)


def test_json_brings_it_back_to_the_bit():
    fitted = calibrate([np.random.default_rng(0).exponential(size=500)], period_s=1.0)
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"rate": 2.0},
        {"level": float("nan")},
        {"body": [2.0, 1.0]},
        {"shape": "x"},
        {"more": 1},
        {"count": None},
    ],
    ids=str,
)
def test_a_calibration_that_cannot_be_is_refused(change):
    data = calibrate([np.random.default_rng(0).exponential(size=100)], period_s=1.0).to_dict()
    with pytest.raises(InvalidArtifact, match="calibration"):
        Calibration.from_dict(data | change)
