"""Labelled recordings in, the artifact of a classifier out; and what it says of others.

Each stretch of one class is split in the order of time. In a rehearsal the classifier learns from the earlier part, and
the later one says how far from what was learnt the known still lies and, where it is normal, which score makes how many
false alarms. Then it learns from everything. A stretch that is too short to be split is learnt from whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from models import registry
from models.artifact import Artifact, assemble
from models.base import NORMAL, Classifier, Float64, Labelled, Progress, no_progress
from models.calibrate import calibrate
from models.datasets import Recording
from models.errors import TrainingError
from models.scaling import RobustScaler
from models.train import columns_of, half_of, infer_period_s, score_rows, score_series, unbroken

_SHARE: Final = 0.75  # of a stretch that the rehearsal learns from

_Stretch = tuple[Float64, npt.NDArray[np.str_]]


def train_classifier(
    recordings: Sequence[Recording],
    *,
    detector: str = "fault_classifier",
    signals: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    period_s: float | None = None,
    max_gap_s: float | None = None,
    progress: Progress = no_progress,
) -> Artifact:
    """Train on recordings whose ``faults`` say what was going on; those without count as normal throughout.

    Rows that ``labels`` calls wrong though no fault is named are left out: they are neither normal nor of a known kind.

    Arguments as of ``models.train.train``. Raises ``TrainingError`` naming the remedy, ``ValueError`` for a config that
    cannot be.
    """
    if not recordings:
        raise TrainingError("there is no recording to train on")
    names = tuple(signals) if signals is not None else recordings[0].signals
    period = period_s if period_s is not None else infer_period_s(recordings)
    stretches = [
        part
        for held in recordings
        for part in _stretches(held, names, 5.0 * period if max_gap_s is None else max_gap_s)
    ]
    found = sorted({name for _, told in stretches for name in told.tolist()} - {NORMAL})
    classes = (NORMAL, *found)
    if not found:
        raise TrainingError("no recording says which fault was when: give those with a column `fault`")
    normal = [values[told == NORMAL] for values, told in stretches if (told == NORMAL).any()]
    if not normal:
        raise TrainingError("no row is normal: the classifier has nothing to tell the faults from")
    scaler = RobustScaler.fit(normal)
    place = {name: number for number, name in enumerate(classes)}
    held = [
        Labelled(scaler.transform(values), np.array([place[name] for name in told.tolist()], np.int64))
        for values, told in stretches
    ]
    made = {**(config or {}), "classes": classes}
    rehearsal = cast("Classifier", registry.create(detector, signals=len(names), config=made))
    early, late = _split(held, rehearsal.window)
    report = rehearsal.fit_labelled(early, late, seed=seed, progress=half_of(progress, 0))
    calibration = calibrate(
        [
            score_rows(rehearsal, part.rows).score
            for part in late
            if not part.classes.any() and len(part.rows) >= rehearsal.window
        ],
        period_s=period,
        cluster_rows=rehearsal.window // 2,
    )
    serving = cast("Classifier", registry.create(detector, signals=len(names), config=made))
    serving.fit_labelled(held, late, seed=seed, progress=half_of(progress, 1))
    serving.limits = rehearsal.limits  # measured on windows that it had not learnt from
    return assemble(
        serving,
        scaler,
        calibration,
        signals=names,
        period_s=period,
        assets=tuple(sorted({recording.asset for recording in recordings})),
        rows={"fit": sum(len(part.rows) for part in held), "calibration": calibration.count},
        from_ms=min(int(recording.at_ms[0]) for recording in recordings),
        to_ms=max(int(recording.at_ms[-1]) for recording in recordings),
        seed=seed,
        figures={key: float(value) for key, value in report.figures.items()},
        curves={key: [float(value) for value in curve] for key, curve in report.curves.items()},
    )


def diagnose(artifact: Artifact, values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """What the classifier calls each row of a stretch (row, signal); empty before the first full window."""
    said = score_series(artifact, values).classes
    if said is None:
        raise ValueError(f"{artifact.detector.name} tells no faults apart")
    names = cast("Classifier", artifact.detector).class_names
    return ["" if np.isnan(row[0]) else names[int(row.argmax())] for row in said]


def _stretches(recording: Recording, names: Sequence[str], max_gap_s: float) -> list[_Stretch]:
    """Cut a recording at gaps and at what is of no known kind.

    Values (row, signal) of each stretch, and (row,) the name of what was going on.
    """
    values = columns_of(recording, names)
    told = np.full(len(values), NORMAL) if recording.faults is None else recording.faults
    known = np.ones(len(values), bool) if recording.labels is None else ~recording.labels | (told != NORMAL)
    return [(values[rows], told[rows]) for rows in unbroken(recording.at_ms, known, max_gap_s)]


def _split(held: Sequence[Labelled], window: int) -> tuple[list[Labelled], list[Labelled]]:
    """Cut each run of one class into an earlier and a later part; one too short for windows in both stays whole."""
    early, late = [], []
    for part in held:
        start = 0
        for end in [*(np.flatnonzero(np.diff(part.classes)) + 1).tolist(), len(part.rows)]:
            first = int(max(end - start - max((1 - _SHARE) * (end - start), 1.5 * window), 0))
            cut = start + first if first > window else end
            early.append(Labelled(part.rows[start:cut], part.classes[start:cut]))
            if cut < end:
                late.append(Labelled(part.rows[cut:end], part.classes[cut:end]))
            start = end
    return early, late
