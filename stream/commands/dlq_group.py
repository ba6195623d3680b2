"""``headrace dlq ...`` as the command line sees it; what each does is in ``stream.commands.dlq``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stream.commands.options import examples, explained, plan


@click.group()
def dlq() -> None:
    """Dead letters: records that could not be used, with the reason."""


_REASON = click.option("--reason", "reasons", multiple=True, help="Only these reasons, e.g. absurd_time; repeatable.")
_STAGE = click.option("--stage", "stages", multiple=True, help="Only from these stages, e.g. decode; repeatable.")
_SINCE = click.option("--since", help="Only letters written at this time or later, e.g. 2026-11-23T08:00:00Z.")


@dlq.command("list")
@plan
@_REASON
@_STAGE
@_SINCE
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows shown; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@explained
@examples("""
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
@plan
@_REASON
@_STAGE
@_SINCE
@click.option("--topic", help="Topic to send to; default: the plan's readings topic.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@explained
@examples("""
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
