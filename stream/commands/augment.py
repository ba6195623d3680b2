"""``headrace augment``: windows of scarce classes, made up from recordings, with what they are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.augment import Config, Maker, by_class, learn, windows_of
from models.base import NORMAL
from models.datasets import Recording, read
from models.errors import DataError, TrainingError
from models.likeness import Likeness, likeness
from models.measures.classes import ClassTable
from models.transfer import judged_by
from stream.commands.console import bar
from stream.errors import ConfigError

#: The report's name in the output folder.
REPORT = "augment.json"
FORMATS = ("csv", "parquet")


def run_augment(
    data: Sequence[Path],
    *,
    output: Path,
    classes: Sequence[str] = (),
    count: int | None = None,
    rows: int = 0,
    steps: int = 1200,
    judge: Sequence[Path] = (),
    file_format: str = "csv",
    seed: int = 0,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Learn from labelled recordings, write made ones into ``output``, show and write how close they are.

    classes  those to make; default: all but normal that have fewer windows than the richest class
    count    windows of each; default: as many as bring the class up to the richest one, 500 at most
    judge    labelled recordings that were not learnt from: a classifier learns from real and from made ones, and both
             are asked about these

    Raises ``ConfigError`` and ``ModelError`` with the remedy.
    """
    try:
        config = Config(rows=rows, steps=steps)
    except ValueError as error:
        raise ConfigError(f"headrace augment: {error}") from None
    if output.exists() and any(output.iterdir()) and not (output / REPORT).is_file():
        raise ConfigError(f"{output} holds something else than made windows: name another folder with --output")
    recordings, asked_about = (
        [held for path in paths for held in read(path, time_column=time_column, asset_column=asset_column)]
        for paths in (data, judge)
    )
    if not any(held.faults is not None for held in recordings):
        raise DataError(
            "no recording has a column `fault`: it names what was going on in each row, empty where nothing"
        )
    console = Console()
    with bar() as shown:
        task = shown.add_task("networks at play", total=config.steps, note="")
        maker = learn(
            recordings,
            config=config,
            seed=seed,
            progress=lambda done, total, note: shown.update(task, completed=done, total=total, note=note),
        )
    wanted = _wanted(maker, classes, count)
    output.mkdir(parents=True, exist_ok=True)
    start_ms = min(int(held.at_ms[0]) for held in recordings)
    real = by_class(recordings, maker.signals, 5.0 * maker.period_s)
    close: dict[str, Likeness] = {}
    for name, windows in wanted.items():
        made = maker.recordings(name, windows, seed=seed, start_ms=start_ms)
        path = output / f"{made[0].asset.rsplit('-', 1)[0]}.{file_format}"
        write(path, made)
        console.print(f"{name}: {windows} windows of {maker.rows} rows in {path}", highlight=False)
        close[name] = likeness(windows_of(real[name], maker.rows), maker.make(name, max(windows, 200), seed=seed + 1))
    console.print(_closeness(maker, close))
    tables = _worth(maker, recordings, asked_about, wanted, seed) if asked_about else {}
    if tables:
        console.print(_transfer(tables))
    (output / REPORT).write_text(json.dumps(_report(maker, wanted, close, tables, seed), indent=1) + "\n", "utf-8")


def write(path: Path, recordings: Sequence[Recording]) -> None:
    """Recordings of one layout as one CSV or Parquet table: asset, time, signals, fault (empty where all is well)."""
    import polars as pl  # noqa: PLC0415  # as models.datasets does: only tables need it

    parts = []
    for held in recordings:
        told = (
            [""] * len(held.at_ms) if held.faults is None else ["" if f == NORMAL else f for f in held.faults.tolist()]
        )
        columns: dict[str, Any] = {
            "asset": [held.asset] * len(held.at_ms),
            "time": pl.Series(held.at_ms).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
            **{name: held.values[:, column] for column, name in enumerate(held.signals)},
            "fault": told,
        }
        parts.append(pl.DataFrame(columns))
    table = pl.concat(parts)
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, float_precision=6)


def _wanted(maker: Maker, classes: Sequence[str], count: int | None) -> dict[str, int]:
    """How many windows of which class to make."""
    unknown = set(classes) - set(maker.classes)
    if unknown:
        raise TrainingError(f"--class {min(unknown)}: the recordings have {', '.join(maker.classes)}")
    have = dict(zip(maker.classes, maker.windows, strict=True))
    most = max(have.values())
    chosen = list(classes) or [name for name in maker.classes if name != NORMAL and have[name] < most]
    if not chosen:
        raise TrainingError("no class is scarcer than another: say with --class which to make windows of")
    return {name: count or min(500, max(1, most - have[name])) for name in chosen}


def _worth(
    maker: Maker, real: Sequence[Recording], asked_about: Sequence[Recording], wanted: Mapping[str, int], seed: int
) -> dict[str, ClassTable]:
    """What classifiers say of recordings they have not seen, by what they learnt from."""
    made = [one for name, count in wanted.items() for one in maker.recordings(name, count, seed=seed)]
    tables = {}
    with bar() as shown:
        for label, learnt_from in (
            ("the recordings", list(real)),
            ("the recordings and the made windows", [*real, *made]),
        ):
            task = shown.add_task(f"classifier, from {label}", total=1, note="")
            tables[label] = judged_by(
                learnt_from, asked_about, seed=seed, period_s=maker.period_s,
                progress=lambda done, total, note, task=task: shown.update(  # type: ignore[misc]
                    task, completed=done, total=total, note=note
                ),
            )  # fmt: skip
    return tables


def _closeness(maker: Maker, close: Mapping[str, Likeness]) -> Table:
    table = Table("class", "windows learnt from", title="How close made windows are to real ones (real to real)")
    for name in ("energy distance", "MMD", "spread", "step"):
        table.add_column(name, justify="right")
    have = dict(zip(maker.classes, maker.windows, strict=True))
    for name, one in close.items():
        table.add_row(
            name,
            str(have[name]),
            f"{one.energy:.3f} ({one.energy_real:.3f})",
            f"{one.mmd:.3f} ({one.mmd_real:.3f})",
            f"{one.spread:.2f}",
            f"{one.step:.2f}",
        )
    return table


def _transfer(tables: Mapping[str, ClassTable]) -> Table:
    table = Table(
        "F1 of", *tables, title="What a classifier makes of recordings it has not seen, by what it learnt from"
    )
    shown = [one.f1 | {"all, mean": one.macro_f1} for one in tables.values()]
    for name in shown[0]:
        table.add_row(name, *(f"{one[name]:.3f}" for one in shown))
    return table


def _report(
    maker: Maker, wanted: Mapping[str, int], close: Mapping[str, Likeness], tables: Mapping[str, ClassTable], seed: int
) -> dict[str, Any]:
    return {
        "signals": maker.signals,
        "period_s": maker.period_s,
        "rows": maker.rows,
        "seed": seed,
        "learnt_from": dict(zip(maker.classes, maker.windows, strict=True)),
        "made": wanted,
        "distance": list(maker.gaps),
        "likeness": {name: asdict(one) for name, one in close.items()},
        "classifier": {label: {"macro_f1": one.macro_f1, "f1": one.f1} for label, one in tables.items()},
    }
