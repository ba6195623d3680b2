"""``headrace backtest``: recordings through the pipeline, and what came out as tables and a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from models.datasets import Recording, read
from stream.backtest import backtest
from stream.commands.console import advancing
from stream.commands.train import cut
from stream.pipeline import Pipeline
from stream.plan import load_plan
from stream.records import Scores, to_json
from stream.report.gather import Gathered
from stream.report.outcome import labelled
from stream.report.whatif import WhatIf
from stream.shelf import Shelf
from stream.sources.json import timestamp


def run_backtest(
    plan_path: Path,
    data: Sequence[Path],
    *,
    scores: Path | None = None,
    alerts: Path | None = None,
    report: Path | None = None,
    skip: int = 0,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Run, print a summary, write what was asked for. Raises ``ConfigError``, ``DataError``."""
    plan = load_plan(plan_path)
    recordings = [
        cut(held, skip=skip) for path in data for held in read(path, time_column=time_column, asset_column=asset_column)
    ]
    shelf = Shelf(plan)
    faults = labelled(recordings)
    whatif = WhatIf(plan, shelf) if report else None
    gathered = Gathered(recordings, faults, every_row=scores is not None, drawn=report is not None)
    with advancing("readings", sum(len(held.at_ms) for held in recordings)) as advance:
        for output in backtest(Pipeline(plan, shelf), recordings, progress=advance):
            gathered.take(output)
            if whatif:
                for held in output.scores:
                    whatif.take(held)
    gathered.finish()
    Console().print(_summary(gathered))
    if scores:
        write_scores(scores, recordings, gathered.rows)
        click.echo(f"scores: {scores}")
    if alerts:
        alerts.parent.mkdir(parents=True, exist_ok=True)
        alerts.write_bytes(b"".join(to_json(alert) + b"\n" for alert in gathered.alerts))
        click.echo(f"alerts: {alerts}")
    if whatif and report:
        from stream.report.page import write_report  # noqa: PLC0415 (matplotlib is an extra)

        with Console(stderr=True).status("drawing the report"):
            write_report(
                report,
                recordings,
                gathered.around,
                gathered.alerts,
                faults=faults,
                trials=whatif.trials(),
                units=plan.units,
                title=f"Backtest of {plan.site}" if plan.site else "Backtest",
            )
        click.echo(f"report: {report}")


def write_scores(path: Path, recordings: Sequence[Recording], scores: Iterable[Scores]) -> None:
    """CSV, one row a reading and detector: time, asset, detector, score, threshold, anomalous (0 or 1).

    A reading that was not judged (the window is still filling, a hop, late, a duplicate) has an empty score.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for held in scores:
        for name in held.names:
            parts[name, held.detector].append(held)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("time,asset,detector,score,threshold,anomalous\n")
        for recording in recordings:
            for asset, detector in sorted(key for key in parts if key[0] == recording.asset):
                _write_asset(file.write, recording, asset, detector, parts[asset, detector])


def _write_asset(
    write: Callable[[str], object], recording: Recording, asset: str, detector: str, parts: Sequence[Scores]
) -> None:
    judged: dict[int, tuple[float, float, bool]] = {}
    for held in parts:
        rows = np.flatnonzero(held.asset == held.names.index(asset))
        judged.update(
            zip(
                held.at_ms[rows].tolist(),
                zip(
                    held.score[rows].tolist(), held.threshold[rows].tolist(), held.anomalous[rows].tolist(), strict=True
                ),
                strict=True,
            )
        )
    quoted = '"' + asset.replace('"', '""') + '"' if set(asset) & set(',"\n\r') else asset
    for at_ms in recording.at_ms.tolist():
        score, threshold, anomalous = judged.pop(at_ms, (float("nan"), float("nan"), False))
        number = "" if score != score else repr(score)
        limit = "" if threshold != threshold else repr(threshold)
        write(f"{timestamp(at_ms)},{quoted},{detector},{number},{limit},{int(anomalous)}\n")


def _summary(gathered: Gathered) -> Table:
    table = Table("detector", "scored", "alerts", "worst severity of one", title=f"{gathered.readings} readings")
    for detector, count in gathered.scored.items():
        alerts = {alert.id: alert.severity for alert in gathered.alerts if alert.detector == detector}
        worst = next((level for level in ("critical", "major", "warning") if level in alerts.values()), "-")
        table.add_row(detector, str(count), str(len(alerts)), worst)
    return table
