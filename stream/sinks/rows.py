"""What the sinks for scores have in common: the band, the reason of an invalid row, batches cut and joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import numpy as np

from models.base import KINDS
from stream.episode import BAND_SIGMAS
from stream.records import Bool, Float64, Int64, Scores

#: Why there is no score: there is one, no value was there, or what the data's verdict is.
REASONS: Final = ("", "no_value", *KINDS[1:])
#: What ``Scores`` always has of each row.
_COLUMNS: Final = ("asset", "at_ms", "score", "threshold", "anomalous", "values", "contributions", "verdict")


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns derived from ``Scores``, row by row.

    valid       (row,) bool: the score is a finite number
    reason      (row,) index into ``REASONS``: why a row is not valid
    low, high   (row, signal) float64, plant units, the band around ``expected``; None where there is none
    """

    valid: Bool
    reason: Int64
    low: Float64 | None
    high: Float64 | None


def derive(scores: Scores) -> Rows:
    """The derived columns of ``scores``."""
    valid = np.isfinite(scores.score)
    reason = np.where(valid, 0, scores.verdict.astype(np.int64) + 1)
    if scores.expected is None or scores.spread is None:
        return Rows(valid, reason, None, None)
    width = BAND_SIGMAS * scores.spread
    return Rows(valid, reason, scores.expected - width, scores.expected + width)


def take(scores: Scores, rows: Int64 | slice) -> Scores:
    """Some rows of ``scores``; a slice's are views."""
    if isinstance(rows, slice):
        return _mapped(scores, lambda column: column[rows])
    return _mapped(scores, lambda column: _picked(column, rows))


def _mapped(scores: Scores, of: Callable[[Any], Any]) -> Scores:
    """``scores`` with other rows, ``of`` each column."""
    columns = {name: of(getattr(scores, name)) for name in _COLUMNS}
    known = {name: of(held) for name in ("expected", "spread") if (held := getattr(scores, name)) is not None}
    return replace(scores, **columns, **known)


def _picked(column: Any, rows: Int64) -> Any:
    """Rows of a column; where they all are one and the same, it stays so."""
    if column.ndim > 1 and not column.strides[0]:
        return np.broadcast_to(column[:1], (len(rows), *column.shape[1:]))
    return column.take(rows, axis=0)


def slices(scores: Scores, at_most: int) -> Iterator[Scores]:
    """``scores`` in pieces of at most so many rows; the arrays are views, nothing is copied."""
    for start in range(0, len(scores), at_most):
        yield take(scores, slice(start, start + at_most))


def joined(parts: Sequence[Scores]) -> list[Scores]:
    """The same rows in the same order, neighbours of one model and the same signals as one: many small batches cost
    numpy as much as few large ones.
    """
    return [_concatenated(list(group)) for _, group in groupby(parts, key=_model)]


def _model(scores: Scores) -> tuple[Any, ...]:
    known = scores.expected is None, scores.spread is None
    return scores.detector, scores.model_version, scores.kind, scores.signals, known


def _concatenated(parts: Sequence[Scores]) -> Scores:
    if len(parts) == 1:
        return parts[0]
    first = np.cumsum([0, *(len(part.names) for part in parts[:-1])])

    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        parts[0],
        names=tuple(name for part in parts for name in part.names),
        asset=np.concatenate([part.asset + np.int32(start) for part, start in zip(parts, first, strict=True)]),
        expected=None if parts[0].expected is None else column("expected"),
        spread=None if parts[0].spread is None else column("spread"),
        **{name: column(name) for name in _COLUMNS[1:]},
    )
