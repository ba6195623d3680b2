"""What people are told of alerts: which transitions are worth a message, and its words. Pure but for what was told.

One message for each thing that people should know: an alert opened, became worse, alarmed again, was acknowledged, or
is over. Plain updates are not told, nor is what is shelved or suppressed. Where alerts are of a line of the plan, a
message says which incident they are part of and where to look first, as far as is known at that moment; and of
alerts that came together it may be the first alone that is told, with what makes their incident worse and its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from stream.incidentbook import IncidentBook
from stream.incidents import Incident, look_first, severity_rank
from stream.records import Alert

Per = Literal["alert", "incident"]

_WORTH_TELLING: Final = 0.01
#: What a transition is called, by the newest event of the alert's life; the others are not sent.
TYPES: Final = {
    "open": "alert.open",
    "major": "alert.worse",
    "critical": "alert.worse",
    "re_alarm": "alert.again",
    "shelf_over": "alert.again",
    "unshelve": "alert.again",
    "ack": "alert.acknowledged",
    "resolved": "alert.resolved",
    "resolve": "alert.resolved",
}
_WORDS: Final = {
    "alert.open": "{severity}",
    "alert.worse": "now {severity}",
    "alert.again": "still {severity}",
    "alert.acknowledged": "acknowledged by {by}",
    "alert.resolved": "resolved",
}
TEMPLATE: Final = (
    "{what}: {asset} ({detector}): {causes}, {times} times its threshold at {peak_at}{comment}{incident} {link}"
)
FIELDS: Final = frozenset(
    {"what", "asset", "site", "detector", "severity", "state", "causes", "diagnosis", "peak", "threshold", "times"}
    | {"peak_at", "onset", "last_seen", "by", "comment", "incident", "link", "id"}
)


@dataclass(frozen=True, slots=True)
class Post:
    """One thing to tell: its id, which a replay repeats, and its body, JSON."""

    id: str
    body: bytes


@dataclass(slots=True)
class News:
    """Transitions of alerts to what people should be told.

    template, link   see ``webhook.WebhookSettings``
    per              ``incident``: of alerts that came together the first alone
    incidents        of the plan's lines, which know of the transitions before ``post`` is asked
    """

    template: str
    link: str
    per: Per = "alert"
    incidents: IncidentBook = field(default_factory=lambda: IncidentBook({}))
    _told: dict[str, int] = field(default_factory=dict)  # of alerts that people know of: how many events of its life

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """People have been told of these, and of no others, by whoever had them."""
        self._told = {alert.id: len(alert.life) for alert in alerts if alert.told}

    def post(self, alert: Alert) -> Post | None:
        """What people should be told of a transition; None where there is nothing."""
        kind = self._kind(alert)
        incident = None if kind is None else self.incidents.of(alert)
        if kind is None:
            return None
        if self.per == "incident" and incident is not None:
            others = [held for held in self.incidents.members(incident) if held.id != alert.id]
            if not adds(kind, alert, incident, others):
                return None
        body: dict[str, Any] = {
            "type": kind,
            "timestamp": alert.resolved or alert.last_seen,
            "text": told(alert, kind, self.template, self.link, incident),
            "data": alert,
        }
        if incident is not None:
            body["incident"] = incident
        return Post(f"{alert.id}:{alert.sequence}", msgspec.json.encode(body))

    def _kind(self, alert: Alert) -> str | None:
        """Of which type the message is that a transition is worth; None: it is worth none."""
        events = len(alert.life)
        known = self._told.get(alert.id)
        if alert.state == "resolved":
            self._told.pop(alert.id, None)
            if known is None:  # shelved or suppressed from its beginning: nobody knows of it
                return None
        elif not alert.told:
            return None
        else:
            self._told[alert.id] = events
        if known == events:
            return None
        if known is None:
            return "alert.open"
        happened = next((event for event in reversed(alert.life[known:]) if event.what in TYPES), None)
        return None if happened is None else TYPES[happened.what]


def adds(kind: str, alert: Alert, incident: Incident, others: Sequence[Alert]) -> bool:
    """Whether a message on an alert says more than people know of its incident. ``others``: its other alerts.

    The first to open does, and what is worse than all that was open then; a new alarm unless an earlier alert that
    nobody has acknowledged alarms for it; what somebody does; and the end of the last.
    """
    ahead = [held for held in others if (held.opened, held.id) < (alert.opened, alert.id) and held.shelved is None]
    if kind == "alert.resolved":
        return incident.state == "over"
    if kind == "alert.open":
        then = [held for held in ahead if held.resolved is None or held.resolved >= alert.opened]
        return not then or severity_rank(alert) > max(map(severity_rank, then))
    if kind == "alert.worse":
        return all(severity_rank(alert) > severity_rank(held) for held in others if held.state != "resolved")
    if kind == "alert.again":
        return not any(held.state != "resolved" and held.acknowledged is None for held in ahead)
    return True


def told(alert: Alert, kind: str, template: str, link: str, incident: Incident | None = None) -> str:
    """A transition in words."""
    causes = [f"{cause.signal} {cause.share:.0%}" for cause in alert.causes if cause.share >= _WORTH_TELLING][:3]
    likeliest = f"{alert.diagnosis[0].fault} ({alert.diagnosis[0].probability:.0%})" if alert.diagnosis else ""
    newest = next((event for event in reversed(alert.life) if event.by), None)
    by = newest.by if newest else ""
    names = {"site": alert.site, "asset": alert.asset, "detector": alert.detector}
    comment = f" ({newest.comment})" if newest and newest.comment else ""
    return template.format(
        **names,
        what=_WORDS[kind].format(severity=alert.severity, by=by),
        severity=alert.severity,
        state=alert.state,
        causes=", ".join(causes) or alert.verdict,
        diagnosis=likeliest,
        peak=f"{alert.peak:.4g}",
        threshold=f"{alert.threshold:.4g}",
        times=f"{alert.peak / alert.threshold:.1f}" if alert.threshold else "?",
        peak_at=alert.peak_at,
        onset=alert.onset,
        last_seen=alert.last_seen,
        by=by,
        comment=comment,
        incident=_together(incident),
        link=link.format(**{name: quote(value, safe="") for name, value in names.items()}),
        id=alert.id,
    ).strip()


def _together(incident: Incident | None) -> str:
    """What an alert is part of, in words; empty where it is alone."""
    if incident is None or len(incident.alerts) < 2:
        return ""
    over = ", over now" if incident.state == "over" else ""
    return (
        f"; one of {len(incident.alerts)} alerts of line {incident.line} (incident {incident.id[:8]}{over}): "
        f"look first at {look_first(incident)}"
    )
