"""The incidents of a plan's lines as they are known now: by the alerts of this worker, and those that others publish.

A worker has some of a line's assets and other workers the rest. What tells people of alerts (the live page, webhooks,
Alertmanager) needs all of the line, so each worker that has such a sink reads the alert topic beside its work and puts
what comes into this book, as it does with alerts of its own. Nothing that is judged or published on Kafka depends on
it: what is known here depends on the moment, and a replay must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stream.incidents import Incident, group, holds
from stream.operating import LineSettings
from stream.page.alerts import AlertBook
from stream.records import Alert

#: Alerts that are remembered; of more the oldest that are over go first.
ALERTS_KEPT: Final = 2000


class IncidentBook:
    """Takes transitions of alerts, and says which incident an alert is part of."""

    def __init__(self, lines: Mapping[str, LineSettings], most: int = ALERTS_KEPT) -> None:
        self._lines = dict(lines)
        self._alerts = AlertBook(most)
        self._grouped: dict[str, list[Incident]] = {}  # by line; one that is missing is to be grouped anew
        self._of: dict[str, dict[str, Incident]] = {}  # by line and alert

    def line(self, asset: str) -> str:
        """The first line of the plan that the asset is of; empty: none."""
        return next((name for name, line in self._lines.items() if holds(line, asset)), "")

    def take(self, alerts: Iterable[Alert]) -> None:
        """Take in transitions; those of no line, and those older than what is known, change nothing."""
        for alert in alerts:
            lines = [name for name, line in self._lines.items() if holds(line, alert.asset)]
            if not lines:
                continue
            before = self._alerts.newest(alert.id)
            self._alerts.take(alert)
            if before is None or _facts(before) != _facts(self._alerts.newest(alert.id) or alert):
                for name in lines:
                    self._grouped.pop(name, None)

    def of(self, alert: Alert) -> Incident | None:
        """The incident that an alert is part of, in the first of its lines; None: it is suppressed, or of no line."""
        line = self.line(alert.asset)
        if not line:
            return None
        self._group(line)
        return self._of[line].get(alert.id)

    def incidents(self) -> list[Incident]:
        """All that are known, by line and time."""
        for line in self._lines:
            self._group(line)
        return [incident for line in self._lines for incident in self._grouped[line]]

    def members(self, incident: Incident) -> list[Alert]:
        """The newest of each alert of an incident, by onset."""
        held = (self._alerts.newest(alert) for alert in incident.alerts)
        return [alert for alert in held if alert is not None]

    def _group(self, line: str) -> None:
        if line not in self._grouped:
            alerts = [alert for alert in self._alerts.all() if not alert.suppressed]
            self._grouped[line] = group(alerts, {line: self._lines[line]})
            self._of[line] = {alert: incident for incident in self._grouped[line] for alert in incident.alerts}


def _facts(alert: Alert) -> tuple[object, ...]:
    """What an incident is made of. ``Incident.until`` is not: it moves with every update, and decides nothing."""
    signal = alert.causes[0].signal if alert.causes else ""
    return alert.state, alert.severity, alert.resolved, bool(alert.suppressed), signal
