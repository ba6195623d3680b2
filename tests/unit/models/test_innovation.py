import numpy as np
import pytest

from models.innovation import Yardstick


def clean(windows=400, rows=16, signals=4, seed=0):
    return np.random.default_rng(seed).normal(size=(windows, rows, signals)).astype(np.float32)


@pytest.fixture(scope="module")
def yardstick():
    return Yardstick.fit(clean())


def test_clean_innovations_score_about_one(yardstick):
    score, contributions = yardstick.score(clean(seed=1))
    assert 0.8 < np.median(score) < 1.3
    np.testing.assert_allclose(contributions.sum(axis=1), 1)


@pytest.mark.parametrize("sort", ["spike", "noise", "drift"])
def test_each_view_sees_its_fault_and_names_the_signal(yardstick, sort):
    innovations = clean(seed=2)
    usual = np.quantile(yardstick.score(innovations)[0], 0.99)
    if sort == "spike":
        innovations[:, -1, 2] += 8
    elif sort == "noise":
        innovations[:, :, 2] *= 4
    else:
        innovations[:, :, 2] += 1.5
    score, contributions = yardstick.score(innovations)
    assert np.median(score) > usual
    assert (contributions.argmax(axis=1) == 2).mean() > 0.8


def test_a_broken_relation_is_strange_where_each_signal_alone_is_not():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(600, 16, 1))
    together = (common + 0.1 * rng.normal(size=(600, 16, 2))).astype(np.float32)
    yardstick = Yardstick.fit(together[:400])
    apart = together[400:].copy()
    apart[:, :, 1] *= -1
    assert np.median(yardstick.score(apart)[0]) > 1.5 * np.quantile(yardstick.score(together[400:])[0], 0.9)


def test_a_larger_newest_error_never_scores_lower(yardstick):
    innovations = np.repeat(clean(1), 40, axis=0)
    innovations[:, :-1] = 0
    innovations[:, -1] = 0
    innovations[:, -1, 1] = np.geomspace(0.1, 1e30, 40)
    score, _ = yardstick.score(innovations)
    assert np.isfinite(score).all()
    assert (np.diff(score) >= 0).all()


def test_a_missing_value_neither_counts_nor_hides_the_others(yardstick):
    innovations = clean(50, seed=3)
    innovations[:, -1, 0] += 9
    innovations[:, :, 3] = np.nan
    score, contributions = yardstick.score(innovations)
    assert (score > 1.5).all()
    assert (contributions[:, 3] == 0).all()


def test_no_value_in_the_newest_row_is_no_score(yardstick):
    innovations = clean(3)
    innovations[1, -1] = np.nan
    score, contributions = yardstick.score(innovations)
    assert np.isnan(score).tolist() == [False, True, False]
    assert (contributions[1] == 0).all()


def test_signals_that_are_foretold_perfectly_do_not_divide_by_nothing():
    yardstick = Yardstick.fit(np.zeros((50, 16, 3), np.float32))
    assert np.isfinite(yardstick.score(np.full((2, 16, 3), 1e-6, np.float32))[0]).all()
