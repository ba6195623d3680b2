"""``headrace retrain``: a detector anew from what has come since, judged, beside or in the place of what serves."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

from models import registry
from models.artifact import Artifact
from models.datasets import Recording, read
from models.errors import StoreError, TrainingError
from models.stationarity import Shift
from models.store import Store
from stream.commands.console import bar, plain
from stream.commands.teach import Taught, show_taught, teach
from stream.commands.train import cut, keep, train_one
from stream.comparing import measure
from stream.errors import BrokerError, ConfigError, NoReadings, SinkUnavailable
from stream.hindsight import Said, Stretch, learnt_in, marked, read_past, said_of
from stream.history import bound, read_topic
from stream.orders import order_of, send
from stream.plan import DetectorSettings, Plan, load_plan
from stream.recall import read_influxdb
from stream.retraining import Tally, drift, is_better, tally
from stream.settings import KafkaSettings, ModelsSettings, from_environment
from stream.sinks.influxclient import InfluxSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to train on, and what to do with what comes of it.

    data           recordings; none: the readings topic, or what workers wrote to InfluxDB
    source         which of the two
    since, until   of the topic or of InfluxDB, RFC 3339
    last_s         only the newest so many seconds of each recording
    held_back      share of the time, the newest, that is judged on and not trained on
    if_drifted     train only if scores or signals have drifted there
    promote        let it serve if it is better; else it is a candidate, which workers let score beside
    """

    data: tuple[Path, ...] = ()
    source: Literal["topic", "influxdb"] = "topic"
    since: str | None = None
    until: str | None = None
    last_s: float | None = None
    held_back: float = 0.25
    if_drifted: bool = False
    promote: bool = False
    notify: bool = True
    seed: int = 0
    time_column: str | None = None
    asset_column: str | None = None


@dataclass(frozen=True, slots=True)
class Retrained:
    """What came of it. ``version``: of the candidate; empty: nothing was trained, or nothing new came of it."""

    detector: str
    left_out_rows: int
    rows: int
    drifted: tuple[Shift, ...]
    said: Said
    version: str = ""
    serving: Tally | None = None
    candidate: Tally | None = None
    promoted: bool = False
    why: str = ""


def run_retrain(
    plan_path: Path, detector: str, wish: Wish, *, every_s: float | None = None, as_json: bool = False
) -> None:
    """Once, or every ``every_s`` seconds until stopped. Raises ``ConfigError``, ``BrokerError``, ``ModelError``."""
    bound("--since", wish.since), bound("--until", wish.until)
    if every_s is None:
        _show(_once(plan_path, detector, wish, console=Console(stderr=as_json)), as_json=as_json)
        return
    watch(lambda: _show(_once(plan_path, detector, wish), as_json=as_json), every_s)


def watch(once: Callable[[], None], every_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Call ``once`` every so many seconds, until interrupted. What goes wrong in one round is told."""
    while True:
        began = time.monotonic()
        try:
            once()
        except (BrokerError, NoReadings, SinkUnavailable, StoreError, TrainingError) as error:
            _log.error("this round was in vain, the next comes in %g s: %s", every_s, error)
        sleep(max(every_s - (time.monotonic() - began), 0.0))


def _once(plan_path: Path, detector: str, wish: Wish, console: Console | None = None) -> Retrained | Taught:
    plan, models = load_plan(plan_path), from_environment(ModelsSettings)
    if detector not in plan.detectors:
        raise ConfigError(f"{detector}: the plan has {', '.join(plan.detectors)}")
    if not plan.stored(detector):
        raise ConfigError(f'detectors.{detector}.artifact: retraining keeps versions: write artifact = "store:"')
    apart = registry.tells_faults_apart(plan.detectors[detector].kind)
    now = _serving(plan, detector, plan.open_store(models.verifier()), needed=not apart)
    kafka = from_environment(KafkaSettings)
    if wish.data:
        recordings = [
            held for path in wish.data
            for held in read(path, time_column=wish.time_column, asset_column=wish.asset_column)
        ]  # fmt: skip
    elif wish.source == "influxdb":
        recordings = read_influxdb(
            from_environment(InfluxSettings), plan, detector, wish.since, wish.until,
            signals=now.manifest.signals if now else plan.detectors[detector].signals,
            period_s=now.period_s if now else None,
        )  # fmt: skip
    else:
        recordings = read_topic(kafka, plan, wish.since, wish.until, now.manifest.signals if now else ())
    recordings = [_newest(held, wish.last_s) for held in recordings if len(held.at_ms)]
    past = read_past(kafka, plan, [held.asset for held in recordings])
    if apart:
        return teach(plan, detector, now, recordings, past, wish, models=models, kafka=kafka)
    assert now is not None  # noqa: S101 (it was needed)
    return retrain(plan, detector, now, recordings, past, wish, models=models, kafka=kafka, console=console)


def _serving(plan: Plan, detector: str, store: Store, *, needed: bool) -> Artifact | None:
    """What serves. Raises ``StoreError`` where nothing does, if it is needed."""
    model = plan.stored(detector)
    if not (version := store.now(model).serving):
        if not needed:
            return None
        raise StoreError(f"{detector}: nothing serves yet that a new one could be better than: headrace train")
    return store.load(model, version)


def retrain(
    plan: Plan,
    detector: str,
    now: Artifact,
    recordings: Sequence[Recording],
    past: Sequence[Stretch],
    wish: Wish,
    *,
    models: ModelsSettings,
    kafka: KafkaSettings,
    console: Console | None = None,
) -> Retrained:
    """Train, judge against ``now``, decide. Workers are told through ``kafka`` if ``wish.notify``."""
    # the same signals: workers cannot go on with others
    settings = plan.detectors[detector].model_copy(update={"signals": now.manifest.signals})
    watched = [held for held in recordings if settings.watches(held.asset)]
    if not watched:
        raise TrainingError(f"detectors.{detector}.assets: no recording matches {settings.assets}")
    from_ms, to_ms = min(int(held.at_ms[0]) for held in watched), max(int(held.at_ms[-1]) for held in watched)
    cut_ms = to_ms - round(wish.held_back * (to_ms - from_ms))
    grace_ms = round(1000 * (now.window * now.period_s + settings.on_delay_s))
    past = [held for held in past if held.end_ms >= from_ms and held.start_ms <= to_ms and settings.watches(held.asset)]
    # windows that begin before a fault see it too, and what is over takes a window to be gone
    clean = [learnt_in(marked(held, past, margin_ms=grace_ms), plan.modes, settings.only_in) for held in watched]
    before = measure(plan, detector, now, watched)
    found = drift(before, clean, recent_from_ms=cut_ms)
    told = Retrained(
        detector=detector,
        rows=sum(len(held.at_ms) for held in clean),
        left_out_rows=sum(int(held.labels.sum()) for held in clean if held.labels is not None),
        drifted=tuple(shift for shift in found if shift.drifted),
        said=said_of(past),
    )
    if wish.if_drifted and not told.drifted:
        return replace(told, why="nothing has drifted")
    artifact = _trained(detector, settings, [_until(held, cut_ms) for held in clean], wish.seed, console)
    if artifact.version == now.version:
        return replace(told, why="the same model came of it")
    tallies = [
        tally(held, past, held_back_from_ms=cut_ms, grace_ms=grace_ms, quiet=(detector, now.version))
        for held in (before, measure(plan, detector, artifact, watched))
    ]
    days = sum(max(to_ms - max(cut_ms, int(held.at_ms[0])), 0) for held in watched) / 86_400_000
    better, why = is_better(tallies[0], tallies[1], days * settings.false_alarms_per_day)
    keep(plan, detector, "", artifact, why=f"retrained: {why}", labels=asdict(told.said))
    promoted = better and wish.promote
    _decide(plan, detector, artifact.version, why, models, kafka if wish.notify else None, promote=promoted)
    return replace(told, version=artifact.version, serving=tallies[0], candidate=tallies[1], promoted=promoted, why=why)


def _decide(
    plan: Plan, detector: str, version: str, why: str, models: ModelsSettings,
    kafka: KafkaSettings | None, *, promote: bool,
) -> None:  # fmt: skip
    store, model = plan.open_store(), plan.stored(detector)
    if promote:
        decision = store.decide(model, "promote", serving=version, candidate="", why=f"retrained: {why}", by=models.by)
    else:
        decision = store.now(model)  # ``keep`` has made it the candidate
    if kafka is not None:
        send(kafka, plan, order_of(detector, decision))


def _trained(
    detector: str, settings: DetectorSettings, recordings: Sequence[Recording], seed: int, console: Console | None
) -> Artifact:
    with bar(console) as progress:
        task = progress.add_task(detector, total=1, note="")

        def report(step: int, total: int, note: str) -> None:
            progress.update(task, completed=step, total=total, note=note)

        try:
            return train_one(settings, recordings, seed=seed, progress=report)
        except TrainingError as error:
            raise TrainingError(f"detectors.{detector}: {error}") from None


def _newest(recording: Recording, last_s: float | None) -> Recording:
    if last_s is None:
        return recording
    skip = int((recording.at_ms < recording.at_ms[-1] - round(1000 * last_s)).sum())
    return cut(recording, skip=skip)


def _until(recording: Recording, cut_ms: int) -> Recording:
    return cut(recording, first=int((recording.at_ms < cut_ms).sum()))


def _show(told: Retrained | Taught, *, as_json: bool) -> None:
    if isinstance(told, Taught):
        show_taught(told, as_json=as_json)
        return
    if as_json:
        click.echo(json.dumps(asdict(told)))
        return
    console = Console()
    console.print(
        f"{told.detector}: {told.left_out_rows} of {told.rows} readings were alarmed, labelled or of maintenance and "
        f"are left out; "
        f"drifted: {plain(', '.join(shift.name for shift in told.drifted[:8]) or 'nothing')}"
    )
    console.print(f"labels: {plain(_in_words(told.said))}")
    if told.serving is not None and told.candidate is not None:
        table = Table("", "version", "labelled faults found", "labelled false alarms raised", "held-back: false alarms",
                      box=None)  # fmt: skip
        for name, held in (("serving", told.serving), ("retrained", told.candidate)):
            table.add_row(name, held.version, f"{held.found} of {held.faults}", f"{held.repeated} of {held.excused}",
                          str(held.false_alarms))  # fmt: skip
        console.print(table)
    if not told.version:
        console.print(f"nothing new: {plain(told.why)}")
    elif told.promoted:
        console.print(f"{told.version} serves now: {plain(told.why)}")
    else:
        console.print(
            f"{told.version} is a candidate ({plain(told.why)}); workers let it score beside what serves; then: "
            f"headrace models promote {told.detector} {told.version}"
        )


def _in_words(said: Said) -> str:
    faults = ", ".join(f"{count} {fault}" for fault, count in said.faults.items())
    return (
        f"{said.true} true{f' ({faults})' if faults else ''}, {said.false_alarms} false alarms; "
        f"{said.unjudged} alerts that nobody has judged"
    )
