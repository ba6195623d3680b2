import functools
from typing import Any

import numpy as np
import pytest

from models.artifact import load
from models.errors import InvalidArtifact, TrainingError
from models.inspection import train_inspector
from models.measures.points import roc_auc
from models.registry import create
from models.simulate_tiles import DEFECTS, tile

SMALL = {"steps": 120, "crop": 96, "batch": 8, "filters": 12}


def tiles(count, seed, kinds=("normal",)):
    rng = np.random.default_rng(seed)
    return [tile(rng, kinds[number % len(kinds)]) for number in range(count)]


def judged(artifact, pictures):
    inspector: Any = artifact.detector
    return inspector.score([picture.pixels for picture in pictures])


@functools.cache
def trained():
    return train_inspector(tiles(75, 0), detector="surface_inspector", config=SMALL)


@pytest.mark.tensorflow
def test_trained_on_good_pictures_alone_it_finds_defects_and_where_they_are(tmp_path):
    artifact = load(trained().save(tmp_path / "artifact"))
    assert artifact.inspects
    assert artifact.manifest.figures["parity"] < 1e-3
    pictures = [*tiles(30, 5), *tiles(30, 6, DEFECTS)]
    scored = judged(artifact, pictures)
    assert roc_auc(np.arange(60) >= 30, scored.score) > 0.9
    places = []
    for picture, heat in zip(pictures[30:], scored.heat[30:], strict=True):
        assert heat.shape == tuple(n // 4 for n in picture.pixels.shape)
        row, column = divmod(int(heat.argmax()), heat.shape[1])
        near = picture.mask[max(4 * row - 8, 0) : 4 * row + 12, max(4 * column - 8, 0) : 4 * column + 12]
        places.append(bool(near.any()))
    assert np.mean(places) > 0.8


@pytest.mark.tensorflow
def test_a_picture_is_judged_alone_and_the_same_each_time():
    pictures = [picture.pixels for picture in tiles(4, 7, DEFECTS)]
    inspector = trained().detector
    together = inspector.score(pictures)
    for number, pixels in enumerate(pictures):
        alone = inspector.score([pixels])
        assert alone.score.tobytes() == together.score[number : number + 1].tobytes()
        assert alone.heat[0].tobytes() == together.heat[number].tobytes()
    assert np.isfinite(inspector.score([np.zeros((33, 47), np.uint8), np.full((64, 35), 255, np.uint8)]).score).all()


@pytest.mark.tensorflow
def test_damaged_weights_are_refused_by_name():
    weights = trained().detector.weights()
    for key, array in weights.items():
        broken = array.copy()
        broken.flat[0] = np.nan
        for damaged in ({k: v for k, v in weights.items() if k != key}, weights | {key: broken}):
            with pytest.raises(InvalidArtifact, match=key):
                create("surface_inspector", signals=1, config=SMALL).load_weights(damaged)


@pytest.mark.tensorflow
def test_shown_the_kinds_of_defects_it_tells_them_apart():
    artifact = train_inspector(
        tiles(60, 0) + tiles(45, 1, DEFECTS), detector="surface_inspector", config=SMALL, kinds=True
    )
    assert artifact.class_names == ("normal", "crack", "hole", "stain")
    pictures = tiles(30, 8, DEFECTS)
    said = judged(artifact, pictures).classes.argmax(axis=1)
    assert np.mean([artifact.class_names[k] == p.kind for k, p in zip(said, pictures, strict=True)]) > 0.8


@pytest.mark.tensorflow
def test_the_autoencoder_finds_what_it_cannot_give_back(tmp_path):
    config = {"steps": 150, "crop": 96, "batch": 8, "filters": 8}
    artifact = load(train_inspector(tiles(75, 0), detector="picture_autoencoder", config=config).save(tmp_path / "a"))
    assert artifact.class_names == ()
    scored = judged(artifact, [*tiles(30, 5), *tiles(30, 6, ("hole", "crack"))])
    assert roc_auc(np.arange(60) >= 30, scored.score) > 0.8
    assert scored.classes is None
    weights = artifact.detector.weights()
    for key in ("code.kernel", "usual.spread", "parity.output"):
        with pytest.raises(InvalidArtifact, match=key):
            create("picture_autoencoder", signals=1, config=config).load_weights(
                {k: v for k, v in weights.items() if k != key}
            )


def test_kinds_are_not_for_an_inspector_that_names_none():
    with pytest.raises(TrainingError, match="picture_autoencoder tells no kinds apart"):
        train_inspector(tiles(75, 0), detector="picture_autoencoder", kinds=True)


def test_too_few_good_pictures_are_told():
    with pytest.raises(TrainingError, match="at least 60"):
        train_inspector(tiles(20, 0))
