"""What an operator's action does to an alert that is open. Pure: an episode and an action to the next transition.

Resolving ends the alert, and the episode stays, closed, until the score has once been below the lower bound (threshold
less deadband): only then may a new alert begin. What is still over the threshold does not alarm again a second later.
"""

from __future__ import annotations

from stream.actions import Action
from stream.episode import Episode, Identity, Rules, answer
from stream.labels import Label
from stream.records import Acknowledged, Alert, Shelved
from stream.sources.json import timestamp


def apply(episode: Episode, action: Action, rules: Rules, identity: Identity, asset: str) -> Alert | None:
    """Do ``action`` to the open alert of an episode; None where it has been done already, or the alert is over.

    rules   with the threshold as it holds for the asset now
    """
    if not episode.is_open or any(event.id == action.id for event in episode.life):
        return None
    state = "updated"
    comment = action.comment
    if action.action == "ack":
        episode.acknowledged = Acknowledged(by=action.by, at=action.at, comment=comment)
    elif action.action == "shelve":
        seen_ms = episode.seen_ms or episode.published_ms
        episode.shelved_until_ms = seen_ms + round(1000 * (action.for_s or 0))
        until = timestamp(episode.shelved_until_ms)
        episode.shelved = Shelved(until=until, by=action.by, at=action.at, comment=comment)
        comment = f"until {until}" + (f": {comment}" if comment else "")
    elif action.action == "unshelve":
        episode.shelved, episode.alarmed_ms = None, episode.seen_ms
    elif action.action == "resolve":
        episode.closed, state = True, "resolved"
    else:
        return None
    episode.lived(action.action, action.at, by=action.by, comment=comment, action=action.id)
    return answer(episode, "resolved" if state == "resolved" else "updated", rules, identity, asset, action.id)


def heed(episode: Episode, label: Label, rules: Rules, identity: Identity, asset: str) -> Alert | None:
    """Tell of a label in the open alert that it is about; None where that was done already."""
    seen = any((event.what, event.by, event.at) == (label.verdict, label.by, label.at) for event in episode.life)
    if not episode.is_open or seen:
        return None
    said = ": ".join(part for part in (label.fault, label.comment) if part)
    episode.lived(label.verdict, label.at, by=label.by, comment=said)
    episode.factor = rules.factor
    return answer(episode, "updated", rules, identity, asset, label.at)
