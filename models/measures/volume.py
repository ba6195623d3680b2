"""VUS: the volume under the precision-recall (or ROC) surface over all tolerances in time (Paparrizos et al. 2022).

Labels of anomalies begin and end somewhere near, so each anomaly gets a slope of up to half a window at both ends, and
the area under the curve of so softened labels is averaged over the windows 0, 1, ..., ``window``. An anomaly that no
row above the threshold touches lowers the recall as a whole. Follows ``RangeAUC_volume_opt`` of the paper's VUS
package, as TSB-AD uses it (250 thresholds), with sums over sorted scores in place of a pass over the rows a threshold.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Float64

_Floats = npt.NDArray[np.floating[Any]]
_Runs = list[tuple[int, int]]


def vus(
    labels: npt.NDArray[np.bool_], scores: _Floats, window: int = 100, thresholds: int = 250
) -> tuple[float, float]:
    """(VUS-PR, VUS-ROC) of ``scores`` (row,), higher is stranger, NaN counts as the lowest; NaN without anomalies.

    ``labels``: (row,) bool; ``window``: the widest tolerance, in rows (TSB-AD: the period of the series, or 100).
    """
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"expected as many labels as scores, got {labels.shape} and {scores.shape}")
    if not labels.any():
        return float("nan"), float("nan")
    known = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    order = np.asarray(np.argsort(-known, kind="stable"), np.int64)
    fallen = known[order]
    cuts = fallen[np.linspace(0, len(fallen) - 1, thresholds).astype(np.int64)]
    called = np.asarray(np.searchsorted(-fallen, -cuts, side="right"), np.int64)  # rows at or above each threshold
    events = runs(labels)
    hits = np.cumsum(labels[order], dtype=np.int64)[called - 1]
    areas = [_areas(labels, known, order, cuts, called, hits, events, width) for width in range(window + 1)]
    pr, roc = np.mean(areas, axis=0)
    return float(pr), float(roc)


def runs(flags: npt.NDArray[np.bool_]) -> _Runs:
    """First and last row of every run of true rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _areas(
    labels: npt.NDArray[np.bool_],
    scores: Float64,
    order: npt.NDArray[np.int64],
    cuts: Float64,
    called: npt.NDArray[np.int64],
    hits: npt.NDArray[np.int64],
    events: _Runs,
    width: int,
) -> tuple[float, float]:
    """Areas under precision over recall, and under the ROC curve, at one tolerance."""
    soft = _softened(labels, events, width)
    zones = _zones(events, width, len(labels))
    positives, total = int(labels.sum()), len(labels)
    found = np.cumsum(soft[order])[called - 1]  # soft true positives at each threshold
    touched = np.sort([scores[first : last + 1].max() for first, last in zones])
    existence = 1 - np.searchsorted(touched, cuts, side="left") / len(zones)
    # half way between the labels as they are and the soft ones that were called
    expected = positives + (found - hits) / 2
    recall = np.minimum(found / expected, 1) * existence
    precision = found / called
    false = (called - found) / (total - expected)
    steps = np.concatenate([[0.0], recall])
    pr = float(np.dot(np.diff(steps), precision))
    across, up = np.concatenate([[0.0], false, [1.0]]), np.concatenate([steps, [1.0]])
    return pr, float(np.dot(np.diff(across), (up[1:] + up[:-1]) / 2))


def _softened(labels: npt.NDArray[np.bool_], events: _Runs, width: int) -> Float64:
    """1 on anomalies, falling off as sqrt(1 - distance / width) to half a width on both sides."""
    soft = labels.astype(np.float64)
    half = width // 2
    for first, last in events:
        after = np.arange(last + 1, min(last + half + 1, len(labels)))
        soft[after] += np.sqrt(1 - (after - last) / width) if len(after) else 0
        before = np.arange(max(first - half, 0), first)
        soft[before] += np.sqrt(1 - (first - before) / width) if len(before) else 0
    return np.minimum(soft, 1.0)


def _zones(events: _Runs, width: int, total: int) -> _Runs:
    """Anomalies with half a width on both sides, those that meet as one."""
    half = width // 2
    zones: _Runs = []
    begin = max(events[0][0] - half, 0)
    for (_, last), (first, _) in itertools.pairwise(events):
        if last + half < first - half:
            zones.append((begin, last + half))
            begin = first - half
    return [*zones, (begin, min(events[-1][1] + half, total - 1))]
