"""Commands over recordings, as the command line sees them; what each does is in the module of its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from stream.commands.options import asset_column, examples, explained, plan, recordings, time_column

#: What ``models.suites.running`` has, which would take seconds to import for a page of help.
_SUITES = ("nab", "skab", "tep", "asd", "smap_msl", "magnetic_tile", "virtual_data")


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
@plan
@click.option("--detector", "only", multiple=True, help="Train only this detector of the plan; may be repeated.")
@click.option("--first", type=click.IntRange(min=1), help="Use only the first N readings of each recording.")
@click.option("--from-topic", is_flag=True, help="Train on the readings topic instead of files.")
@click.option(
    "--cold",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Without history: begin detectors that learn from the stream itself; SECONDS from one reading to the next.",
)
@click.option("--since", help="With --from-topic: from this time on, e.g. 2026-11-01T00:00:00Z.")
@click.option("--until", help="With --from-topic: up to this time.")
@click.option("--seed", default=0, show_default=True)
@time_column
@asset_column
@explained
@examples("""
headrace train history/*.csv
headrace train history/ --detector pump-forecast
headrace train history.parquet --asset-column machine --first 5000
headrace train --from-topic --since 2026-11-01T00:00:00Z --until 2026-11-08T00:00:00Z
headrace train --cold 60
""")
def train(
    data: tuple[Path, ...],
    plan_path: Path,
    only: tuple[str, ...],
    first: int | None,
    from_topic: bool,
    cold: float | None,
    since: str | None,
    until: str | None,
    seed: int,
    time_column: str | None,
    asset_column: str | None,
) -> None:
    """Train the plan's detectors on clean history (CSV, Parquet, or a stretch of the topic) and write their artifacts.

    A column `fault` names what was wrong in a row: a fault_classifier learns from it, the others leave such rows out.
    Of the topic, everything while an alert was open is left out, and what a label calls a fault; a fault_classifier
    learns those that labels name.
    Where the plan's input is pictures, name folders that hold a folder for each kind, the good ones in `good`.

    The history is split in the order of time: to learn from, to stop early by, and to set the threshold by.
    """
    from stream.commands.train import run_cold, run_train  # noqa: PLC0415

    if cold is not None:
        if data or from_topic:
            raise click.UsageError("--cold is for where there is no history: it takes neither files nor --from-topic")
        run_cold(plan_path, period_s=cold, only=only)
        return
    if bool(data) == from_topic:
        raise click.UsageError("name the files to train on, or --from-topic (one of the two)")
    run_train(
        plan_path,
        data,
        only=only,
        first=first,
        topic_range=(since, until) if from_topic else None,
        seed=seed,
        time_column=time_column,
        asset_column=asset_column,
    )


@click.command()
@recordings
@plan
@click.option(
    "--scores", type=click.Path(dir_okay=False, path_type=Path), help="Write a CSV row per reading and detector."
)
@click.option(
    "--alerts", "alerts_path", type=click.Path(dir_okay=False, path_type=Path), help="Write alerts as JSON lines."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML report with plots.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first N readings of each recording.")
@time_column
@asset_column
@explained
@examples("""
headrace backtest recordings/*.csv
headrace backtest recordings/ --skip 400 --scores scores.csv --alerts alerts.jsonl --report report.html
""")
def backtest(
    data: tuple[Path, ...],
    plan_path: Path,
    scores: Path | None,
    alerts_path: Path | None,
    report: Path | None,
    skip: int,
    time_column: str | None,
    asset_column: str | None,
) -> None:
    """Run recordings through the worker's own pipeline, without a broker: what would have been raised."""
    from stream.commands.backtest import run_backtest  # noqa: PLC0415

    run_backtest(
        plan_path,
        data,
        scores=scores,
        alerts=alerts_path,
        report=report,
        skip=skip,
        time_column=time_column,
        asset_column=asset_column,
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--suite",
    "suites",
    multiple=True,
    required=True,
    type=click.Choice(_SUITES),
    help="Which benchmark the folder is laid out like; may be repeated for a folder of folders.",
)
@click.option("--detector", help="Another detector than the suite's own.")
@click.option(
    "--scores",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write per-row scores here, and go on from there.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write one record a figure.")
@click.option("--processes", type=click.IntRange(min=1), help="Default: one a core.")
@explained
@examples("""
headrace evaluate --suite nab recordings/nab
headrace evaluate --suite skab --suite tep recordings --scores scores --json figures.json
headrace evaluate --suite asd recordings/asd --detector pca
""")
def evaluate(
    folder: Path,
    suites: tuple[str, ...],
    detector: str | None,
    scores: Path | None,
    json_file: Path | None,
    processes: int | None,
) -> None:
    """Run public benchmarks over recordings laid out like them: figures beside the published ones.

    One fixed configuration a suite, whatever the file. Ends with 1 if a bar of the suite is not met.
    """
    from stream.commands.evaluate import run_evaluate  # noqa: PLC0415

    sys.exit(run_evaluate(suites, folder, detector=detector, scores=scores, json_file=json_file, processes=processes))


@click.command()
@recordings
@click.option("--detector", "candidates", multiple=True, help="Let only these compete; default: all quick ones.")
@click.option("--seed", default=0, show_default=True)
@time_column
@asset_column
@explained
@examples("""
headrace choose history/*.csv
headrace choose history/ --detector innovations --detector lstm_forecaster
""")
def choose(
    data: tuple[Path, ...],
    candidates: tuple[str, ...],
    seed: int,
    time_column: str | None,
    asset_column: str | None,
) -> None:
    """Let detectors compete on clean history, and say which one to put into the plan.

    Each learns the older three quarters of the longest recording; faults are laid over copies of the newest quarter.
    """
    from stream.commands.choose import run_choose  # noqa: PLC0415

    run_choose(data, candidates=candidates, seed=seed, time_column=time_column, asset_column=asset_column)


@click.command()
@recordings
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="made",
    show_default=True,
    help="Folder for the made recordings and the report.",
)
@click.option("--class", "classes", multiple=True, help="Make windows of this class; default: of each scarce one.")
@click.option(
    "--count", type=click.IntRange(min=1), help="Windows of each class; default: as many as the richest class has more."
)
@click.option(
    "--rows", default=0, show_default=True, help="Rows of a window; 0: as the scarcest class allows, up to 64."
)
@click.option("--steps", default=1200, show_default=True, help="Steps of training; minutes on one core.")
@click.option(
    "--judge",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Labelled recordings to ask a classifier about, with and without the made windows; may be repeated.",
)
@click.option("--format", "file_format", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--seed", default=0, show_default=True, help="The same recordings and seed make the same windows.")
@time_column
@asset_column
@explained
@examples("""
headrace augment history/ labelled/
headrace augment history/ labelled/ --class leak --count 200 --judge last-month/
""")
def augment(data: tuple[Path, ...], **chosen: Any) -> None:
    """Make windows of faults there are few of: virtual data, learnt from recordings with a column `fault`.

    Two networks play against each other over windows of all classes. What they make is written as recordings of the
    same signals, for `headrace train` of a fault_classifier; how close it is to real windows is shown and written.
    """
    from stream.commands.augment import run_augment  # noqa: PLC0415

    run_augment(data, **chosen)


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@plan
@click.option("--detector", required=True, help="Which of the plan's detectors.")
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(min=0.01), help="How long to search.")
@click.option("--trials", type=click.IntRange(min=1), help="Stop after so many, if the time is not up before.")
@click.option(
    "--judge-by",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Recordings with a column of labels; without any, faults are laid over clean history.",
)
@click.option(
    "--study",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the search and its best artifact; what is in it goes on. Default: studies/DETECTOR by the plan.",
)
@click.option("--seed", default=0, show_default=True, help="Same data, seed and trials: the same search.")
@time_column
@asset_column
@explained
@examples("""
headrace tune history/ --detector pumps --minutes 20
headrace tune history/ --detector pumps --minutes 20   # again: goes on where it stopped
headrace tune history/ --detector pumps --judge-by labelled/ --trials 40
""")
def tune(
    data: tuple[Path, ...],
    plan_path: Path,
    detector: str,
    minutes: float,
    trials: int | None,
    judge_by: tuple[Path, ...],
    study: Path | None,
    seed: int,
    time_column: str | None,
    asset_column: str | None,
) -> None:
    """Search for the settings of a detector that do best on held-back data, and train with the best.

    The newest quarter of the longest recording is kept from each candidate, as `headrace choose` does. What the plan's
    `config` says is fixed; the rest is searched. Needs the extra: pip install 'headrace[tune]'.
    """
    from stream.commands.tune import run_tune  # noqa: PLC0415

    run_tune(
        plan_path,
        data,
        detector=detector,
        minutes=minutes,
        judge_by=judge_by,
        study=study,
        trials=trials,
        seed=seed,
        time_column=time_column,
        asset_column=asset_column,
    )
