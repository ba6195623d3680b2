"""What one lane makes of its assets' readings: window, score and decide, one after the other.

Rows come sorted by asset, and by time within an asset. Where a batch's rows are all there is to judge, which is how it
mostly is, arrays go on as they are, not gathered anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Scored, UInt8
from stream.decide import decide
from stream.episode import Opinion
from stream.grid import Cells
from stream.heat import heat_maps
from stream.lane import Lane
from stream.records import Alert, Bool, Float32, Float64, Int32, Int64, Numbered, Scores, Windows
from stream.reorder import Rows
from stream.score import carry, score
from stream.sinks.rows import take
from stream.window import firsts, runs, window

Judged = tuple[Scores, list[Alert]]


@dataclass(frozen=True, slots=True)
class Present:
    """The assets of a batch by the names that came with it, which are at hand.

    Of a hundred thousand, those that are remembered lie where no cache holds them: looking at one costs 0.3 us.

    names, assets  (asset,) name and index in the partition
    """

    names: tuple[str, ...]
    assets: Int32

    def names_of(self, lane: Lane, slots: Int32) -> tuple[str, ...]:
        """The names of a lane's slots, which are ascending and each there once."""
        if len(slots) == len(self.names) and len(lane.slots):  # an heir has no index of its own
            here = lane.slots_of(self.assets)
            if np.array_equal(here, slots):
                return self.names
            order = np.argsort(here)
            if np.array_equal(here.take(order), slots):
                if isinstance(self.names, Numbered):
                    return self.names.take(order)
                return tuple(map(self.names.__getitem__, order.tolist()))
        return tuple([lane.names[slot] for slot in slots.tolist()])  # some only now, or others than came


@dataclass(frozen=True, slots=True)
class Sitting:
    """What a batch is judged with.

    clock    what the time is taken with
    factors  given a lane, the slots and the values of rows: what each row's threshold is multiplied by; None: nothing
    still    given a lane, the slots and the times of rows: which of them no threshold follows; None: none of them
    present  the assets of the batch
    stage_s  the seconds that each stage took, added up
    """

    clock: Callable[[], float]
    factors: Callable[[Lane, Int32, Float64], Float64 | None]
    still: Callable[[Lane, Int32, Int64], Bool | None]
    present: Present
    stage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(frozen=True, slots=True)
class Assessed:
    """Rows that a lane has scored, sorted by slot and time, and not yet decided on.

    factors  (row,) what thresholds are multiplied by; None: nothing
    took_s   what windowing and scoring them took
    still    (row,) which of them no threshold follows; None: none
    """

    evidence: Scores
    slots: Int32
    opinion: Opinion
    factors: Float64 | None
    took_s: float = 0.0
    still: Bool | None = None

    @property
    def ratios(self) -> Float64:
        """(row,) score over threshold."""
        weight = 1.0 if self.factors is None else np.where(np.isnan(self.factors), 1.0, self.factors)
        ratios: Float64 = self.evidence.score / (self.evidence.threshold * weight)
        return ratios

    def take(self, chosen: Bool) -> Assessed:
        """Some of the rows; there are no pictures among them."""
        if chosen.all():
            return self
        factors = None if self.factors is None else self.factors[chosen]
        classes = None if self.opinion.classes is None else self.opinion.classes[chosen]
        evidence = take(self.evidence, np.flatnonzero(chosen))
        still = None if self.still is None else self.still[chosen]
        return Assessed(evidence, self.slots[chosen], Opinion(classes), factors, self.took_s, still)


def watch(lane: Lane, slots: Int32, chosen: Int64, pause_ms: Int64, rows: Rows, sitting: Sitting) -> Judged | None:
    """Judge ``chosen`` of ``rows``, which are sorted by asset and time; see ``look``."""
    assessed = look(lane, slots, chosen, pause_ms, rows, sitting)
    return None if assessed is None else verdict(lane, assessed, sitting)


def look(lane: Lane, slots: Int32, chosen: Int64, pause_ms: Int64, rows: Rows, sitting: Sitting) -> Assessed | None:
    """Score ``chosen`` of ``rows``, which are sorted by asset and time; None where nothing is due.

    slots, pause_ms  (chosen,) the lane's slot of each, and the time since its asset's row before
    """
    slots, chosen, pause_ms = _ascending(slots, chosen, pause_ms)
    cells = Cells(slots, rows.at_ms[chosen], _values(lane, rows, chosen), pause_ms)
    if lane.grid is not None:
        cells = lane.grid.put(cells.slot, cells.at_ms, cells.values)
        if not len(cells.slot):
            return None
    return _assess(lane, cells, sitting)


def judge(lane: Lane, cells: Cells, sitting: Sitting) -> Judged | None:
    """Window, score and decide; None where nothing is due."""
    assessed = _assess(lane, cells, sitting)
    return None if assessed is None else verdict(lane, assessed, sitting)


def _assess(lane: Lane, cells: Cells, sitting: Sitting) -> Assessed | None:
    clock, stage_s = sitting.clock, sitting.stage_s
    started = clock()
    slots, paused = cells.slot, cells.pause_ms > lane.longest_ms
    scaled = lane.artifact.scaler.transform(cells.values)
    of: Int64 | None = None  # the cell of each row, if some rows only fill a gap
    if lane.filler is not None:
        of, real, scaled = lane.filler.fill(slots, scaled, cells.pause_ms)
        slots, paused = slots[of], paused[of] & real
    stepper = lane.artifact.stepper
    if lane.windows is not None:
        windows = window(lane.windows, slots, scaled, hop=lane.settings.hop, paused=paused)
        due = windows.row
        if of is not None:
            judged = real[due]
            windows = Windows(windows.length, windows.flat, windows.end[judged], due[judged])
            due = windows.row
    else:
        lane.carried.grow(int(slots[-1]) + 1)
        found = runs(lane.carried.rows, slots, paused)
        due = found.due(lane.artifact.window, lane.settings.hop)
        due = due if of is None else due[real[due]]
    windowed = clock()
    stage_s["window"] += windowed - started
    if stepper is not None:
        times = cells.at_ms if of is None else cells.at_ms[of]
        scored = carry(stepper, lane.carried, found, scaled, times, due)
    elif len(due):
        scored = score(lane.artifact.detector, windows)
    done = clock()
    stage_s["score"] += done - windowed
    if not len(due):
        return None
    due = due if of is None else of[due]
    judged_slots, at_ms, values = cells.slot, cells.at_ms, cells.values
    if len(due) < len(judged_slots):
        judged_slots, at_ms, values = judged_slots[due], at_ms[due], values[due]
    evidence = _evidence(lane, scored, judged_slots, at_ms, values, sitting.present)
    factors = sitting.factors(lane, judged_slots, values)
    still = sitting.still(lane, judged_slots, at_ms)
    stage_s["decide"] += clock() - done
    return Assessed(evidence, judged_slots, Opinion(scored.classes), factors, done - started, still)


def inspect(
    lane: Lane,
    slots: Int32,
    chosen: Int64,
    rows: Rows,
    held: Mapping[int, UInt8],
    sitting: Sitting,
) -> Judged:
    """Score and decide where readings are pictures: each is a window of its own. ``held``: them, by their record."""
    clock, stage_s = sitting.clock, sitting.stage_s
    started = clock()
    slots, chosen = _ascending(slots, chosen)
    pictures = [held[record] for record in rows.record[chosen].tolist()]
    inspector: Any = lane.artifact.detector
    scored: Scored = inspector.score(pictures)
    done = clock()
    stage_s["score"] += done - started
    at_ms = rows.at_ms[chosen]
    heat = heat_maps(scored, at_ms, [picture.shape for picture in pictures], lane.rules.threshold)
    values = _values(lane, rows, chosen)
    evidence = _evidence(lane, scored, slots, at_ms, values, sitting.present)
    factors = sitting.factors(lane, slots, values)
    still = sitting.still(lane, slots, at_ms)
    stage_s["decide"] += clock() - done
    return verdict(lane, Assessed(evidence, slots, Opinion(scored.classes, heat), factors, still=still), sitting)


def _ascending(slots: Int32, *others: npt.NDArray[Any]) -> list[Any]:
    """A lane's slots follow the order of arrival of its assets; the window stage wants them ascending."""
    if (slots[1:] >= slots[:-1]).all():
        return [slots, *others]
    order = np.argsort(slots, kind="stable")
    return [held[order] for held in (slots, *others)]


def _values(lane: Lane, rows: Rows, chosen: Int64) -> Float64:
    """The lane's columns of some rows."""
    values = rows.values.take(chosen, axis=0)
    return values if lane.all_columns else values.take(lane.columns, axis=1)


def verdict(lane: Lane, assessed: Assessed, sitting: Sitting) -> Judged:
    """What ``lane`` said of rows as ``Scores``, with the thresholds that it was decided by, and the alerts."""
    started = sitting.clock()
    evidence = assessed.evidence
    decided = decide(
        lane.decisions,
        lane.rules,
        lane.identity,
        assessed.slots,
        lane.names,
        evidence,
        assessed.opinion,
        assessed.factors,
        assessed.still,
    )
    sitting.stage_s["decide"] += sitting.clock() - started
    told = replace(evidence, anomalous=decided.anomalous, threshold=decided.threshold, raised=decided.raised)
    return told, decided.alerts


def _evidence(lane: Lane, scored: Scored, slots: Int32, at_ms: Int64, values: Float64, present: Present) -> Scores:
    first = firsts(slots)
    scaler = lane.artifact.scaler
    nothing: Bool = np.zeros(len(slots), dtype=bool)
    return Scores(
        detector=lane.detector,
        kind=lane.artifact.manifest.detector,
        model_version=lane.artifact.version,
        names=present.names_of(lane, slots[first]),
        asset=np.cumsum(first, dtype=np.int32) - np.int32(1),
        at_ms=at_ms,
        score=scored.score,
        threshold=np.full(len(slots), lane.rules.threshold),
        anomalous=nothing,
        signals=lane.artifact.signals,
        values=values,
        contributions=scored.contributions,
        expected=None if scored.expected is None else scaler.inverse(scored.expected),
        spread=None if scored.spread is None else _unscale(scored.spread, scaler.scale),
        verdict=np.zeros(len(slots), dtype=np.uint8) if scored.kind is None else scored.kind,
    )


def _unscale(spread: Float32, scale: Float64) -> Float64:
    """(row, signal) in the plant's units; where all rows are one and the same, it is worked out once."""
    if len(spread) and not spread.strides[0]:
        one: Float64 = spread[:1].astype(np.float64) * scale
        return np.broadcast_to(one, spread.shape)
    return spread.astype(np.float64) * scale
