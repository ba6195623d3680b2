"""Whether what comes now is still what was learnt: named tests of drift between two stretches of a series.

Two questions, for a difference is only worth a new model if both are answered with yes:

    is there a difference?   the two-sample Kolmogorov-Smirnov test (Massey 1951; the tail sum after Stephens 1970).
                             Readings that follow each other are alike, so it counts independent ones: the rows divided
                             by (1 + r) / (1 - r), r the correlation of neighbours (Bartlett 1935).
    does it matter?          the population stability index (Siddiqi 2006, Credit Risk Scorecards): the symmetric
                             Kullback-Leibler divergence over tenths of the reference. Below .1 nothing is the matter,
                             from .25 on the population is another one.

Many signals are many tests: which differ is decided for all together by the rate of false discoveries (Benjamini and
Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.base import Float64

#: False discoveries that are accepted among what is called different.
RATE: Final = 0.01
#: The stability index from which a difference matters.
MATTERS: Final = 0.25
_BINS: Final = 10
_LEAST: Final = 20  # values on each side, or nothing can be said
_FLOOR: Final = 1e-4  # share of an empty bin


@dataclass(frozen=True, slots=True)
class Shift:
    """How one series differs from its reference.

    statistic  the largest distance between the two distribution functions
    p          how often chance alone makes it so large; 1 where too little is known
    index      the population stability index
    drifted    it differs, among all that were asked for, and it matters
    """

    name: str
    statistic: float
    p: float
    index: float
    drifted: bool


def shifts(names: Sequence[str], reference: Float64, recent: Float64) -> list[Shift]:
    """Compare columns of two stretches, (row, name) each, NaN where missing."""
    found = []
    for column, name in enumerate(names):
        one, other = (rows[np.isfinite(rows[:, column]), column] for rows in (reference, recent))
        statistic, p = kolmogorov_smirnov(one, other)
        found.append((name, statistic, p, stability_index(one, other)))
    differ = discoveries([p for _, _, p, _ in found])
    return [
        Shift(name, statistic, p, index, bool(differs) and index >= MATTERS)
        for (name, statistic, p, index), differs in zip(found, differ, strict=True)
    ]


def kolmogorov_smirnov(one: Float64, other: Float64) -> tuple[float, float]:
    """The two-sample statistic of two series in their order, and its p for so many independent values.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=500), rng.normal(size=500)
    >>> kolmogorov_smirnov(x, y)[1] > 0.05, kolmogorov_smirnov(x, y + 1)[1] < 1e-6
    (True, True)
    """
    if min(len(one), len(other)) < _LEAST:
        return 0.0, 1.0
    sorted_one, sorted_other = np.sort(one), np.sort(other)
    at = np.concatenate([sorted_one, sorted_other])
    below = [np.searchsorted(held, at, side="right") / len(held) for held in (sorted_one, sorted_other)]
    statistic = float(np.abs(below[0] - below[1]).max())
    m, n = independent(one), independent(other)
    root = np.sqrt(m * n / (m + n))
    return statistic, _tail(float((root + 0.12 + 0.11 / root) * statistic))


def independent(series: Float64) -> float:
    """How many independent values a series is worth: its length over (1 + r) / (1 - r), at least 1.

    >>> float(independent(np.repeat([0.0, 1.0] * 50, 10))) < 120  # each value ten times
    True
    """
    away = series - series.mean()
    power = float(away @ away)
    if not power:
        return 1.0
    r = min(max(float(away[1:] @ away[:-1]) / power, 0.0), 1.0 - 1e-9)
    return max(len(series) * (1.0 - r) / (1.0 + r), 1.0)


def stability_index(reference: Float64, recent: Float64) -> float:
    """The population stability index over tenths of the reference; 0 where either has too few values."""
    if min(len(reference), len(recent)) < _LEAST:
        return 0.0
    edges = np.unique(np.quantile(reference, np.arange(1, _BINS) / _BINS))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, held, side="left"), minlength=len(edges) + 1) / len(held), _FLOOR)
        for held in (reference, recent)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def discoveries(p: Sequence[float], rate: float = RATE) -> list[bool]:
    """Which of several tests are discoveries, so that ``rate`` of these are false on average.

    >>> discoveries([0.001, 0.9, 0.004, 0.04], rate=0.05)
    [True, False, True, False]
    """
    order = np.argsort(p, kind="stable")
    passed = np.asarray(p)[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1)
    count = int(np.flatnonzero(passed).max()) + 1 if passed.any() else 0
    chosen = np.zeros(len(p), dtype=bool)
    chosen[order[:count]] = True
    return [bool(held) for held in chosen]


def _tail(x: float) -> float:
    """Kolmogorov's distribution beyond ``x``."""
    if x < 0.2:  # the sum converges slowly, to 1
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2.0 * ((-1.0) ** (k - 1) * np.exp(-2.0 * (k * x) ** 2)).sum(), 0.0, 1.0))
