"""Affiliation precision and recall: how near alarms are to faults in time, against chance (Huet et al. 2022).

Time is cut into zones, each holding what is nearer to one fault than to the others. In a zone, precision is the mean
over the alarmed time of the chance that a moment drawn at random in the zone lies farther from the fault; recall the
mean over the fault's time of the chance that such a moment lies farther from it than the nearest alarm. An alarm a
little early or late costs a little, and random alarms score 0.5. All integrals are exact: between the points where
something changes, the integrands are linear in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
import numpy.typing as npt

from models.measures.volume import runs

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Affiliation:
    """``precisions`` and ``recalls`` by fault, in their order; a precision is NaN where its zone holds no alarm."""

    precisions: tuple[float, ...]
    recalls: tuple[float, ...]

    @property
    def precision(self) -> float:
        """Mean over the faults whose zone holds an alarm; NaN without any."""
        known = [value for value in self.precisions if value == value]
        return fmean(known) if known else float("nan")

    @property
    def recall(self) -> float:
        """Mean over all faults."""
        return fmean(self.recalls)

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN like the precision."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def affiliation(labels: npt.NDArray[np.bool_], alarms: npt.NDArray[np.bool_]) -> Affiliation:
    """Compare (row,) bool arrays, a row lasting from its number to the next. Raises ``ValueError`` without faults."""
    return between([(a, b + 1) for a, b in runs(labels)], [(a, b + 1) for a, b in runs(alarms)], (0, len(labels)))


def between(faults: Sequence[Interval], alarms: Sequence[Interval], span: Interval) -> Affiliation:
    """Compare disjoint intervals, each list in the order of time, within ``span``."""
    if not faults:
        raise ValueError("affiliation is about faults: give at least one")
    cuts = [span[0], *((one[1] + other[0]) / 2 for one, other in pairwise(faults)), span[1]]
    precisions, recalls = [], []
    for fault, zone in zip(faults, pairwise(cuts), strict=True):
        mine = [(max(a, zone[0]), min(b, zone[1])) for a, b in alarms]
        mine = [(a, b) for a, b in mine if a < b]
        precisions.append(_precision(fault, mine, zone))
        recalls.append(_recall(fault, mine, zone))
    return Affiliation(tuple(precisions), tuple(recalls))


def _precision(fault: Interval, alarms: Sequence[Interval], zone: Interval) -> float:
    if not alarms:
        return float("nan")
    before, after = fault[0] - zone[0], zone[1] - fault[1]

    def farther(moment: float) -> float:
        distance = max(fault[0] - moment, moment - fault[1], 0.0)
        if not distance:
            return 1.0
        nearer = fault[1] - fault[0] + min(distance, before) + min(distance, after)
        return 1 - nearer / (zone[1] - zone[0])

    changes = (*fault, fault[0] - after, fault[1] + before)
    total = sum(_integral(farther, alarm, changes, jumps=fault) for alarm in alarms)
    return total / sum(end - start for start, end in alarms)


def _recall(fault: Interval, alarms: Sequence[Interval], zone: Interval) -> float:
    if not alarms:
        return 0.0

    def farther(moment: float) -> float:
        distance = min(max(start - moment, moment - end, 0.0) for start, end in alarms)
        nearer = min(distance, moment - zone[0]) + min(distance, zone[1] - moment)
        return 1 - nearer / (zone[1] - zone[0])

    edges = [edge for alarm in alarms for edge in alarm]
    middles = [(one[1] + other[0]) / 2 for one, other in pairwise(alarms)]
    rooms = [(edge + wall) / 2 for edge in edges for wall in zone]
    return _integral(farther, fault, (*edges, *middles, *rooms), jumps=()) / (fault[1] - fault[0])


def _integral(
    value: Callable[[float], float], over: Interval, changes: Sequence[float], jumps: Sequence[float]
) -> float:
    """Of a function that is linear between ``changes``; where it ``jumps``, ends are taken from inside."""
    points = sorted({*over, *(point for point in changes if over[0] < point < over[1])})
    total = 0.0
    for start, end in pairwise(points):
        if not jumps:
            total += (end - start) * (value(start) + value(end)) / 2
        else:  # linear, so two points inside give the mean
            third = (end - start) / 3
            total += (end - start) * (value(start + third) + value(end - third)) / 2
    return total
