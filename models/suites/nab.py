"""The Numenta Anomaly Benchmark: single signals, no training; the score at a fixed threshold and at the best one."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import DataError
from models.measures.nab import PROFILES, Series, best_threshold, nab_score, probation
from models.suites.base import Case, Figure, Judged, Suite

_FOUND_WITHIN = 3.0  # points that the score at the fixed threshold may lie below the one at the best


def cases(folder: Path) -> list[Case]:
    """Every ``data/<category>/<file>.csv`` with the windows of ``labels/combined_windows.json``."""
    files, labels = sorted((folder / "data").glob("*/*.csv")), folder / "labels" / "combined_windows.json"
    if not files or not labels.exists():
        raise DataError(f"{folder}: expected data/<category>/*.csv and labels/combined_windows.json, as NAB has them")
    windows = json.loads(labels.read_text(encoding="utf-8"))
    return [_case(file, windows.get(f"{file.parent.name}/{file.name}", [])) for file in files]


def _case(file: Path, windows: Sequence[tuple[str, str]]) -> Case:
    """A file row by row, in its own order, as the benchmark takes it: a window is from the row of its first time on."""
    with file.open(encoding="utf-8") as text:
        rows = list(csv.reader(text))[1:]
    try:
        times = [datetime.fromisoformat(row[0]).replace(tzinfo=UTC) for row in rows]
        values = np.array([[float(row[1])] for row in rows])
        edges = [[times.index(datetime.fromisoformat(edge).replace(tzinfo=UTC)) for edge in pair] for pair in windows]
    except (ValueError, IndexError) as error:
        raise DataError(f"{file}: {error}; expected timestamp,value and windows that begin and end on rows") from None
    labels = np.zeros(len(rows), bool)
    for first, last in edges:
        labels[first : last + 1] = True
    return Case(
        key=f"{file.parent.name}/{file.stem}",
        train=values[: probation(len(rows))],
        test=values,
        labels=labels,
        at_ms=np.array([round(time.timestamp() * 1000) for time in times], np.int64),
        cold=True,
        about={
            "windows": [(first, last) for first, last in edges],
            "category": file.parent.name,
            "timestamps": [row[0] for row in rows],
        },
    )


def _series(judged: Sequence[Judged]) -> list[Series]:
    return [Series(one.scores, one.case.about["windows"]) for one in judged]


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """The three profiles at the fixed threshold and at their best, and each category's standard score."""
    series = _series(judged)
    fixed = nab_score(series, 1.0)
    best = best_threshold(series)[1]
    told = [Figure("standard, fixed threshold", fixed, bar=80.0)]
    told += [Figure(f"{name}, fixed threshold", nab_score(series, 1.0, PROFILES[name])) for name in list(PROFILES)[1:]]
    told += [Figure(f"{name}, best threshold", best_threshold(series, PROFILES[name])[1]) for name in PROFILES]
    told += [Figure("best less fixed, standard", best - fixed, bar=_FOUND_WITHIN, lower_is_better=True)]
    categories = sorted({one.case.about["category"] for one in judged})
    for category in categories:
        own = _series([one for one in judged if one.case.about["category"] == category])
        if any(one.windows for one in own):
            told.append(Figure(f"standard, {category}", nab_score(own, 1.0)))
    return told


def lines(judged: Judged) -> Mapping[str, Sequence[Any]]:
    """As NAB's own result files, so that its scorer can be run over them: between 0 and 1, alarms from 0.5 on."""
    return {
        "timestamp": judged.case.about["timestamps"],
        "value": judged.case.test[:, 0].tolist(),
        "anomaly_score": (judged.scores / (1 + judged.scores)).tolist(),
    }


SUITE = Suite(
    name="nab",
    about="Numenta Anomaly Benchmark",
    detector="novelty",
    cases=cases,
    figures=figures,
    published=(
        ("ARTime (told each file's minimum and maximum)", 74.9),
        ("HTM", 70.5),
        ("CAD-OSE", 69.9),
        ("KNN-CAD", 58.0),
        ("relative entropy", 54.6),
        ("random cut forest", 51.7),
        ("windowed Gaussian", 39.6),
        ("random", 11.0),
    ),
    lines=lines,
)
