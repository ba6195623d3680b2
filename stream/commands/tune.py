"""``headrace tune``: a search for the settings of one of the plan's detectors, within minutes that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from models.base import Float64
from models.contest import labelled, made_up
from models.datasets import Recording, read
from models.errors import TrainingError
from models.train import columns_of
from models.tune import Tuned, tune
from stream.commands.console import bar
from stream.commands.train import train_plan
from stream.errors import ConfigError
from stream.plan import DetectorSettings, Plan, load_plan

#: In the study's folder: the artifact of the best settings.
BEST = "best"


def run_tune(
    plan_path: Path,
    data: Sequence[Path],
    *,
    detector: str,
    minutes: float,
    judge_by: Sequence[Path] = (),
    study: Path | None = None,
    trials: int | None = None,
    seed: int = 0,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Search, train the best on all of the history, keep it in the study's folder, and say what to put in the plan.

    Raises ``ConfigError`` and ``ModelError``.
    """
    plan = load_plan(plan_path)
    settings = _settings(plan, detector)
    into = study if study is not None else plan.folder / "studies" / detector
    console = Console()

    def read_all(paths: Sequence[Path]) -> list[Recording]:
        found = [held for path in paths for held in read(path, time_column=time_column, asset_column=asset_column)]
        return [held for held in found if settings.watches(held.asset)]

    history = read_all(data)
    if not history:
        raise TrainingError(f"detectors.{detector}.assets: no recording matches {settings.assets}")
    longest = max(history, key=lambda held: len(held.values))
    signals = settings.signals or longest.signals
    clean = _clean(longest, signals)
    faulty = [_labelled(held, signals) for held in read_all(judge_by)]
    exam = labelled(clean, faulty) if faulty else made_up(clean, seed)
    with bar(Console(stderr=True)) as shown:
        task = shown.add_task(f"{detector} (seconds)", total=round(60 * minutes), note="the defaults first")
        found = tune(
            exam,
            settings.kind,
            folder=into,
            minutes=minutes,
            most_trials=trials,
            config=settings.config,
            seed=seed,
            progress=lambda done, total, note: shown.update(task, completed=done, total=total, note=note),
        )
    best = settings.model_copy(update={"config": settings.config | dict(found.config), "artifact": str(into / BEST)})
    tuned = plan.model_copy(update={"detectors": {detector: best}, "folder": Path()})
    train_plan(tuned, history, seed=seed, console=Console(stderr=True))
    console.print(_told(detector, settings, found, into, judged="labels" if faulty else "faults made up"), markup=False)


def _settings(plan: Plan, detector: str) -> DetectorSettings:
    settings = plan.detectors.get(detector)
    if settings is None:
        raise ConfigError(f"--detector {detector}: the plan has {', '.join(plan.detectors)}")
    if settings.one_model_per_asset:
        raise ConfigError(f"detectors.{detector}.artifact: tune with one model for all assets, without {{asset}}")
    return settings


def _clean(recording: Recording, signals: Sequence[str]) -> Float64:
    wanted = np.ones(len(recording.values), bool) if recording.labels is None else ~recording.labels
    return columns_of(recording, signals)[wanted]


def _labelled(recording: Recording, signals: Sequence[str]) -> tuple[Float64, np.ndarray[Any, np.dtype[np.bool_]]]:
    labels = np.zeros(len(recording.values), bool) if recording.labels is None else recording.labels
    return columns_of(recording, signals), labels


def _told(detector: str, settings: DetectorSettings, found: Tuned, into: Path, judged: str) -> str:
    before = f", {found.earlier} of them from before" if found.earlier else ""
    refused = f", {found.refused} could not be" if found.refused else ""
    worth = f"{found.default:.3f} with the defaults, {found.worth:.3f} at best"
    lines = [
        f"{found.trials} trials{before}{refused}; judged by {judged}: {worth}",
        f"artifact: {into / BEST}",
    ]
    if not found.config:
        return "\n".join([*lines, "nothing tried was better than what the plan has: leave it"])
    config: Mapping[str, Any] = settings.config | dict(found.config)
    shown = ", ".join(f"{key} = {_toml(value)}" for key, value in config.items())
    return "\n".join([*lines, f"[detectors.{detector}]", f"config = {{ {shown} }}"])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
