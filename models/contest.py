"""Which detector for this plant: a short contest on its own history, without a label.

The newest quarter of clean history is kept from every candidate. Faults of the usual sorts are laid over copies of it
(a step, a drift, noise, an oscillation, a sensor that rests, a signal that shows another time's values), each on one
signal, sized by what the signal does anyway. A candidate is worth what it finds of these rows at its own threshold, and
what it ranks above clean ones whatever the threshold (VUS-PR); false alarms on the untouched copy stand beside. Made-up
faults are not the plant's: take the order as a hint, and the figures as comparable among candidates only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float64, Progress, no_progress
from models.errors import TrainingError
from models.measures.volume import vus
from models.suites.judging import learn

#: What trains in seconds: a deep candidate has to be named.
QUICK: Final = ("innovations", "pca", "kmeans", "mset", "ewma")
_HELD_BACK: Final = 0.25
_LEAST_ROWS: Final = 400
_MOST_ROWS: Final = 12_000  # of history: more only costs time here
_FAULT: Final = 0.08  # of the held-back rows, each
_TOLERANCE: Final = 50  # rows
#: The sorts of made-up faults.
SORTS: Final = ("step", "drift", "noise", "oscillation", "rest", "other time")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a candidate did.

    found: share of the faults that alarmed; volume: mean VUS-PR; false_alarms: share of clean rows that alarmed.
    """

    detector: str
    found: float
    volume: float
    false_alarms: float

    @property
    def worth(self) -> float:
        """What candidates are ordered by."""
        return self.volume - self.false_alarms


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """What candidates learn from and are asked.

    learnt     (row, signal), clean
    clean      (row, signal), what follows it, clean as well: nothing may alarm there
    trials     rows with faults, (row, signal), and which these are, (row,); ``continues``: they too follow ``learnt``
    """

    learnt: Float64
    clean: Float64
    trials: Sequence[tuple[Float64, npt.NDArray[np.bool_]]]
    continues: bool = True

    def sit(self, detector: str, config: Mapping[str, Any], seed: int = 0) -> Standing:
        """Let one candidate learn and answer. Raises ``TrainingError``, ``UnknownDetector``, ``ValueError``."""
        fitted = learn(self.learnt, detector, config, seed)
        untouched = fitted.scores(self.clean, _times(self.clean), continues=True)
        faulty = [
            (labels, fitted.scores(values, _times(values), continues=self.continues)) for values, labels in self.trials
        ]
        return Standing(
            detector,
            found=float(np.mean([(scores[labels] >= 1).any() for labels, scores in faulty])),
            volume=float(np.mean([vus(labels, scores, _TOLERANCE)[0] for labels, scores in faulty])),
            false_alarms=float((untouched >= 1).mean()),
        )

    def digest(self) -> str:
        """Tells exams apart: another one for other rows or faults."""
        sha = hashlib.sha256()
        for array in (self.learnt, self.clean, *(part for trial in self.trials for part in trial)):
            sha.update(str(array.shape).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def made_up(history: Float64, seed: int = 0) -> Exam:
    """An exam without a label: faults of the usual sorts, laid over copies of the newest quarter of clean history.

    Raises ``TrainingError`` if there is too little history, or none that moves.
    """
    learnt, clean = _halves(history)
    trials = [with_fault(learnt, clean, sort, np.random.default_rng([seed, place])) for place, sort in enumerate(SORTS)]
    return Exam(learnt, clean, trials)


def labelled(history: Float64, faulty: Sequence[tuple[Float64, npt.NDArray[np.bool_]]]) -> Exam:
    """An exam of recordings with faults that are known: (row, signal), and which rows they are, (row,).

    What has no fault in it is left out. Raises ``TrainingError`` if nothing is left, or if there is too little history.
    """
    trials = [(values, labels) for values, labels in faulty if labels.any()]
    if not trials:
        raise TrainingError("no row of the recordings to judge by is labelled: give some with faults, or none at all")
    learnt, clean = _halves(history)
    return Exam(learnt, clean, trials, continues=False)


def contest(
    history: Float64, candidates: Sequence[str] = QUICK, *, seed: int = 0, progress: Progress = no_progress
) -> list[Standing]:
    """Let candidates compete on clean history (row, signal), in the order of time, NaN where missing; the best first.

    Raises ``TrainingError`` if there is too little history, ``UnknownDetector`` for a name.
    """
    exam, standings = made_up(history, seed), []
    for place, name in enumerate(candidates, 1):
        standings.append(exam.sit(name, {}, seed))
        progress(place, len(candidates), name)
    return sorted(standings, key=lambda standing: -standing.worth)


def _halves(history: Float64) -> tuple[Float64, Float64]:
    """The older three quarters of the newest rows, and the rest of them."""
    rows = history[-_MOST_ROWS:]
    if len(rows) < _LEAST_ROWS:
        raise TrainingError(f"a contest needs {_LEAST_ROWS} clean rows, there are {len(rows)}: give more history")
    cut = round((1 - _HELD_BACK) * len(rows))
    return rows[:cut], rows[cut:]


def _times(rows: Float64) -> npt.NDArray[np.int64]:
    return np.arange(len(rows)) * 1000


def with_fault(
    learnt: Float64, clean: Float64, sort: str, rng: np.random.Generator, *, least: int = 20, size: float = 1.0
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """A copy of ``clean`` with one fault on one signal that moves: values, and (row,) where the fault is.

    ``learnt``: (row, signal), whose spans size it; ``sort``: one of ``SORTS``; ``least``: rows that it lasts, three
    quarters of ``clean`` at most; ``size``: against what is usual here. Raises ``TrainingError`` if no signal moves.
    """
    spans = np.nanstd(learnt, axis=0)
    moving = np.flatnonzero(spans > 0)
    if not len(moving):
        raise TrainingError("no signal of the history moves: there is nothing to compete on")
    signal = int(rng.choice(moving))
    length = max(round(_FAULT * len(clean)), least)
    start = int(rng.integers(len(clean) // 4, len(clean) - length))
    time, fault = np.arange(length), slice(start, start + length)
    values, span = clean.copy(), spans[signal]
    part = values[fault, signal]
    begin = int(rng.integers(0, len(learnt) - length))
    values[fault, signal] = {
        "step": part + size * 1.5 * span,
        "drift": part + size * 2.5 * span * time / length,
        "noise": part + size * span * rng.normal(size=length),
        "oscillation": part + size * span * np.sin(2 * np.pi * time / 7.3),
        "rest": np.full(length, part[0]),
        "other time": learnt[begin : begin + length, signal],
    }[sort]
    labels = np.zeros(len(clean), bool)
    labels[fault] = True
    return values, labels
