"""The ensemble's members are calibrated on what they had not seen, and travel together."""

import dataclasses

import numpy as np
import pytest

from models import registry
from models.artifact import load
from models.calibrate import calibrate
from models.datasets import Recording
from models.train import score_series, train


def plant(rows, seed=0):
    rng = np.random.default_rng(seed)
    cycle = np.sin(np.arange(rows) / 5)[:, None] * [1.0, -0.5, 2.0]
    return (cycle + 0.2 * rng.normal(size=(rows, 3))).astype(np.float32)


def windows_of(rows, length):
    return np.stack([rows[start : start + length] for start in range(len(rows) - length + 1)])


def made(**config):
    return registry.create("ensemble", signals=3, config={"members": ["pca", "ewma"], "window": 40, **config})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"members": ["pca"]}, "members: expected two or more different detectors"),
        ({"members": ["pca", "pca"]}, "members: expected two or more different detectors"),
        ({"members": ["pca", "pcb"]}, "members: no detector is called 'pcb': did you mean pca"),
        ({"members": ["pca", "data_quality"]}, "members: data_quality does not judge the plant"),
        ({"members": ["pca", "ensemble"]}, "members: ensemble does not judge the plant"),
        ({"window": 31}, "window: pca looks back over 32 rows, so at least 32; got 31"),
    ],
    ids=str,
)
def test_members_that_cannot_be_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        made(**config)


def test_on_clean_data_that_it_has_not_seen_each_member_is_as_rare_as_it_says():
    detector = made()
    detector.fit([plant(1500)], [plant(300, seed=1)])
    windows = windows_of(plant(3000, seed=2), 40)
    for member, calibration in zip(detector._members, detector._calibrations, strict=True):
        rarity = calibration.rarity(member.score(np.ascontiguousarray(windows[:, -member.window :])).score)
        # beyond a tenth of the scores the law is that of clusters' peaks, which are rarer among rows than it says
        assert 0.1 < (rarity > -np.log(0.2)).mean() < 0.3
        for share in (0.05, 0.01):
            assert 0 < (rarity > -np.log(share)).mean() < share


def test_its_score_is_the_mean_of_its_members_rarity():
    detector = made()
    detector.fit([plant(800)], [plant(200, seed=1)])
    windows = windows_of(plant(120, seed=2), 40)
    parts = [
        calibration.rarity(member.score(np.ascontiguousarray(windows[:, -member.window :])).score)
        for member, calibration in zip(detector._members, detector._calibrations, strict=True)
    ]
    np.testing.assert_allclose(detector.score(windows).score, np.mean(parts, axis=0))


def test_rarity_is_minus_the_logarithm_of_the_tail_probability():
    rng = np.random.default_rng(0)
    for scores in (rng.exponential(size=2000), np.full(50, 2.0), rng.standard_t(3, size=500) ** 2):
        calibration = calibrate([scores], period_s=1.0)
        for one in (calibration, dataclasses.replace(calibration, shape=0.0)):
            asked = np.concatenate([scores[:50], [0.0, one.level, one.level + 1e-9, one.highest, 3 * one.highest]])
            wanted = [-np.log(one.tail_probability(float(score))) for score in asked]
            np.testing.assert_allclose(one.rarity(asked), wanted, rtol=1e-9, atol=1e-12)
    assert np.isnan(calibration.rarity(np.array([np.nan]))).all()
    far = calibration.rarity(np.array([1e3, 1e6]))
    assert np.isfinite(far).all()
    assert far[0] < far[1]


def test_it_is_one_artifact(tmp_path):
    rows = plant(900).astype(np.float64)
    recording = Recording("a", np.arange(900) * 1000, ("x", "y", "z"), rows)
    artifact = train([recording], detector="ensemble", config={"members": ["kmeans", "ewma"]})
    restored = load(artifact.save(tmp_path / "artifact"))
    assert restored.version == artifact.version
    assert restored.detector.config.members == ("kmeans", "ewma")
    ours, theirs = score_series(restored, rows[:200]), score_series(artifact, rows[:200])
    assert ours.score.tobytes() == theirs.score.tobytes()
    assert any(key.startswith("kmeans.") for key in restored.detector.weights())


@pytest.mark.tensorflow
def test_networks_may_be_members():
    detector = registry.create("ensemble", signals=3, config={"members": ["gru_forecaster", "pca"], "window": 32})
    detector.fit([plant(300)], [plant(100, seed=1)])
    windows = windows_of(plant(80, seed=2), 32)
    windows[:, -1, 1] += 5
    assert (detector.score(windows).contributions.argmax(axis=1) == 1).mean() > 0.8
