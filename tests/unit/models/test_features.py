"""The inspector with pretrained features: trained in seconds and without TensorFlow."""

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from models import backbone, patches
from models.artifact import load
from models.errors import InvalidArtifact, TrainingError
from models.inspection import train_inspector
from models.measures.points import roc_auc
from models.registry import create
from models.simulate_tiles import DEFECTS, tile

DETECTOR = "feature_inspector"
SMALL = {"versions": 1, "epochs": 6, "hidden": 16}


def tiles(count, seed, kinds=("normal",)):
    rng = np.random.default_rng(seed)
    return [tile(rng, kinds[number % len(kinds)]) for number in range(count)]


def judged(artifact, pictures):
    inspector: Any = artifact.detector
    return inspector.score([picture.pixels for picture in pictures])


@functools.cache
def trained():
    return train_inspector(tiles(60, 0), detector=DETECTOR, config=SMALL)


@functools.cache
def trained_on_kinds():
    return train_inspector(tiles(60, 0) + tiles(30, 1, DEFECTS), detector=DETECTOR, config=SMALL, kinds=True)


def test_trained_on_good_pictures_alone_it_finds_defects_and_where_they_are():
    pictures = [*tiles(20, 5), *tiles(21, 6, DEFECTS)]
    scored = judged(trained(), pictures)
    assert roc_auc(np.arange(41) >= 20, scored.score) > 0.95
    assert (scored.contributions == 1).all()
    places = []
    for picture, heat in zip(pictures[20:], scored.heat[20:], strict=True):
        assert heat.shape == tuple(n // 4 for n in picture.pixels.shape)
        row, column = divmod(int(heat.argmax()), heat.shape[1])
        near = picture.mask[max(4 * row - 8, 0) : 4 * row + 12, max(4 * column - 8, 0) : 4 * column + 12]
        places.append(bool(near.any()))
    assert np.mean(places) > 0.8


def test_shown_the_kinds_of_defects_it_tells_them_apart():
    artifact = trained_on_kinds()
    assert artifact.class_names == ("normal", "crack", "hole", "stain")
    pictures = [*tiles(21, 8, DEFECTS), *tiles(21, 9)]
    classes = judged(artifact, pictures).classes
    assert classes.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    said = [artifact.class_names[number] for number in classes.argmax(axis=1)]
    assert np.mean([name == picture.kind for name, picture in zip(said, pictures, strict=True)]) > 0.8


@pytest.mark.parametrize("made", [trained, trained_on_kinds])
def test_what_is_loaded_needs_no_weights_of_its_own_and_says_the_same(tmp_path, monkeypatch, made):
    pictures = tiles(3, 7, DEFECTS)
    wanted = judged(made(), pictures)
    monkeypatch.setattr(backbone, "_PACKAGE", "no_such_package_of_weights")
    found = judged(load(made().save(tmp_path / "artifact")), pictures)
    assert found.score.tobytes() == wanted.score.tobytes()
    assert found.classes.tobytes() == wanted.classes.tobytes()
    assert (tmp_path / "artifact" / "weights.safetensors").stat().st_size < 8 << 20
    with pytest.raises(TrainingError, match=r"headrace\[pictures\]"):
        train_inspector(tiles(60, 0), detector=DETECTOR, config=SMALL)


def test_a_picture_is_judged_alone_and_the_same_each_time():
    pictures = [picture.pixels for picture in tiles(3, 7, DEFECTS)]
    inspector: Any = trained().detector
    together = inspector.score(pictures)
    for number, pixels in enumerate(pictures):
        alone = inspector.score([pixels])
        assert alone.score.tobytes() == together.score[number : number + 1].tobytes()
        assert alone.heat[0].tobytes() == together.heat[number].tobytes()
    odd = inspector.score([np.zeros((33, 47), np.uint8), np.full((64, 35), 255, np.uint8)])
    assert np.isfinite(odd.score).all()
    assert [heat.shape for heat in odd.heat] == [(9, 12), (16, 9)]


def test_damaged_weights_are_refused_by_name():
    weights = trained_on_kinds().detector.weights()
    config = {**SMALL, "classes": ["normal", "crack", "hole", "stain"]}
    names = [name for name in weights if not name.startswith("backbone.block")]
    assert len(names) > 20
    for key in [*names, "backbone.block10.filter.kernel"]:
        broken = weights[key].copy()
        broken.flat[0] = np.nan
        for damaged in ({k: v for k, v in weights.items() if k != key}, weights | {key: broken}):
            with pytest.raises(InvalidArtifact, match=key):
                create(DETECTOR, signals=1, config=config).load_weights(damaged)
    for key in ("kind.spread", "usual3.spread", "made_up.spread"):
        with pytest.raises(InvalidArtifact, match="above 0"):
            create(DETECTOR, signals=1, config=config).load_weights(weights | {key: 0 * weights[key]})


def test_a_kind_without_a_drawn_mask_is_told():
    good, drawn = tiles(60, 0), tiles(3, 1, DEFECTS)
    classes = ["normal", "crack", "dent"]
    inspector: Any = create(DETECTOR, signals=1, config={**SMALL, "classes": classes})
    with pytest.raises(TrainingError, match="drawn mask of dent"):
        inspector.fit_pictures([*good[:5], *drawn], good[5:8])


def test_features_lie_where_the_picture_has_them():
    weights = backbone.pretrained(patches.BLOCKS)
    pixels = np.full((96, 160), 100, np.uint8)
    plain = patches.read(weights, pixels + np.uint8(1))
    pixels[40:56, 120:136] = 20
    for level, empty in zip(patches.read(weights, pixels), plain, strict=True):
        assert level.shape[:2] == (12, 20)
        change = np.abs(level - empty).sum(axis=-1)
        row, column = divmod(int(change.argmax()), 20)
        assert 3 <= row <= 8
        assert 13 <= column <= 18


def test_enlarging_goes_straight_between_neighbours():
    small = np.arange(12, dtype=np.float32).reshape(3, 4)
    large = patches.enlarged(small, (6, 7))
    assert large.shape == (6, 7)
    assert large[0, :3] == pytest.approx([0, 0.25, 0.75])
    assert large[:3, 0] == pytest.approx([0, 1, 3])
    assert large.max() <= small.max()


def test_neither_training_nor_scoring_asks_for_tensorflow():
    code = (
        "import sys, numpy as np; from models.inspection import train_inspector; "
        "from models.simulate_tiles import tile; rng = np.random.default_rng(0); "
        "train_inspector([tile(rng) for _ in range(60)], detector='feature_inspector', "
        "config={'versions': 1, 'epochs': 1, 'hidden': 2, 'pictures': 3}); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
