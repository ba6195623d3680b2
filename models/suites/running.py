"""Runs a suite: every case in a process of its own, scores written as they come, figures at the end.

What was scored before with the same detector, configuration, seed and code is not scored again: each score file is
written whole or not at all, and ``run.json`` beside them says what they were made with.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.base import Progress, no_progress
from models.suites import magnetic_tile, nab, skab, telemetry, tep, virtual_data
from models.suites.base import Case, Figure, Judged, Suite
from models.suites.judging import judge
from models.suites.kept import code_digest

SUITES: Final[Mapping[str, Suite]] = {
    suite.name: suite
    for suite in (
        nab.SUITE,
        skab.SUITE,
        tep.SUITE,
        telemetry.SERVERS,
        telemetry.SPACECRAFT,
        magnetic_tile.SUITE,
        virtual_data.SUITE,
    )
}
_ABOUT: Final = "run.json"
#: One thread each: two pools on two cores fight.
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of a suite gave."""

    suite: Suite
    detector: str
    cases: int
    figures: Sequence[Figure]

    def records(self) -> list[dict[str, Any]]:
        """One a figure, as JSON has them."""
        return [{"suite": self.suite.name, "detector": self.detector} | figure.record() for figure in self.figures]


def run(
    suite: Suite,
    folder: Path,
    *,
    detector: str | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    scores: Path | None = None,
    processes: int | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Judge every case of a folder and measure.

    ``scores``: where per-row scores go, and where an interrupted run finds what it has; ``progress`` counts cases.

    Raises ``DataError`` if the folder is not laid out like the benchmark, ``UnknownDetector``, ``ValueError`` for a
    config, and whatever a detector raises on a case.
    """
    chosen = detector or suite.detector
    settings = dict(config if config is not None else suite.config if chosen == suite.detector else {})
    cases = suite.cases(folder)
    into = None if scores is None else scores / suite.name / chosen
    made_with = {
        "detector": chosen,
        "config": settings,
        "seed": seed,
        "code": code_digest(),
        "folder": str(folder.resolve()),
    }
    known = {} if into is None else _known(into, made_with, cases)
    judged = dict(known)
    for done, key in enumerate(known, 1):
        progress(done, len(cases), key)
    todo = [case for case in cases if case.key not in known]
    for one in _judged(todo, chosen, settings, seed, processes or os.cpu_count() or 1):
        judged[one.case.key] = one
        if into is not None:
            _write(into / f"{one.case.key}.csv", suite.lines(one), one)
        progress(len(judged), len(cases), one.case.key)
    figures = list(suite.figures([judged[case.key] for case in cases]))
    if suite.study is not None and detector is None:
        figures += suite.study(folder, seed, None if scores is None else scores / suite.name, progress)
    return Result(suite, chosen, len(cases), figures)


def _judged(
    cases: Sequence[Case], detector: str, config: Mapping[str, Any], seed: int, processes: int
) -> Iterator[Judged]:
    if processes == 1 or len(cases) <= 1:
        for case in cases:
            yield judge(case, detector, config, seed)
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
        with ProcessPoolExecutor(min(processes, len(cases)), mp_context=context) as pool:
            largest_first = sorted(cases, key=lambda case: -case.test.size)
            waiting = {pool.submit(judge, case, detector, config, seed): case for case in largest_first}
            for future in as_completed(waiting):
                yield Judged(waiting[future], future.result().scores)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _known(into: Path, made_with: Mapping[str, Any], cases: Sequence[Case]) -> dict[str, Judged]:
    """What an earlier run with the same settings has scored; a folder of other settings is begun anew."""
    about = into / _ABOUT
    if not about.exists() or json.loads(about.read_text(encoding="utf-8")) != made_with:
        for file in into.rglob("*.csv"):
            file.unlink()
        into.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps(made_with), encoding="utf-8")
        return {}
    found = {}
    for case in cases:
        file = into / f"{case.key}.csv"
        if file.exists():
            with file.open(encoding="utf-8") as text:
                exact = [float.fromhex(row["exact"]) for row in csv.DictReader(text)]
            if len(exact) == len(case.test):
                found[case.key] = Judged(case, np.array(exact))
    return found


def _write(file: Path, lines: Mapping[str, Sequence[Any]], judged: Judged) -> None:
    """A CSV file with a row a row of the test; ``exact`` holds the score's bits, for a run that goes on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = dict(lines)
    columns.setdefault("label", judged.case.labels.astype(int).tolist())
    columns["exact"] = [float(score).hex() for score in judged.scores]
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    Path(name).replace(file)
