"""``headrace train``: a plan's detectors, trained on files or on a stretch of the readings topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models import registry
from models.artifact import Artifact
from models.base import Progress, no_progress
from models.beginning import untrained
from models.datasets import Recording, read
from models.diagnosis import train_classifier
from models.errors import TrainingError
from models.inspection import train_inspector
from models.pictures import read_folder
from models.train import infer_period_s, train
from stream.commands.console import bar
from stream.errors import ConfigError
from stream.hindsight import Stretch, learnt_in, marked, read_past
from stream.history import read_topic
from stream.plan import DetectorSettings, Plan, load_plan
from stream.settings import KafkaSettings, ModelsSettings, from_environment


def run_train(
    plan_path: Path,
    data: Sequence[Path],
    *,
    only: Sequence[str] = (),
    first: int | None = None,
    topic_range: tuple[str | None, str | None] | None = None,
    seed: int = 0,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Train, show the figures of each model, write the artifacts. Raises ``ConfigError`` and ``ModelError``."""
    plan = load_plan(plan_path)
    unknown = set(only) - set(plan.detectors)
    if unknown:
        raise ConfigError(f"--detector {min(unknown)}: the plan has {', '.join(plan.detectors)}")
    if plan.input.format == "pictures":
        if topic_range is not None:
            raise ConfigError("--from-topic: an inspector is trained on folders of pictures")
        console = Console()
        console.print(_summary(plan, train_inspectors(plan, data, only=only, seed=seed, console=console)))
        return
    past: Sequence[Stretch] = ()
    if topic_range is not None:
        kafka = from_environment(KafkaSettings)
        recordings = read_topic(kafka, plan, *topic_range)
        past = read_past(kafka, plan, [held.asset for held in recordings])
    else:
        recordings = [held for path in data for held in read(path, time_column=time_column, asset_column=asset_column)]
    recordings = [cut(held, first=first) for held in recordings]
    console = Console()
    trained = train_plan(plan, recordings, past, only=only, seed=seed, console=console)
    console.print(_summary(plan, trained))
    for name in only or plan.detectors:
        if plan.detectors[name].is_stored:
            versions = [artifact.version for held, _, _, artifact in trained if held == name]
            console.print(f"{name}: {stored_as(plan, name, versions[-1])}", highlight=False)
        else:
            console.print(f"{name}: {plan.folder / plan.detectors[name].artifact}", highlight=False)


def run_cold(plan_path: Path, *, period_s: float, only: Sequence[str] = ()) -> None:
    """Write artifacts that begin with no history, for the plan's detectors that can, or those asked for."""
    plan = load_plan(plan_path)
    unknown = set(only) - set(plan.detectors)
    if unknown:
        raise ConfigError(f"--detector {min(unknown)}: the plan has {', '.join(plan.detectors)}")
    chosen = only or [name for name, settings in plan.detectors.items() if registry.begins_cold(settings.kind)]
    if not chosen:
        raise TrainingError("no detector of the plan is of use without history; `novelty` is")
    console = Console()
    for name in chosen:
        settings = plan.detectors[name]
        if settings.one_model_per_asset:
            raise ConfigError(f"detectors.{name}.artifact: without history all assets begin alike, leave {{asset}} out")
        try:
            artifact = untrained(settings.kind, signals=settings.signals, period_s=period_s, config=settings.config)
        except TrainingError as error:
            raise TrainingError(f"detectors.{name}: {error}") from None
        keep(plan, name, "", artifact, why="begun without history")
        where = stored_as(plan, name, artifact.version) if settings.is_stored else str(plan.artifact_path(name))
        console.print(f"{name}: {where}", highlight=False)


def keep(
    plan: Plan, name: str, asset: str, artifact: Artifact, *, why: str = "", decide: bool = True, **said: Any
) -> Path:
    """Save what was trained where the plan says; the folder.

    In the store it serves if nothing did, and else is a candidate, if that is for here to ``decide``; ``said`` is kept
    with it. Raises ``ConfigError``, ``StoreError``.
    """
    if not (model := plan.stored(name)):
        path = plan.artifact_path(name, asset or None)
        try:
            return artifact.save(path)
        except OSError as error:
            raise ConfigError(
                f"detectors.{name}.artifact: {path}: {error.strerror or error}; what was there before is as it was"
            ) from None
    settings, store = from_environment(ModelsSettings), plan.open_store()
    version = store.add(model, artifact, why=why, by=settings.by, signer=settings.signer(), **said)
    now = store.now(model)
    serving = now.serving
    if not decide:
        pass
    elif not serving:
        store.decide(model, "promote", serving=version, why="the first", by=settings.by)
    elif version not in (serving, now.candidate):
        store.decide(model, "shadow", candidate=version, why=why or "trained", by=settings.by)
    return plan.folder / plan.models.store / model / "versions" / version


def stored_as(plan: Plan, name: str, version: str) -> str:
    """What became of a version in the store, for a person."""
    held = plan.open_store().now(plan.stored(name))
    if held.serving == version:
        return f"version {version} serves"
    return f"version {version} is a candidate beside {held.serving}: headrace models shadow {name} {version}"


def cut(recording: Recording, *, first: int | None = None, skip: int = 0) -> Recording:
    """A recording's readings from ``skip`` up to ``first``."""
    return replace(
        recording,
        at_ms=recording.at_ms[skip:first],
        values=recording.values[skip:first],
        labels=None if recording.labels is None else recording.labels[skip:first],
        faults=None if recording.faults is None else recording.faults[skip:first],
    )


def train_plan(
    plan: Plan,
    recordings: Sequence[Recording],
    past: Sequence[Stretch] = (),
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    console: Console | None = None,
) -> list[tuple[str, str, Path, Artifact]]:
    """Train the plan's detectors and save each artifact where the plan says. ``past``: what must not pass for normal.

    Returns (detector, asset or "", folder, artifact) for each. Raises ``TrainingError`` naming the detector.
    """
    jobs = [
        job for name, settings in plan.detectors.items() if not only or name in only
        for job in _jobs(name, settings, recordings)
    ]  # fmt: skip
    done = []
    with bar(console) as progress:
        overall = progress.add_task("models", total=len(jobs), note="")
        current = progress.add_task("", total=1, note="")
        for name, asset, chosen in jobs:
            settings = plan.detectors[name]
            progress.reset(current, description=f"{name} {asset}".strip(), total=1, note="")

            def report(step: int, total: int, note: str) -> None:
                progress.update(current, completed=step, total=total, note=note)

            try:
                known = marked_for(settings, chosen, past)
                history = [learnt_in(held, plan.modes, settings.only_in) for held in known]
                artifact = train_one(settings, history, seed=seed, progress=report)
            except TrainingError as error:
                raise TrainingError(f"detectors.{name}{f' for {asset}' if asset else ''}: {error}") from None
            done.append((name, asset, keep(plan, name, asset, artifact), artifact))
            progress.advance(overall)
        progress.remove_task(current)
    return done


def train_one(
    settings: DetectorSettings, recordings: Sequence[Recording], *, seed: int = 0, progress: Progress = no_progress
) -> Artifact:
    """A detector as its settings want it, trained on recordings. Raises ``TrainingError``."""
    return (train_classifier if registry.tells_faults_apart(settings.kind) else train)(
        recordings,
        detector=settings.kind,
        signals=settings.signals or None,
        config=settings.config,
        seed=seed,
        max_gap_s=float("inf") if settings.gaps.policy == "keep" else settings.gaps.longer_than_s,
        progress=progress,
    )


def marked_for(settings: DetectorSettings, recordings: Sequence[Recording], past: Sequence[Stretch]) -> list[Recording]:
    """What was alarmed or is labelled is no normal history, nor is a window's length around it."""
    if not past:
        return list(recordings)
    apart = registry.tells_faults_apart(settings.kind)
    margin_ms = margin_of(settings, recordings)
    return [marked(held, past, margin_ms, keep_onsets=apart) for held in recordings]


def margin_of(settings: DetectorSettings, recordings: Sequence[Recording]) -> int:
    """Milliseconds: windows that begin before a fault see it too, and what is over takes a window to be gone."""
    names = settings.signals or recordings[0].signals
    window = registry.create(settings.kind, signals=len(names), config=settings.config).window
    return round(1000 * (window * infer_period_s(recordings) + settings.on_delay_s))


def train_inspectors(
    plan: Plan, folders: Sequence[Path], *, only: Sequence[str] = (), seed: int = 0, console: Console | None = None
) -> list[tuple[str, str, Path, Artifact]]:
    """Train the plan's inspectors on folders of pictures; as ``train_plan`` in all else.

    With drawn defects of two kinds or more they learn to tell them apart, else they learn from the good ones alone.
    """
    pictures = [picture for folder in folders for picture in read_folder(folder)]
    kinds = len({picture.kind for picture in pictures if picture.mask is not None and picture.mask.any()}) > 1
    done = []
    with bar(console) as progress:
        task = progress.add_task("", total=1, note="")
        for name in only or plan.detectors:
            settings = plan.detectors[name]
            if settings.one_model_per_asset:
                raise ConfigError(
                    f"detectors.{name}.artifact: pictures have one model for all assets, without {{asset}}"
                )

            def report(step: int, total: int, note: str) -> None:
                progress.update(task, completed=step, total=total, note=note)

            progress.reset(task, description=name, total=1, note="")
            artifact = train_inspector(
                pictures,
                detector=settings.kind,
                config=settings.config,
                kinds=kinds and registry.names_kinds(settings.kind),
                seed=seed,
                progress=report,
            )
            done.append((name, "", keep(plan, name, "", artifact), artifact))
    return done


def _jobs(
    name: str, settings: DetectorSettings, recordings: Sequence[Recording]
) -> list[tuple[str, str, list[Recording]]]:
    watched = [held for held in recordings if settings.watches(held.asset)]
    if not watched:
        seen = ", ".join(sorted({held.asset for held in recordings})[:5])
        raise TrainingError(f"detectors.{name}.assets: no recording matches {settings.assets}; there are {seen}")
    if not settings.one_model_per_asset:
        return [(name, "", watched)]
    assets = sorted({held.asset for held in watched})
    return [(name, asset, [held for held in watched if held.asset == asset]) for asset in assets]


def _summary(plan: Plan, trained: Sequence[tuple[str, str, Path, Artifact]]) -> Table:
    table = Table("detector", "asset", "validation loss", "epochs", "threshold", "at", "version", title="Trained")
    for name, asset, _, artifact in trained:
        rate = plan.detectors[name].false_alarms_per_day
        figures = artifact.manifest.figures
        table.add_row(
            name,
            asset or "all",
            f"{figures['validation_loss']:.4g}" if "validation_loss" in figures else "-",
            f"{figures['epochs']:.0f}" if "epochs" in figures else "-",
            f"{artifact.threshold(rate):.4g}",
            f"{rate:g} false alarms a day",
            artifact.version,
        )
    return table
