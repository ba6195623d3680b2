"""All that operators have said, as far as the pipeline has to know it: actions, labels, maintenance windows, modes.

No I/O, and nothing here is saved: the topics hold it, and every worker reads them from their beginning. What an action
did to an alert is part of that alert's episode, which is saved.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final

from stream.actions import ON_ALERTS, Action
from stream.labels import Label, factor
from stream.maintenance import Maintenance
from stream.operating import epoch_ms
from stream.plan import Plan
from stream.records import Alert

#: Alerts whose actions are kept; beyond, those of the alerts that were acted on first go.
MOST_ALERTS: Final = 50_000


@dataclass(slots=True)
class Desk:
    """What holds now. ``plan`` brings windows, rules and modes of its own."""

    plan: Plan
    _actions: OrderedDict[str, list[Action]] = field(default_factory=OrderedDict)
    _labels: dict[str, Label] = field(default_factory=dict)
    _by_lane: defaultdict[tuple[str, str], dict[str, Label]] = field(default_factory=lambda: defaultdict(dict))
    _modes: dict[str, str] = field(default_factory=dict)
    maintenance: Maintenance = field(init=False)

    def __post_init__(self) -> None:
        self.maintenance = Maintenance(self.plan.maintenance)

    def take(self, action: Action) -> None:
        """Remember an action."""
        if action.action in ON_ALERTS:
            held = self._actions.setdefault(action.alert, [])
            if all(known.id != action.id for known in held):
                held.append(action)
            while len(self._actions) > MOST_ALERTS:
                self._actions.popitem(last=False)
        elif action.action != "mode":
            self.maintenance.take(action)
        elif action.mode:
            self._modes.pop(action.asset, None)  # the newest that fits an asset holds: it goes to the end
            self._modes[action.asset] = action.mode
        else:
            self._modes.pop(action.asset, None)

    def actions(self, alert: str) -> tuple[Action, ...]:
        """What was done to an alert, in the order of the topic."""
        return tuple(self._actions.get(alert, ()))

    def label(self, key: str, label: Label | None) -> tuple[str, str] | None:
        """Take a label, or take it back; the detector and asset whose threshold that may move."""
        before = self._labels.pop(key, None)
        lane = None
        if before is not None and before.alert:
            lane = before.detector, before.asset
            self._by_lane[lane].pop(key, None)
        if label is not None:
            self._labels[key] = label
            if label.alert:
                lane = label.detector, label.asset
                self._by_lane[lane][key] = label
        return lane

    def labels(self) -> Iterator[Label]:
        """All that hold."""
        return iter(self._labels.values())

    def label_of(self, alert: str) -> Label | None:
        """What was said of an alert."""
        return self._labels.get(alert)

    def factor(self, detector: str, asset: str, model_version: str) -> float:
        """What labels multiply the threshold of a detector for an asset by.

        Those of another version of the model do not count: its scores were others, and it has learnt since.
        """
        held = self._by_lane.get((detector, asset))
        return factor(label for label in held.values() if label.model_version == model_version) if held else 1.0

    def spoken(self, asset: str) -> str:
        """The mode that an asset is in by an operator's word; empty: none."""
        return next((name for pattern, name in reversed(self._modes.items()) if fnmatchcase(asset, pattern)), "")

    def muted(self, alert: Alert) -> str:
        """Why nobody is to be told of an alert now; empty if they are."""
        at_ms = epoch_ms(datetime.fromisoformat(alert.last_seen))
        if reason := self.maintenance.reason(alert.asset, at_ms):
            return f"maintenance: {reason}"
        for name, rule in self.plan.suppress.items():
            if rule.fits(alert, at_ms):
                return f"known: {rule.reason or name}"
        return ""
