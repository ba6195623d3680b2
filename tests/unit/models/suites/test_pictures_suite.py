from types import SimpleNamespace

import numpy as np
from PIL import Image

from models.base import Scored, no_progress
from models.measures.points import roc_auc
from models.pictures import Picture
from models.suites import magnetic_tile, tep
from models.suites.magnetic_tile import _halves, _spots


def test_each_kind_is_halved_and_no_picture_is_in_both():
    pictures = [
        Picture(f"{kind}-{n}", np.zeros((32, 32), np.uint8), kind) for kind in ("normal", "crack") for n in range(9)
    ]
    one, two = _halves(pictures, np.random.default_rng(0))
    assert (len(one), len(two)) == (8, 10)
    assert not {p.name for p in one} & {p.name for p in two}
    assert sum(p.kind == "crack" for p in one) == 4


def test_a_spot_is_of_the_defect_where_most_of_it_is_masked():
    mask = np.zeros((10, 13), bool)
    mask[0:4, 0:2] = True
    mask[4:8, 4:5] = True
    spots, heat = _spots(Picture("a", np.zeros((10, 13), np.uint8), "crack", mask), np.arange(12.0).reshape(3, 4))
    assert spots.tolist() == [True, False, False, False, False, False]
    assert heat.tolist() == [0, 1, 2, 4, 5, 6]
    assert roc_auc(spots, -heat) == 1.0


def test_faults_of_tep_begin_where_the_set_says(tmp_path):
    np.savetxt(tmp_path / "d04_te.dat", np.random.default_rng(0).normal(size=(200, 52)))
    faults = tep.labelled(tmp_path / "d04_te.dat", 160).faults
    assert faults is not None
    assert set(faults[:160]) == {"normal"}
    assert set(faults[160:]) == {"fault 4"}
    assert tep.diagnosis(tmp_path, 0, None, no_progress) == []


def test_the_study_takes_means_over_splits_and_learns_from_good_pictures_alone(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for kind, dark, count in (("MT_Free", 0, 8), ("MT_Crack", 60, 4), ("MT_Blowhole", 90, 4)):
        (tmp_path / kind).mkdir()
        for number in range(count):
            mask = np.zeros((40, 48), np.uint8)
            mask[8:16, 8:24] = 255 * (dark > 0)
            pixels = (rng.integers(115, 125, mask.shape) - dark * (mask > 0)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.jpg", quality=95)
            Image.fromarray(mask).save(tmp_path / kind / f"{number}.png")
    learnt = []

    class Dark:
        """Calls strange what is dark, and tells the kinds by how dark it is."""

        def score(self, pictures):
            heat = tuple(255.0 - p.reshape(10, 4, 12, 4).mean(axis=(1, 3)) for p in pictures)
            score = np.array([one.max() for one in heat])
            kinds = np.digitize(score, [160, 210])
            return Scored(score, np.ones((len(score), 1)), classes=np.eye(3)[kinds], heat=heat)

    def train(pictures, *, kinds=False, **_):
        learnt.append({picture.kind for picture in pictures})
        return SimpleNamespace(detector=Dark(), class_names=("normal", "crack", "blowhole"))

    monkeypatch.setattr(magnetic_tile, "train_inspector", train)
    figures = {f.name: f.value for f in magnetic_tile.study(tmp_path, 0, tmp_path / "scores", no_progress)}
    assert learnt == [{"normal"}, {"normal", "crack", "blowhole"}] * magnetic_tile.SPLITS
    assert figures["picture ROC-AUC, trained on good pictures alone"] == 1.0
    assert figures["pixel ROC-AUC, likewise"] == 1.0
    assert figures["macro-F1 of six classes, supervised"] == 1.0
    lines = (tmp_path / "scores" / "split-0.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 + 8
