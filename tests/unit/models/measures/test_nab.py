import math

import numpy as np
import pytest

from models.measures.nab import PROFILES, Series, best_threshold, nab_score, probation, worth

WINDOW = (400, 499)


def file(*alarms, windows=(WINDOW,), rows=1000):
    scores = np.zeros(rows)
    scores[list(alarms)] = 1.0
    return Series(scores, windows)


def scaled_sigmoid(position):
    return 2 / (1 + math.exp(5 * position)) - 1


def test_a_perfect_detector_gets_100_and_a_silent_one_0_in_every_profile():
    for profile in PROFILES.values():
        assert nab_score([file(400)], 0.5, profile) == pytest.approx(100)
        assert nab_score([file()], 0.5, profile) == 0


def test_the_worked_values_of_the_benchmark_s_sigmoid():
    # NAB's scoring documents: 0.98661 at the window's first row, 0.84828 in its middle, 0 at its end, -1 far behind it
    value, owner = worth(1000, [WINDOW], PROFILES["standard"])
    assert value[400] == 1.0
    assert value[450] == pytest.approx(0.84828 / 0.98661, abs=1e-4)
    assert value[499] == pytest.approx(scaled_sigmoid(-1 / 100) / scaled_sigmoid(-1))
    assert value[598] == pytest.approx(-0.98661 * 0.11, abs=1e-5)
    assert value[900] == value[10] == -0.11
    assert set(np.flatnonzero(owner == 0)) == set(range(400, 500))


def test_only_the_best_alarm_of_a_window_counts_and_each_outside_costs():
    assert nab_score([file(450, 430, 480)], 0.5) == nab_score([file(430)], 0.5)
    assert nab_score([file(400, 200, 300)], 0.5) == pytest.approx(100 - 100 * 0.22 / 2)
    assert nab_score([file(400, 200, 300)], 0.5, PROFILES["reward_low_fp"]) == pytest.approx(100 - 100 * 0.44 / 2)
    assert nab_score([file(400, 200), file()], 0.5, PROFILES["reward_low_fn"]) == pytest.approx(
        100 * (1 - 0.11 - 2 + 4) / 6
    )


def test_the_first_part_of_a_file_does_not_count():
    assert (probation(1000), probation(20_000)) == (150, 750)
    assert nab_score([file(400, 0, 149)], 0.5) == pytest.approx(100)
    assert nab_score([file(400, 150)], 0.5) < 100
    with pytest.raises(ValueError, match="no file"):
        nab_score([file(5, windows=((5, 9),))], 0.5)


def test_the_optimum_over_thresholds_is_that_of_trying_them_all():
    rng = np.random.default_rng(3)
    series = [Series(np.round(rng.random(600), 2), ((200, 260), (500, 520))) for _ in range(3)]
    tried = {level: nab_score(series, level) for level in np.unique(np.concatenate([one.scores for one in series]))}
    threshold, score = best_threshold(series)
    assert score == pytest.approx(max(tried.values()))
    assert tried[threshold] == pytest.approx(score)


def test_where_every_alarm_costs_more_than_it_brings_the_optimum_is_silence():
    assert best_threshold([file(200, 201)]) == (math.inf, 0.0)


def test_an_unknown_score_is_no_alarm():
    scores = np.full(1000, np.nan)
    scores[400] = 1.0
    assert best_threshold([Series(scores, (WINDOW,))]) == pytest.approx((1.0, 100.0))
