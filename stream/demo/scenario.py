"""What a demo shows: clean history to learn from, live readings with known faults, and the plan that watches them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.datasets import Recording, read
from models.errors import DataError
from models.evaluate import Event
from models.simulate import UNITS, Plant
from stream.commands.train import cut
from stream.report.outcome import labelled

#: Readings of each simulated machine to learn from (10 h of the plant's time), and live (8 h).
HISTORY_ROWS: Final = 3600
LIVE_ROWS: Final = 2880
#: Of recordings with labels, what is learnt from: SKAB's own rule, or a share of shorter ones.
_TRAINING_ROWS: Final = 400
_TRAINING_SHARE: Final = 0.35
#: Of recordings of one signal: NAB's probationary period.
_PROBATION_SHARE: Final = 0.15
#: Above so many recordings, training a forecaster for each would take minutes.
_MANY: Final = 24


@dataclass(frozen=True)
class Scenario:
    """All of a demo but the running of it.

    detectors   the table of the same name in the plan
    period_s    the usual step between readings of an asset
    grace_s     how long after a fault's end an alert may open and still belong to it: a detector's window
    """

    title: str
    history: Sequence[Recording]
    live: Sequence[Recording]
    faults: Sequence[Event]
    detectors: Mapping[str, Mapping[str, Any]]
    period_s: float
    grace_s: float
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def readings(self) -> int:
        """How many readings are sent."""
        return sum(len(held.at_ms) for held in self.live)

    @property
    def duration_s(self) -> float:
        """How long the longest live recording lasts, in the plant's time."""
        return max((float(held.at_ms[-1] - held.at_ms[0]) / 1000 for held in self.live if len(held.at_ms)), default=0.0)

    @property
    def live_ms(self) -> tuple[int, int]:
        """When the live part begins and ends, epoch milliseconds."""
        filled = [held.at_ms for held in self.live if len(held.at_ms)]
        return min(int(at_ms[0]) for at_ms in filled), max(int(at_ms[-1]) for at_ms in filled)

    def plan(self) -> str:
        """Give the text of ``headrace.toml``."""
        lines = ["# Written by `headrace demo`.", 'site = "demo"', "", "[topics]", 'scores = "plant.scores.v1"']
        if self.units:
            lines += ["", "[units]", *(f"{_toml(name)} = {_toml(unit)}" for name, unit in self.units.items())]
        for name, settings in self.detectors.items():
            lines += ["", f"[detectors.{name}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
        return "\n".join(lines) + "\n"


def simulated(seed: int, *, history_rows: int = HISTORY_ROWS, live_rows: int = LIVE_ROWS) -> Scenario:
    """Make the simulated plant: three detectors for each kind of machine."""
    plant = Plant(seed)
    live, faults = plant.live(live_rows)
    detectors: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(plant.kinds.values()):
        common = {"assets": [f"{kind}-*"]}
        deep = {"false_alarms_per_day": 0.25, "off_delay_s": 300.0, "update_every_s": 600.0, "config": {"epochs": 24}}
        detectors |= {
            f"{kind}-forecast": {"kind": "lstm_forecaster", **common, "artifact": f"artifacts/{kind}-forecast", **deep},
            f"{kind}-rebuild": {"kind": "dense_autoencoder", **common, "artifact": f"artifacts/{kind}-rebuild", **deep},
            f"{kind}-quality": {"kind": "data_quality", **common, "artifact": f"artifacts/{kind}-quality"},
        }
    return Scenario(
        title=f"Simulated plant, seed {seed}",
        history=plant.history(history_rows),
        live=live,
        faults=faults,
        detectors=detectors,
        period_s=plant.period_s,
        grace_s=30 * plant.period_s,
        units=UNITS,
    )


def recorded(path: Path) -> Scenario:
    """Make a scenario of recordings with labels: each learns from its own beginning, with models of its own.

    Raises ``DataError`` if nothing there is long enough, or nothing is labelled.
    """
    recordings = [held for held in read(path) if len(held.at_ms) > 1]
    if not recordings:
        raise DataError(f"{path}: no recording with more than one reading")
    heads = {held.asset: _head(held) for held in recordings}
    live = [cut(held, skip=heads[held.asset]) for held in recordings]
    period_s = float(np.median(np.concatenate([np.diff(held.at_ms) for held in recordings]))) / 1000
    faults = labelled(live, join_s=5 * period_s)
    hours = sum(float(held.at_ms[-1] - held.at_ms[0]) for held in live) / 3_600_000
    # Recordings are of days or of minutes: the operator of a demo accepts an alarm in four of them, for each detector.
    budget = round(float(np.clip(0.25 * 24 * len(live) / max(hours, 1e-6), 0.01, 10_000.0)), 3)
    one_signal = all(len(held.signals) == 1 for held in recordings)
    rules = {"false_alarms_per_day": budget, "off_delay_s": 5 * period_s, "update_every_s": 60 * period_s}
    deep = {**rules, "config": {"epochs": max(6, min(40, 200 // len(recordings)))}}
    detectors: dict[str, dict[str, Any]] = {
        "forecast": {"kind": "lstm_forecaster", "artifact": "artifacts/{asset}/forecast", **deep},
        "rebuild": {"kind": "dense_autoencoder", "artifact": "artifacts/{asset}/rebuild", **deep},
    }
    if len(recordings) > _MANY:  # a model of its own for each of them takes seconds: leave out the slower sort
        del detectors["forecast"]
        detectors["deviation"] = {"kind": "ewma", "artifact": "artifacts/{asset}/deviation", **rules}
    if not one_signal:  # a lone signal of a web server may well rest for hours
        detectors["quality"] = {"kind": "data_quality", "artifact": "artifacts/{asset}/quality"}
    return Scenario(
        title=f"Recordings in {path.name or path}",
        history=[cut(held, first=heads[held.asset]) for held in recordings],
        live=live,
        faults=faults,
        detectors=detectors,
        period_s=period_s,
        grace_s=30 * period_s,
    )


def _head(recording: Recording) -> int:
    """How many rows of a recording are to learn from."""
    rows = len(recording.at_ms)
    if len(recording.signals) == 1:
        return int(_PROBATION_SHARE * rows)
    return min(_TRAINING_ROWS, int(_TRAINING_SHARE * rows))


def _toml(value: Any) -> str:
    """Write a plain value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
