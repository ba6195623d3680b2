"""What the page shows, put together from what the sink takes in: the answers to a browser's questions, as plain data.

Nothing here waits, locks or looks at a clock of its own: everything happens on the worker's event loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.base import KINDS
from stream.episode import BAND_SIGMAS
from stream.incidentbook import IncidentBook
from stream.incidents import Incident
from stream.page.alerts import AlertBook
from stream.page.listing import STATES, Listed, Listing
from stream.page.recent import Array, History, Recent
from stream.records import Alert, Output
from stream.sinks.columns import seven_digits

#: Alerts that are remembered, and how many of them an answer has at most; likewise for the assets of a list.
ALERTS_KEPT: Final = 2000
ALERTS_SHOWN: Final = 100
ASSETS_SHOWN: Final = 500
INCIDENTS_SHOWN: Final = 20
MEMBERS_SHOWN: Final = 25
_RATE_S: Final = 10.0
_FRESH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """An asset's rows by one detector since some time, as copies: safe to be written out beside the event loop."""

    history: History
    model_version: str
    columns: Mapping[str, Array]

    def plain(self) -> dict[str, Any]:
        """For JSON: a list a column, and one a signal; what is not finite is null there."""
        held = self.columns
        tables: dict[str, Array | None] = {name: held.get(name) for name in ("values", "expected", "share")}
        tables["low"] = tables["high"] = None
        if "expected" in held and "spread" in held:
            width = BAND_SIGMAS * held["spread"]
            tables["low"], tables["high"] = held["expected"] - width, held["expected"] + width
        verdict = KINDS[int(held["verdict"][-1])] if held and len(held["verdict"]) else ""
        return {
            "name": self.history.detector,
            "kind": self.history.kind,
            "model_version": self.model_version,
            "verdict": verdict,
            "signals": list(self.history.signals),
            "at_ms": held["at_ms"].tolist() if held else [],
            "score": _short(held["score"]).tolist() if held else [],
            "threshold": _short(held["threshold"]).tolist() if held else [],
            **{name: None if table is None else _short(table.T).tolist() for name, table in tables.items()},
        }


class Board:
    """Takes output in, and answers.

    most_assets  how many assets are listed
    most_bytes   what the drawings' memory may take
    incidents    of the plan's lines; other workers' alerts come into it as well
    clock, wall  seconds that only go forward; seconds since 1970
    """

    def __init__(
        self,
        *,
        site: str = "",
        units: Mapping[str, str] | None = None,
        most_assets: int = 20_000,
        most_bytes: int = 64 << 20,
        incidents: IncidentBook | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._units = dict(units or {})
        self._clock = clock
        self._wall = wall
        self._incidents = incidents or IncidentBook({})
        self.listing = Listing(most_assets)
        self.alerts = AlertBook(ALERTS_KEPT)
        self.recent = Recent(most_bytes)
        self._readings = 0
        self._read: deque[tuple[float, int]] = deque()
        self._last_s: float | None = None

    def take(self, output: Output) -> None:
        """Take in what a batch led to."""
        now_s = self._clock()
        for scores in output.scores:
            self.listing.take(scores, now_s)
            self.recent.take(scores)
        for alert in output.alerts:
            self.alerts.take(alert)
            if alert.state == "open":
                self.recent.follow(alert.asset)
        self._incidents.take(output.alerts)
        if readings := output.counts.get("readings", 0):
            self._count(readings, now_s)

    def settle(self, assets: Collection[str], still_open: Iterable[Alert]) -> None:
        """After partitions came or went: forget all but ``assets``, and show what is ``still_open`` on them.

        After a restart those are alerts that another process opened.
        """
        self.listing.keep_only(assets)
        self.alerts.keep_only(assets)
        self.recent.keep_only(assets)
        for alert in still_open:
            self.alerts.take(alert)
            self._incidents.take([alert])

    def overview(self, *, query: str = "", state: str = "") -> dict[str, Any]:
        """What is open, how many assets are in which state, and the first of those whose name has ``query`` in it."""
        now_s = self._clock()
        listed = self.listing.now(now_s, self.alerts.worst())
        counts = np.bincount(listed.state, minlength=len(STATES)).tolist()
        matching = _matching(listed, query, state)
        shown = matching[np.argsort(listed.state[matching], kind="stable")][:ASSETS_SHOWN]
        alerts = self.alerts.open()
        fresh = listed.at_ms[listed.quiet_s < _FRESH_S]
        return {
            "site": self._site,
            "at_ms": round(self._wall() * 1000),
            "newest_ms": int(np.median(fresh)) if len(fresh) else None,
            "quiet_s": None if self._last_s is None else round(now_s - self._last_s, 1),
            "readings_per_s": self._rate(now_s),
            "detectors": len(listed.detectors),
            "counts": dict(zip(STATES, counts, strict=True)),
            "full": self.listing.full,
            "alerts": list(alerts[:ALERTS_SHOWN]),
            "more_alerts": max(len(alerts) - ALERTS_SHOWN, 0),
            "incidents": [self._told(held) for held in self._open_incidents()],
            "assets": [_entry(listed, row) for row in shown.tolist()],
            "more_assets": len(matching) - len(shown),
        }

    def asset(self, name: str, since_ms: int = 0) -> tuple[dict[str, Any], Sequence[Drawn]] | None:
        """An asset's state, alerts and rows observed after ``since_ms``; None if nothing is known of it."""
        self.recent.follow(name)
        histories = self.recent.of(name)
        alerts = self.alerts.of(name)
        if not histories and not alerts and name not in self.listing:
            return None
        listed = self.listing.now(self._clock(), self.alerts.worst())
        row = next((row for row, held in enumerate(listed.names) if held == name), None)
        answer = {
            "name": name,
            **({"state": "silent"} if row is None else _entry(listed, row)),
            "at_ms": round(self._wall() * 1000),
            "units": {
                signal: self._units[signal]
                for signal in dict.fromkeys(signal for held in histories for signal in held.signals)
                if signal in self._units
            },
            "alerts": list(alerts[:ALERTS_SHOWN]),
            "more_alerts": max(len(alerts) - ALERTS_SHOWN, 0),
        }
        return answer, [Drawn(held, held.model_version, held.columns(since_ms)) for held in histories]

    def _open_incidents(self) -> list[Incident]:
        """Those of more than one alert: the worst first, of equals the newest."""
        held = [one for one in self._incidents.incidents() if one.state == "open" and len(one.alerts) > 1]
        newest_first = sorted(held, key=lambda incident: incident.since, reverse=True)
        return sorted(newest_first, key=lambda incident: STATES.index(incident.severity))[:INCIDENTS_SHOWN]

    def _told(self, incident: Incident) -> dict[str, Any]:
        """An incident with its alerts: the likely first cause, then by onset. ``elsewhere``: other workers' assets."""
        members = self._incidents.members(incident)
        members.sort(key=lambda alert: (alert.id != incident.first, alert.onset, alert.id))
        shown = members[:MEMBERS_SHOWN]
        return {
            "id": incident.id,
            "line": incident.line,
            "severity": incident.severity,
            "since": incident.since,
            "first": incident.first,
            "first_asset": incident.first_asset,
            "first_signal": incident.first_signal,
            "assets": len(incident.assets),
            "alerts": shown,
            "more_alerts": len(members) - len(shown),
            "elsewhere": sorted({alert.asset for alert in shown if not self._is_here(alert.asset)}),
        }

    def _is_here(self, asset: str) -> bool:
        return asset in self.listing or bool(self.alerts.of(asset))

    def _count(self, readings: int, now_s: float) -> None:
        self._readings += readings
        self._last_s = now_s
        if not self._read or now_s - self._read[-1][0] >= 1.0:
            self._read.append((now_s, self._readings))
        while now_s - self._read[0][0] > _RATE_S and len(self._read) > 1:
            self._read.popleft()

    def _rate(self, now_s: float) -> float:
        """Readings a second over the last seconds."""
        if not self._read or now_s - self._read[-1][0] > _RATE_S:
            return 0.0
        began_s, before = self._read[0]
        return round((self._readings - before) / max(now_s - began_s, 1.0), 1)


def _matching(listed: Listed, query: str, state: str) -> Array:
    rows = np.arange(len(listed.names))
    if state:
        rows = rows[listed.state == STATES.index(state)] if state in STATES else rows[:0]
    if query:
        wanted = query.casefold()
        rows = np.array([row for row in rows.tolist() if wanted in listed.names[row].casefold()], dtype=np.int64)
    return rows


def _entry(listed: Listed, row: int) -> dict[str, Any]:
    ratio = float(listed.ratio[row])
    known = ratio == ratio
    return {
        "name": listed.names[row],
        "state": STATES[int(listed.state[row])],
        "ratio": round(ratio, 3) if known else None,
        "detector": listed.detectors[int(listed.detector[row])] if known else None,
        "newest_ms": int(listed.at_ms[row]) or None,
        "quiet_s": round(float(listed.quiet_s[row]), 1),
    }


def _short(table: Array) -> Array:
    return seven_digits(np.asarray(table, dtype=np.float64))
