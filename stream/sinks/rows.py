"""What the sinks for scores have in common: the band, the reason of an invalid row, and slices of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.base import KINDS
from stream.decide import BAND_SIGMAS
from stream.records import Bool, Float64, Int64, Scores


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns derived from ``Scores``, row by row.

    valid       (row,) bool: the score is a finite number
    reason      why a row is not valid, "" where it is: the kind of the verdict, or ``no_value``
    low, high   (row, signal) float64, plant units, the band around ``expected``; None where there is none
    """

    valid: Bool
    reason: list[str]
    low: Float64 | None
    high: Float64 | None


def derive(scores: Scores) -> Rows:
    """The derived columns of ``scores``."""
    valid = np.isfinite(scores.score)
    reasons = ["no_value", *KINDS[1:]]
    reason = ["" if ok else reasons[kind] for ok, kind in zip(valid.tolist(), scores.verdict.tolist(), strict=True)]
    if scores.expected is None or scores.spread is None:
        return Rows(valid, reason, None, None)
    width = BAND_SIGMAS * scores.spread
    return Rows(valid, reason, scores.expected - width, scores.expected + width)


def take(scores: Scores, rows: Int64 | slice) -> Scores:
    """Some rows of ``scores``; a slice's are views."""
    return replace(
        scores,
        asset=scores.asset[rows],
        at_ms=scores.at_ms[rows],
        score=scores.score[rows],
        threshold=scores.threshold[rows],
        anomalous=scores.anomalous[rows],
        values=scores.values[rows],
        contributions=scores.contributions[rows],
        expected=None if scores.expected is None else scores.expected[rows],
        spread=None if scores.spread is None else scores.spread[rows],
        verdict=scores.verdict[rows],
    )


def slices(scores: Scores, at_most: int) -> Iterator[Scores]:
    """``scores`` in pieces of at most so many rows; the arrays are views, nothing is copied."""
    for start in range(0, len(scores), at_most):
        yield take(scores, slice(start, start + at_most))
