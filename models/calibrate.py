"""From an operator's wish ("one false alarm a day") to a threshold, by the theory of extremes.

A threshold for rare alarms lies beyond most of what held-back clean data show, so it is extrapolated: what exceeds a
high level t does so like a generalised Pareto law (peaks over threshold; Siffer et al. 2017, Anomaly Detection in
Streams with Extreme Value Theory, equation 1):

    P(score > x) = rate * (1 + shape (x - t) / scale) ** (-1 / shape)

An operator counts alarms, not readings, and high scores come in clusters. So the law is that of the clusters' peaks
(runs declustering; Smith and Weissman 1994), and the extremal index is the number of clusters per exceedance. The
parameters are estimated as Zhang and Stephens 2009 do (no iteration, no failure), the shape drawn towards 0 where
clusters are few (a weakly informed prior, as Vehtari et al. 2024 do for PSIS).

A threshold is a prediction about days not yet seen, made from a few dozen clusters: taking the estimate at its word
gives more alarms than asked for. An exponential tail whose mean is known only from n peaks predicts the next peak by
the law (1 + x / (n mean)) ** -n, which is generalised Pareto with shape 1 / n (the predictive distribution; Smith
1999). So 1 / n is added to the shape, and a shape below 0, a tail that ends soon after the highest peak seen, is not
believed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from models.base import Float64
from models.errors import InvalidArtifact, TrainingError

#: Fewer scores than this say nothing about a tail.
LEAST_SCORES: Final = 20

_DAY_S: Final = 86_400.0
_TAIL: Final = 0.1  # share of the scores that the tail is fitted to, where there are enough
_LEAST_EXCEEDANCES: Final = 10
_SHAPE_MOST: Final = 0.5  # heavier tails than this have no variance; a threshold from them would be absurd
_PRIOR_WEIGHT: Final = 20.0  # exceedances' worth of belief that the tail is exponential
_BODY: Final = 33  # quantiles kept below the tail, for operators who want many alarms


@dataclass(frozen=True, slots=True)
class Calibration:
    """What clean, held-back scores of one detector looked like.

    level: the score t above which the tail is fitted; shape, scale: of the generalised Pareto law of the peaks above
    it; rate: share of scores above ``level``; extremal_index: clusters per exceedance, 0 to 1; count: how many scores
    there were; period_s: seconds from one score to the next; highest: the highest score seen; body: the scores'
    quantiles, evenly spaced up to ``level``; natural: the detector's own threshold, which then rules alone.
    """

    level: float
    shape: float
    scale: float
    rate: float
    extremal_index: float
    count: int
    period_s: float
    highest: float
    body: tuple[float, ...]
    natural: float | None = None

    def threshold(self, false_alarms_per_day: float) -> float:
        """The score that clean data cross in so many separate alarms a day and asset; finite, lower for more alarms.

        Raises ``ValueError`` unless the number is above 0. It is never below the median of the clean scores: who asks
        for more alarms than that yields asks for noise.
        """
        if not (math.isfinite(false_alarms_per_day) and false_alarms_per_day > 0):
            raise ValueError(f"false_alarms_per_day: expected a number above 0, got {false_alarms_per_day}")
        if self.natural is not None:
            return self.natural
        exceeding = false_alarms_per_day * self.period_s / _DAY_S / self.extremal_index  # share of scores
        if exceeding < self.rate:
            return self.level + self.scale * _pareto_quantile(exceeding / self.rate, self.shape)
        position = max(1.0 - exceeding, 0.5) / max(1.0 - self.rate, 0.5)
        return float(np.interp(position, np.linspace(0, 1, len(self.body)), self.body))

    def tail_probability(self, score: float) -> float:
        """The share of clean scores above this one: 1 for the lowest, towards 0 for what was never seen."""
        if math.isnan(score):
            return math.nan
        if score <= self.level:
            below = (
                float(np.interp(score, self.body, np.linspace(0, 1, len(self.body)))) if score >= self.body[0] else 0.0
            )
            return 1.0 - below * (1.0 - self.rate)
        over = (score - self.level) / self.scale
        if abs(self.shape) < 1e-9:
            return self.rate * math.exp(-over)
        base = 1.0 + self.shape * over
        return 0.0 if base <= 0 else self.rate * math.exp(-math.log(base) / self.shape)

    def rarity(self, scores: Float64) -> Float64:
        """Minus the natural logarithm of ``tail_probability``, of many scores at once: 0 and more, without an end.

        NaN stays NaN.
        """
        below = np.interp(scores, self.body, np.linspace(0, 1, len(self.body))) * (1.0 - self.rate)
        over = np.maximum(scores - self.level, 0.0) / self.scale
        beyond = over if abs(self.shape) < 1e-9 else np.log1p(np.maximum(self.shape * over, -1.0 + 1e-12)) / self.shape
        return np.asarray(np.where(scores > self.level, beyond - math.log(self.rate), -np.log1p(-below)), np.float64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"body": list(self.body)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Restore what ``to_dict`` gave. Raises ``InvalidArtifact`` naming what cannot be."""
        known = {field.name for field in fields(cls)}
        if set(data) != known:
            raise InvalidArtifact(f"calibration: missing or unknown keys {sorted(set(data) ^ known)}")
        try:
            values = {key: float(data[key]) for key in known - {"body", "count", "natural"}}
            body = tuple(float(value) for value in data["body"])
            natural = None if data["natural"] is None else float(data["natural"])
            count = int(data["count"])
        except (TypeError, ValueError) as error:
            raise InvalidArtifact(f"calibration: {error}") from None
        if not all(map(math.isfinite, [*values.values(), *body, natural or 0.0])):
            raise InvalidArtifact("calibration: NaN or infinity")
        sound = values["scale"] > 0 and 0 < values["rate"] <= 1 and 0 < values["extremal_index"] <= 1
        ascending = len(body) > 1 and all(a <= b for a, b in itertools.pairwise(body))
        if not (sound and ascending and values["period_s"] > 0 and abs(values["shape"]) <= _SHAPE_MOST):
            raise InvalidArtifact("calibration: a value is out of its range")
        return cls(**values, body=body, natural=natural, count=count)


def calibrate(
    scores: Sequence[Float64], *, period_s: float, cluster_rows: int = 16, natural: float | None = None
) -> Calibration:
    """Fit the tail of clean, held-back scores.

    ``scores``: stretches without gaps, each (row,), NaN left out; exceedances nearer than ``cluster_rows`` are one
    alarm. Where all scores are (nearly) equal there is no tail to fit: the scale is then a hundredth of the level, so
    that what is clearly above what was ever seen alarms. Below about 200 scores the tail is nearly exponential by
    prior.

    Raises ``TrainingError`` if fewer than ``LEAST_SCORES`` are finite, unless the detector has a natural threshold.
    """
    finite = [part[np.isfinite(part)] for part in scores]
    pooled = np.sort(np.concatenate([*finite, np.empty(0)]))
    if natural is not None and not len(pooled):
        pooled = np.zeros(1)
    if natural is None and len(pooled) < LEAST_SCORES:
        raise TrainingError(
            f"calibration: {len(pooled)} scores of held-back data, at least {LEAST_SCORES} are needed; give more "
            f"history, or a smaller `window` in the config"
        )
    count = len(pooled)
    wanted = int(np.clip(round(_TAIL * count), min(_LEAST_EXCEEDANCES, count // 2), 2000))
    level = float(pooled[max(count - wanted - 1, 0)])
    peaks = np.sort(np.concatenate([*(_peaks(part, level, cluster_rows) for part in finite), np.empty(0)])) - level
    exceedances = int((pooled > level).sum())
    body = tuple(float(q) for q in np.quantile(pooled[pooled <= level], np.linspace(0, 1, _BODY)))
    least_scale = max(0.01 * abs(level), 1e-6)
    shape, scale = _fit_pareto(peaks) if len(peaks) >= 2 else (0.0, least_scale)
    return Calibration(
        level=level,
        shape=shape,
        scale=max(scale, least_scale),
        rate=max(exceedances, 1) / (count + 1),
        extremal_index=len(peaks) / exceedances if exceedances else 1.0,
        count=count,
        period_s=period_s,
        highest=float(pooled[-1]),
        body=body,
        natural=natural,
    )


def _fit_pareto(excesses: Float64) -> tuple[float, float]:
    """Sorted excesses above 0 -> (shape, scale) of the generalised Pareto law, by Zhang and Stephens 2009.

    Their shape is the negative of Siffer's. The scale is refitted to the mean excess once the shape has been drawn
    towards 0, widened for what so few excesses leave unknown, and bounded, so that the near tail stays as it was.
    """
    count = len(excesses)
    grid = 30 + int(math.sqrt(count))
    quartile = max(float(excesses[int(count / 4 + 0.5) - 1]), 1e-12 * float(excesses[-1]))
    thetas = 1.0 / excesses[-1] + (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * quartile)
    shapes = np.log1p(-thetas[:, None] * excesses).mean(axis=1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        likelihood = count * (np.log(-thetas / shapes) - shapes - 1.0)
        chances = 1.0 / np.exp(likelihood[None, :] - likelihood[:, None]).sum(axis=1)
    chances = np.nan_to_num(chances)
    total = float(chances.sum())
    shape = 0.0
    if total > 0:
        theta = float((thetas * chances).sum()) / total
        shape = float(np.log1p(-theta * excesses).mean())
    shape = count * shape / (count + _PRIOR_WEIGHT)
    shape = float(np.clip(max(shape, 0.0) + 1.0 / count, 0.0, _SHAPE_MOST - 0.01))
    return shape, float(excesses.mean()) * (1.0 - shape)


def _pareto_quantile(exceeding: float, shape: float) -> float:
    """How many scales above the level a share ``exceeding`` of the exceedances lies."""
    if abs(shape) < 1e-9:
        return -math.log(exceeding)
    return math.expm1(-shape * math.log(exceeding)) / shape


def _peaks(scores: Float64, level: float, cluster_rows: int) -> Float64:
    """The highest score of each cluster above ``level``; exceedances nearer than ``cluster_rows`` are one cluster."""
    rows = np.flatnonzero(scores > level)
    if not len(rows):
        return np.empty(0)
    first = np.flatnonzero(np.concatenate([[True], np.diff(rows) > cluster_rows]))
    return np.asarray(np.maximum.reduceat(scores[rows], first), np.float64)
