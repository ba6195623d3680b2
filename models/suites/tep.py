"""Tennessee Eastman process: 52 signals, learnt from normal operation, faults from row 160 of each test file on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.base import NORMAL, Progress
from models.datasets import Recording, read
from models.diagnosis import diagnose, train_classifier
from models.errors import DataError
from models.measures.classes import ClassTable
from models.suites.base import Case, Figure, Judged, Suite

_NORMAL = "d00"
BEGIN = 160  # the row at which a test file's fault begins
_COUNTED = (1, 2, 4, 5, 6, 7, 8, 10)
HARD = (3, 9, 15)  # these leave hardly a trace; their rates are told one by one
_PERIOD_MIN = 3.0


def cases(folder: Path) -> list[Case]:
    """Every ``dNN_te.dat``, judged by what was learnt from ``d00.dat``."""
    normal, files = folder / f"{_NORMAL}.dat", sorted(folder.glob("d[0-9][0-9]_te.dat"))
    if not normal.exists() or not files:
        raise DataError(f"{folder}: expected d00.dat and dNN_te.dat, as the Tennessee Eastman set has them")
    (learnt,) = read(normal)
    found = []
    for file in files:
        (recording,) = read(file)
        fault = int(file.stem[1:3])
        labels = (np.arange(len(recording.values)) >= BEGIN) & (fault > 0)
        found.append(Case(file.stem, learnt.values, recording.values, labels, recording.at_ms, about={"fault": fault}))
    return found


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """Detection rates at the threshold that one clean row in a hundred of training exceeds."""
    rates = {one.case.about["fault"]: float(one.alarms[BEGIN:].mean()) for one in judged}
    clean = np.concatenate([one.alarms if not one.case.about["fault"] else one.alarms[:BEGIN] for one in judged])
    groups = {
        "faults 1, 2, 4-8, 10": [rate for fault, rate in rates.items() if fault in _COUNTED],
        "the other faults but 3, 9, 15": [rate for fault, rate in rates.items() if fault not in (0, *_COUNTED, *HARD)],
    }
    told = [
        Figure(f"mean detection rate, {name}", float(np.mean(own)), bar=0.985 if number == 0 else None)
        for number, (name, own) in enumerate(groups.items())
        if own
    ]
    told.append(Figure("false alarm rate on clean rows", float(clean.mean()), bar=0.01, lower_is_better=True))
    delays = [delay for one in judged if one.case.about["fault"] in _COUNTED and (delay := _delay_min(one)) == delay]
    if delays:
        told.append(Figure("median delay, faults 1, 2, 4-8, 10", float(np.median(delays)), "min"))
    told += [
        Figure(f"detection rate, fault {fault}", rate)
        for fault, rate in sorted(rates.items())
        if fault and fault not in _COUNTED
    ]
    return told


def labelled(file: Path, begin: int = 0) -> Recording:
    """A file with what was going on in each row: the fault of its number from row ``begin`` on."""
    (recording,) = read(file, period_s=60 * _PERIOD_MIN)
    fault = int(file.stem[1:3])
    faulty = np.arange(len(recording.values)) >= begin
    return replace(recording, faults=np.where(faulty & (fault > 0), f"fault {fault}", NORMAL))


def diagnosis(folder: Path, seed: int, scores: Path | None, progress: Progress) -> list[Figure]:
    """Which fault it is: learnt from ``dNN.dat``, told of every row of ``dNN_te.dat`` that has a full window."""
    numbers = [fault for fault in (0, *_COUNTED) if (folder / f"d{fault:02d}.dat").exists()]
    if len(numbers) < 2:
        return []
    artifact = train_classifier(
        [labelled(folder / f"d{fault:02d}.dat") for fault in numbers], seed=seed, progress=progress
    )
    truth, said = [], []
    for fault in numbers:
        recording = labelled(folder / f"d{fault:02d}_te.dat", BEGIN)
        for wanted, told in zip(recording.faults.tolist(), diagnose(artifact, recording.values), strict=True):  # type: ignore[union-attr]  # just given
            if told:
                truth.append(wanted)
                said.append(told)
    table = ClassTable.of(truth, said)
    if scores is not None:
        scores.mkdir(parents=True, exist_ok=True)
        lines = [f"{wanted},{told}\n" for wanted, told in zip(truth, said, strict=True)]
        (scores / "diagnosis.csv").write_text("truth,said\n" + "".join(lines), encoding="utf-8")
    return [
        Figure("diagnosis macro-F1, faults 1, 2, 4-8, 10 and normal", table.macro_f1, bar=0.90),
        Figure("diagnosis accuracy", table.accuracy),
        *(Figure(f"diagnosis F1, {name}", value) for name, value in table.f1.items()),
    ]


def _delay_min(one: Judged) -> float:
    alarmed = np.flatnonzero(one.alarms[BEGIN:])
    return float(alarmed[0]) * _PERIOD_MIN if len(alarmed) else float("nan")


SUITE = Suite(
    name="tep",
    about="Tennessee Eastman process",
    detector="innovations",
    cases=cases,
    figures=figures,
    published=(),
    study=diagnosis,
)
