import numpy as np
import pytest

from models.measures.changepoints import changepoint_score
from models.measures.nab import PROFILES


def at(*seconds):
    return np.array(seconds, np.int64) * 1000


def test_the_sooner_within_its_window_the_better_and_no_alarm_is_0():
    scores = [changepoint_score([(at(100), at(second))]) for second in (100, 110, 130, 150, 159)]
    assert scores[0] == pytest.approx(100)
    assert scores == sorted(scores, reverse=True)
    assert changepoint_score([(at(100), at())]) == 0


def test_the_numbers_of_the_benchmark_s_own_code():
    # chp_score(..., window_width="60s", anomaly_window_destination="righter") gives these for one change and one alarm
    assert changepoint_score([(at(100), at(130))]) == pytest.approx(100 * (1 + 0.44405) / 2, abs=1e-3)
    assert changepoint_score([(at(100), at(160))]) == pytest.approx(100 * (1 - 0.11) / 2)


def test_of_several_alarms_in_a_window_the_first_counts_and_those_outside_cost():
    assert changepoint_score([(at(100), at(100, 120, 140))]) == pytest.approx(100)
    assert changepoint_score([(at(100), at(100, 300, 99))]) == pytest.approx(100 - 11)
    low_fp = changepoint_score([(at(100), at(100, 300, 99))], PROFILES["reward_low_fp"])
    assert low_fp == pytest.approx(100 - 22)


def test_windows_that_meet_are_cut_and_files_add_up():
    early = changepoint_score([(at(100, 130), at(100, 165))])
    assert early > changepoint_score([(at(100, 130), at(100, 185))])
    assert changepoint_score([(at(100), at(100)), (at(50), at())]) == pytest.approx(50)
    with pytest.raises(ValueError, match="no file"):
        changepoint_score([(at(), at(3))])
