"""``headrace train`` on folders of pictures."""

import numpy as np
import pytest
from PIL import Image

from models.artifact import load
from models.errors import TrainingError
from stream.commands.train import run_train
from stream.errors import ConfigError

PLAN = """
[input]
format = "pictures"

[detectors.tiles]
kind = "surface_inspector"
artifact = "{artifact}"
config = {{ steps = 2, filters = 4, crop = 32, batch = 2 }}
"""


def folder(path, kinds):
    rng = np.random.default_rng(0)
    for kind, count in kinds.items():
        (path / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(100, 140, (40, 48)).astype(np.uint8)
            mask = np.zeros(pixels.shape, np.uint8)
            mask[10:20, 10:30] = 255 * (kind != "good")
            Image.fromarray(pixels).save(path / kind / f"{number}.jpg")
            Image.fromarray(mask).save(path / kind / f"{number}.png")
    return path


def plan(path, artifact="tiles"):
    file = path / "headrace.toml"
    file.write_text(PLAN.format(artifact=artifact))
    return file


@pytest.mark.tensorflow
def test_kinds_are_learnt_where_there_are_some(tmp_path):
    pictures = folder(tmp_path / "pictures", {"good": 63, "crack": 2, "hole": 2})
    run_train(plan(tmp_path), [pictures])
    artifact = load(tmp_path / "tiles")
    assert artifact.class_names == ("normal", "crack", "hole")
    assert artifact.threshold(1.0) > 0


def test_what_cannot_be_is_told_before_anything_is_learnt(tmp_path):
    pictures = folder(tmp_path / "pictures", {"good": 5})
    with pytest.raises(TrainingError, match="at least 60"):
        run_train(plan(tmp_path), [pictures])
    with pytest.raises(ConfigError, match="--from-topic"):
        run_train(plan(tmp_path), [], topic_range=(None, None))
    with pytest.raises(ConfigError, match="one model for all"):
        run_train(plan(tmp_path, "{asset}/tiles"), [pictures])
