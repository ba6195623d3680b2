"""Alerts of one line that belong together: incidents, each with its likely first cause. Pure, by the alerts alone.

A line is a plan's ``[lines.NAME]``: assets in the order of the process. An alert belongs to a line's incident if it
began while an alert of that incident was open, or at most ``within_s`` after the last of them ended. The likely first
cause is the alert with the earliest onset; of those that began within ``tie_s`` of it, the one whose asset comes first
in the process. That is a hint for where to look first, not a finding: a fault upstream may be seen later than what it
does.

Whoever reads the same alerts comes to the same incidents with the same ids: an id is a hash of the line and the
earliest onset, whatever the order in which the alerts came. While older alerts are still to come, it may be another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import takewhile
from typing import Final, Literal

import msgspec

from stream.operating import LineSettings, epoch_ms
from stream.records import Alert, Severity

_NEVER: Final = float("inf")
_SEVERITIES: Final[tuple[Severity, ...]] = ("warning", "major", "critical")


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Alerts of a line that belong together.

    since, until  the earliest onset, and the newest that is known of any of its alerts
    state         ``open`` while one of them is
    severity      of the worst
    first         id of the alert that is the likely first cause, with its asset, its detector and its first signal
    alerts        ids, by onset
    assets        by onset, each once
    """

    id: str
    line: str
    state: Literal["open", "over"]
    severity: Severity
    since: str
    until: str
    first: str
    first_asset: str
    first_detector: str
    first_signal: str = ""
    alerts: tuple[str, ...]
    assets: tuple[str, ...]


def group(alerts: Iterable[Alert], lines: Mapping[str, LineSettings]) -> list[Incident]:
    """The incidents of all lines, by line and time.

    alerts   the newest transition of each; those of no line are left out. An asset may be of several lines
    """
    held = sorted(alerts, key=lambda alert: (alert.onset, alert.id))
    found = []
    for name, line in lines.items():
        mine = [alert for alert in held if holds(line, alert.asset)]
        found += [_incident(name, line, together) for together in _together(mine, round(line.within_s * 1000))]
    return found


def holds(line: LineSettings, asset: str) -> bool:
    """Whether an asset is of a line."""
    return any(fnmatchcase(asset, pattern) for pattern in line.assets)


def severity_rank(alert: Alert) -> int:
    """0 for the mildest."""
    return _SEVERITIES.index(alert.severity)


def look_first(incident: Incident) -> str:
    """The likely first cause in words: an asset, and its signal where one stands out."""
    return f"{incident.first_asset} ({incident.first_signal})" if incident.first_signal else incident.first_asset


def _together(alerts: Sequence[Alert], within_ms: int) -> list[list[Alert]]:
    """Alerts, sorted by onset, cut where one begins so long after all before it have ended."""
    groups: list[list[Alert]] = []
    end_ms: float = 0
    for alert in alerts:
        if not groups or (end_ms < _NEVER and _ms(alert.onset) > end_ms + within_ms):
            groups.append([])
            end_ms = 0
        groups[-1].append(alert)
        end_ms = max(end_ms, _ms(alert.resolved) if alert.resolved else _NEVER)
    return groups


def _incident(name: str, line: LineSettings, alerts: Sequence[Alert]) -> Incident:
    earliest = alerts[0]
    until_ms = _ms(earliest.onset) + line.tie_s * 1000
    tied = takewhile(lambda alert: _ms(alert.onset) <= until_ms, alerts)  # they are sorted by onset
    first = min(tied, key=lambda alert: (_place(alert.asset, line.assets), alert.onset, alert.id))
    return Incident(
        id=hashlib.sha256(f"{name}\0{earliest.onset}".encode()).hexdigest()[:20],
        line=name,
        state="over" if all(alert.state == "resolved" for alert in alerts) else "open",
        severity=max((alert.severity for alert in alerts), key=_SEVERITIES.index),
        since=earliest.onset,
        until=max(alert.last_seen for alert in alerts),
        first=first.id,
        first_asset=first.asset,
        first_detector=first.detector,
        first_signal=first.causes[0].signal if first.causes else "",
        alerts=tuple(alert.id for alert in alerts),
        assets=tuple(dict.fromkeys(alert.asset for alert in alerts)),
    )


def _place(asset: str, patterns: Sequence[str]) -> int:
    """Where an asset stands in the process."""
    return next(place for place, pattern in enumerate(patterns) if fnmatchcase(asset, pattern))


@lru_cache(8192)  # who groups as alerts come asks for the same ones again and again
def _ms(stamp: str) -> int:
    return epoch_ms(datetime.fromisoformat(stamp))
