"""The command line: ``headrace ...``. Each command imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from stream.commands.dlq_group import dlq
from stream.commands.history_group import augment, backtest, choose, evaluate, train, tune
from stream.commands.models_group import models_group
from stream.commands.operators_group import operators_groups
from stream.commands.options import asset_column, examples, explained, plan, time_column
from stream.commands.simulate_group import simulate
from stream.sources import BRIDGES


class _Help(click.Group):
    """Shows the commands in the order of use, and turns our errors into one clear line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return [
            "demo",
            "check",
            "train",
            "models",
            "retrain",
            "grow",
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
@explained
@examples("""
headrace demo
headrace demo --stay
headrace demo --data recordings/valve1
""")
def demo(data: Path | None, output: Path, seed: int, stay: bool) -> None:
    """Run everything here: an embedded broker, a simulated plant with faults, training, the worker, its alerts."""
    from stream.demo.run import run_demo  # noqa: PLC0415

    sys.exit(run_demo(data, seed=seed, output=output, stay=stay))


@main.command()
@plan
@click.option("--connect/--no-connect", default=True, help="Also see whether the broker answers.")
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Records as on the readings topic, one a line: warn of wrong units, local times, late readings.",
)
@explained
@examples("""
headrace check
headrace check --plan plant/headrace.toml --no-connect
headrace check --sample first-thousand.jsonl
""")
def check(plan_path: Path, connect: bool, sample: Path | None) -> None:
    """Validate the plan, its artifacts and the environment, and print what would run."""
    from stream.commands.check import run_check  # noqa: PLC0415

    sys.exit(run_check(plan_path, connect=connect, sample=sample))


@main.command()
@plan
@click.option(
    "--web-port", type=click.IntRange(0, 65535), help="Port of the live page, /metrics and /health; 0 takes a free one."
)
@explained
@examples("""
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
@plan
@click.option("--check", "only_check", is_flag=True, help="Validate the plan's section and the environment, then end.")
@click.option(
    "--sample",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --check: look at live data for so long, and show what they would become. Nothing reaches Kafka.",
)
@click.option("--web-port", type=click.IntRange(0, 65535), help="Port of /metrics and /health; 0 takes a free one.")
@explained
@examples("""
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
@plan
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
@time_column
@asset_column
@explained
@examples("""
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
    from stream.plan import TopicSettings, load_plan  # noqa: PLC0415
    from stream.replay import replay as send  # noqa: PLC0415
    from stream.settings import KafkaSettings, from_environment  # noqa: PLC0415

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


for command in (train, backtest, evaluate, choose, augment, tune, dlq, simulate):
    main.add_command(command)
operators_groups(main)
models_group(main)


if __name__ == "__main__":
    main()
