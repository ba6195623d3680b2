"""Readings a second that a core takes, by detector and payload: ``python benchmarks/sizing.py``, a table to size by.

For each detector the pipeline takes bytes to verdicts, 1,000 assets of eight signals on four partitions, as single JSON
readings and as frames of 100: CPU time of one thread, medians of turns. What Kafka's client and Faust take a record is
added from the two options, whose defaults ``speed.py`` measures as the cost of our agent alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from figures.figure import Budget, Cost, interleave, middle, timed
from figures.plant import PERIOD_MS, SIGNALS, START_MS, Fleet, as_records
from models import registry
from models.datasets import Recording
from models.train import train
from speed import machine
from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.shelf import Shelf

_PARTITIONS: Final = 4
_ASSETS: Final = 1000
_FRAME: Final = 100
_ROWS: Final = 4


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken (5)")
    parser.add_argument("--record-us", type=float, default=1.9, help="microseconds a record before the pipeline (1.9)")
    parser.add_argument("--only", action="append", default=[], metavar="KIND", help="only these detectors")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="headrace-sizing-") as folder:
        for name, kind, config in variants(options.only):
            plan = plan_of(Path(folder), name, kind, config)
            jobs = {form: job(plan, form == "frames") for form in ("single", "frames")}
            costs, _ = interleave(jobs, Budget(options.rounds))
            us = {form: 1e6 * middle(held).cpu_s for form, held in costs.items()}
            rows.append((name, us["single"], us["frames"]))
            print(f"{name}: {us['single']:.2f} us single, {us['frames']:.2f} us in frames", file=sys.stderr)
    print(f"On {machine()}:\n")
    print("| Detector | single readings, us | readings/s a core | in frames of 100, us | readings/s a core |")
    print("|---|---|---|---|---|")
    for name, single, framed in rows:
        each = (single + options.record_us, framed + options.record_us / _FRAME)
        print(f"| {name} | {single:.1f} | {1e6 / each[0]:,.0f} | {framed:.1f} | {1e6 / each[1]:,.0f} |")
    return 0


def variants(only: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """(what to call it, kind, config): each detector as it comes, and with its state carried where it can."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for kind in sorted(registry.names()):
        if only and kind not in only:
            continue
        quick = {"epochs": 1} if registry.needs_tensorflow(kind) else {}
        if kind.endswith("_forecaster"):
            found.append((f"`{kind}`, state carried", kind, {**quick, "carried": True}))
            found.append((f"`{kind}`, windowed", kind, {**quick, "carried": False}))
        else:
            found.append((f"`{kind}`", kind, quick))
    return found


def plan_of(folder: Path, name: str, kind: str, config: dict[str, Any]) -> Plan:
    """A plan of one detector, trained on a little of the fleet: what it costs does not depend on what it learnt."""
    fleet = Fleet(2)
    _, row, values = fleet.columns(1500)
    held = [
        Recording(asset, START_MS + row[number::2] * PERIOD_MS, SIGNALS, values[number::2], None)
        for number, asset in enumerate(fleet.names)
    ]
    artifact = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    train(held, detector=kind, signals=SIGNALS, config=config, seed=1).save(artifact)
    detector = {"kind": kind, "artifact": str(artifact), "threshold": 1e6, "gaps": {"policy": "keep"}}
    return parse_plan({"detectors": {"sized": detector}}, folder=folder)


def job(plan: Plan, frames: bool) -> Callable[[], Cost]:
    """A turn: a batch for each partition through a pipeline whose windows are full."""
    shelf = Shelf(plan)
    shelf.warm()
    pipeline = Pipeline(plan, shelf)
    fleets = [Fleet(_ASSETS // _PARTITIONS, prefix=f"p{number}") for number in range(_PARTITIONS)]
    found = shelf.find("sized", "any")
    assert found is not None
    for partition, fleet in enumerate(fleets):
        pipeline.run(partition, fleet.readings(found.window))
    offset = 0

    def turn() -> Cost:
        nonlocal offset
        batches = [as_records(fleet.frames(_FRAME) if frames else fleet.payloads(_ROWS), offset) for fleet in fleets]
        offset += len(batches[0])
        cost = timed(lambda: [pipeline.process(partition, records) for partition, records in enumerate(batches)])
        return cost.per(_ASSETS * (_FRAME if frames else _ROWS))

    turn()
    return turn


if __name__ == "__main__":
    sys.exit(main())
