"""What thresholds that follow drift change: false and missed alarms on public recordings, with and without.

    python benchmarks/drift.py DATA_DIR --json drift.json
    python benchmarks/drift.py --picture docs/images/slow-drift.png

DATA_DIR holds ``skab``, ``tep`` and ``asd``; what is not there is left out. SKAB's recording without faults is taken
400 rows at a time to learn from, and the 750 rows after them to judge, beginning anew every 550 rows: that is how the
benchmark's own files are cut, so it says what its plant does without a fault. ``--picture`` needs no data: a made plant
that drifts a little, and one with a fault that grows as slowly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.base import Float64
from models.datasets import read
from models.drift import Drift, followed
from models.measures.points import Confusion
from models.suites.base import Bool
from models.suites.judging import learn
from models.suites.running import SUITES

LEARNT, JUDGED, APART = 400, 750, 550  # rows
DETECTOR = "innovations"


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Scores over the threshold of one recording, (row,), plain and where the threshold follows drift."""

    plain: Float64
    following: Float64
    labels: Bool


def pairs(name: str, folder: Path) -> Iterator[Pair]:
    """Both scores of every recording of a set."""
    if name == "skab without faults":
        (recording,) = read(next((folder / "skab" / "anomaly-free").glob("*.csv")))
        for start in range(0, len(recording.values) - LEARNT - JUDGED + 1, APART):
            own = slice(start + LEARNT, start + LEARNT + JUDGED)
            test, at_ms = recording.values[own], recording.at_ms[own]
            yield _pair(recording.values[start : start + LEARNT], test, at_ms, np.zeros(JUDGED, bool), continues=True)
        return
    for case in SUITES[name].cases(folder / name):
        yield _pair(case.train, case.test, case.at_ms, case.labels, continues=case.continues)


def _pair(train: Float64, test: Float64, at_ms: Any, labels: Bool, *, continues: bool) -> Pair:
    fitted = learn(train, DETECTOR, {})
    still = replace(fitted, drift=None)
    return Pair(still.scores(test, at_ms, continues=continues), fitted.scores(test, at_ms, continues=continues), labels)


def measure(folder: Path) -> list[dict[str, Any]]:
    """One record a set, ``plain`` and ``following``: false alarm rate, missing alarm rate and F1 over all rows."""
    console, records = Console(), []
    table = Table(title=f"{DETECTOR}: thresholds that stay, and that follow drift", title_justify="left")
    for column in ("set", "recordings", "false alarms", "missed", "F1"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for name in ("skab without faults", "skab", "tep", "asd"):
        if not (folder / name.split(maxsplit=1)[0]).is_dir():
            console.print(f"{name}: not in {folder}, left out")
            continue
        with console.status(name):
            held = list(pairs(name, folder))
        record: dict[str, Any] = {"set": name, "recordings": len(held)}
        counts = {}
        for kind in ("plain", "following"):
            parts = [Confusion.of(one.labels, getattr(one, kind) >= 1.0) for one in held]
            whole = counts[kind] = sum(parts[1:], start=parts[0])
            record[kind] = {
                "false_alarm_rate": whole.false_alarm_rate,
                "missing_alarm_rate": whole.missing_alarm_rate,
                "f1": whole.f1,
            }
        table.add_row(
            name,
            str(len(held)),
            *(
                " -> ".join(_shown(record[kind][figure]) for kind in ("plain", "following"))
                for figure in ("false_alarm_rate", "missing_alarm_rate", "f1")
            ),
        )
        records.append(record)
    console.print(table)
    return records


def _shown(rate: float) -> str:
    return "-" if rate != rate else f"{rate:.3f}"


def draw(file: Path) -> None:
    """A week of a plant that drifts a little and one of a fault, against three sorts of thresholds."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # a second to import, for the picture alone

    drift, day = Drift(), 24 * 60
    time = np.arange(7 * day) / day
    noise = 0.42 * np.exp(np.random.default_rng(0).normal(0, 0.08, len(time)))
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, title, grown in (
        (axes[0], "the plant drifts, and stays where it is", 0.38 * np.clip((time - 1) / 2, 0, 1)),
        (axes[1], "a fault that grows as slowly, and goes on", 0.38 * np.maximum((time - 1) / 2, 0)),
    ):
        scores = noise + grown
        axis.plot(time, scores, color="0.6", linewidth=0.5, label="score over the calibrated threshold")
        axis.plot(time, learnt_away(scores, drift), color="tab:orange", label="follows without bound, never frozen")
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":", label="calibrated")
        axis.plot(time, followed(scores, drift), color="tab:blue", label="follows, at most 1.5 times, frozen in alarm")
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylim(0, 2.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=7.5, loc="upper left")
    axes[1].set_xlabel("days")
    figure.savefig(file, dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})


def learnt_away(scores: Float64, drift: Drift) -> Float64:
    """What becomes of a threshold that follows every score: the way to learn a fault."""
    levels, _ = drift.calm(drift.begin, scores)
    return np.maximum(levels / drift.usual, 1.0)


def main() -> int:
    """Measure, draw, or both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, metavar="DATA_DIR", nargs="?")
    parser.add_argument("--json", type=Path, dest="json_file", help="write one record a set")
    parser.add_argument("--picture", type=Path, help="draw docs/images/slow-drift.png here")
    given = parser.parse_args()
    if given.folder is None and given.picture is None:
        parser.error("give DATA_DIR, --picture or both")
    if given.picture is not None:
        draw(given.picture)
    if given.folder is not None:
        records = measure(given.folder)
        if given.json_file is not None:
            given.json_file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
