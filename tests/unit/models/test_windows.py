import numpy as np
import pytest

from models.errors import TrainingError
from models.windows import WindowSet, check_windows, fill_forward

NAN = np.nan


def test_the_last_known_value_stands_in_and_zero_before_any():
    window = np.array([[[NAN, 1], [2, NAN], [NAN, NAN], [NAN, 4]]], np.float32)
    assert fill_forward(window).tolist() == [[[0, 1], [2, 1], [2, 1], [2, 4]]]


def test_a_signal_missing_all_along_is_the_median():
    assert (fill_forward(np.full((1, 3, 1), NAN, np.float32)) == 0).all()


def test_one_window_does_not_fill_another():
    windows = np.array([[[9.0], [9.0]], [[NAN], [NAN]]], np.float32)
    assert fill_forward(windows)[1].ravel().tolist() == [0, 0]


def test_no_window_crosses_from_one_stretch_to_the_next():
    stretches = [
        np.arange(5, dtype=np.float32)[:, None],
        np.zeros((2, 1), np.float32),
        100 + np.arange(4, dtype=np.float32)[:, None],
    ]
    windows = WindowSet.over(stretches, 3, signals=1)
    assert windows.take()[..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [100, 101, 102], [101, 102, 103]]


def test_the_most_that_are_asked_for_are_spread_evenly():
    windows = WindowSet.over([np.arange(100, dtype=np.float32)[:, None]], 1, signals=1, most=5)
    assert windows.take().ravel().tolist() == [0, 25, 50, 74, 99]


def test_too_few_windows_name_the_remedy():
    with pytest.raises(TrainingError, match="smaller `window`"):
        WindowSet.over([np.zeros((5, 1), np.float32)], 8, signals=1).require(1, "training")


@pytest.mark.parametrize("shape", [(1, 4), (1, 3, 2), (1, 4, 1)], ids=str)
def test_windows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected windows \(batch, 4, 2\) float32"):
        check_windows(np.zeros(shape, np.float32), 4, 2)


def test_windows_of_another_kind_of_number_are_refused():
    with pytest.raises(ValueError, match="float64"):
        check_windows(np.zeros((1, 4, 2)), 4, 2)
