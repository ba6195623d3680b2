import numpy as np

from models.autoregression import LAGS, Autoregression, prior
from models.memory import BLOCKS, ROWS, WindowMemory, blocks


def wave(rows, seed=0, signals=3):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(size=(rows, signals)), axis=0).astype(np.float32) / 5


def test_a_left_out_error_is_that_of_fitting_without_the_row():
    rows = wave(60)
    fitted, (errors,) = Autoregression.fit([rows])
    place = 20  # of the rows that are foretold
    past = np.stack([np.append(rows[LAGS + i - 1 :: -1][:LAGS].ravel(), 1.0) for i in range(len(rows) - LAGS)])
    keep = np.arange(len(past)) != place
    ridge = 10.0 * np.eye(past.shape[1])
    ridge[-1, -1] = 1e-6
    now = rows[LAGS:].astype(np.float64)
    start = prior(past, now)  # one row hardly moves it, so it is not made anew without the row
    rest = now - past @ start
    weights = start + np.linalg.solve(past[keep].T @ past[keep] + ridge, past[keep].T @ rest[keep])
    np.testing.assert_allclose(errors[place], rows[LAGS + place] - past[place] @ weights, atol=1e-6)
    assert fitted.weights.shape == (3, LAGS * 3 + 1)


def test_what_was_remembered_is_near_and_the_signal_that_is_away_is_named():
    memory = WindowMemory.fit([wave(300)])
    seen = blocks(wave(300) / memory.stray) * np.tile(memory.stray, BLOCKS)
    far, _ = memory.distances(seen[:50])
    moved = seen[:50].copy().reshape(50, BLOCKS, 3)
    moved[:, -5:, 1] += 30
    away, shares = memory.distances(moved.reshape(50, -1))
    assert far.max() < away.min()
    assert (shares.argmax(axis=1) == 1).all()


def test_blocks_are_the_means_of_consecutive_rows():
    rows = wave(ROWS + 3)
    width = ROWS // BLOCKS
    held = blocks(rows)
    assert held.shape == (4, BLOCKS * 3)
    np.testing.assert_allclose(held[2, :3], rows[2 : 2 + width].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(held[2, -3:], rows[2 + ROWS - width : 2 + ROWS].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert blocks(rows[: ROWS - 1]).shape == (0, BLOCKS * 3)


def test_a_random_walk_is_expected_to_stay_and_noise_to_return():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=2000)) / 30
    now = np.stack([walk, rng.normal(size=2000)], axis=1)
    past = np.zeros((1999, LAGS * 2 + 1))
    past[:, :2] = now[:-1]
    weights = prior(past, now[1:])
    assert weights[0, 0] > 0.5
    assert weights[1, 1] < 0.01
    assert np.count_nonzero(weights) <= 2
