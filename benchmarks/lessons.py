"""How many labelled incidents a fault takes to be known: faults of simulated pumps named, by how many were learnt.

    python benchmarks/lessons.py --seeds 2 --json lessons.json

Twenty-four pumps of one plant, each with two incidents of four sorts of faults; a classifier learns from the first of
them, and six incidents of each fault on twelve other pumps are asked. An incident is named if the rows of it at or over
the threshold are on average likeliest that fault. No data is needed. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from models.artifact import Artifact
from models.base import NORMAL
from models.datasets import Recording
from models.diagnosis import train_classifier
from models.evaluate import Event
from models.faults import CASES, inject
from models.simulate import Plant
from models.train import score_series

FAULTS: Final = tuple(case for case in CASES if case.kind == "pump" and case.sort not in ("spike", "dropout"))
PUMPS, ASKED, ROWS = 24, 12, 1000
LEARNT: Final = (1, 2, 3, 5)
#: Smaller than the default, for time; the same for all.
CONFIG: Final = {"epochs": 10, "members": 1}
RATE: Final = 1.0  # false alarms a day

_Incidents = list[Event]


def pumps(seed: int) -> list[tuple[Recording, _Incidents]]:
    """The pumps, each with its incidents; each of the four faults strikes twelve times."""
    clean, _ = Plant(seed, pumps=PUMPS, compressors=0, exchangers=0).live(ROWS, faulty=False)
    found = []
    for number, recording in enumerate(clean):
        rng = np.random.default_rng([seed, number])
        faults = np.full(ROWS, NORMAL, dtype=object)
        incidents: _Incidents = []
        held = recording
        for which, where in ((number, (0.08, 0.36)), (number + 2, (0.55, 0.85))):
            held, incident = inject(held, FAULTS[which % len(FAULTS)], where, incidents, rng)
            faults[(held.at_ms >= incident.start_ms) & (held.at_ms < incident.end_ms)] = incident.sort
            incidents.append(incident)
        found.append((replace(held, faults=faults.astype(str)), incidents))
    return found


def named(artifact: Artifact, recording: Recording, incident: Event) -> bool:
    """Whether the classifier calls the incident what it is."""
    said = score_series(artifact, recording.values)
    assert said.classes is not None
    rows = (recording.at_ms >= incident.start_ms) & (recording.at_ms < incident.end_ms)
    rows &= said.score >= artifact.threshold(RATE)
    return bool(rows.any()) and artifact.class_names[int(said.classes[rows].mean(axis=0).argmax())] == incident.sort


def run(seeds: Sequence[int], console: Console) -> list[dict[str, Any]]:
    """Share of the asked incidents that were named, for each number of incidents learnt."""
    rows = []
    for count in LEARNT:
        right: dict[str, int] = {case.sort: 0 for case in FAULTS}
        for seed in seeds:
            plant = pumps(seed)
            artifact = train_classifier([held for held, _ in plant[: 2 * count]], config=CONFIG, seed=seed)
            for recording, incidents in plant[-ASKED:]:
                for incident in incidents:
                    right[incident.sort] += named(artifact, recording, incident)
        asked = len(seeds) * 2 * ASKED // len(FAULTS)
        rows.append({"learnt": count, "asked": asked, "right": right})
        console.print(f"learnt {count}: {sum(right.values())} of {asked * len(FAULTS)}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    rows = run(range(options.seeds), Console(stderr=True))
    table = Table("incidents learnt of each", *(case.sort for case in FAULTS), "all", box=None)
    for row in rows:
        shares = [row["right"][case.sort] / row["asked"] for case in FAULTS]
        table.add_row(str(row["learnt"]), *(f"{share:.2f}" for share in shares), f"{np.mean(shares):.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
