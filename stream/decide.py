"""Scores to alerts: the fourth stage. A score says how strange a reading is; here is decided what an operator is told.

The words are those of alarm management (ISA-18.2, OPC 10000-9): on-delay, off-delay, deadband. One alert an asset and
detector: it opens, is updated at most every so often, and resolves. What is known of it is its ``stream.episode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.drift import Drift
from stream.episode import (
    NO_OPINION,
    SEVERITIES,
    Episode,
    Evidence,
    Identity,
    Opinion,
    Rules,
    level_of,
    take_in,
    transition,
)
from stream.records import Alert, Bool, Float64, Int32
from stream.sources.json import timestamp


@dataclass(slots=True)
class DecisionState:
    """What must be remembered between batches: the episodes that are not over, by slot.

    levels  (slot,) float64, the level of calm scores that ``Rules.drift`` follows; NaN where there is none yet
    """

    episodes: dict[int, Episode] = field(default_factory=dict)
    levels: Float64 = field(default_factory=lambda: np.empty(0))

    def grow(self, slots: int) -> None:
        """Have levels for so many slots."""
        held = len(self.levels)
        if slots > held:
            self.levels = np.concatenate([self.levels, np.full(max(slots - held, held // 32 + 16), np.nan)])


class Decided(NamedTuple):
    """What became of a batch of scores.

    anomalous  (row,) bool, whether an alert is open at each row
    threshold  (row,) float64, what each score was held against
    alerts     the transitions, in order of rows
    raised     of how many rows drift had raised the threshold
    """

    anomalous: Bool
    threshold: Float64
    alerts: list[Alert]
    raised: int


def decide(
    state: DecisionState,
    rules: Rules,
    identity: Identity,
    slot: Int32,
    names: Sequence[str],
    rows: Evidence,
    opinion: Opinion = NO_OPINION,
    factors: Float64 | None = None,
    still: Bool | None = None,
) -> Decided:
    """Go through a batch of scores, and update ``state``.

    slot     (row,) int32, the asset of each row
    names    the asset of each slot
    factors  (row,) what the threshold is multiplied by; NaN: the row is no evidence of anything, as a score that is
             NaN. None: 1 everywhere
    still    (row,) rows that no threshold follows: drift stands still, as it does while an alert is open. None: none
    """
    anomalous = np.zeros(len(slot), dtype=bool)
    alerts: list[Alert] = []
    base = np.full(len(slot), rules.threshold) if factors is None else rules.threshold * factors
    ratios = rows.score / base if still is None else np.where(still, np.nan, rows.score / base)
    raised, slots, after = _if_calm(state, rules.drift, slot, ratios)
    # Nearly all rows are below the threshold on assets with nothing open: they are passed over in one sweep.
    interesting = rows.score >= base * raised
    if state.episodes:
        interesting |= np.isin(slot, np.fromiter(state.episodes, dtype=slot.dtype))
    if interesting.any():
        # An episode that begins within the batch makes all of its asset's later rows interesting too.
        eventful = slot[interesting]
        calm = ~np.isin(slots, eventful)
        slots, after = slots[calm], after[calm]
        concerned = np.flatnonzero(np.isin(slot, eventful))
    else:
        concerned = np.empty(0, dtype=np.int64)
    state.levels[slots] = after
    moved: dict[float, Rules] = {}
    for row in concerned.tolist():
        asset = int(slot[row])
        raised[row] = up = _raised(state, rules.drift, asset)
        factor = up if factors is None else up * float(factors[row])
        if factor != factor:
            episode = state.episodes.get(asset)
            anomalous[row] = episode is not None and episode.is_open
            continue
        mine = moved.get(factor) or moved.setdefault(factor, rules.moved(factor))
        anomalous[row] = _step(state, mine, identity, asset, names[asset], rows, row, opinion, alerts)
        _follow(state, rules.drift, asset, up, float(ratios[row]))
    threshold = np.where(np.isnan(base), rules.threshold, base) * raised
    return Decided(anomalous, threshold, alerts, int((raised > 1.0).sum()))


def _if_calm(state: DecisionState, drift: Drift | None, slot: Int32, ratios: Float64) -> tuple[Float64, Int32, Float64]:
    """What drift would come to if no asset had an episode in this batch.

    Returns (row,) what the threshold is multiplied by, and where a level is followed the assets (asset,) with their
    levels afterwards.
    """
    if drift is None or not len(slot):
        return np.ones(len(slot)), np.empty(0, np.int32), np.empty(0)
    starts = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1]]))
    slots, counts = slot[starts], np.diff(starts, append=len(slot))
    state.grow(int(slots.max()) + 1)
    held = state.levels[slots]
    before, after = np.empty(len(slot)), np.where(np.isnan(held), drift.begin, held)
    longest = int(counts.max())
    if longest < len(slots):  # many assets: all at once, their first rows, then their second ones, ...
        for number in range(longest):
            still = counts > number
            row = starts[still] + number
            before[row] = now = after[still]
            after[still] = drift.after_all(now, ratios[row])
    else:
        for place, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            own = slice(start, start + count)
            before[own], after[place] = drift.calm(float(after[place]), ratios[own])
    return drift.factors(before), slots, after


def _raised(state: DecisionState, drift: Drift | None, slot: int) -> float:
    """What drift multiplies the threshold of an asset's next score by."""
    episode = state.episodes.get(slot)
    if episode is not None:
        return episode.raised
    return 1.0 if drift is None else drift.factor(_level_of(state, drift, slot))


def _follow(state: DecisionState, drift: Drift | None, slot: int, raised: float, ratio: float) -> None:
    """After a row: a level that follows it if it was calm; in an episode the threshold stays as it was at the onset."""
    episode = state.episodes.get(slot)
    if episode is not None:
        episode.raised = raised
    elif drift is not None and ratio == ratio:
        state.levels[slot] = drift.after(_level_of(state, drift, slot), ratio)


def _level_of(state: DecisionState, drift: Drift, slot: int) -> float:
    level = float(state.levels[slot])
    return level if level == level else drift.begin


def _step(  # noqa: PLR0911, PLR0912 (one return a state of the alert reads as its table of transitions)
    state: DecisionState,
    rules: Rules,
    identity: Identity,
    slot: int,
    name: str,
    rows: Evidence,
    row: int,
    opinion: Opinion,
    alerts: list[Alert],
) -> bool:
    """One row of one asset; whether its alert is open after it."""
    episode = state.episodes.get(slot)
    value = float(rows.score[row])
    at_ms = int(rows.at_ms[row])
    if value != value:  # no evidence in this row: what is open stays open, what is not does not begin
        return episode is not None and episode.is_open
    if episode is not None and episode.closed:
        if value < rules.lower_bound:
            del state.episodes[slot]
        return False
    if episode is None:
        if value < rules.threshold:
            return False
        episode = state.episodes[slot] = Episode(onset_ms=at_ms)
    take_in(episode, rules, rows, row, opinion)

    if value < rules.lower_bound:
        if episode.opened_ms is None:
            del state.episodes[slot]
            return False
        if episode.below_since_ms is None:
            episode.below_since_ms = at_ms
        if at_ms - episode.below_since_ms >= rules.off_delay_ms:
            del state.episodes[slot]
            episode.lived("resolved", timestamp(at_ms))
            alerts.append(transition(episode, "resolved", rules, identity, name, value, at_ms))
            return False
        return True
    episode.below_since_ms = None

    level = level_of(episode, rules, at_ms)
    if episode.opened_ms is None:
        if at_ms - episode.onset_ms < rules.on_delay_ms:
            return False
        episode.opened_ms, episode.level, episode.alarmed_ms = at_ms, level, at_ms
        episode.lived("open", timestamp(at_ms))
        alerts.append(transition(episode, "open", rules, identity, name, value, at_ms))
    else:
        news = _grows_old(episode, rules, at_ms)
        if level > episode.level:
            episode.level, news = level, True
            episode.lived(SEVERITIES[level], timestamp(at_ms))
        if news or at_ms - episode.published_ms >= rules.update_every_ms:
            alerts.append(transition(episode, "updated", rules, identity, name, value, at_ms))
    return True


def _grows_old(episode: Episode, rules: Rules, at_ms: int) -> bool:
    """What time alone does to an open alert: its shelf is over, or nobody has acknowledged it for too long."""
    news = False
    if episode.shelved is not None:
        if at_ms < episode.shelved_until_ms:
            return False
        episode.shelved, episode.alarmed_ms, news = None, at_ms, True
        episode.lived("shelf_over", timestamp(at_ms))
    waits = rules.re_alarm_after_ms and episode.acknowledged is None
    if waits and at_ms - episode.alarmed_ms >= rules.re_alarm_after_ms:
        episode.alarmed_ms, episode.re_alarmed, news = at_ms, True, True
        episode.lived("re_alarm", timestamp(at_ms))
    return news
