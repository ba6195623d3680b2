"""``headrace retrain`` for a detector that tells faults apart: learnt from labels, judged on those kept back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from models.artifact import Artifact
from models.base import NORMAL, UNKNOWN
from models.datasets import Recording
from models.errors import TrainingError
from stream.commands.console import plain
from stream.commands.train import keep, margin_of, marked_for, train_one
from stream.comparing import measure
from stream.hindsight import Said, Stretch, learnt_in, said_of
from stream.lessons import (
    LEAST,
    LEAST_FAULTS,
    Marks,
    counts,
    digest,
    guess,
    lessons_of,
    marks,
    may_serve,
    missing,
    split,
    to_learn,
)
from stream.orders import order_of, send
from stream.plan import Plan
from stream.settings import KafkaSettings, ModelsSettings

if TYPE_CHECKING:
    from stream.commands.retrain import Wish


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of it. ``version``: of the new model; empty: nothing was trained, or nothing new came of it.

    lessons   fault -> labelled incidents; ``missing``: fault -> how many more are needed
    """

    detector: str
    said: Said
    lessons: Mapping[str, int]
    missing: Mapping[str, int]
    version: str = ""
    serving: Marks | None = None
    candidate: Marks | None = None
    promoted: bool = False
    why: str = ""
    left_out_rows: int = field(default=0)


def teach(
    plan: Plan,
    detector: str,
    now: Artifact | None,
    recordings: Sequence[Recording],
    past: Sequence[Stretch],
    wish: Wish,
    *,
    models: ModelsSettings,
    kafka: KafkaSettings,
) -> Taught:
    """Train on labelled faults if there are enough, judge against ``now`` or a guess, decide."""
    settings, store, model = plan.detectors[detector], plan.open_store(), plan.stored(detector)
    if now is not None:  # workers cannot go on with other signals
        settings = settings.model_copy(update={"signals": now.manifest.signals})
    watched = [held for held in recordings if settings.watches(held.asset) and len(held.at_ms)]
    if not watched:
        raise TrainingError(f"detectors.{detector}.assets: no recording matches {settings.assets}")
    from_ms, to_ms = min(int(held.at_ms[0]) for held in watched), max(int(held.at_ms[-1]) for held in watched)
    cut_ms = to_ms - round(wish.held_back * (to_ms - from_ms))
    past = [held for held in past if held.end_ms >= from_ms and held.start_ms <= to_ms and settings.watches(held.asset)]
    margin_ms = margin_of(settings, watched)
    clean = [learnt_in(held, plan.modes, settings.only_in) for held in marked_for(settings, watched, past)]
    lessons = lessons_of(clean)
    learn, asked = split(lessons)
    told = Taught(detector, said_of(past), counts(lessons), missing(lessons))
    if len(faults := counts(learn)) < LEAST_FAULTS:
        return replace(told, why=f"{LEAST_FAULTS} faults are needed, each labelled {LEAST} times; {len(faults)} are")
    seen = digest(lessons)
    if wish.if_drifted and any(store.origin(model, held).get("learnt") == seen for held in store.versions(model)):
        return replace(told, why="no labelled fault that was not there the last time")
    chosen = [to_learn(held, learn, until_ms=cut_ms, lead_ms=margin_ms) for held in clean]
    told = replace(told, left_out_rows=sum(_left_out(held) for held in chosen))
    try:
        artifact = train_one(settings, chosen, seed=wish.seed)
    except TrainingError as error:
        raise TrainingError(f"detectors.{detector}: {error}") from None
    if now is not None and artifact.version == now.version:
        return replace(told, why="the same model came of it")
    grades = [
        marks(measure(plan, detector, held, watched), asked, past, held_back_from_ms=cut_ms, grace_ms=margin_ms)
        for held in (now, artifact) if held is not None
    ]  # fmt: skip
    serving, candidate = guess(learn, asked) if now is None else grades[0], grades[-1]
    days = sum(max(to_ms - max(cut_ms, int(held.at_ms[0])), 0) for held in watched) / 86_400_000
    better, why = may_serve(
        serving,
        candidate,
        accepted=days * settings.false_alarms_per_day,
        knew=() if now is None else _names(now),
        knows=_names(artifact),
    )
    # nothing that is no better than a guess serves because nothing else does
    keep(plan, detector, "", artifact, why=f"taught: {why}", decide=False, learnt=seen, lessons=told.lessons)
    decision = store.now(model)
    if better and wish.promote:
        decision = store.decide(
            model, "promote", serving=artifact.version, candidate="", why=f"taught: {why}", by=models.by
        )
    elif decision.candidate != artifact.version:
        decision = store.decide(model, "shadow", candidate=artifact.version, why=f"taught: {why}", by=models.by)
    if wish.notify:
        send(kafka, plan, order_of(detector, decision))
    return replace(
        told, version=artifact.version, serving=serving, candidate=candidate, promoted=better and wish.promote, why=why
    )


def show_taught(told: Taught, *, as_json: bool) -> None:
    """For a person, or as JSON."""
    if as_json:
        click.echo(json.dumps(asdict(told)))
        return
    console = Console()
    found = ", ".join(f"{count} {fault}" for fault, count in told.lessons.items()) or "none"
    console.print(f"{told.detector}: labelled faults: {plain(found)}; {told.said.unjudged} alerts nobody has judged")
    for fault, count in told.missing.items():
        console.print(f"{plain(fault)}: {count} more are needed, or it is not learnt")
    if told.serving is not None and told.candidate is not None:
        faults = list(told.candidate.by_fault)
        heads = [plain(fault).markup for fault in faults]
        table = Table("", "version", "faults named", *heads, "false alarms", box=None)
        for name, held in (("so far", told.serving), ("taught", told.candidate)):
            of = [held.by_fault[fault] for fault in faults]
            table.add_row(
                name, plain(held.version), f"{held.right} of {held.asked}",
                *(f"{right} of {asked}" for right, asked in of), str(held.false_alarms),
            )  # fmt: skip
        console.print(table)
    if not told.version:
        console.print(f"nothing new: {plain(told.why)}")
    elif told.promoted:
        console.print(f"{told.version} serves now: {plain(told.why)}")
    else:
        console.print(
            f"{told.version} is a candidate ({plain(told.why)}): headrace models promote {told.detector} {told.version}"
        )


def _names(held: Artifact) -> list[str]:
    return [name for name in held.class_names or () if name not in (NORMAL, UNKNOWN)]


def _left_out(held: Recording) -> int:
    labels, faults = held.labels, held.faults
    return 0 if labels is None or faults is None else int((labels & (faults == NORMAL)).sum())
