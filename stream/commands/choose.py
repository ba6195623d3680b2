"""``headrace choose``: candidates compete on the history one has, and a plan for the best is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from models.contest import QUICK, contest
from models.datasets import Recording, read
from models.errors import TrainingError
from stream.commands.console import bar


def run_choose(
    data: Sequence[Path],
    *,
    candidates: Sequence[str] = (),
    seed: int = 0,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Let candidates compete on the longest of the recordings, print how they stand and what to put into the plan."""
    recordings = [held for path in data for held in read(path, time_column=time_column, asset_column=asset_column)]
    if not recordings:
        raise TrainingError("there is no recording to compete on")
    longest = max(recordings, key=lambda recording: len(recording.values))
    history = _clean(longest)
    with bar() as shown:
        task = shown.add_task("contest", total=None, note="")
        standings = contest(
            history,
            tuple(candidates) or QUICK,
            seed=seed,
            progress=lambda done, total, note: shown.update(task, completed=done, total=total, note=note),
        )
    table = Table(title=f"On {longest.asset}, {len(history)} rows, the newest quarter held back", title_justify="left")
    for column in ("detector", "faults found", "VUS-PR", "clean rows alarmed"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for standing in standings:
        table.add_row(
            standing.detector, f"{standing.found:.0%}", f"{standing.volume:.3f}", f"{standing.false_alarms:.1%}"
        )
    console = Console()
    console.print(table)
    best = standings[0].detector
    console.print(
        f'[detectors.{longest.asset}]\nkind = "{best}"\nassets = ["{longest.asset}"]\nartifact = "artifacts/{best}"',
        markup=False,
        highlight=False,
    )


def _clean(recording: Recording) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Its rows without those that are labelled."""
    wanted = np.ones(len(recording.values), bool) if recording.labels is None else ~recording.labels
    return recording.values[wanted]
