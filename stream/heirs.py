"""A second version at work in a lane: as a candidate, whose scores are compared, or as what takes over.

What takes over does so asset by asset: the version that served judges an asset until the new one's windows are full
there, so that every reading is judged once, by exactly one of them. Where both look at windows of the same signals, the
new one is given what the old one remembers, and takes over with the next reading; a state that is carried from reading
to reading means nothing to another network, so it is built up from new readings first.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

from stream.agreement import Agreement
from stream.judge import Assessed, Judged, Sitting, look, verdict
from stream.lane import Lane
from stream.records import Bool, Int32, Int64
from stream.reorder import Rows

_log = logging.getLogger(__name__)

#: What became of the heir: nothing new, it has taken over everything, or it was a candidate that failed.
Outcome = Literal["", "over", "failed"]


def begin_heir(lane: Lane, heir: Lane, *, succeeding: bool) -> None:
    """Let ``heir`` look at what ``lane`` looks at, by the same slots."""
    heir.names = lane.names
    heir.decisions.episodes = (
        lane.decisions.episodes
    )  # what is open is the asset's; a threshold's level is the version's
    lane.heir = heir
    lane.taken = set() if succeeding else None
    lane.agreement = None if succeeding else (lane.agreement or Agreement())


def seed(lane: Lane, heir: Lane) -> bool:
    """Give a new heir what the lane remembers of readings, in its own scale; False where it must begin with nothing."""
    beside = (lane.grid, lane.filler, heir.grid, heir.filler)
    if lane.windows is None or heir.windows is None or any(held is not None for held in beside):
        return False
    old, new = lane.artifact, heir.artifact
    if set(old.signals) != set(new.signals):
        return False
    order = [old.signals.index(signal) for signal in new.signals]
    slots = len(lane.windows.rows)
    heir.windows.grow(slots)
    keep = min(lane.windows.length, heir.windows.length) - 1
    if keep and slots:
        values = old.scaler.inverse(lane.windows.history[:, -keep:])[..., order]
        heir.windows.history[:slots, -keep:] = new.scaler.transform(values)
    shorter = lane.windows.length < heir.windows.length
    rows = np.minimum(lane.windows.rows, keep) if shorter else lane.windows.rows
    heir.windows.rows[:slots] = rows
    return True


def succeed(lane: Lane) -> None:
    """The heir takes over the lane, all of it: what is open stays open, and the slots stay as they are."""
    heir = lane.heir
    assert heir is not None  # noqa: S101 (asked only where there is one)
    lane.artifact, lane.rules, lane.identity = heir.artifact, heir.rules, heir.identity
    lane.columns, lane.all_columns = heir.columns, heir.all_columns
    lane.longest_ms, lane.windows, lane.carried = heir.longest_ms, heir.windows, heir.carried
    lane.decisions = heir.decisions
    lane.grid, lane.filler, lane.factors = heir.grid, heir.filler, heir.factors
    lane.heir, lane.taken, lane.agreement = None, None, None


def is_over(lane: Lane) -> bool:
    """Whether the heir has taken over every asset."""
    return lane.taken is not None and len(lane.taken) >= sum(map(bool, lane.names))


def watch_both(
    lane: Lane, slots: Int32, chosen: Int64, pause_ms: Int64, rows: Rows, sitting: Sitting
) -> tuple[list[Judged], Outcome]:
    """As ``judge.watch``, where another version looks at the same rows."""
    heir = lane.heir
    assert heir is not None  # noqa: S101 (asked only where there is one)
    mine = look(lane, slots, chosen, pause_ms, rows, sitting)
    if lane.taken is None:
        results = [] if mine is None else [verdict(lane, mine, sitting)]
        aside = Sitting(sitting.clock, sitting.factors, sitting.still, sitting.present)
        outcome: Outcome = ""
        try:
            theirs = look(heir, slots, chosen, pause_ms, rows, aside)
            if mine is not None and theirs is not None and lane.agreement is not None:
                _compare(lane.agreement, mine, theirs)
        except Exception:  # a candidate that fails costs what serves nothing
            _log.exception("candidate %s of %s failed: it is let go", heir.artifact.version, lane.detector)
            lane.heir, lane.agreement, outcome = None, None, "failed"
        spent = sum(aside.stage_s.values())
        sitting.stage_s["shadow"] += spent
        if lane.agreement is not None:
            lane.agreement.candidate_s += spent
            lane.agreement.serving_s += 0.0 if mine is None else mine.took_s
        return results, outcome
    theirs = look(heir, slots, chosen, pause_ms, rows, sitting)
    results = []
    if mine is not None:
        mine = mine.take(_old_rows(lane.taken, mine, theirs))
        if len(mine.slots):
            results.append(verdict(lane, mine, sitting))
    if theirs is not None:
        results.append(verdict(heir, theirs, sitting))
        lane.taken |= set(theirs.slots.tolist())
    if is_over(lane):
        succeed(lane)
        return results, "over"
    return results, ""


def _old_rows(taken: set[int], mine: Assessed, theirs: Assessed | None) -> Bool:
    """Which of the old version's rows count: those of assets not taken over, before the heir's first word on them."""
    begins: dict[int, int] = {}
    if theirs is not None:
        # sorted by slot and time: of each slot the first is what stays
        times = zip(reversed(theirs.slots.tolist()), reversed(theirs.evidence.at_ms.tolist()), strict=True)
        begins = dict(times)
    return np.array(
        [
            slot not in taken and (slot not in begins or at < begins[slot])
            for slot, at in zip(mine.slots.tolist(), mine.evidence.at_ms.tolist(), strict=True)
        ],
        dtype=bool,
    )


def _compare(agreement: Agreement, mine: Assessed, theirs: Assessed) -> None:
    """Take the rows that both judged into the agreement."""
    slots, at_ms, one, other = mine.slots, mine.evidence.at_ms, mine.ratios, theirs.ratios
    if not (np.array_equal(slots, theirs.slots) and np.array_equal(at_ms, theirs.evidence.at_ms)):
        keys = zip(theirs.slots.tolist(), theirs.evidence.at_ms.tolist(), strict=True)
        place = {key: at for at, key in enumerate(keys)}
        both = enumerate(zip(slots.tolist(), at_ms.tolist(), strict=True))
        pairs = [(row, place[key]) for row, key in both if key in place]
        if not pairs:
            return
        rows, others = np.array(pairs).T
        slots, at_ms, one, other = slots[rows], at_ms[rows], one[rows], other[others]
    agreement.take(slots, at_ms, one, other)
