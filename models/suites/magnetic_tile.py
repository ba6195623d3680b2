"""Magnetic tiles (Huang et al. 2018): pictures of ground surfaces, good ones and five kinds of defects with masks.

Good against defect: trained on half of the good pictures, judged on the other half and all defects. Which defect:
trained on half of the pictures of each kind, judged on the other half. Halves are drawn by lot, ``SPLITS`` times;
figures are means over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.base import NORMAL, Float64, Progress
from models.errors import DataError
from models.inspection import train_inspector
from models.measures.classes import ClassTable
from models.measures.points import roc_auc
from models.pictures import Picture, read_folder
from models.suites.base import Figure, Suite
from models.suites.kept import Kept

SPLITS: Final = 2
DETECTOR: Final = "feature_inspector"
#: Tells the kinds apart better, and takes minutes where the other takes one.
TELLS_KINDS: Final = "surface_inspector"
_Halves = tuple[list[Picture], list[Picture]]


def study(folder: Path, seed: int, scores: Path | None, progress: Progress) -> list[Figure]:
    """Train and judge for each split. Raises ``DataError`` if there are no pictures."""
    pictures = read_folder(folder)
    if not any(picture.kind == NORMAL for picture in pictures):
        raise DataError(f"{folder}: expected MT_Free and folders of defects, as the magnetic tile set has them")
    found: dict[str, list[float]] = {"area": [], "pixels": [], "kinds": []}
    kept = Kept(
        None if scores is None else scores / "answers.json",
        {
            "seed": seed,
            "detectors": [DETECTOR, TELLS_KINDS],
            "folder": str(folder.resolve()),
            "pictures": len(pictures),
        },
    )
    for split in range(SPLITS):
        halves = _halves(pictures, np.random.default_rng([seed, split]))

        def good_or_not(halves: _Halves = halves, split: int = split) -> tuple[float, float]:
            area, pixels, lines = _good_or_not(halves, pictures, seed + split, progress)
            if scores is not None:
                scores.mkdir(parents=True, exist_ok=True)
                (scores / f"split-{split}.csv").write_text("picture,kind,score\n" + "".join(lines), encoding="utf-8")
            return area, pixels

        def kinds(halves: _Halves = halves, split: int = split) -> float:
            return _which(halves, seed + split, progress)

        area, pixels = kept.get(f"good or not {split}", good_or_not)
        found["area"].append(area)
        found["pixels"].append(pixels)
        found["kinds"].append(kept.get(f"kinds {split}", kinds))
    return [
        Figure("picture ROC-AUC, trained on good pictures alone", float(np.mean(found["area"])), bar=0.85),
        Figure("pixel ROC-AUC, likewise", float(np.mean(found["pixels"]))),
        Figure("macro-F1 of six classes, supervised", float(np.mean(found["kinds"])), bar=0.80),
        Figure("lowest picture ROC-AUC of a split", float(np.min(found["area"]))),
    ]


def _halves(pictures: Sequence[Picture], rng: np.random.Generator) -> _Halves:
    """Half of each kind, and the other half."""
    one: list[Picture] = []
    two: list[Picture] = []
    for kind in sorted({picture.kind for picture in pictures}):
        mine = [picture for picture in pictures if picture.kind == kind]
        order = rng.permutation(len(mine))
        one += [mine[place] for place in order[: len(mine) // 2]]
        two += [mine[place] for place in order[len(mine) // 2 :]]
    return one, two


def _good_or_not(
    halves: _Halves, pictures: Sequence[Picture], seed: int, progress: Progress
) -> tuple[float, float, list[str]]:
    one, two = halves
    artifact = train_inspector(
        [picture for picture in one if picture.kind == NORMAL], detector=DETECTOR, seed=seed, progress=progress
    )
    judged = [picture for picture in two if picture.kind == NORMAL]
    judged += [picture for picture in pictures if picture.kind != NORMAL]
    inspector: Any = artifact.detector
    scored = inspector.score([picture.pixels for picture in judged])
    defect = np.array([picture.kind != NORMAL for picture in judged])
    masks, heats = zip(*(_spots(p, heat) for p, heat in zip(judged, scored.heat, strict=True)), strict=True)
    lines = [f"{p.name},{p.kind},{score!r}\n" for p, score in zip(judged, scored.score.tolist(), strict=True)]
    return roc_auc(defect, scored.score), roc_auc(np.concatenate(masks), np.concatenate(heats)), lines


def _spots(picture: Picture, heat: Float64) -> tuple[Any, Any]:
    """(spot,) whether most of it is masked, and its heat."""
    rows, columns = (n // 4 for n in picture.pixels.shape)
    if picture.mask is None:
        return np.zeros(rows * columns, bool), heat[:rows, :columns].ravel()
    cut = picture.mask[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4)
    return (cut.mean(axis=(1, 3)) >= 0.5).ravel(), heat[:rows, :columns].ravel()


def _which(halves: _Halves, seed: int, progress: Progress) -> float:
    one, two = halves
    artifact = train_inspector(one, detector=TELLS_KINDS, kinds=True, seed=seed, progress=progress)
    inspector: Any = artifact.detector
    classes = inspector.score([picture.pixels for picture in two]).classes
    said = [artifact.class_names[int(row.argmax())] for row in classes]
    return ClassTable.of([picture.kind for picture in two], said).macro_f1


SUITE = Suite(
    name="magnetic_tile",
    about="magnetic tiles, pictures of surfaces",
    detector=DETECTOR,
    cases=lambda _: (),
    figures=lambda _: (),
    published=(("GeoTrans", 0.755), ("GANomaly", 0.766), ("1-NN of pretrained features", 0.800), ("DifferNet", 0.977)),
    study=study,
)
