"""How good a classifier is: accuracy, the confusion matrix, F1 of each class and their mean.

Classes are names. What a classifier calls unknown is wrong wherever the truth has a name: it is a column of the table
and no class of its own, unless it occurs among the truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class ClassTable:
    """The confusion matrix: ``counts`` (truth, said) int64, rows and columns in the order of ``names``."""

    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, truth: Sequence[str], said: Sequence[str], names: Sequence[str] | None = None) -> ClassTable:
        """Count pairs; ``names`` default to all that occur, sorted. Raises ``ValueError`` for unequal lengths."""
        if len(truth) != len(said):
            raise ValueError(f"{len(truth)} truths but {len(said)} answers")
        named = tuple(names) if names is not None else tuple(sorted(set(truth) | set(said)))
        place = {name: number for number, name in enumerate(named)}
        counts = np.zeros((len(named), len(named)), np.int64)
        np.add.at(counts, ([place[name] for name in truth], [place[name] for name in said]), 1)
        return cls(named, counts)

    @property
    def accuracy(self) -> float:
        """Share of the answers that are right; NaN without any."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")

    @property
    def f1(self) -> dict[str, float]:
        """F1 of each class that occurs among the truths: 2 hits / (truths + answers)."""
        truths, answers, hits = self.counts.sum(axis=1), self.counts.sum(axis=0), np.diag(self.counts)
        return {
            name: float(2 * hits[n] / (truths[n] + answers[n])) for n, name in enumerate(self.names) if truths[n] > 0
        }

    @property
    def macro_f1(self) -> float:
        """Unweighted mean of ``f1``; NaN without any class."""
        scores = list(self.f1.values())
        return float(np.mean(scores)) if scores else float("nan")
