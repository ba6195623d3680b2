"""Where what operators say meets a partition's alerts: finds the episode, and does it. Pure but for that state."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from stream.desk import Desk
from stream.episode import Episode, Identity, Rules, alert_id, answer, standing
from stream.labels import Label
from stream.operate import apply, heed
from stream.partition import Partition
from stream.presence import RULES as SILENCE
from stream.records import Alert

_Found = tuple[Episode, Rules, Identity]


def operate(desk: Desk, state: Partition, asset: str, alert: str) -> list[Alert]:
    """Do to an alert what operators have done and it does not know yet: its transitions."""
    actions, label = desk.actions(alert), desk.label_of(alert)
    found = _find(state, asset, alert) if actions or label else None
    if found is None:
        return []
    episode, rules, identity = found
    done = [] if label is None else [heed(episode, label, rules, identity, asset)]
    done += [apply(episode, action, rules, identity, asset) for action in actions]
    return _touched(state, asset, [transition for transition in done if transition is not None])


def heed_label(state: Partition, label: Label) -> list[Alert]:
    """Tell of a label in the alert that it is about, if it is open here."""
    found = _find(state, label.asset, label.alert)
    told = None if found is None else heed(found[0], label, found[1], found[2], label.asset)
    return _touched(state, label.asset, [] if told is None else [told])


def move(desk: Desk, state: Partition, detector: str, asset: str) -> None:
    """Multiply the threshold of a detector for an asset as labels now say."""
    index = state.index.get(asset)
    for lane in () if index is None else state.lanes_of(index):
        if lane.detector == detector and index is not None:
            for held in (lane, lane.heir):
                if held is not None:
                    held.move_slot(int(lane.slots[index]), desk.factor(detector, asset, held.artifact.version))


def retell(state: Partition, pattern: str, action: str) -> list[Alert]:
    """The open alerts of assets once more: whether anybody is told of them has changed."""
    told: list[Alert] = []
    for asset in [name for name in state.index if fnmatchcase(name, pattern)]:
        open_ones = [
            answer(episode, "updated", rules, identity, asset, action) for episode, rules, identity in _of(state, asset)
        ]
        told += _touched(state, asset, open_ones)
    return told


def open_in(state: Partition) -> list[Alert]:
    """What is open in a partition."""
    return [
        standing(episode, rules, identity, asset)
        for asset in state.index
        for episode, rules, identity in _of(state, asset)
    ]


def _of(state: Partition, asset: str) -> Iterator[_Found]:
    """The open episodes of an asset, each with its rules as they hold now and whose it is."""
    index = state.index.get(asset)
    if index is None:
        return
    for lane in state.lanes_of(index):
        slot = int(lane.slots[index])
        episode = lane.decisions.episodes.get(slot)
        if episode is not None and episode.is_open:
            yield episode, lane.rules.moved(lane.factors.get(slot, 1.0) * episode.raised), lane.identity
    if state.presence is not None and (silent := state.presence.acted_on(index)) is not None:
        yield silent, SILENCE, state.presence.identity
    if state.limits is not None:
        episode = state.limits.decisions.episodes.get(index)
        if episode is not None and episode.is_open:
            yield episode, state.limits.rules, state.limits.identity


def _find(state: Partition, asset: str, alert: str) -> _Found | None:
    for found in _of(state, asset):
        if alert_id(found[2].detector, asset, found[0].onset_ms) == alert:
            return found
    return None


def _touched(state: Partition, asset: str, alerts: list[Alert]) -> list[Alert]:
    """``alerts``, and the asset's block is to be saved if there are any."""
    if alerts:
        state.touched.add(state.index[asset] // state.size)
    return alerts
