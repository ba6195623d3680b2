import json
from dataclasses import replace

import numpy as np
import pytest

from models.augment import Config, by_class, learn, windows_of
from models.base import NORMAL
from models.datasets import Recording, read
from models.errors import TrainingError
from models.likeness import energy_distance, likeness, mmd
from stream.commands.augment import run_augment, write
from stream.errors import ConfigError

SMALL = Config(rows=16, steps=300, filters=16, code=8)


def recording(asset, rows, fault=NORMAL, seed=0):
    """Two signals that follow each other and remember; a leak lowers and roughens the second."""
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.normal(size=rows + 19), np.ones(20) / 4.5, "valid")
    values = np.stack([50 + 5 * slow, 200 + 20 * slow + rng.normal(0, 4, rows)], axis=1)
    if fault == "leak":
        values[:, 1] += -150 + rng.normal(0, 12, rows)
    at_ms = 1_700_000_000_000 + 1000 * np.arange(rows, dtype=np.int64)
    return Recording(asset, at_ms, ("flow", "pressure"), values, None, (), np.full(rows, fault))


def history():
    return [recording("a", 600), recording("b", 60, "leak", 1)]


@pytest.mark.tensorflow
def test_made_windows_are_of_the_class_s_level_spread_and_company():
    maker = learn(history(), config=SMALL)
    assert maker.classes == ("leak", NORMAL)
    assert maker.windows == (45, 585)
    for name, held in zip((NORMAL, "leak"), history(), strict=True):
        made, real = maker.make(name, 100, seed=1), held.values
        assert made.shape == (100, 16, 2)
        assert np.isfinite(made).all()
        assert (np.abs(made.mean(axis=(0, 1)) - real.mean(axis=0)) < 0.5 * real.std(axis=0)).all()
        ratio = made.std(axis=(0, 1)) / real.std(axis=0)
        assert 0.5 < ratio.min() <= ratio.max() < 1.8
    flow, pressure = maker.make(NORMAL, 100).reshape(-1, 2).T
    assert np.corrcoef(flow, pressure)[0, 1] > 0.85


@pytest.mark.tensorflow
def test_made_recordings_are_read_back_with_their_class_and_lie_apart(tmp_path):
    maker, again = (learn(history(), config=replace(SMALL, steps=2)) for _ in range(2))
    assert np.array_equal(maker.make("leak", 5), again.make("leak", 5))
    assert not np.array_equal(maker.make("leak", 5, seed=1), again.make("leak", 5))
    made = maker.recordings("leak", 3)
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"made.{suffix}"
        write(path, made)
        held = read(path)
        assert [one.asset for one in held] == ["made-leak-0000", "made-leak-0001", "made-leak-0002"]
        for one, wanted in zip(held, made, strict=True):
            assert one.signals == ("flow", "pressure")
            assert one.faults is not None
            assert one.faults.tolist() == ["leak"] * 16
            assert np.array_equal(one.at_ms, wanted.at_ms)
            assert np.allclose(one.values, wanted.values, rtol=1e-5, atol=1e-5)
    assert made[1].at_ms[0] - made[0].at_ms[-1] > 16_000


@pytest.mark.tensorflow
def test_the_command_writes_windows_and_what_they_are_worth(tmp_path):
    for held in history():
        write(tmp_path / f"{held.asset}.csv", [held])
    run_augment([tmp_path / "a.csv", tmp_path / "b.csv"], output=tmp_path / "made", count=4, rows=16, steps=3)
    report = json.loads((tmp_path / "made" / "augment.json").read_text())
    assert report["made"] == {"leak": 4}
    assert report["learnt_from"] == {"leak": 45, NORMAL: 585}
    assert all(np.isfinite(value) for value in report["likeness"]["leak"].values())
    assert len(read(tmp_path / "made" / "made-leak.csv")) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        run_augment([tmp_path / "a.csv"], output=tmp_path / "other")


def test_what_cannot_be_learnt_is_named():
    with pytest.raises(TrainingError, match="leak: its longest stretch"):
        learn([recording("a", 600), recording("b", 20, "leak")])
    with pytest.raises(TrainingError, match="leak: 5 windows of 16 rows"):
        learn([recording("a", 600), recording("b", 20, "leak")], config=SMALL)
    with pytest.raises(TrainingError, match="no row is normal"):
        learn([recording("b", 60, "leak")])
    with pytest.raises(ValueError, match="multiple of 4"):
        Config(rows=18)


def test_a_missing_value_breaks_a_stretch():
    held = recording("a", 40)
    held.values[20, 1] = np.nan
    stretches = by_class([held], held.signals, 5.0)[NORMAL]
    assert [len(part) for part in stretches] == [20, 19]
    assert len(windows_of(stretches, 16)) == 5 + 4


def test_distances_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    one, alike, apart = rng.normal(size=(300, 4)), rng.normal(size=(300, 4)), 2 + rng.normal(size=(300, 4))
    assert abs(energy_distance(one, alike)) < 0.03
    assert abs(mmd(one, alike)) < 0.02
    assert energy_distance(one, apart) > 1.0
    assert mmd(one, apart) > 0.5
    # two points a distance of 3 apart from two others: 2 * 3 - 0 - 0, over the root of one column
    assert energy_distance(np.zeros((2, 1)), np.full((2, 1), 3.0)) == pytest.approx(6.0)


def test_likeness_tells_too_smooth_windows_from_alike_ones():
    real = windows_of([recording("a", 900).values], 16)
    alike = windows_of([recording("b", 900, seed=5).values], 16)
    dull = alike.mean(axis=1, keepdims=True) + 0 * alike
    good, bad = likeness(real, alike), likeness(real, dull)
    assert good.energy < bad.energy
    assert good.step == pytest.approx(1, abs=0.1)
    assert bad.step == 0
    with pytest.raises(ValueError, match="one shape"):
        likeness(real, alike[:, :8])
