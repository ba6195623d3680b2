"""Rows against labels: precision, recall, F1, the areas under both curves; and forecasts against what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Float64

Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many rows were rightly and wrongly called anomalous and normal; adds up over files."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    true_negatives: int = 0

    @classmethod
    def of(cls, labels: Bool, alarms: Bool) -> Confusion:
        """Count two (row,) bool arrays."""
        _same_length(labels, alarms)
        both = int((labels & alarms).sum())
        return cls(both, int(alarms.sum()) - both, int(labels.sum()) - both, int((~labels & ~alarms).sum()))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.true_negatives + other.true_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the alarmed rows that are anomalous; NaN without alarms."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the anomalous rows that were alarmed; NaN if there is none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN where nothing is anomalous or alarmed."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the normal rows that were alarmed (SKAB's FAR)."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def missing_alarm_rate(self) -> float:
        """Share of the anomalous rows that were not (SKAB's MAR)."""
        return _share(self.false_negatives, self.false_negatives + self.true_positives)


def average_precision(labels: Bool, scores: Floats) -> float:
    """Area under precision over recall, as steps (PR-AUC); rows of equal score come together. NaN without positives.

    ``labels``: (row,) bool; ``scores``: (row,), higher is stranger; a NaN counts as the lowest.
    """
    hits, called = _sweep(labels, scores)
    if not len(hits) or not hits[-1]:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0.0) / hits[-1] * hits / called))


def roc_auc(labels: Bool, scores: Floats) -> float:
    """The chance that an anomalous row scores above a normal one (ties count half). NaN unless both exist."""
    hits, called = _sweep(labels, scores)
    if not len(hits) or not hits[-1] or hits[-1] == called[-1]:
        return float("nan")
    recall = np.concatenate([[0.0], hits / hits[-1]])
    misses = np.concatenate([[0.0], (called - hits) / (called[-1] - hits[-1])])
    return float(np.sum(np.diff(misses) * (recall[1:] + recall[:-1]) / 2))


def location_hit(scores: Floats, first: int, last: int, margin: int = 100) -> bool:
    """Whether the highest score lies on the one anomaly ``first`` to ``last``, or within ``margin`` rows of it.

    The rule of the UCR anomaly archive (Wu and Keogh 2021), whose margin is the anomaly's length, at least 100 rows.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    slack = max(margin, last - first + 1)
    return first - slack <= int(known.argmax()) <= last + slack


def rmse(actual: Floats, foretold: Floats) -> float:
    """Root of the mean squared error; pairs with a NaN are left out, NaN if none is left."""
    errors = _errors(actual, foretold)
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")


def mae(actual: Floats, foretold: Floats) -> float:
    """Mean absolute error; pairs with a NaN are left out, NaN if none is left."""
    errors = _errors(actual, foretold)
    return float(np.mean(np.abs(errors))) if len(errors) else float("nan")


def _sweep(labels: Bool, scores: Floats) -> tuple[Float64, Float64]:
    """By falling threshold, one entry a distinct score: anomalous rows called, rows called."""
    _same_length(labels, scores)
    known = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-known, kind="stable")
    ends = np.flatnonzero(np.append(known[order][1:] != known[order][:-1], True)) if len(order) else order
    return np.cumsum(labels[order])[ends].astype(np.float64), (ends + 1).astype(np.float64)


def _errors(actual: Floats, foretold: Floats) -> Float64:
    errors = np.asarray(actual, np.float64) - np.asarray(foretold, np.float64)
    return np.asarray(errors[np.isfinite(errors)], np.float64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _same_length(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"expected two arrays of as many rows, got {one.shape} and {other.shape}")
