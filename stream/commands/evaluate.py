"""``headrace evaluate``: a public benchmark over a folder, its figures beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.suites.running import SUITES, Result, run
from stream.commands.console import bar


def run_evaluate(
    names: Sequence[str],
    folder: Path,
    *,
    detector: str | None = None,
    config: Mapping[str, Any] | None = None,
    scores: Path | None = None,
    json_file: Path | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> int:
    """Run suites and print their tables; 0 if every bar was met, else 1.

    ``folder`` holds one suite's files, or, for several suites, a folder of each one's name.
    """
    console = Console()
    results = []
    for name in names:
        with bar() as shown:
            task = shown.add_task(name, total=None, note="")
            result = run(
                SUITES[name],
                SUITES[name].where(folder),
                detector=detector,
                config=config,
                scores=scores,
                seed=seed,
                processes=processes,
                progress=lambda done, total, key, bar=shown, task=task: bar.update(  # type: ignore[misc]
                    task, completed=done, total=total, note=key
                ),
            )
        results.append(result)
        console.print(table(result))
    if json_file is not None:
        records = [record for result in results for record in result.records()]
        json_file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return int(any(figure.met is False for result in results for figure in result.figures))


def table(result: Result) -> Table:
    """A result's figures with their bars, and what others published."""
    shown = Table(title=f"{result.suite.about}: {result.detector}, {result.cases} recordings", title_justify="left")
    for column in ("figure", "value", "bar", "met"):
        shown.add_column(column, justify="left" if column == "figure" else "right")
    for figure in result.figures:
        bar = "" if figure.bar is None else f"{'<=' if figure.lower_is_better else '>='} {figure.bar:g}"
        met = {True: "yes", False: "no", None: ""}[figure.met]
        shown.add_row(figure.name, f"{_digits(figure.value)} {figure.unit}".rstrip(), bar, met)
    for number, (who, value) in enumerate(result.suite.published):
        if number == 0:
            shown.add_section()
        shown.add_row(f"published: {who}", _digits(value), "", "")
    return shown


def _digits(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 5 else f"{value:.3f}"
