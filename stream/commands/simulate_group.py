"""``headrace simulate ...`` as the command line sees it: the demo's plant for a cluster, or as files."""

from __future__ import annotations

from pathlib import Path

import click

from stream.commands.options import examples, explained


@click.group()
def simulate() -> None:
    """The demo's simulated plant: plan, models and readings for a Kafka cluster, or its recordings as files."""


_SEED = click.option("--seed", default=7, show_default=True, help="Which plant; the same for both commands.")


@simulate.command("prepare")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_SEED
@explained
@examples("""
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
@explained
@examples("""
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
@explained
@examples("""
headrace simulate run
HEADRACE_KAFKA_BOOTSTRAP=kafka-1:9092 headrace simulate run --speed 10
""")
def simulate_run(seed: int, speed: float, rounds: int | None) -> None:
    """Send the plant's readings, with faults among them, stamped with the time of day."""
    from stream.demo.plant import run  # noqa: PLC0415
    from stream.settings import KafkaSettings, from_environment  # noqa: PLC0415

    sent = run(from_environment(KafkaSettings), seed=seed, speed=speed, rounds=rounds)
    click.echo(f"{sent} readings sent")
