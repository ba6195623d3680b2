import functools

import numpy as np
import pytest

from models.detectors.innovations import Config, Innovations
from models.walking import PURGE, folds


def plant(rows, seed=0):
    rng = np.random.default_rng(seed)
    hours = np.arange(rows) / 9
    return (np.stack([np.sin(hours), np.cos(hours)], axis=1) + 0.1 * rng.normal(size=(rows, 2))).astype(np.float32)


@functools.cache
def trained():
    detector = Innovations(2, Config())
    detector.fit([plant(600)], [])
    return detector


def run(rows, cuts=()):
    detector = trained()
    state = detector.stepper.begin(1)
    parts = np.split(rows, list(cuts))
    said = [detector.stepper.run(state, np.zeros(1, int), np.array([len(part)]), part) for part in parts if len(part)]
    return np.concatenate([each.score for each in said]), np.concatenate([each.contributions for each in said])


@pytest.mark.parametrize("cuts", [(1,), (50, 51, 52, 90), tuple(range(1, 200))])
def test_how_a_run_is_cut_changes_no_bit(cuts):
    rows = plant(200, seed=1)
    assert run(rows, cuts)[0].tobytes() == run(rows)[0].tobytes()


def test_the_future_changes_no_score():
    rows = plant(200, seed=1)
    assert run(rows[:130])[0].tobytes() == run(rows)[0][:130].tobytes()


def test_company_changes_no_bit():
    detector, rows = trained(), plant(160, seed=2)
    others = [plant(count, seed=count) for count in (40, 160, 3)]
    state = detector.stepper.begin(4)
    counts = np.array([len(part) for part in (others[0], rows, *others[1:])])
    together = detector.stepper.run(
        state, np.array([2, 0, 3, 1]), counts, np.concatenate([others[0], rows, *others[1:]])
    )
    assert together.score[40:200].tobytes() == run(rows)[0].tobytes()


def test_a_window_scores_as_a_run_over_its_rows():
    rows = plant(64, seed=3)
    assert trained().score(rows[None]).score[0] == run(rows)[0][-1]


def test_one_clean_row_in_a_hundred_reaches_1():
    scores = run(plant(20_000, seed=4))[0][PURGE:]
    assert 0.002 < (scores > 1).mean() < 0.03


def test_a_step_a_drift_and_a_new_rhythm_are_found():
    for fault in ("step", "drift", "rhythm"):
        rows = plant(400, seed=5)
        time = np.arange(100)
        rows[300:, 1] += {"step": np.full(100, 1.0), "drift": time / 50, "rhythm": np.sin(time / 1.5)}[fault]
        score, _ = run(rows)
        assert np.median(score[340:]) > 1.2 > np.quantile(score[PURGE:300], 0.95), fault


def test_folds_leave_a_purge_and_cover_everything_once():
    numbers = np.arange(800, dtype=np.float32)[:, None]
    parts = folds([numbers[:500], numbers[500:]])
    left_out = np.sort(np.concatenate([rows.ravel() for _, held in parts for rows in held]))
    np.testing.assert_array_equal(left_out, np.arange(800))
    for rest, held in parts:
        mine, others = np.concatenate([r.ravel() for r in held]), np.concatenate([r.ravel() for r in rest])
        gaps = np.abs(mine[:, None] - others)
        same_stretch = (mine[:, None] < 500) == (others < 500)
        assert gaps[same_stretch].min() > PURGE
