"""One case through one detector: learn, calibrate on rows it has not learnt from, score every row of the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import registry
from models.base import Detector, Float32, Float64
from models.drift import Drift, followed
from models.scaling import RobustScaler
from models.suites.base import Case, Judged
from models.train import score_rows

#: A row alarms above this quantile of clean rows that were held back.
QUANTILE: Final = 0.99
_FIT, _VALIDATION = 0.6, 0.75  # where the parts of a rehearsal end, as in ``models.train``
_LEAD: Final = 2  # windows of training that a test which continues it is begun with


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A detector that has learnt.

    lead   the scaled rows that a test which continues its history begins with
    drift  how its threshold follows drift, as in a plan's defaults; None for one that is no matter of calibration
    """

    model: Detector
    scaler: RobustScaler
    threshold: float
    lead: Float32
    drift: Drift | None = None

    def scores(self, values: Float64, at_ms: npt.NDArray[np.int64], *, continues: bool) -> Float64:
        """(row, signal) -> (row,) scores over the threshold of their row, 0 where the detector says nothing."""
        lead = self.lead if continues else self.lead[:0]
        seen = np.concatenate([lead, self.scaler.transform(values)])
        times = np.concatenate([np.full(len(lead), at_ms[0] if len(at_ms) else 0), at_ms])
        scores = _run(self.model, seen, times)[len(lead) :] / self.threshold
        if self.drift is not None:
            scores = scores / followed(scores, self.drift)
        return np.where(np.isfinite(scores), scores, 0.0)


def learn(train: Float64, detector: str, config: Mapping[str, Any], seed: int = 0, *, cold: bool = False) -> Fitted:
    """Learn from (row, signal). A detector's own calibration is used where it has one, else that of a rehearsal.

    ``cold``: what can begin without training does, and is not shown ``train``.
    """
    model = registry.create(detector, signals=train.shape[1], config=config)
    scaler = RobustScaler.none(model.signals) if getattr(model, "unscaled", False) else RobustScaler.fit([train])
    rows = scaler.transform(train)
    natural = getattr(model, "natural_threshold", None)
    if cold and hasattr(model, "begin_empty"):
        model.begin_empty()
        return Fitted(model, scaler, natural or 1.0, rows[:0])
    threshold = _rehearsed(train, detector, config, seed) if natural is None else natural
    if getattr(model, "calibrates_itself", False):
        model.fit([rows], [], seed=seed)
    else:
        cut = int(_VALIDATION * len(rows))
        model.fit([rows[:cut]], [rows[cut:]], seed=seed)
    drift = Drift() if natural is None else None
    return Fitted(model, scaler, threshold, rows[-_LEAD * model.window :], drift)


def judge(case: Case, detector: str, config: Mapping[str, Any], seed: int = 0) -> Judged:
    """Learn and score a case."""
    fitted = learn(case.train, detector, config, seed, cold=case.cold)
    return Judged(case, fitted.scores(case.test, case.at_ms, continues=case.continues))


def _rehearsed(train: Float64, detector: str, config: Mapping[str, Any], seed: int) -> float:
    """The score that one held-back clean row in a hundred exceeds."""
    model = registry.create(detector, signals=train.shape[1], config=config)
    if getattr(model, "calibrates_itself", False):
        return 1.0
    fit, validation = int(_FIT * len(train)), int(_VALIDATION * len(train))
    scaler = RobustScaler.fit([train[:fit]])
    rows = scaler.transform(train)
    model.fit([rows[:fit]], [rows[fit:validation]], seed=seed)
    held_back = _run(model, rows[max(validation - model.window + 1, 0) :], None)[model.window - 1 :]
    known = held_back[np.isfinite(held_back)]
    return max(float(np.quantile(known, QUANTILE)), 1e-9) if len(known) else 1.0


def _run(model: Detector, rows: Float32, at_ms: Any) -> Float64:
    """(row,) scores; NaN before the first full window."""
    stepper = getattr(model, "stepper", None)
    if stepper is not None:
        one = np.zeros(1, np.int64)
        scores = stepper.run(stepper.begin(1), one, np.array([len(rows)]), rows, at_ms).score.copy()
        scores[: model.window - 1] = np.nan
        return np.asarray(scores)
    if len(rows) < model.window:
        return np.full(len(rows), np.nan)
    return np.concatenate([np.full(model.window - 1, np.nan), score_rows(model, rows).score])
