"""What the live page costs a reading while nobody looks: its share of what the pipeline takes for the same readings.

Batches of records go through the pipeline, bytes to verdicts, and their output into the page's memory, in turns.
Dearest is a reading of another asset each time, as the page looks up each asset of a batch once.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from figures.figure import Budget, Cost, Figure, Measured, interleave, middle, ratio, timed
from figures.plant import Fleet, as_records, plan_for, write_artifact
from stream.pipeline import Pipeline
from stream.records import Output, Record
from stream.shelf import Shelf
from stream.sinks.page import PageSettings

FIGURES: Final = (
    Figure("page_share", "live page by pipeline, each reading another asset", "of 1", 0.20, 0.10, lower=True),
    Figure("page_share_frames", "live page by pipeline, 100 readings an asset", "of 1", 0.05, 0.02, lower=True),
)

_BATCH: Final = 4000


def measure(wanted: Collection[str], budget: Budget, folder: Path) -> dict[str, Measured]:
    """Time what ``wanted`` asks for."""
    plan = plan_for(folder, write_artifact(folder / "page", units=32, window=32))
    return {
        name: _share(Pipeline(plan, Shelf(plan)), assets, budget)
        for name, assets in (("page_share", _BATCH), ("page_share_frames", _BATCH // 100))
        if name in wanted
    }


def _share(pipeline: Pipeline, assets: int, budget: Budget) -> Measured:
    fleet, rows = Fleet(assets), _BATCH // assets
    board = PageSettings().board(site="", units={})
    output = Output()
    offset = 0

    def records() -> list[Record]:
        nonlocal offset
        offset += _BATCH
        return as_records(fleet.payloads(rows), offset - _BATCH)

    while not any(len(scores) == _BATCH for scores in output.scores):  # until windows are full
        output = pipeline.process(0, records())
    board.take(output)  # the first sight of an asset costs more, once

    def judge() -> Cost:
        held = records()
        return timed(lambda: pipeline.process(0, held))

    costs, rounds = interleave({"pipeline": judge, "page": lambda: timed(lambda: board.take(output))}, budget)
    each = {name: middle(held).per(_BATCH).cpu_s * 1e9 for name, held in costs.items()}
    note = f"{each['page']:.0f} ns a reading, the pipeline {each['pipeline']:.0f}; {rounds} rounds"
    return Measured(ratio(costs, "page", "pipeline").cpu_s, note)
