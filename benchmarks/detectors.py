"""Which detector serves which stream: ranks all of them on public recordings, one fixed configuration each.

    python benchmarks/detectors.py DATA_DIR --json detectors.json

DATA_DIR holds ``asd``, ``skab`` and ``tep``. Each detector learns once from the clean part of a recording (its first
four fifths to learn, the rest to stop by and to measure what is usual) and scores the test part. How well the scores
rank is told, not how well a threshold was chosen: VUS-PR of ASD (tolerances up to 100 rows) and average precision of
SKAB, both the mean over the recordings; of TEP the share of faulty rows above the score that one row in a hundred of
the normal test run exceeds, over faults 1, 2, 4-8 and 10. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import registry
from models.base import Detector, Float64
from models.datasets import Recording, read
from models.measures.points import average_precision
from models.measures.volume import vus
from models.scaling import RobustScaler
from models.train import score_rows

LEARNT = 0.8  # of the clean part; the rest is to stop by
TOLERANCE_ROWS = 100
SKAB_CLEAN_ROWS = 400
TEP_BEGIN = 160  # the row at which a test run's fault begins
TEP_FAULTS = (1, 2, 4, 5, 6, 7, 8, 10)
#: They judge the data, need labels or no training: nothing to compare here.
LEFT_OUT = frozenset({"data_quality", "fault_classifier", "novelty"})
SETS = ("asd", "skab", "tep")


@dataclass(frozen=True)
class Learnt:
    """A detector that has learnt from a recording's clean part."""

    detector: Detector
    scaler: RobustScaler
    history: Float64

    @classmethod
    def of(cls, name: str, history: Float64, seed: int) -> Learnt:
        """Learn from (row, signal), in the signals' own units."""
        scaler = RobustScaler.fit([history])
        rows = scaler.transform(history)
        detector = registry.create(name, signals=rows.shape[1])
        held = detector.window + max(detector.window // 2, 8)  # rows: some windows to measure by, however short it is
        cut = min(int(LEARNT * len(rows)), len(rows) - held)
        detector.fit([rows[:cut]], [rows[cut:]], seed=seed)
        return cls(detector, scaler, history)

    def scores(self, rows: Float64, *, continues: bool) -> Float64:
        """(row,) of ``rows``; without the first ``window - 1`` unless they continue the history."""
        past = self.history[len(self.history) - self.detector.window + 1 :] if continues else rows[:0]
        return np.nan_to_num(score_rows(self.detector, self.scaler.transform(np.concatenate([past, rows]))).score)


def asd(folder: Path, name: str, seed: int) -> Iterator[float]:
    """VUS-PR of every server."""
    for file in sorted(folder.glob("*_train.csv")):
        (clean,), (test,) = read(file), read(file.with_name(file.name.replace("_train", "_test")))
        scores = Learnt.of(name, clean.values, seed).scores(test.values, continues=True)
        yield vus(_labels(test), scores, TOLERANCE_ROWS)[0]


def skab(folder: Path, name: str, seed: int) -> Iterator[float]:
    """Average precision of every run with a fault."""
    for file in sorted(folder.rglob("*.csv")):
        (run,) = read(file)
        if run.labels is None or not run.labels[SKAB_CLEAN_ROWS:].any():
            continue
        learnt = Learnt.of(name, run.values[:SKAB_CLEAN_ROWS], seed)
        scores = learnt.scores(run.values[SKAB_CLEAN_ROWS:], continues=True)
        yield average_precision(run.labels[SKAB_CLEAN_ROWS:], scores)


def tep(folder: Path, name: str, seed: int) -> Iterator[float]:
    """Detection rate of every fault at one false alarm in a hundred rows."""
    learnt = Learnt.of(name, read(folder / "d00.dat")[0].values, seed)
    runs = {fault: read(folder / f"d{fault:02d}_te.dat")[0].values for fault in (0, *TEP_FAULTS)}
    threshold = np.quantile(learnt.scores(runs[0], continues=False), 0.99)
    for fault in TEP_FAULTS:
        scores = learnt.scores(runs[fault], continues=False)[TEP_BEGIN - learnt.detector.window + 1 :]
        yield float((scores > threshold).mean())


def _labels(recording: Recording) -> np.ndarray:
    assert recording.labels is not None, f"{recording.asset} has no labels"
    return recording.labels


def main() -> int:
    """Measure what is not yet in the file, then print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, metavar="DATA_DIR")
    parser.add_argument("--detector", action="append", choices=registry.names(), help="only this one; may be repeated")
    parser.add_argument("--set", action="append", choices=SETS, dest="sets", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, dest="json_file", default=Path("detectors.json"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = given.detector or [name for name in registry.names() if name not in LEFT_OUT]
    known: dict[str, dict[str, list[float]]] = {}
    if given.json_file.exists():
        known = json.loads(given.json_file.read_text(encoding="utf-8"))
    measures = {"asd": asd, "skab": skab, "tep": tep}
    for key in given.sets or SETS:
        for name in names:
            if key in known.get(name, {}):
                continue
            begun = time.process_time()
            figures = list(measures[key](given.folder / key, name, given.seed))
            known.setdefault(name, {})[key] = [round(figure, 4) for figure in figures]
            known[name][f"{key}_cpu_s"] = [round(time.process_time() - begun, 1)]
            given.json_file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            print(f"{name} {key} {np.mean(figures):.3f}", file=sys.stderr, flush=True)
    print(table({name: known[name] for name in names if name in known}))
    return 0


def table(known: Mapping[str, Mapping[str, list[float]]]) -> str:
    """As Markdown has it, each figure beside how it stands to ``pca``'s."""
    anchor = known.get("pca", {})
    lines = ["| Detector | ASD, VUS-PR | SKAB, average precision | TEP, detection rate |", "|---|---|---|---|"]
    for name, sets in known.items():
        cells = []
        for key in SETS:
            value = float(np.mean(sets[key])) if key in sets else float("nan")
            beside = f" ({value / float(np.mean(anchor[key])) - 1:+.0%})" if key in anchor and name != "pca" else ""
            cells.append(f"{value:.3f}{beside}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
