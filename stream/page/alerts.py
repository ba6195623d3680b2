"""The newest transition of each alert, open and past, within a bound."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from stream.page.listing import STATES
from stream.records import Alert


@dataclass(slots=True)
class AlertBook:
    """Remembers ``most`` alerts: where there is no room the oldest resolved one goes, then the oldest of all."""

    most: int
    _resolved: OrderedDict[str, Alert] = field(default_factory=OrderedDict)
    _open: OrderedDict[str, Alert] = field(default_factory=OrderedDict)
    _of: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def __len__(self) -> int:
        return len(self._resolved) + len(self._open)

    def take(self, alert: Alert) -> None:
        """Take in a transition; one that is older than what is known, as a replay sends it, changes nothing."""
        known = self._open.get(alert.id) or self._resolved.get(alert.id)
        if known is not None and alert.sequence < known.sequence:
            return
        self._of[alert.asset][alert.id] = None
        if alert.state == "resolved":
            self._open.pop(alert.id, None)
            self._resolved[alert.id] = alert
        else:
            self._resolved.pop(alert.id, None)
            self._open[alert.id] = alert
        while len(self) > self.most:
            _, oldest = (self._resolved or self._open).popitem(last=False)
            self._forget(oldest)

    def keep_only(self, assets: Collection[str]) -> None:
        """Forget the alerts of all others: they have gone to another worker."""
        for held in (self._open, self._resolved):
            for alert in [alert for alert in held.values() if alert.asset not in assets]:
                del held[alert.id]
                self._forget(alert)

    def newest(self, alert: str) -> Alert | None:
        """The newest of an alert, by its id."""
        return self._open.get(alert) or self._resolved.get(alert)

    def all(self) -> list[Alert]:
        """The newest of each."""
        return [*self._open.values(), *self._resolved.values()]

    def open(self) -> list[Alert]:
        """Those that are open: the worst first, of equals the newest."""
        newest_first = sorted(self._open.values(), key=lambda alert: (alert.opened, alert.id), reverse=True)
        return sorted(newest_first, key=lambda alert: STATES.index(alert.severity))

    def worst(self) -> dict[str, int]:
        """The state (index into ``STATES``) of each asset that has open alerts."""
        worst: dict[str, int] = {}
        for alert in self._open.values():
            level = STATES.index(alert.severity)
            worst[alert.asset] = min(level, worst.get(alert.asset, level))
        return worst

    def of(self, asset: str) -> list[Alert]:
        """All of an asset that are remembered, the newest first."""
        held = [self._open.get(key) or self._resolved[key] for key in self._of.get(asset, ())]
        return sorted(held, key=lambda alert: (alert.opened, alert.id), reverse=True)

    def _forget(self, alert: Alert) -> None:
        mine = self._of[alert.asset]
        del mine[alert.id]
        if not mine:
            del self._of[alert.asset]
