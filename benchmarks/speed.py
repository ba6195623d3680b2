"""The figures of speed, each with its bar: ``python benchmarks/speed.py``; ``--only NAME`` for one, ``--list`` for all.

Ratios come from one run: what is compared takes turns, round by round, and the figure is the median of the rounds. CPU
time (user and system, all threads of a process) is what ratios and "per core" are made of; wall time stands beside it
in the note. The modules in ``figures/`` say how each is measured. The broker is the embedded one unless ``--bootstrap``
names another; it runs on the same machine and its CPU time is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from figures import live, memory, page, pipeline, sinks, start
from figures.broker import broker_at
from figures.figure import Budget, Figure, Measured
from figures.plant import FORM

Measure = Callable[[Collection[str], Budget, Path], dict[str, Measured]]

README: Final = Path(__file__).parents[1] / "README.md"
_BUDGET_S: Final = 40.0  # for --only, so that it ends within a minute with all that it starts


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 also where bars are missed: a benchmark reports. 1 where a figure could not be measured rightly."""
    options = _options(arguments)
    FORM.carried = not options.windowed
    groups = _groups(options.bootstrap)
    figures = [figure for held, _ in groups for figure in held]
    if options.list:
        for figure in figures:
            print(f"{figure.name:32} {figure.text}")
        return 0
    unknown = set(options.only) - {figure.name for figure in figures}
    if unknown:
        print(f"there is no figure {', '.join(sorted(unknown))}; --list shows all", file=sys.stderr)
        return 2
    if options.readme_from:
        write_readme(figures, json.loads(options.readme_from.read_text(encoding="utf-8")))
        return 0
    results: dict[str, Measured] = {}
    broken = False
    with tempfile.TemporaryDirectory(prefix="headrace-speed-") as folder:
        for number, (held, measure) in enumerate(groups):
            wanted = [figure.name for figure in held if not options.only or figure.name in options.only]
            if not wanted:
                continue
            room = Path(folder) / str(number)
            room.mkdir()
            budget = Budget(options.rounds, _BUDGET_S if options.only else float("inf"))
            begun = time.monotonic()
            print(f"measuring {', '.join(wanted)} ...", file=sys.stderr, flush=True)
            try:
                results |= measure(wanted, budget, room)
            except Exception as error:  # the other figures are still worth having; the exit status tells
                broken = True
                results |= dict.fromkeys(wanted, Measured(None, f"FAILED: {type(error).__name__}: {error}"))
                if options.only:
                    raise
            print(f"    {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(_table(figures, results))
    records = [_record(figure, results[figure.name]) for figure in figures if figure.name in results]
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if options.readme:
        write_readme(figures, records)
    return int(broken)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one figure, in under a minute")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of which the median is taken (11)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one record a figure")
    parser.add_argument("--readme", action="store_true", help="put what was measured into the README's table")
    parser.add_argument(
        "--readme-from", type=Path, metavar="FILE", help="the same from a file that --json wrote; nothing is measured"
    )
    parser.add_argument("--list", action="store_true", help="name the figures")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a Kafka broker instead of the embedded one")
    parser.add_argument("--windowed", action="store_true", help="LSTMs that look at a window again for each reading")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def _groups(bootstrap: str | None) -> list[tuple[tuple[Figure, ...], Measure]]:
    def on_broker(
        work: Callable[[Collection[str], Budget, Path, str], dict[str, Measured]],
    ) -> Measure:
        def measure(wanted: Collection[str], budget: Budget, folder: Path) -> dict[str, Measured]:
            with broker_at(bootstrap) as address:
                return work(wanted, budget, folder, address)

        return measure

    return [
        (pipeline.FIGURES, pipeline.measure),
        (memory.FIGURES, memory.measure),
        (page.FIGURES, page.measure),
        (live.FIGURES, on_broker(live.measure)),
        (sinks.FIGURES, on_broker(sinks.measure)),
        (start.FIGURES, on_broker(partial(start.measure, embedded=bootstrap is None))),
    ]


def _table(figures: list[Figure], results: dict[str, Measured]) -> Table:
    table = Table(title=f"Speed, LSTM with {FORM}, on {machine()}", title_justify="left")
    for name, justify in (("figure", "left"), ("value", "right"), ("bar", "right"), ("aim", "right"), ("met", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "figure")
    table.add_column("how it came about")
    for figure in figures:
        if figure.name not in results:
            continue
        result = results[figure.name]
        met = {True: "yes", False: "[red]no[/red]", None: ""}[figure.meets(result.value)]
        sign = "≤ " if figure.lower else ""
        value = "-" if result.value is None else f"{_number(result.value)} {figure.unit}"
        bar, aim = ("" if limit is None else sign + _number(limit) for limit in (figure.bar, figure.aim))
        table.add_row(f"{figure.text}\n[dim]{figure.name}[/dim]", value, bar, aim, met, result.note)
    return table


def _record(figure: Figure, result: Measured) -> dict[str, object]:
    return {
        "name": figure.name,
        "value": result.value,
        "unit": figure.unit,
        "bar": figure.bar,
        "aim": figure.aim,
        "met": figure.meets(result.value),
    }


def write_readme(figures: list[Figure], records: list[dict[str, Any]], path: Path = README) -> None:
    """Put records of ``--json`` into the README's table; rows of figures that are not among them stay.

    Raises ``SystemExit`` where the README has no row of a figure that was measured: its place is a person's to choose.
    """
    rows = {figure.name: figure for figure in figures}
    text = path.read_text(encoding="utf-8")
    for record in records:
        figure = rows[record["name"]]
        lines = [line for line in text.splitlines() if f"(`{figure.name}`) |" in line]
        if len(lines) != 1:
            raise SystemExit(f"{path}: {len(lines)} rows of {figure.name}, not one: write it into the table of speed")
        text = text.replace(lines[0], _row(figure, record["value"]))
    path.write_text(text, encoding="utf-8")


def _row(figure: Figure, value: float | None) -> str:
    said = "not measured" if value is None else f"{_number(value)} {figure.unit}".removesuffix(" of 1")
    said = said.removesuffix(" ratio")
    if figure.meets(value) is False:
        said = f"**{said}, missed**"
    sign = "at most " if figure.lower else ""
    bar, aim = ("" if limit is None else sign + _number(limit) for limit in (figure.bar, figure.aim))
    return f"| {figure.text} (`{figure.name}`) | {said} | {bar} | {aim} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """Processor, cores, memory, system and Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, {gigabytes:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the end"
    )


if __name__ == "__main__":
    sys.exit(main())
