"""Pictures in, the artifact of an inspector out.

Good pictures are dealt into those that are learnt from, two in three, and those that say what is usual and which score
makes how many false alarms. Pictures come one by one and know nothing of each other, so they are dealt at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models import registry
from models.artifact import Artifact, assemble
from models.base import NORMAL, Progress, no_progress
from models.calibrate import LEAST_SCORES, calibrate
from models.errors import TrainingError
from models.pictures import Picture
from models.scaling import RobustScaler

#: The one signal of a picture: its mean grey value.
SIGNAL: Final = "picture"
_KEPT: Final = 3  # of so many good pictures one is not learnt from


def train_inspector(
    pictures: Sequence[Picture],
    *,
    detector: str = "feature_inspector",
    config: Mapping[str, Any] | None = None,
    kinds: bool = False,
    seed: int = 0,
    period_s: float = 1.0,
    progress: Progress = no_progress,
) -> Artifact:
    """Train on the good pictures, or with ``kinds`` on the defects as well: it then tells them apart.

    period_s  seconds from one picture of a station to the next

    Raises ``TrainingError`` naming the remedy, ``ValueError`` for a config that cannot be.
    """
    good = [picture for picture in pictures if picture.kind == NORMAL]
    order = np.random.default_rng(seed).permutation(len(good))
    kept = [good[place] for place in order[::_KEPT]]
    if len(kept) < LEAST_SCORES:
        raise TrainingError(f"{len(good)} good pictures, at least {_KEPT * LEAST_SCORES} are needed")
    learnt = [good[place] for rank, place in enumerate(order) if rank % _KEPT]
    made = dict(config or {})
    if kinds:
        if not registry.names_kinds(detector):
            raise TrainingError(f"{detector} tells no kinds apart: train it on good pictures alone")
        defects = [picture for picture in pictures if picture.kind != NORMAL and picture.mask is not None]
        made["classes"] = (NORMAL, *sorted({picture.kind for picture in defects}))
        learnt += defects
    inspector: Any = registry.create(detector, signals=1, config=made)
    report = inspector.fit_pictures(learnt, kept, seed=seed, progress=progress)
    scores = inspector.score([picture.pixels for picture in kept]).score
    calibration = calibrate([scores], period_s=period_s, cluster_rows=1)
    return assemble(
        inspector,
        RobustScaler(np.zeros(1), np.ones(1)),
        calibration,
        signals=(SIGNAL,),
        period_s=period_s,
        assets=(),
        rows={"fit": len(learnt), "calibration": calibration.count},
        from_ms=0,
        to_ms=0,
        seed=seed,
        figures={key: float(value) for key, value in report.figures.items()},
        curves={key: [float(value) for value in curve] for key, curve in report.curves.items()},
    )
