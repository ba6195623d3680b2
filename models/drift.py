"""Thresholds that follow a plant as it drifts, within bounds, and never while an alert is open.

A threshold is calibrated on history. As seasons, wear and load move a plant, its calm scores rise, and what was an
alarm a day becomes one an hour. DSPOT (Siffer et al. 2017, Anomaly Detection in Streams with Extreme Value Theory,
section 4.4) judges a score by what it exceeds the mean of the last ones by. Taken as it is, that mean learns every
fault that grows slowly enough. Here three things bound it:

    usual   the threshold moves only once the slow mean of calm scores takes up more than this share of it: where
            there is room, it stays what history said
    most    it never rises by more than this factor: a fault that keeps on growing crosses it, however slow it is
    frozen  from the first row at the threshold until the alert is over nothing is followed: what stays wrong stays
            an alarm, for a week as for a minute

The state is one number an asset, ``level``: the mean so far of calm scores over the calibrated threshold. It is a mean
with exponential weights in float64 by single operations, so its bits do not depend on how rows are cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.base import Float64

#: As measured on drifting recordings: ``docs/choosing-a-detector.md``.
ROWS: Final = 350.0
USUAL: Final = 0.65
MOST: Final = 1.5


@dataclass(frozen=True, slots=True)
class Drift:
    """How a threshold follows the level of calm scores.

    rows   how many rows the level looks back, roughly: each new one weighs 1 / rows
    usual  share of the threshold that the level may take up before the threshold follows
    most   the threshold is at most so many times the calibrated one; 1: it never moves
    """

    rows: float = ROWS
    usual: float = USUAL
    most: float = MOST

    def __post_init__(self) -> None:
        if not (self.rows >= 1 and 0 < self.usual < 1 and self.most >= 1):
            raise ValueError(f"drift: rows and most must be 1 or more, usual between 0 and 1; got {self}")

    @property
    def begin(self) -> float:
        """The level of an asset that has shown nothing yet: the highest one that leaves the threshold alone."""
        return self.usual

    def factor(self, level: float) -> float:
        """What the calibrated threshold is multiplied by."""
        return min(max(level / self.usual, 1.0), self.most)

    def factors(self, levels: Float64) -> Float64:
        """``factor`` of many levels at once."""
        return np.minimum(np.maximum(levels / self.usual, 1.0), self.most)

    def after(self, level: float, ratio: float) -> float:
        """The level after a calm row whose score is ``ratio`` times the calibrated threshold."""
        return level + (ratio - level) / self.rows

    def after_all(self, levels: Float64, ratios: Float64) -> Float64:
        """``after`` of many assets at once; NaN leaves a level as it is."""
        return np.where(np.isnan(ratios), levels, levels + (ratios - levels) / self.rows)

    def calm(self, level: float, ratios: Float64) -> tuple[Float64, float]:
        """The levels before each of some rows of one asset, if all of them are calm: (row,), and the one after them.

        ``ratios`` (row,): scores over the calibrated threshold; NaN leaves the level as it is.
        """
        levels = np.empty(len(ratios))
        for row, ratio in enumerate(ratios.tolist()):
            levels[row] = level
            if ratio == ratio:
                level += (ratio - level) / self.rows
        return levels, level


def followed(ratios: Float64, drift: Drift, deadband: float = 0.1) -> Float64:
    """Scores over the calibrated threshold -> the factor of the threshold at each row, both (row,).

    One stretch of one asset, decided as in a stream without delays: an alarm begins at the threshold, and ends below
    ``1 - deadband`` times it. A row without a score (NaN) changes nothing.
    """
    factors = np.empty(len(ratios))
    level, alarmed = drift.begin, False
    for row, ratio in enumerate(ratios.tolist()):
        factors[row] = factor = drift.factor(level)
        if ratio != ratio:
            continue
        alarmed = ratio >= (factor * (1.0 - deadband) if alarmed else factor)
        if not alarmed:
            level = drift.after(level, ratio)
    return factors
