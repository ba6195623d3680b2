"""``headrace grow``: a model for a detector that began without history, from what has arrived; if better, it serves.

The worker starts it (``stream.growing``) as a process of its own; a person may as well.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from models.artifact import Artifact
from models.datasets import Recording
from models.errors import StoreError, TrainingError
from models.store import Store
from stream.commands.console import exam_table, plain
from stream.commands.exam import Exam, limited, sit
from stream.commands.train import cut, train_one
from stream.errors import BrokerError, ConfigError
from stream.growing import Outcome, Told, why_not
from stream.hindsight import Stretch, marked, read_past
from stream.history import read_newest
from stream.orders import order_of, send
from stream.plan import Plan, load_plan
from stream.settings import KafkaSettings, ModelsSettings, WorkerSettings, from_environment
from stream.shelf import begun

_log = logging.getLogger(__name__)

_HELD_BACK: Final = 0.25
#: Values that are in memory at a time, as they are read, and rows that are trained on: a small model, in minutes.
_MOST_VALUES: Final = 4_000_000
_MOST_ROWS, _LEAST_ROWS_EACH = 60_000, 1000
_LOWEST: Final = 19
#: Rows that are left out before and after what was alarmed.
_MARGIN_ROWS: Final = 10


@dataclass(frozen=True, slots=True)
class Grown:
    """What came of it. ``exam``: None where it did not come to one."""

    told: Told
    exam: Exam | None = None


def run_grow(plan_path: Path, detector: str, *, as_json: bool, seed: int = 0, background: bool = False) -> None:
    """Grow, show what came of it. Raises ``ConfigError``, ``BrokerError``, ``ModelError``.

    background  as a worker starts it: at the lowest priority, within bounds, and no longer than its parent
    """
    plan = load_plan(plan_path)
    if detector not in plan.detectors:
        raise ConfigError(f"{detector}: the plan has {', '.join(plan.detectors)}")
    if not plan.detectors[detector].grows:
        raise ConfigError(f"detectors.{detector}.begins_as: it begins as nothing that a grown model could follow")
    if background:
        _stay_below(from_environment(WorkerSettings).grow_memory_mb)
    grown = grow(plan, detector, from_environment(KafkaSettings), from_environment(ModelsSettings), seed=seed)
    if as_json:
        click.echo(json.dumps({**asdict(grown.told), "exam": grown.exam and asdict(grown.exam)}))
    else:
        show(grown)


def grow(plan: Plan, detector: str, kafka: KafkaSettings, models: ModelsSettings, *, seed: int = 0) -> Grown:
    """Train on what has arrived, examine, keep, promote if it passes. Raises ``BrokerError``, ``ConfigError``."""
    try:
        return _grow(plan, detector, kafka, models, seed)
    except TrainingError as error:
        return Grown(Told("too_little", str(error)))
    except StoreError as error:
        return Grown(Told("store", str(error)))


def _grow(plan: Plan, detector: str, kafka: KafkaSettings, models: ModelsSettings, seed: int) -> Grown:
    settings, store, young = plan.detectors[detector], plan.open_store(), begun(detector, plan.detectors[detector])
    if why := why_not(plan, detector, store):
        return Grown(Told("not_needed", why))
    recordings = read_newest(kafka, plan, settings.signals, _MOST_VALUES // len(settings.signals))
    watched = [
        held for held in recordings if settings.watches(held.asset) and set(settings.signals) <= set(held.signals)
    ]
    if not watched:
        raise TrainingError(f"no asset of {', '.join(settings.assets)} has shown all signals yet")
    watched = limited(watched, _MOST_ROWS, _LEAST_ROWS_EACH)
    artifact, exam = _examined(
        plan, detector, young, watched, read_past(kafka, plan, [held.asset for held in watched]), seed
    )
    by, why = models.by or "headrace grow", f"grown: {exam.why}"
    store.add(plan.stored(detector), artifact, why=why, by=by, signer=models.signer(), exam=asdict(exam))
    if not exam.passed:
        return Grown(Told("no_better", exam.why, artifact.version), exam)
    if decided := why_not(plan, detector, store):  # somebody may have meanwhile
        return Grown(Told("not_needed", decided, artifact.version), exam)
    _promote(plan, detector, store, young, artifact, models, why=why, by=by, kafka=kafka)
    return Grown(Told("promoted", exam.why, artifact.version), exam)


def _examined(
    plan: Plan, detector: str, young: Artifact, watched: Sequence[Recording], past: Sequence[Stretch], seed: int
) -> tuple[Artifact, Exam]:
    settings = plan.detectors[detector]
    from_ms, to_ms = min(int(held.at_ms[0]) for held in watched), max(int(held.at_ms[-1]) for held in watched)
    cut_ms = to_ms - round(_HELD_BACK * (to_ms - from_ms))
    past = [held for held in past if held.end_ms >= from_ms and held.start_ms <= to_ms and settings.watches(held.asset)]
    # an alert opens after its fault has begun, and what follows it takes a while to be as before
    margin_ms = round(1000 * (_MARGIN_ROWS * young.period_s + settings.on_delay_s))
    clean = [marked(held, past, margin_ms=margin_ms) for held in watched]
    earlier = [cut(held, first=int((held.at_ms < cut_ms).sum())) for held in clean]
    artifact = train_one(settings, [held for held in earlier if len(held.at_ms)], seed=seed)
    return artifact, sit(plan, detector, young, artifact, clean, past, held_back_from_ms=cut_ms, seed=seed)


def _promote(
    plan: Plan, detector: str, store: Store, young: Artifact, grown: Artifact, models: ModelsSettings,
    *, why: str, by: str, kafka: KafkaSettings,
) -> None:  # fmt: skip
    """Let it serve. What it began as is put before it, so that a roll-back finds it."""
    model = plan.stored(detector)
    if not store.now(model).serving:
        version = store.add(model, young, why="begun without history", by=by, signer=models.signer())
        store.decide(model, "promote", serving=version, why="begun without history", by=by)
    decision = store.decide(model, "promote", serving=grown.version, candidate="", why=why, by=by)
    try:
        send(kafka, plan, order_of(detector, decision))
    except BrokerError as error:  # the store has it: whoever looks there goes on with it
        _log.error("workers are not told: %s; headrace models reload %s does", error, detector)


def show(grown: Grown) -> None:
    """For a person."""
    console = Console()
    if grown.exam is not None:
        console.print(exam_table(asdict(grown.exam)))
    words: dict[Outcome, str] = {
        "promoted": f"{grown.told.version} serves now",
        "no_better": f"{grown.told.version} is kept, and does not serve",
        "not_needed": "nothing to grow",
        "too_little": "too little to learn from yet",
        "store": "the store did not take it",
    }
    console.print(f"{words.get(grown.told.outcome, grown.told.outcome)}: {plain(grown.told.why)}", highlight=False)


def _stay_below(memory_mb: int) -> None:
    """Take what is left of the machine, be the first to go where memory is short, and end with the parent.

    Standard input is a pipe that the parent never writes to: its end is the parent's, however that came.
    """
    os.nice(_LOWEST)
    with suppress(OSError):  # macOS has no such file
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if memory_mb and sys.platform == "linux":
        import resource  # noqa: PLC0415 (not on every system)

        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))

    def end_with_parent() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(os.EX_UNAVAILABLE)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
