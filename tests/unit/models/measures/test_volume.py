import math

import numpy as np
import pytest

from models.measures.volume import runs, vus

ROWS = np.arange(200)
LABELS = ((ROWS >= 60) & (ROWS < 75)) | ((ROWS >= 140) & (ROWS < 144))
SCORES = np.sin(ROWS * ROWS / 7.0) + 1.2 * np.exp(-(((ROWS - 66) / 9.0) ** 2))


def test_it_gives_the_numbers_of_the_published_implementation():
    # RangeAUC_volume_opt of the VUS package on these arrays: (VUS-PR, VUS-ROC)
    assert vus(LABELS, SCORES, 20) == pytest.approx((0.5780017261738166, 0.8104069228389585), abs=1e-12)
    assert vus(LABELS, SCORES, 0) == pytest.approx((0.3522833803623332, 0.5735678976446642), abs=1e-12)


def test_only_the_order_of_scores_counts_and_nan_is_the_lowest():
    assert vus(LABELS, np.exp(3 * SCORES), 20) == pytest.approx(vus(LABELS, SCORES, 20))
    lowest, missing = SCORES.copy(), SCORES.copy()
    lowest[100:110], missing[100:110] = -99.0, np.nan
    assert vus(LABELS, missing, 20) == pytest.approx(vus(LABELS, lowest, 20))


def test_a_wider_tolerance_forgives_an_alarm_beside_the_anomaly():
    beside = np.where((ROWS >= 76) & (ROWS < 80), 1.0, 0.0) + 1e-6 * SCORES
    assert vus(LABELS, beside, 30)[0] > 2 * vus(LABELS, beside, 0)[0]


def test_nothing_to_find_is_nan():
    assert all(map(math.isnan, vus(np.zeros(9, bool), np.ones(9), 3)))


def test_runs_reach_to_both_ends():
    assert runs(np.array([True, True, False, True])) == [(0, 1), (3, 3)]
    assert runs(np.zeros(3, bool)) == []
