"""Server and spacecraft telemetry: ASD (application servers) and SMAP and MSL (NASA), by VUS-PR as TSB-AD has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.datasets import read
from models.errors import DataError
from models.measures.affiliation import affiliation
from models.measures.points import average_precision
from models.measures.volume import vus
from models.suites.base import Case, Figure, Judged, Suite

_WINDOW = 100  # rows: the widest tolerance of VUS
_PUBLISHED = (
    ("CNN, TSB-AD's multivariate track", 0.313),
    ("OmniAnomaly, likewise", 0.312),
    ("PCA, likewise", 0.310),
    ("LSTMAD, likewise", 0.307),
)


def server_cases(folder: Path) -> list[Case]:
    """Every pair ``NAME_train.csv`` and ``NAME_test.csv``."""
    pairs = [
        (file, file.with_name(file.name.replace("_train", "_test"))) for file in sorted(folder.glob("*_train.csv"))
    ]
    if not pairs:
        raise DataError(f"{folder}: expected NAME_train.csv and NAME_test.csv, as ASD has them")
    return [_case(one.name.removesuffix("_train.csv"), one, other, continues=True) for one, other in pairs]


def spacecraft_cases(folder: Path) -> list[Case]:
    """Every ``test/CHANNEL.npy`` with its ``train/CHANNEL.npy`` and ``labeled_anomalies.csv``."""
    files = sorted((folder / "test").glob("*.npy"))
    if not files or not (folder / "labeled_anomalies.csv").exists():
        raise DataError(
            f"{folder}: expected train/*.npy, test/*.npy and labeled_anomalies.csv, as SMAP and MSL have them"
        )
    return [_case(file.stem, folder / "train" / file.name, file, continues=False) for file in files]


def _case(key: str, train: Path, test: Path, *, continues: bool) -> Case:
    (learnt,), (recording,) = read(train), read(test)
    labels = recording.labels if recording.labels is not None else np.zeros(len(recording.values), bool)
    return Case(key, learnt.values, recording.values, labels, recording.at_ms, continues=continues)


def _figures(judged: Sequence[Judged], bar: float | None) -> list[Figure]:
    labelled = [one for one in judged if one.case.labels.any()]
    if not labelled:
        raise DataError("no file has a labelled row")
    volumes = {one.case.key: vus(one.case.labels, one.scores, _WINDOW)[0] for one in labelled}
    near = [affiliation(one.case.labels, one.alarms) for one in labelled]
    precision, recall = (np.nanmean([getattr(one, part) for one in near]) for part in ("precision", "recall"))
    return [
        Figure("mean VUS-PR", float(np.mean(list(volumes.values()))), bar=bar),
        Figure("mean PR-AUC", float(np.mean([average_precision(one.case.labels, one.scores) for one in labelled]))),
        Figure("affiliation precision", float(precision)),
        Figure("affiliation recall", float(recall)),
        *(Figure(f"VUS-PR, {key}", value) for key, value in volumes.items()),
    ]


def server_figures(judged: Sequence[Judged]) -> list[Figure]:
    """VUS-PR, mean and by server."""
    return _figures(judged, 0.50)


def spacecraft_figures(judged: Sequence[Judged]) -> list[Figure]:
    """VUS-PR, mean and by channel."""
    return _figures(judged, 0.313)


SERVERS = Suite(
    name="asd",
    about="Application Server Dataset",
    detector="innovations",
    cases=server_cases,
    figures=server_figures,
    published=_PUBLISHED,
)
SPACECRAFT = Suite(
    name="smap_msl",
    about="NASA SMAP and MSL telemetry",
    detector="innovations",
    cases=spacecraft_cases,
    figures=spacecraft_figures,
    published=_PUBLISHED,
)
