"""``headrace dlq``: look at dead letters, and send them again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stream.commands.console import plain
from stream.deadletters import Letter, letters, resend
from stream.history import bound
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings, from_environment
from stream.sources.json import timestamp

_SHOWN = 60


def run_list(
    plan_path: Path, *, reasons: Collection[str], stages: Collection[str], since: str | None, limit: int, as_json: bool
) -> None:
    """Print the letters, the oldest first, and how many there are of each reason."""
    kafka, topics = from_environment(KafkaSettings), _topics(plan_path)
    found = letters(kafka, topics.dead_letters, reasons=reasons, stages=stages, since_ms=bound("--since", since))
    if as_json:
        for letter in islice(found, limit or None):
            click.echo(msgspec.json.encode(_plain(letter)).decode())
        return
    table = Table("written", "from", "stage", "reason", "what", "value", box=None)
    count: Counter[str] = Counter()
    for number, letter in enumerate(found):
        count[letter.reason or "(none)"] += 1
        if not limit or number < limit:
            topic, partition, offset = letter.origin
            what = letter.error.removeprefix(f"{letter.reason}: ")
            table.add_row(
                timestamp(letter.written_ms),
                plain(f"{topic}-{partition}@{offset}"),
                plain(letter.stage),
                plain(letter.reason),
                plain(what[:_SHOWN]),
                plain(_text(letter.value)[:_SHOWN]),
            )
    total = sum(count.values())
    if not total:
        click.echo(f"{topics.dead_letters} at {kafka.bootstrap}: no such letters")
        return
    Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True).print(table)
    if limit and total > limit:
        click.echo(f"... and {total - limit} more (--limit 0 shows all)")
    click.echo(f"{total} letters: " + ", ".join(f"{number} {reason}" for reason, number in count.most_common()))


def run_replay(
    plan_path: Path,
    *,
    reasons: Collection[str],
    stages: Collection[str],
    since: str | None,
    topic: str | None,
    dry_run: bool,
) -> int:
    """Send letters again; the exit status is 1 where some could not be sent."""
    kafka, topics = from_environment(KafkaSettings), _topics(plan_path)
    target = topic or topics.readings
    found = letters(kafka, topics.dead_letters, reasons=reasons, stages=stages, since_ms=bound("--since", since))
    if dry_run:
        count = Counter(letter.reason for letter in found if not letter.unsendable)
        click.echo(f"would send {sum(count.values())} letters to {target}: {_counted(count)}")
        return 0
    sent: Counter[str] = Counter()
    number, left = resend(kafka, _progress(found), target, sent=lambda letter: sent.update([letter.reason]))
    click.echo(f"{number} letters sent to {target} at {kafka.bootstrap}: {_counted(sent)}")
    for letter in left:
        topic_of, partition, offset = letter.origin
        click.echo(f"not sent: the letter at {letter.at[0]}@{letter.at[1]} {letter.unsendable}; it came from "
                   f"{topic_of}-{partition}@{offset}", err=True)  # fmt: skip
    return 1 if left else 0


def _topics(plan_path: Path) -> TopicSettings:
    return load_plan(plan_path).topics if plan_path.exists() else TopicSettings()


def _progress(found: Iterator[Letter]) -> Iterator[Letter]:
    with click.progressbar(found, label="sending", file=sys.stderr, show_pos=True) as shown:
        yield from shown


def _counted(count: Counter[str]) -> str:
    return ", ".join(f"{number} {reason or '(none)'}" for reason, number in count.most_common()) or "none"


def _text(value: bytes | None) -> str:
    return "(none)" if value is None else value.decode("utf-8", "backslashreplace")


def _plain(letter: Letter) -> dict[str, object]:
    topic, partition, offset = letter.origin
    return {
        "written": timestamp(letter.written_ms),
        "letter": {"partition": letter.at[0], "offset": letter.at[1]},
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "stage": letter.stage,
        "reason": letter.reason,
        "error": letter.error,
        "key": None if letter.key is None else _text(letter.key),
        "value": None if letter.value is None else _text(letter.value),
        "truncated": letter.truncated,
    }
