import math

import numpy as np
import pytest

from models.measures.affiliation import affiliation, between

FAULTS = np.array([0, 0, 0, 1, 0, 0, 0, 1, 1, 1], bool)
ALARMS = np.array([0, 0, 0, 0, 1, 0, 0, 0, 1, 0], bool)


def test_it_gives_the_numbers_of_the_paper_s_own_example():
    # the README of affiliation-metrics-py; the digits are what its pr_from_events gives
    found = affiliation(FAULTS, ALARMS)
    assert found.precisions == pytest.approx([0.6363636363636364, 1.0])
    assert found.recalls == pytest.approx([0.8181818181818181, 0.8703703703703703])
    assert (found.precision, found.recall) == pytest.approx((0.8181818181818181, 0.8442760942760943))


def test_it_is_what_drawing_moments_at_random_gives():
    faults, alarms, span = (
        [(30.0, 42.0), (70.0, 71.0)],
        [(5.0, 9.0), (33.0, 35.0), (48.0, 49.0), (80.0, 95.0)],
        (0.0, 100.0),
    )
    found = between(faults, alarms, span)
    moments = np.random.default_rng(0).uniform(0, 56, 40_000)  # the first fault's zone ends half way to the second
    inside = [alarm for alarm in alarms if alarm[0] < 56]

    def distance(points, intervals):
        return np.min([np.maximum(np.maximum(a - points, points - b), 0) for a, b in intervals], axis=0)

    alarmed = np.concatenate([np.arange(a, b, 0.01) + 0.005 for a, b in inside])
    fault_distances = np.sort(distance(moments, faults[:1]))
    own = distance(alarmed, faults[:1])
    shares = np.where(own == 0, 1.0, 1 - np.searchsorted(fault_distances, own, side="right") / len(moments))
    assert found.precisions[0] == pytest.approx(shares.mean(), abs=0.01)
    during = np.arange(30, 42, 0.02) + 0.01
    nearest = distance(during, inside)
    recall = np.mean([(np.abs(moments - moment) > near).mean() for moment, near in zip(during, nearest, strict=True)])
    assert found.recalls[0] == pytest.approx(recall, abs=0.01)


def test_random_alarms_score_about_a_half_and_exact_ones_1():
    assert affiliation(FAULTS, FAULTS).f1 == 1.0
    assert affiliation(FAULTS, np.ones(10, bool)).recall == 1.0
    assert 0.4 < affiliation(FAULTS, np.ones(10, bool)).precision < 0.75


def test_no_alarm_at_all_has_no_precision():
    silent = affiliation(FAULTS, np.zeros(10, bool))
    assert math.isnan(silent.precision)
    assert silent.recall == 0.0


def test_without_faults_it_refuses():
    with pytest.raises(ValueError, match="at least one"):
        affiliation(np.zeros(4, bool), np.ones(4, bool))
