import math

import numpy as np
import pytest

from models.measures.points import Confusion, average_precision, location_hit, mae, rmse, roc_auc

YES, NO = True, False


def test_a_confusion_adds_up_over_files_and_gives_the_usual_rates():
    one = Confusion.of(np.array([YES, YES, NO, NO]), np.array([YES, NO, YES, NO]))
    other = Confusion.of(np.array([NO] * 6), np.array([NO] * 6))
    both = one + other
    assert (both.precision, both.recall, both.f1) == (0.5, 0.5, 0.5)
    assert both.false_alarm_rate == 1 / 8
    assert both.missing_alarm_rate == 0.5


def test_what_was_never_asked_is_nan():
    nothing = Confusion.of(np.array([NO]), np.array([NO]))
    assert all(map(math.isnan, (nothing.precision, nothing.recall, nothing.f1, nothing.missing_alarm_rate)))
    assert math.isnan(average_precision(np.array([NO, NO]), np.array([0.0, 1.0])))
    assert math.isnan(roc_auc(np.array([YES]), np.array([0.0])))


def test_average_precision_and_auc_of_the_worked_example_of_scikit_learn():
    # the example of sklearn.metrics.average_precision_score and roc_auc_score: 0.83 and 0.75
    labels, scores = np.array([NO, NO, YES, YES]), np.array([0.1, 0.4, 0.35, 0.8])
    assert average_precision(labels, scores) == pytest.approx(0.8333333333333333)
    assert roc_auc(labels, scores) == pytest.approx(0.75)


def test_rows_of_equal_score_come_together_and_nan_comes_last():
    labels = np.array([YES, NO, YES, NO])
    assert average_precision(labels, np.ones(4)) == pytest.approx(0.5)
    assert roc_auc(labels, np.ones(4)) == pytest.approx(0.5)
    assert average_precision(labels, np.array([np.nan, 1.0, 2.0, 0.5])) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_a_location_counts_within_the_anomaly_s_own_length_and_at_least_100_rows():
    scores = np.zeros(1000)
    scores[399] = 1
    assert not location_hit(scores, 500, 520)
    assert location_hit(scores, 499, 520)
    assert location_hit(scores, 550, 720)
    scores[10] = np.nan
    assert location_hit(scores, 499, 520)


def test_errors_of_forecasts_leave_gaps_out():
    actual, foretold = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.0, 4.0, 3.0, 0.0])
    assert rmse(actual, foretold) == pytest.approx(math.sqrt(20 / 3))
    assert mae(actual, foretold) == 2.0
    assert math.isnan(rmse(actual[2:3], foretold[2:3]))


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many rows"):
        average_precision(np.array([YES, NO]), np.array([1.0]))
