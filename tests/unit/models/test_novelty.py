import math
from bisect import insort

import numpy as np
import pytest

from models import novelty
from models.artifact import load
from models.datasets import Recording
from models.detectors.novelty import Config, Novelty
from models.train import score_series, train

HOUR_MS = 3_600_000


def fresh(size=512, signals=1):
    detector = Novelty(signals, Config(size=size))
    detector.begin_empty()
    return detector


def run(detector, rows, cuts=(), at_ms=None):
    state, parts = detector.begin(1), np.split(np.arange(len(rows)), list(cuts))
    said = [
        detector.run(state, np.zeros(1, int), np.array([len(part)]), rows[part], None if at_ms is None else at_ms[part])
        for part in parts
    ]
    return np.concatenate([each.score for each in said])


def noise(rows, signals=1, seed=0):
    return np.random.default_rng(seed).normal(20, 1, size=(rows, signals)).astype(np.float32)


def memory(channels=1, size=16):
    kinds = novelty.shapes(channels, size)
    return {name: np.zeros((1, *shape), kind) for name, (shape, kind) in kinds.items()}


def push(held, value, rel=2.0):
    return novelty.relative(held, np.array([[value]]), np.array([rel]), np.array([True]))[0, 0]


def test_it_is_the_formula_on_all_of_the_past():
    values = np.random.default_rng(1).normal(size=60).astype(np.float32).tolist()
    past: list[float] = []
    largest: list[float] = []
    held = memory(size=64)
    for value in values:
        told = push(held, value)
        if len(past) >= 3:
            near = sorted(abs(value - other) for other in past)
            size = np.std(past) + 2 * abs(value - np.mean(past))
            expected = math.sqrt(near[1] * near[2]) / size
        else:
            expected = 0.0
        usual = sorted(largest)[-5] if len(largest) >= 5 else 0.0
        assert told == pytest.approx(expected / (usual + 0.03), rel=1e-4, abs=1e-6)
        largest.append(expected)
        insort(past, value)
    np.testing.assert_allclose(held["values"][0, 0, :60], past)


def test_where_there_is_no_room_rare_values_stay_and_dense_ones_go():
    held = memory(size=16)
    push(held, -50.0)
    push(held, 90.0)
    for value in np.random.default_rng(0).uniform(0, 1, 300):
        push(held, float(value))
    kept = held["values"][0, 0]
    assert (held["held"] == 16).all()
    assert (np.diff(kept) >= 0).all()
    assert (kept[0], kept[-1]) == (-50.0, 90.0)
    assert np.diff(kept[1:-1]).max() < 0.2


def test_what_is_told_not_to_be_learnt_is_not():
    held = memory()
    push(held, 3.0)
    before = {name: array.tobytes() for name, array in held.items()}
    novelty.relative(held, np.array([[9.0]]), np.array([2.0]))
    assert {name: array.tobytes() for name, array in held.items()} == before


@pytest.mark.parametrize("cuts", [(1,), (60, 61, 140), tuple(range(1, 250))])
def test_how_a_run_is_cut_changes_no_bit(cuts):
    rows, at_ms = noise(250), np.arange(250) * HOUR_MS
    assert run(fresh(64), rows, cuts, at_ms).tobytes() == run(fresh(64), rows, (), at_ms).tobytes()


def test_the_future_changes_no_score():
    rows = noise(300)
    assert run(fresh(64), rows[:170]).tobytes() == run(fresh(64), rows)[:170].tobytes()


def test_company_changes_no_bit():
    detector, rows = fresh(64), noise(120)
    parts = [noise(40, seed=1), rows, noise(120, seed=2), noise(3, seed=3)]
    counts = np.array([len(part) for part in parts])
    said = detector.run(detector.begin(4), np.array([2, 0, 3, 1]), counts, np.concatenate(parts))
    assert said.score[40:160].tobytes() == run(detector, rows).tobytes()


def test_the_first_spike_alarms_within_the_first_hour_of_minutes():
    rows = noise(120)
    rows[70] = 40
    score = run(fresh(), rows)
    assert np.isnan(score[:50]).all()
    assert score[70] > 3
    assert score[70] == np.nanmax(score)


def test_a_usual_hour_is_no_news_and_an_unusual_one_is():
    at_ms = np.arange(24 * 20) * HOUR_MS
    daily = 10 + 5 * np.sin(2 * np.pi * np.arange(24 * 20) / 24)
    rows = (daily + np.random.default_rng(0).normal(0, 0.1, len(daily))).astype(np.float32)[:, None]
    rows[400] = rows[412]  # noon's value at midnight: seen daily, never then
    score = run(fresh(), rows, at_ms=at_ms)
    assert score[400] == np.nanmax(score[100:])


def test_after_an_alarm_only_what_is_far_stranger_alarms_for_a_while():
    rows = noise(400)
    rows[300], rows[304], rows[308] = 30, 31.5, 80
    score = run(fresh(), rows)
    assert score[300] > 1 > score[304]
    assert score[308] > 1


def test_alarms_on_noise_get_rarer():
    alarms = np.flatnonzero(run(fresh(128), noise(6000, seed=5)) > 1)
    assert np.sum(alarms < 1000) > np.sum(alarms >= 5000)
    assert len(alarms) < 4 + 3.5 * math.log(6000 / 50)


def test_history_is_begun_with_and_a_reset_goes_back_to_it():
    detector = Novelty(1, Config())
    detector.fit([noise(300)], [noise(80, seed=1)])
    state = detector.begin(2)
    spike = np.full((1, 1), 40.0, np.float32)
    first = detector.run(state, np.array([1]), np.array([1]), spike).score[0]
    assert first > 1
    assert detector.run(state, np.array([1]), np.array([1]), spike).score[0] < 1
    state.reset(np.array([1]))
    assert detector.run(state, np.array([1]), np.array([1]), spike).score[0] == first
    state.grow(9)
    assert detector.run(state, np.array([8]), np.array([1]), spike).score[0] == first


def test_a_silent_signal_neither_scores_nor_learns():
    detector, rows = fresh(64, signals=2), noise(150, signals=2)
    gone = rows.copy()
    gone[60:90, 1] = np.nan
    state = detector.begin(1)
    said = detector.run(state, np.zeros(1, int), np.array([150]), gone)
    assert np.isfinite(said.score[60:90]).all()
    assert (said.contributions[60:90, 1] == 0).all()
    assert state.arrays["moments"][0, :, 0, 0].tolist() == [150, 120]
    gone[120] = np.nan
    assert np.isnan(run(detector, gone)[120])


def test_its_artifact_leaves_the_signals_in_their_units_and_has_its_own_threshold(tmp_path):
    recording = Recording("a", np.arange(400) * HOUR_MS, ("x",), noise(400).astype(np.float64) * 1e6)
    artifact = train([recording], detector="novelty")
    restored = load(artifact.save(tmp_path / "artifact"))
    assert (restored.scaler.scale == 1).all()
    assert not restored.scaler.clips
    assert restored.threshold(0.1) == 1.0
    rows = recording.values[:120]
    assert score_series(restored, rows).score.tobytes() == score_series(artifact, rows).score.tobytes()
