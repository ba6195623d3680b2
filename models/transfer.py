"""What made windows are worth: a classifier that learnt from them, asked about real recordings.

Train on synthetic, test on real (Esteban et al. 2017): a distance between distributions sees all of a window alike, a
classifier needs just what tells the classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.base import Progress, no_progress
from models.datasets import Recording
from models.diagnosis import diagnose, train_classifier
from models.errors import TrainingError
from models.measures.classes import ClassTable


def judged_by(
    learnt_from: Sequence[Recording],
    asked_about: Sequence[Recording],
    *,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    period_s: float | None = None,
    progress: Progress = no_progress,
) -> ClassTable:
    """Train ``fault_classifier`` on the one and let it tell every row of the other that has a full window.

    Raises ``TrainingError`` if there is too little, or if what is asked about is not labelled.
    """
    if any(held.faults is None for held in asked_about):
        raise TrainingError("recordings to judge by need a column `fault`")
    artifact = train_classifier(learnt_from, config=config, seed=seed, period_s=period_s, progress=progress)
    truth: list[str] = []
    said: list[str] = []
    for held in asked_about:
        values = held.values[:, [held.signals.index(name) for name in artifact.signals]]
        told = diagnose(artifact, values)
        wanted = [] if held.faults is None else held.faults.tolist()
        for name, answer in zip(wanted, told, strict=True):
            if answer:
                truth.append(name)
                said.append(answer)
    if not truth:
        raise TrainingError(f"no recording to judge by is as long as a window, {artifact.window} rows")
    return ClassTable.of(truth, said)
