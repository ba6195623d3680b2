"""What happens to readings before any detector sees them: time put right, silences noticed, impossible values masked.

Of a batch as it was decoded come the rows that the windows may have: of each asset only what is newer than all it had
before. The rest is late, a duplicate, or from the future (``stream.skew``). Each part is there where the plan asks for
it, and costs nothing where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream.limits import Ranges, limits_of
from stream.presence import Presence
from stream.records import Alert, Bool, Int32, Int64, Readings
from stream.reorder import Reorder, Rows, joined
from stream.skew import Skew
from stream.window import arrival

if TYPE_CHECKING:
    from stream.partition import Partition
    from stream.plan import Plan


def milliseconds(seconds: float) -> int:
    """As the stages count."""
    return round(seconds * 1000)


@dataclass(slots=True)
class Arrived:
    """What became of a batch.

    rows        what there is to judge, and maybe more
    fresh       (row,) which of ``rows`` it is, sorted by asset, and by time within an asset
    pause_ms    (row,) of those, the time since the asset's row before; immensely long where there was none
    late        places in the batch of readings that came too late
    future      places of readings from the future
    duplicates  how many had a time that their asset had already
    alerts      on the data themselves
    """

    rows: Rows
    fresh: Int64
    pause_ms: Int64
    late: Int64
    future: Int64
    duplicates: int
    alerts: list[Alert] = field(default_factory=list)


_NOTHING = np.zeros(0, dtype=np.int64)


def arrive(state: Partition, readings: Readings, assets: Int32, again: Bool | None = None) -> Arrived:
    """Take a batch; ``assets`` (reading,) are the partition's indices. Updates ``state``.

    again   (reading,) which of them their assets have applied already: those move the partition's clock, as they did
            the first time, and nothing else
    """
    rows = Rows(assets, readings.at_ms, readings.values, readings.bad, readings.record)
    kept: Int64 | None = None  # places in the batch, if not all of it is taken
    if again is not None:
        kept = np.flatnonzero(~again)
        rows = rows.take(kept)
    future = _NOTHING
    if state.skew is not None:
        refused = state.skew.future(rows.asset, rows.at_ms, state.seen_ms)
        if refused is not None:
            places = np.arange(len(rows)) if kept is None else kept
            kept, future = places[~refused], places[refused]
            rows = rows.take(np.flatnonzero(~refused))
    before = 0
    if state.left_over is not None:
        before = len(state.left_over)
        rows, state.left_over = joined([state.left_over, rows]), None
    order, late, duplicate, pause_ms = arrival(rows.asset, rows.at_ms, state.seen_ms)
    alerts: list[Alert] = []
    silence_ms = _NOTHING
    if state.presence is not None:
        every_ms = place = None
        if again is not None and kept is not None:
            # one that is newer than all that its asset has shown was refused the first time
            moved = np.flatnonzero(again & (readings.at_ms <= state.seen_ms[assets]))
            every_ms, place = _among(rows.at_ms, np.append(np.full(before, -1), kept), readings.at_ms[moved], moved)
        silence_ms = state.presence.hear(rows.asset, rows.at_ms, order, every_ms=every_ms, place=place)
        slots, at_ms = rows.asset[order], rows.at_ms[order]
        alerts += _noted(state, state.presence.back(state.names, slots, at_ms - pause_ms, at_ms, silence_ms))
    if state.reorder is None or state.presence is None:
        good = ~late & ~duplicate
        found = Arrived(rows, order[good], pause_ms[good], order[late], future, int(duplicate.sum()), alerts)
    else:
        before_ms = rows.at_ms[order] - pause_ms
        heard_ms, now_ms = state.presence.heard_ms, state.presence.clock_ms
        ordered = state.reorder.put(rows, order, before_ms, silence_ms, state.last_ms, heard_ms, now_ms)
        state.touched.update(np.unique(ordered.rows.asset // state.size).tolist())
        fresh = np.arange(len(ordered.rows))
        found = Arrived(ordered.rows, fresh, ordered.pause_ms, ordered.late, future, ordered.duplicates, alerts)
    found.late = found.late - before
    if kept is not None:
        found.late = kept[found.late]
    if state.presence is not None:
        alerts += _noted(state, state.presence.silent(state.names, state.seen_ms))
    _mask(state, found)
    return found


def _among(at_ms: Int64, came: Int64, others_ms: Int64, others_came: Int64) -> tuple[Int64, Int64]:
    """All times in the order in which they came, and where each of ``at_ms`` is among them."""
    order = np.argsort(np.concatenate([came, others_came]), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.concatenate([at_ms, others_ms])[order], place[: len(at_ms)]


def drain(state: Partition) -> Arrived:
    """All that is held back: the stream has ended."""
    if state.reorder is None:
        nothing, signals = Rows.none(len(state.signals)), state.signals
        none = Readings((), nothing.asset, nothing.at_ms, signals, nothing.values, nothing.record)
        return arrive(state, none, nothing.asset)
    ordered = state.reorder.drain(state.last_ms)
    found = Arrived(ordered.rows, np.arange(len(ordered.rows)), ordered.pause_ms, _NOTHING, _NOTHING, 0)
    _mask(state, found)
    return found


def _mask(state: Partition, found: Arrived) -> None:
    """Take impossible values out of what is to be judged, and raise alerts on them."""
    if state.limits is None or not len(found.fresh):
        return
    rows = found.rows.take(found.fresh)
    rows.values, alerts = state.limits.judge(state.names, rows.asset, rows.at_ms, rows.values, rows.bad)
    found.alerts += alerts
    found.rows, found.fresh = rows, np.arange(len(rows))


def _noted(state: Partition, found: list[tuple[int, Alert]]) -> list[Alert]:
    state.touched.update(index // state.size for index, _ in found)
    return [alert for _, alert in found]


class Arrivals:
    """What a plan asks for, and so what each partition begins with."""

    def __init__(self, plan: Plan, signals: tuple[str, ...], shortest_period_s: float) -> None:
        """``shortest_period_s``: of all models."""
        self._plan = plan
        self._signals = signals
        self._ranges = Ranges(plan.signals, signals)
        quality, given = plan.quality, plan.input
        limits = [self.silent_ms(shortest_period_s)] if quality.stale_after_periods is not None else []
        limits += [milliseconds(given.silent_s)] if given.lateness_s else []
        self._step_ms = max(min(limits) // 2, 1) if limits else None

    def silent_ms(self, period_s: float) -> int:
        """How long an asset may be silent whose slowest model has this period, if the plan asks."""
        return milliseconds((self._plan.quality.stale_after_periods or 0) * period_s)

    def begin(self, state: Partition) -> None:
        """Give a new partition what the plan asks for."""
        plan, given = self._plan, self._plan.input
        with_bad = plan.quality.bad_values
        state.signals = self._signals
        if self._step_ms is not None:
            state.presence = Presence(self._step_ms, milliseconds(plan.state.evict_after_s), plan.site)
        if given.lateness_s:
            lateness_ms, silent_ms = milliseconds(given.lateness_s), milliseconds(given.silent_s)
            state.reorder = Reorder(lateness_ms, silent_ms, self._signals, given.max_held_readings, with_bad)
        if given.ahead_s is not None:
            state.skew = Skew(milliseconds(given.ahead_s), given.ahead_witnesses)
        if plan.signals or with_bad:
            state.limits = limits_of(plan.quality, self._ranges, self._signals, plan.site)

    def admit(self, state: Partition, index: int) -> None:
        """Say how long an asset may be silent, by the lanes that watch it now."""
        if self._plan.quality.stale_after_periods is None or state.presence is None:
            return
        periods_s = [lane.artifact.period_s for lane in state.lanes_of(index)]
        if periods_s:
            state.presence.allow(index, self.silent_ms(max(periods_s)))
