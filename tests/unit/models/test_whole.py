"""What the baselines promise beyond the contract: exact shares, a mean over what is known, no fault copied through."""

import numpy as np
import pytest

from models import registry
from models.whole import squared_distances


def plant(rows, seed=0):
    """Four signals of two hidden movements: (row, signal) float32."""
    rng = np.random.default_rng(seed)
    hidden = np.cumsum(rng.normal(size=(rows, 2)), axis=0)
    hidden = (hidden - hidden.mean(axis=0)) / hidden.std(axis=0)
    mix = np.array([[1.0, 0.5, 0.0, -1.0], [0.0, 1.0, 1.0, 0.3]])
    return (hidden @ mix + 0.05 * rng.normal(size=(rows, 4))).astype(np.float32)


def fitted(name, **config):
    detector = registry.create(name, signals=4, config=config)
    rows = plant(900)
    detector.fit([rows[:700]], [rows[700:]])
    return detector, rows


def test_distances_are_means_over_what_is_known():
    rng = np.random.default_rng(0)
    rows, points = (rng.normal(size=(count, 7)).astype(np.float32) for count in (50, 9))
    known = rng.random(rows.shape) < 0.7
    known[3] = False
    direct = np.array(
        [[np.mean((row[there] - point[there]) ** 2) if there.any() else 0.0 for point in points]
         for row, there in zip(rows, known, strict=True)]
    )  # fmt: skip
    np.testing.assert_allclose(squared_distances(np.where(known, rows, 0), known, points), direct, atol=1e-5)


def test_t2_and_q_are_the_textbook_s_and_their_shares_add_up():
    detector, rows = fitted("pca", window=3)
    windows = np.stack([rows[start : start + 3] for start in range(0, 300, 7)])
    flat = windows.reshape(len(windows), -1).astype(np.float64)
    learnt = {key: array.astype(np.float64) for key, array in detector.weights().items()}
    centred = flat - learnt["centre"]
    along = centred @ learnt["basis"].T
    t2 = (along**2 / learnt["deviation"] ** 2).sum(axis=1)
    q = ((centred - along @ learnt["basis"]) ** 2).sum(axis=1)
    by_signal, _ = detector._distances(windows)
    np.testing.assert_allclose(by_signal.sum(axis=2), [t2, q], rtol=1e-3, atol=1e-5)
    usual = learnt["usual"]
    np.testing.assert_allclose(detector.score(windows).score, np.sqrt((t2 / usual[0] + q / usual[1]) / 2), rtol=1e-3)


def test_pca_puts_a_missing_value_where_the_other_signals_say():
    detector, rows = fitted("pca", window=4)
    windows = np.stack([rows[start : start + 4] for start in range(700, 880, 5)])
    holed = windows.copy()
    holed[:, :, 3] = np.nan  # dead for the whole window: there is nothing to carry forward
    error = detector.score(holed).expected[:, 3] - windows[:, -1, 3]
    assert np.sqrt(np.mean(error**2)) < 0.5 * windows[:, -1, 3].std()


@pytest.mark.parametrize("name", ["mset", "kmeans"])
def test_an_estimate_never_leaves_what_was_seen(name):
    detector, rows = fitted(name)
    windows = np.full((1, detector.window, 4), 15, np.float32)
    expected = detector.score(windows).expected
    assert (expected >= rows.min(axis=0) - 1e-4).all()
    assert (expected <= rows.max(axis=0) + 1e-4).all()


def test_kmeans_knows_several_operating_modes():
    rng = np.random.default_rng(1)
    modes = np.array([[-5, 5, 0, 0], [5, -5, 0, 0], [0, 0, 5, 5]], np.float32)

    def shift(rows):
        return (np.repeat(modes, rows, axis=0) + 0.1 * rng.normal(size=(3 * rows, 4))).astype(np.float32)

    detector = registry.create("kmeans", signals=4, config={"window": 4, "clusters": 16})
    detector.fit([shift(100)], [shift(40)])
    known = np.stack([np.repeat(mode[None], 4, axis=0) for mode in modes])
    between = np.zeros((1, 4, 4), np.float32)  # the mean of all: nowhere near any of them
    assert detector.score(between).score[0] > 5 * detector.score(known).score.max()
