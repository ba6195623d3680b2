"""``headrace replay --from-time``: a stretch of the readings topic once more, on a topic of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stream.commands.console import bar
from stream.errors import ConfigError
from stream.history import bound
from stream.plan import TopicSettings, load_plan
from stream.replay import copy
from stream.settings import KafkaSettings, from_environment


def run_copy(
    plan_path: Path, target: str, *, from_time: str | None, from_offset: str | None, until: str | None
) -> None:
    """Copy from the plan's readings topic to ``target``. Raises ``ConfigError``, ``BrokerError``."""
    if from_time and from_offset:
        raise ConfigError("--from-time and --from-offset: give one of them")
    source = (load_plan(plan_path).topics if plan_path.exists() else TopicSettings()).readings
    kafka = from_environment(KafkaSettings)
    with bar() as progress:
        task = progress.add_task("copying", total=None, note="")
        sent = copy(
            kafka,
            source,
            target,
            offsets=_offsets(from_offset) if from_offset else None,
            since_ms=bound("--from-time", from_time),
            until_ms=bound("--until", until),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    click.echo(f"{sent} records of {source} copied to {target} at {kafka.bootstrap}")
    click.echo(
        f"score them with a plan that has topics.readings = {target!r} and other output topics, "
        "and HEADRACE_KAFKA_GROUP set to a group of their own",
        file=sys.stderr,
    )


def _offsets(text: str) -> dict[int, int]:
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(partition): int(offset) for partition, offset in pairs}
    except ValueError:
        raise ConfigError(f"--from-offset: {text!r} is not partition:offset pairs such as 0:1500,1:1720") from None
