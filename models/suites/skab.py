"""Skoltech Anomaly Benchmark: a water loop with eight sensors; 400 rows to learn from in each file, then faults.

A clock that ignores the data scores .93 here, since faults begin near the same row of every file; so the score is told
again with the first rows of each test part left out. Change points are the rows at which alerts open and resolve; that
score is as easily gamed, so that of a clock stands beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.datasets import read
from models.errors import DataError
from models.measures.changepoints import changepoint_score
from models.measures.nab import PROFILES
from models.measures.points import Confusion
from models.suites.base import Bool, Case, Figure, Judged, Suite

_LEARNT = 400
_DROPPED = (50, 100, 150)
_CLOCK = 60
_DEAD_BAND = 0.1  # as in a plan's defaults


def cases(folder: Path) -> list[Case]:
    """Every CSV file below the folder with a column ``changepoint``, save those without a fault."""
    files = sorted(folder.rglob("*.csv"), key=lambda file: (file.parent.name, len(file.stem), file.stem))
    found = [case for file in files if (case := _case(file)) is not None]
    if not found:
        raise DataError(f"{folder}: no CSV file with a column `changepoint` and {_LEARNT} rows, as SKAB has them")
    return found


def _case(file: Path) -> Case | None:
    with file.open(encoding="utf-8") as text:
        rows = list(csv.reader(text, delimiter=";"))
    if "changepoint" not in rows[0]:
        return None
    (recording,) = read(file)
    column = rows[0].index("changepoint")
    changes = np.array([float(row[column]) > 0 for row in rows[1:]])
    if recording.labels is None or len(recording.values) <= _LEARNT:
        return None
    return Case(
        key=f"{file.parent.name}/{file.stem}",
        train=recording.values[:_LEARNT],
        test=recording.values[_LEARNT:],
        labels=recording.labels[_LEARNT:],
        at_ms=recording.at_ms[_LEARNT:],
        continues=True,
        about={"changes": changes[_LEARNT:]},
    )


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """Rows of all files together, as the benchmark counts them; then change points."""

    def counted(first: int) -> Confusion:
        return reduce(add, (Confusion.of(one.case.labels[first:], one.alarms[first:]) for one in judged))

    whole = counted(0)
    moved = max(abs(counted(first).f1 - whole.f1) for first in _DROPPED)
    told = [
        Figure("F1", whole.f1, bar=0.85),
        Figure("false alarm rate", whole.false_alarm_rate, bar=0.17, lower_is_better=True),
        Figure("missing alarm rate", whole.missing_alarm_rate, bar=0.17, lower_is_better=True),
        *(Figure(f"F1 without the first {first} rows", counted(first).f1) for first in _DROPPED),
        Figure("largest move of F1 without the first rows", moved, bar=0.02, lower_is_better=True),
    ]
    changes = [one.case.at_ms[one.case.about["changes"]] for one in judged]
    if not sum(map(len, changes)):
        return told
    turned = [one.case.at_ms[turns(one.scores)] for one in judged]
    clock = [one.case.at_ms[::_CLOCK] for one in judged]
    told += [
        Figure(
            f"change points, {name}",
            changepoint_score(zip(changes, turned, strict=True), profile),
            bar=32.4 if name == "standard" else None,
        )
        for name, profile in PROFILES.items()
    ]
    told.append(
        Figure(f"change points of a clock of {_CLOCK} rows", changepoint_score(zip(changes, clock, strict=True)))
    )
    return told


def turns(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows at which an alert would open and resolve, with the plan's dead band and no delays."""
    found, on = [], False
    for row, score in enumerate(scores.tolist()):
        if score >= 1.0 if not on else score < 1.0 - _DEAD_BAND:
            on = not on
            found.append(row)
    return np.array(found, np.int64)


def lines(judged: Judged) -> Mapping[str, Sequence[Any]]:
    """Scores, alarms and change points beside the labels."""
    change = np.zeros(len(judged.scores), bool)
    change[turns(judged.scores)] = True
    return {
        "score": judged.scores.tolist(),
        "alarm": _numbers(judged.alarms),
        "change": _numbers(change),
        "label": _numbers(judged.case.labels),
        "label_change": _numbers(judged.case.about["changes"]),
    }


def _numbers(flags: Bool) -> list[int]:
    return [int(flag) for flag in flags.tolist()]


SUITE = Suite(
    name="skab",
    about="Skoltech Anomaly Benchmark",
    detector="innovations",
    cases=cases,
    figures=figures,
    published=(
        ("Conv-AE (FAR .136, MAR .280)", 0.78),
        ("MSET (FAR .397, MAR .141)", 0.78),
        ("PCA T2+Q (FAR .266, MAR .249)", 0.76),
        ("LSTM-AE", 0.74),
        ("change points, standard: MSCRED", 32.4),
        ("change points, standard: isolation forest", 26.2),
        ("change points, standard: PCA T2+Q", 25.4),
    ),
    lines=lines,
)
