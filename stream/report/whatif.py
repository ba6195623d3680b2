"""What other budgets of false alarms would have raised: the decisions made once more on the same scores.

A detector's scores do not depend on its threshold, so nothing is scored twice: each batch is given to ``stream.decide``
once for each budget, with the threshold that the artifact has for it and all other rules as the plan has them. Batches
are taken as they come, and none is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from stream.decide import DecisionState, decide
from stream.episode import Identity, Rules
from stream.fitting import Shelf
from stream.lane import rules_of
from stream.plan import Plan
from stream.records import Alert, Scores
from stream.report.outcome import Trial, incidents_of

#: What is tried, as multiples of the plan's own budget.
FACTORS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
_NEVER_MS: Final = 366 * 86_400_000


@dataclass(slots=True)
class _Run:
    """One budget of a detector: the rules for each asset, what is open, and what was raised."""

    rules: list[Rules] = field(default_factory=list)
    states: list[DecisionState] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)


@dataclass(slots=True)
class _Tried:
    """A detector: its assets by slot, and a run a factor."""

    slots: dict[str, int] = field(default_factory=dict)
    runs: tuple[_Run, ...] = field(default_factory=lambda: tuple(_Run() for _ in FACTORS))


class WhatIf:
    """Tries ``FACTORS`` of the budget of every detector that has one.

    Where the plan says the threshold itself, there is nothing to try.
    """

    def __init__(self, plan: Plan, shelf: Shelf) -> None:
        self._plan = plan
        self._shelf = shelf
        self._tried: dict[str, _Tried] = {
            name: _Tried() for name, settings in plan.detectors.items() if settings.threshold is None
        }

    def take(self, scores: Scores) -> None:
        """Decide on a batch, whose rows are in the order of time for each asset."""
        tried = self._tried.get(scores.detector)
        if tried is None or not len(scores):
            return
        identity = Identity(self._plan.site, scores.detector, scores.kind, scores.model_version)
        for index in np.unique(scores.asset).tolist():
            slot = self._slot(tried, scores.detector, scores.names[index])
            rows = _Rows(scores, np.flatnonzero(scores.asset == index))
            names = [scores.names[index]]
            place = np.zeros(len(rows.at_ms), dtype=np.int32)
            for run in tried.runs:
                run.alerts += decide(run.states[slot], run.rules[slot], identity, place, names, rows).alerts

    def trials(self) -> Mapping[str, Sequence[Trial]]:
        """By detector, in the order of ``FACTORS``; those that scored nothing are left out."""
        return {
            name: [
                Trial(
                    name,
                    factor,
                    factor * self._plan.detectors[name].false_alarms_per_day,
                    tuple(sorted({rules.threshold for rules in run.rules})),
                    tuple(incidents_of(run.alerts)),
                )
                for factor, run in zip(FACTORS, tried.runs, strict=True)
            ]
            for name, tried in self._tried.items()
            if tried.slots
        }

    def _slot(self, tried: _Tried, detector: str, asset: str) -> int:
        slot = tried.slots.get(asset)
        if slot is None:
            artifact = self._shelf.find(detector, asset)
            if artifact is None:
                raise LookupError(f"{detector} has scored {asset} without an artifact for it")
            settings = self._plan.detectors[detector]
            rules = replace(rules_of(settings, artifact), update_every_ms=_NEVER_MS)
            for factor, run in zip(FACTORS, tried.runs, strict=True):
                threshold = artifact.threshold(factor * settings.false_alarms_per_day)
                run.rules.append(replace(rules, threshold=threshold))
                run.states.append(DecisionState())
            slot = tried.slots[asset] = len(tried.slots)
        return slot


class _Rows:
    """One asset's rows of a batch, as ``decide`` takes them."""

    def __init__(self, scores: Scores, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self.score = scores.score[rows]
        self.at_ms = scores.at_ms[rows]
        self.signals = scores.signals
        self.values = scores.values[rows]
        self.contributions = scores.contributions[rows]
        self.expected = None if scores.expected is None else scores.expected[rows]
        self.spread = None if scores.spread is None else scores.spread[rows]
        self.verdict = scores.verdict[rows]
