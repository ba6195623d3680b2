import json
import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from models import artifact as artifacts
from models.datasets import Recording
from models.errors import InvalidArtifact
from models.train import train


def history(rows=300, signals=2, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, signals))
    return Recording("pump-1", np.arange(rows) * 1000, tuple("abcdefgh"[:signals]), values)


@pytest.fixture(scope="module")
def trained():
    return train([history()], detector="ewma")


@pytest.fixture
def saved(trained, tmp_path):
    return trained.save(tmp_path / "a")


def edit(path, **changes):
    """Change the manifest and give it the version that fits, as somebody would who knows how."""
    raw = json.loads((path / artifacts.MANIFEST).read_text())
    raw |= changes
    known = {k: v for k, v in raw.items() if k in artifacts.Manifest.__dataclass_fields__}
    if len(known) == len(artifacts.Manifest.__dataclass_fields__) and "version" not in changes:
        raw["version"] = artifacts.Manifest(**known).content_version()
    (path / artifacts.MANIFEST).write_text(json.dumps(raw))


def test_what_is_loaded_scores_the_same_bits(trained, saved):
    windows = np.random.default_rng(1).normal(size=(9, trained.window, 2))
    loaded = artifacts.load(saved)
    assert loaded.score(windows).score.tobytes() == trained.score(windows).score.tobytes()
    assert (loaded.version, loaded.signals, loaded.period_s) == (trained.version, ("a", "b"), 1.0)
    assert loaded.manifest == trained.manifest
    assert loaded.threshold(1.0) == trained.threshold(1.0)


def test_the_version_is_of_the_content_not_of_the_time(trained):
    assert train([history()], detector="ewma").version == trained.version
    assert train([history(seed=1)], detector="ewma").version != trained.version
    assert train([history()], detector="ewma", config={"span": 6.0}).version != trained.version


def test_what_was_expected_comes_in_the_signals_own_units():
    rows = np.random.default_rng(0).normal([500.0, -3.0], [10.0, 0.1], (400, 2))
    trained = train([Recording("p", np.arange(400) * 1000, ("a", "b"), rows)], detector="ewma")
    expectation = trained.expectation(trained.score(rows[None, -trained.window :]))
    assert expectation is not None
    expected, spread = expectation
    np.testing.assert_allclose(expected[0], [500, -3], rtol=0.05)
    np.testing.assert_allclose(spread[0], [10, 0.1], rtol=0.4)


def test_saving_again_replaces_and_leaves_nothing_else(trained, tmp_path):
    for _ in range(2):
        trained.save(tmp_path / "deep" / "a")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert sorted(path.name for path in (tmp_path / "deep" / "a").iterdir()) == ["manifest.json", "weights.safetensors"]
    assert stat.S_IMODE((tmp_path / "deep" / "a").stat().st_mode) == 0o755


def test_a_save_that_fails_leaves_the_old_artifact(trained, saved, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "_write", full)
    with pytest.raises(OSError, match="No space"):
        trained.save(saved)
    assert artifacts.load(saved).version == trained.version
    assert [path.name for path in saved.parent.iterdir()] == ["a"]


def test_signals_it_was_not_trained_on_are_named(trained):
    trained.require_signals(["b", "a"])
    with pytest.raises(InvalidArtifact, match="not on c; not asked for: b"):
        trained.require_signals(["a", "c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"detector": "pickle"}, "no detector is called 'pickle'"),
        ({"detector": "../../tmp/evil"}, "no detector is called"),
        ({"config": {"windw": 3}}, "unknown key 'windw'"),
        ({"config": {"window": 10**9}}, "window: expected"),
        ({"config": []}, "config is not of its type"),
        ({"signals": ["a", "b", "c"]}, "3 signals but a scaler for 2"),
        ({"signals": ["a", "a"]}, "different names"),
        ({"signals": []}, "0 signals"),
        ({"period_s": 0}, "period_s"),
        ({"seed": True}, "seed is not of its type"),
        ({"weights": "0" * 64}, "digest"),
        ({"more": 1}, "unknown keys"),
        ({"version": "0" * 12}, "not what its version says"),
        ({"scaler": {"centre": [0.0, 0.0], "scale": [1.0, -1.0]}}, "scaler"),
        ({"calibration": {}}, "calibration"),
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_is_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(InvalidArtifact, match=message):
        artifacts.load(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": NaN}', "[" * 100_000], ids=range(6))
def test_a_manifest_that_is_no_manifest_is_refused(saved, content):
    (saved / artifacts.MANIFEST).write_text(content)
    with pytest.raises(InvalidArtifact, match="manifest"):
        artifacts.load(saved)


def test_every_damaged_byte_of_the_weights_is_noticed(saved):
    weights = saved / artifacts.WEIGHTS
    whole = weights.read_bytes()
    for position in range(0, len(whole), 37):
        weights.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(InvalidArtifact, match="digest"):
            artifacts.load(saved)
    weights.write_bytes(whole[:-1])
    with pytest.raises(InvalidArtifact, match="digest"):
        artifacts.load(saved)


@pytest.mark.parametrize("sort", ["nan", "missing", "shape", "extra"])
def test_weights_that_do_not_fit_are_refused_even_with_the_right_digest(trained, saved, sort):
    import hashlib

    weights = trained.detector.weights()
    if sort == "nan":
        weights["yardstick.spread"] = np.full(2, np.nan, np.float32)
    elif sort == "missing":
        del weights["yardstick.spread"]
    elif sort == "shape":
        weights["yardstick.spread"] = np.zeros(3, np.float32)
    else:
        weights["more"] = np.zeros(3, np.float32)
    packed = safetensors.numpy.save(weights)
    (saved / artifacts.WEIGHTS).write_bytes(packed)
    edit(saved, weights=hashlib.sha256(packed).hexdigest())
    with pytest.raises(InvalidArtifact, match="more" if sort == "extra" else "yardstick.spread"):
        artifacts.load(saved)


def test_bytes_that_are_no_weights_are_refused_even_with_the_right_digest(saved):
    import hashlib

    (saved / artifacts.WEIGHTS).write_bytes(b"\x80\x04N.")
    edit(saved, weights=hashlib.sha256(b"\x80\x04N.").hexdigest())
    with pytest.raises(InvalidArtifact, match=r"weights\.safetensors"):
        artifacts.load(saved)


@pytest.mark.parametrize("name", [artifacts.MANIFEST, artifacts.WEIGHTS])
@pytest.mark.parametrize("sort", ["link", "pipe", "folder", "nothing"])
def test_only_regular_files_are_read(saved, tmp_path, name, sort):
    outside = tmp_path / "outside"
    (saved / name).rename(outside)
    if sort == "link":
        (saved / name).symlink_to(outside)
    elif sort == "pipe":
        os.mkfifo(saved / name)
    elif sort == "folder":
        (saved / name).mkdir()
    with pytest.raises(InvalidArtifact, match=name):
        artifacts.load(saved)


def test_a_file_that_is_too_large_is_not_read(saved):
    with (saved / artifacts.MANIFEST).open("r+b") as file:
        file.truncate(2 << 20)
    with pytest.raises(InvalidArtifact, match="larger than"):
        artifacts.load(saved)


def test_no_artifact_there_is_refused(tmp_path):
    with pytest.raises(InvalidArtifact, match="No such file"):
        artifacts.load(tmp_path / "nothing")
