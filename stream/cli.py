"""The command line: ``headrace ...``. Each command imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

import click

from stream.commands.models_group import models_group
from stream.commands.operators_group import operators_groups
from stream.sources import BRIDGES

F = TypeVar("F", bound=Callable[..., Any])

_PLAN = click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="headrace.toml",
    show_default=True,
    help="The plan: which detector watches what.",
)
_DATA = click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
_TIME_COLUMN = click.option("--time-column", help="Column that holds the time, where its name does not tell.")
_ASSET_COLUMN = click.option("--asset-column", help="Column that tells assets apart; else every file is one asset.")


class _Help(click.Group):
    """Shows the commands in the order of use, and turns our errors into one clear line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return [
            "demo",
            "check",
            "train",
            "models",
            "retrain",
            "worker",
            "bridge",
            "replay",
            "backtest",
            "evaluate",
            "choose",
            "tune",
            "augment",
            "alerts",
            "incidents",
            "maintenance",
            "mode",
            "dlq",
            "simulate",
        ]


def _examples(text: str) -> Callable[[F], F]:
    """Put examples, kept as they are typed, at the end of a command's help."""

    def add(function: F) -> F:
        lines = "\n".join(f"  {line}" for line in text.strip().splitlines())
        function.__doc__ = f"{cleandoc(function.__doc__ or '')}\n\n\b\nExamples:\n{lines}"
        return function

    return add


def _explained(function: F) -> F:
    """Errors raised on purpose end the command with their message and status 2, without a traceback."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from models.errors import ModelError  # noqa: PLC0415 (help must not wait for imports)
        from stream.errors import StreamError  # noqa: PLC0415

        try:
            return function(*args, **kwargs)
        except (StreamError, ModelError) as error:
            click.secho(f"headrace: {error}", fg="red", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    return run  # type: ignore[return-value]


def installed_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "not installed"


@click.group(cls=_Help, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(installed_version(), prog_name="headrace")
def main() -> None:
    """Headrace watches a plant's sensor streams on Kafka for what is going wrong, with deep learning.

    \b
    See it work:      headrace demo
    Set it up:        write a plan (headrace.toml), then check, train, worker
    Look at results:  alerts follows the alert topic; backtest runs recordings without a broker

    Where Kafka and InfluxDB are is read from the environment: HEADRACE_KAFKA_BOOTSTRAP and others, see the README.
    """  # noqa: D301 (click wants the character itself: the lines that follow stay as they are)


@main.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), help="Real recordings in place of the simulated plant."
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="demo-output", show_default=True)
@click.option(
    "--seed", default=7, show_default=True, help="The simulated plant and the training are the same for a seed."
)
@click.option("--stay", is_flag=True, help="Keep broker, worker and metrics up afterwards, until Ctrl-C.")
@_explained
@_examples("""
headrace demo
headrace demo --stay
headrace demo --data recordings/valve1
""")
def demo(data: Path | None, output: Path, seed: int, stay: bool) -> None:
    """Run everything here: an embedded broker, a simulated plant with faults, training, the worker, its alerts."""
    from stream.demo.run import run_demo  # noqa: PLC0415

    sys.exit(run_demo(data, seed=seed, output=output, stay=stay))


@main.command()
@_PLAN
@click.option("--connect/--no-connect", default=True, help="Also see whether the broker answers.")
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Records as on the readings topic, one a line: warn of wrong units, local times, late readings.",
)
@_explained
@_examples("""
headrace check
headrace check --plan plant/headrace.toml --no-connect
headrace check --sample first-thousand.jsonl
""")
def check(plan_path: Path, connect: bool, sample: Path | None) -> None:
    """Validate the plan, its artifacts and the environment, and print what would run."""
    from stream.commands.check import run_check  # noqa: PLC0415

    sys.exit(run_check(plan_path, connect=connect, sample=sample))


@main.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
@_PLAN
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
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
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


@main.command()
@_PLAN
@click.option(
    "--web-port", type=click.IntRange(0, 65535), help="Port of the live page, /metrics and /health; 0 takes a free one."
)
@_explained
@_examples("""
headrace worker
HEADRACE_KAFKA_BOOTSTRAP=kafka-1:9092,kafka-2:9092 headrace worker --plan plant/headrace.toml
HEADRACE_INFLUX_URL=http://influx:8086 HEADRACE_INFLUX_TOKEN=... headrace worker
""")
def worker(plan_path: Path, web_port: int | None) -> None:
    """Run a stream processor: watch the readings topic, publish alerts and metrics. Start as many as there is to do."""
    from stream.worker import run_worker  # noqa: PLC0415

    sys.exit(run_worker(plan_path, web_port=web_port))


@main.command()
@click.argument("name", metavar="mqtt|opcua", type=click.Choice(BRIDGES))
@_PLAN
@click.option("--check", "only_check", is_flag=True, help="Validate the plan's section and the environment, then end.")
@click.option(
    "--sample",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --check: look at live data for so long, and show what they would become. Nothing reaches Kafka.",
)
@click.option("--web-port", type=click.IntRange(0, 65535), help="Port of /metrics and /health; 0 takes a free one.")
@_explained
@_examples("""
headrace bridge mqtt --check --sample 10
HEADRACE_MQTT_HOST=broker.plant HEADRACE_MQTT_USERNAME=headrace headrace bridge mqtt
HEADRACE_OPCUA_URL=opc.tcp://plc-1:4840 headrace bridge opcua
""")
def bridge(name: str, plan_path: Path, only_check: bool, sample: float | None, web_port: int | None) -> None:
    """Bring a plant's data to the readings topic, at least once: from an MQTT broker or an OPC UA server.

    The plan's [bridge.mqtt] or [bridge.opcua] says which values are which signal of which asset: docs/bridges.md.
    """
    if sample is not None and not only_check:
        raise click.UsageError("--sample goes with --check")
    if only_check:
        from stream.commands.bridge import run_check  # noqa: PLC0415

        sys.exit(run_check(name, plan_path, sample_s=sample))
    from stream.bridge.run import run_bridge  # noqa: PLC0415

    sys.exit(run_bridge(name, plan_path, web_port=web_port, version=installed_version()))


@main.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--topic", help="Topic to send to; default: the plan's readings topic, or plant.readings.v1.")
@_PLAN
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Recorded seconds per second; default: at once."
)
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first N readings of each recording.")
@click.option(
    "--frames", type=click.IntRange(1, 10_000), help="Put N readings into a record, as gateways that batch do."
)
@click.option("--packed", is_flag=True, help="With --frames: packed frames instead of JSON.")
@click.option("--from-time", help="Instead of files: what the readings topic holds from this time on; needs --topic.")
@click.option("--from-offset", help="Instead of files: from these offsets on, e.g. 0:1500,1:1720; needs --topic.")
@click.option("--until", help="With --from-time or --from-offset: up to this time.")
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
headrace replay recordings/*.csv
headrace replay recordings/ --speed 60 --skip 400
headrace replay recordings/ --frames 100
headrace replay --from-time 2026-11-01T00:00:00Z --topic plant.readings.again
""")
def replay(
    data: tuple[Path, ...],
    topic: str | None,
    plan_path: Path,
    speed: float | None,
    skip: int,
    frames: int | None,
    packed: bool,
    from_time: str | None,
    from_offset: str | None,
    until: str | None,
    time_column: str | None,
    asset_column: str | None,
) -> None:
    """Send recordings to the readings topic as a plant would: in the order of time, keyed by asset.

    With --from-time or --from-offset, copy a stretch of the readings topic to another one, record by record and
    partition by partition: a worker with that topic in its plan and a group of its own repeats scores, alerts and ids.
    """
    if from_time or from_offset:
        if data or not topic:
            raise click.UsageError("--from-time and --from-offset take --topic and no files")
        from stream.commands.replay import run_copy  # noqa: PLC0415

        run_copy(plan_path, topic, from_time=from_time, from_offset=from_offset, until=until)
        return
    if packed and not frames:
        raise click.UsageError("--packed needs --frames")
    if not data:
        raise click.UsageError("name the recordings to send, or --from-time, or --from-offset")
    from models.datasets import read  # noqa: PLC0415
    from stream.commands.console import advancing  # noqa: PLC0415
    from stream.commands.train import cut  # noqa: PLC0415
    from stream.replay import replay as send  # noqa: PLC0415
    from stream.settings import KafkaSettings, TopicSettings, from_environment, load_plan  # noqa: PLC0415

    topics = load_plan(plan_path).topics if plan_path.exists() else TopicSettings()
    recordings = [
        cut(held, skip=skip) for path in data for held in read(path, time_column=time_column, asset_column=asset_column)
    ]
    kafka = from_environment(KafkaSettings)
    with advancing("sending", sum(len(held.at_ms) for held in recordings)) as advance:
        sent = send(
            kafka, topic or topics.readings, recordings, speed=speed, frames=frames, packed=packed, progress=advance
        )
    click.echo(f"{sent} readings of {len(recordings)} assets sent to {topic or topics.readings} at {kafka.bootstrap}")


@main.command()
@_DATA
@_PLAN
@click.option(
    "--scores", type=click.Path(dir_okay=False, path_type=Path), help="Write a CSV row per reading and detector."
)
@click.option(
    "--alerts", "alerts_path", type=click.Path(dir_okay=False, path_type=Path), help="Write alerts as JSON lines."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML report with plots.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first N readings of each recording.")
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
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


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--suite",
    "suites",
    multiple=True,
    required=True,
    type=click.Choice(["nab", "skab", "tep", "asd", "smap_msl"]),
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
@_explained
@_examples("""
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


@main.command()
@_DATA
@click.option("--detector", "candidates", multiple=True, help="Let only these compete; default: all quick ones.")
@click.option("--seed", default=0, show_default=True)
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
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


@main.command()
@_DATA
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
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
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


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@_PLAN
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
@_TIME_COLUMN
@_ASSET_COLUMN
@_explained
@_examples("""
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


operators_groups(main, _PLAN, _explained, _examples)


@main.group()
def dlq() -> None:
    """Dead letters: records that could not be used, with the reason."""


_REASON = click.option("--reason", "reasons", multiple=True, help="Only these reasons, e.g. absurd_time; repeatable.")
_STAGE = click.option("--stage", "stages", multiple=True, help="Only from these stages, e.g. decode; repeatable.")
_SINCE = click.option("--since", help="Only letters written at this time or later, e.g. 2026-11-23T08:00:00Z.")


@dlq.command("list")
@_PLAN
@_REASON
@_STAGE
@_SINCE
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows shown; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_explained
@_examples("""
headrace dlq list
headrace dlq list --reason absurd_time --since 2026-11-23T08:00:00Z
headrace dlq list --limit 0 --json | jq -r .value
""")
def dlq_list(
    plan_path: Path, reasons: tuple[str, ...], stages: tuple[str, ...], since: str | None, limit: int, as_json: bool
) -> None:
    """Show what was refused, where it came from and why."""
    from stream.commands.dlq import run_list  # noqa: PLC0415

    run_list(plan_path, reasons=reasons, stages=stages, since=since, limit=limit, as_json=as_json)


@dlq.command("replay")
@_PLAN
@_REASON
@_STAGE
@_SINCE
@click.option("--topic", help="Topic to send to; default: the plan's readings topic.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@_explained
@_examples("""
headrace dlq replay --reason unknown_signals --dry-run
headrace dlq replay --reason unknown_signals
""")
def dlq_replay(
    plan_path: Path,
    reasons: tuple[str, ...],
    stages: tuple[str, ...],
    since: str | None,
    topic: str | None,
    dry_run: bool,
) -> None:
    """Send dead letters again, byte for byte, when the cause is mended. Twice does no harm."""
    from stream.commands.dlq import run_replay  # noqa: PLC0415

    sys.exit(run_replay(plan_path, reasons=reasons, stages=stages, since=since, topic=topic, dry_run=dry_run))


models_group(main, _PLAN, _explained, _examples)


@main.group()
def simulate() -> None:
    """The demo's simulated plant: plan, models and readings for a Kafka cluster, or its recordings as files."""


_SEED = click.option("--seed", default=7, show_default=True, help="Which plant; the same for both commands.")


@simulate.command("prepare")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_SEED
@_explained
@_examples("""
headrace simulate prepare plant/
headrace worker --plan plant/headrace.toml
""")
def simulate_prepare(folder: Path, seed: int) -> None:
    """Write the plant's plan and train its models (a minute or two); what is already there is kept."""
    from stream.demo.plant import prepare  # noqa: PLC0415

    trained = prepare(folder, seed=seed)
    click.echo(f"{folder}: {f'{len(trained)} models trained' if trained else 'all models are there'}")


@simulate.command("record")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--kind", "kinds", multiple=True, help="Only these machines: pump, compressor, exchanger; repeatable.")
@_SEED
@_explained
@_examples("""
headrace simulate record plant/ --kind pump
headrace train plant/history --plan plant/headrace.toml
headrace backtest plant/live --plan plant/headrace.toml
""")
def simulate_record(folder: Path, kinds: tuple[str, ...], seed: int) -> None:
    """Write the plant as CSV files: clean history to train on, and eight later hours with labelled faults."""
    from stream.demo.recordings import FOLDERS, record  # noqa: PLC0415

    assets = record(folder, kinds=kinds, seed=seed)
    click.echo(f"{assets} assets in {' and '.join(str(folder / name) for name in FOLDERS)}")


@simulate.command("run")
@_SEED
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="A machine is read every 10 seconds divided by this.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), help="How often its eight hours are lived through; default: on and on."
)
@_explained
@_examples("""
headrace simulate run
HEADRACE_KAFKA_BOOTSTRAP=kafka-1:9092 headrace simulate run --speed 10
""")
def simulate_run(seed: int, speed: float, rounds: int | None) -> None:
    """Send the plant's readings, with faults among them, stamped with the time of day."""
    from stream.demo.plant import run  # noqa: PLC0415
    from stream.settings import KafkaSettings, from_environment  # noqa: PLC0415

    sent = run(from_environment(KafkaSettings), seed=seed, speed=speed, rounds=rounds)
    click.echo(f"{sent} readings sent")


if __name__ == "__main__":
    main()
