"""A model's worth on recordings: what it would have raised, and of the labelled faults, which it would have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.artifact import Artifact
from models.evaluate import Matching
from stream.backtest import backtest, side_by_side
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.records import Float64
from stream.report.outcome import Incident, Outcome, incidents_of, labelled
from stream.shelf import Single

if TYPE_CHECKING:
    from models.datasets import Recording


@dataclass(frozen=True, slots=True)
class Measured:
    """One version on the recordings.

    ratios    (row,) float64: score over threshold of each reading that was judged, by asset and time (``keys``)
    incidents   what it raised, in the order of opening
    """

    version: str
    threshold: float
    matching: Matching
    keys: tuple[tuple[str, int], ...]
    ratios: Float64
    incidents: tuple[Incident, ...] = ()

    @property
    def false_alarms_per_day(self) -> float:
        """False alarms a day of one asset's time; NaN if nothing was watched."""
        return self.matching.false_alarms_per_day

    @property
    def recall(self) -> float:
        """Share of the labelled faults that were found; NaN where none is labelled."""
        return self.matching.recall


def measure(
    plan: Plan, detector: str, held: Artifact, recordings: Sequence[Recording], *, together: bool = False
) -> Measured:
    """Run ``held`` as ``detector`` of the plan over recordings, as a backtest does.

    together  recordings of the same signals and times go through side by side, which costs far less
    """
    watched = [recording for recording in recordings if plan.detectors[detector].watches(recording.asset)]
    alone = plan.model_copy(update={"detectors": {detector: plan.detectors[detector]}})
    pipeline = Pipeline(alone, Single(detector, held))
    alerts, keys, ratios = [], [], []
    for output in (side_by_side if together else backtest)(pipeline, watched):
        alerts += [alert for alert in output.alerts if alert.detector == detector]
        for scores in output.scores:
            keys += list(zip((scores.names[k] for k in scores.asset.tolist()), scores.at_ms.tolist(), strict=True))
            ratios.append(scores.score / scores.threshold)
    settings = plan.detectors[detector]
    outcome = Outcome(
        title="",
        recordings=watched,
        faults=labelled(watched),
        incidents=incidents_of(alerts),
        courses={},
        grace_s=held.window * held.period_s + settings.on_delay_s,
    )
    return Measured(
        version=held.version,
        threshold=settings.threshold or held.threshold(settings.false_alarms_per_day),
        matching=outcome.matching(),
        keys=tuple(keys),
        ratios=np.concatenate(ratios) if ratios else np.zeros(0),
        incidents=tuple(outcome.incidents),
    )


def correlation(one: Measured, other: Measured) -> float:
    """Pearson's correlation of the logarithms of score over threshold, on readings that both judged; NaN if undefined.

    Logarithms, because scores have long tails: a single spike would decide it otherwise.
    """
    at = {key: place for place, key in enumerate(other.keys)}
    pairs = [(mine, at[key]) for mine, key in enumerate(one.keys) if key in at]
    if not pairs:
        return float("nan")
    mine, theirs = np.array(pairs).T
    return pearson(one.ratios[mine], other.ratios[theirs])


def pearson(one: Float64, other: Float64) -> float:
    """Of the logarithms of positive numbers; rows where either is not finite are left out. NaN if undefined."""
    good = np.isfinite(one) & np.isfinite(other) & (one > 0) & (other > 0)
    x, y = np.log(one[good]), np.log(other[good])
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
