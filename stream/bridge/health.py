"""What a bridge tells of itself: metrics for Prometheus, and whether it can work.

Labels have few values that the code fixes: never an asset, a signal, a topic or an edge node.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from stream.bridge.reading import QUALITIES
from stream.errors import REASONS
from stream.web import Health

#: Why a value has no place in a reading, or why a message was passed over.
SKIPPED: Final = {
    "unmapped": "no pattern of the plan fits",
    "not_a_number": "text, a template, a time, a data set",
    "old_death": "the DEATH of a session that a newer BIRTH has replaced",
    "waiting": "the server has no value of it yet",
    "retained": "a retained message without a time: it is of before, nobody knows when",
}
_DELAYS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


@dataclass(slots=True)
class BridgeHealth(Health):
    """How the bridge is. Ready: both ends answer. Alive: the event loop turns.

    plant  whether the broker or server of the plant answers
    kafka  whether Kafka took what it was last given
    """

    plant: bool = False
    kafka: bool = False

    def stalled(self) -> list[str]:
        """Why the bridge should be restarted."""
        idle_s = self.clock() - self.beat_at
        if not self.stopping and idle_s > self.stall_after_s:
            return [f"the event loop has not turned for {idle_s:.0f} s"]
        return []

    def unready(self) -> list[str]:
        """Why the bridge cannot work now."""
        reasons = self.stalled()
        if not self.plant:
            reasons.append("the plant does not answer")
        if not self.kafka:
            reasons.append("Kafka does not answer")
        if self.stopping:
            reasons.append("the bridge is stopping")
        return reasons

    def told(self, reasons: list[str] | None = None) -> dict[str, Any]:
        """All of it for JSON."""
        why = self.unready() if reasons is None else reasons
        return {"status": "unavailable" if why else "ok", "reasons": why, "plant": self.plant, "kafka": self.kafka}


class BridgeMetrics:
    """All metrics of a bridge, in a registry of its own; ``totals`` are what the status line says."""

    def __init__(self, bridge: str, *, version: str = "", site: str = "") -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.totals = dict.fromkeys(("messages", "readings", "dead_letters", "skipped"), 0)
        self._skips: dict[str, int] = {}
        self._messages = self._counter("messages", "messages taken from the plant", "kind")
        self._readings = self._counter("readings", "readings that are in Kafka")
        self._values = self._counter("values", "values in readings, by what their source says of them", "quality")
        self._skipped = self._counter("skipped", "values and messages that led to no reading", "reason")
        self._dead = self._counter("dead_letters", "messages that could not be used", "reason")
        self._rebirths = self._counter("rebirth_requests", "edge nodes asked for their births", "reason")
        self._stale = self._counter("stale", "readings that say that an asset's values are stale")
        self._split = self._counter("split_readings", "values that came after the rest of their reading had gone")
        self._reconnects = self._counter("reconnects", "connections lost and made again", "side")
        self._history = self._counter("history_values", "values read from a server's history after an interruption")
        self._connected = self._gauge("connected", "1 while that side answers", "side")
        self._held = self._gauge("held_messages", "messages taken from the plant that are not in Kafka yet")
        self._edges = self._gauge("edge_nodes", "edge nodes of Sparkplug B", "state")
        self._delay = Histogram(
            "headrace_bridge_delay_seconds",
            "from the time of an observation to its being in Kafka",
            buckets=_DELAYS_S,
            registry=self.registry,
        )
        self._gauge("build_info", "1", "bridge", "site", "version", "python").labels(
            bridge, site, version, platform.python_version()
        ).set(1)
        for reason in (*REASONS["bridge"], "refused"):
            self._dead.labels(reason)
        for reason in SKIPPED:
            self._skipped.labels(reason)
        for quality in QUALITIES:
            self._values.labels(quality)
        for reason in ("gap", "no_birth"):
            self._rebirths.labels(reason)
        for side in ("plant", "kafka"):
            self._connected.labels(side).set(0)
            self._reconnects.labels(side)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"headrace_bridge_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"headrace_bridge_{name}", text, labels, registry=self.registry)

    def took(self, kind: str) -> None:
        """A message came; ``kind`` is one of few."""
        self.totals["messages"] += 1
        self._messages.labels(kind).inc()

    def judged(self, qualities: Sequence[str], good: int) -> None:
        """What the values of a reading are: ``qualities`` of those that are not good, and how many are."""
        self._values.labels("good").inc(good)
        for quality in qualities:
            self._values.labels(quality).inc()

    def skipped(self, reason: str, count: int = 1) -> None:
        """Values or messages led to no reading."""
        self.totals["skipped"] += count
        self._skips[reason] = self._skips.get(reason, 0) + count
        self._skipped.labels(reason).inc(count)

    def skips(self) -> dict[str, int]:
        """What led to no reading, by reason in words."""
        return {f"{reason} ({SKIPPED[reason]})": count for reason, count in self._skips.items()}

    def dead_lettered(self, reason: str) -> None:
        """A message could not be used."""
        self.totals["dead_letters"] += 1
        self._dead.labels(reason).inc()

    def sent(self, at_ms: Sequence[int]) -> None:
        """Readings of these times are in Kafka."""
        self.totals["readings"] += len(at_ms)
        self._readings.inc(len(at_ms))
        now = time.time()
        for at in at_ms:
            self._delay.observe(max(now - at / 1000, 0.0))

    def asked(self, reason: str) -> None:
        """An edge node was asked for its births."""
        self._rebirths.labels(reason).inc()

    def staled(self, readings: int) -> None:
        """A DEATH made assets stale."""
        self._stale.inc(readings)

    def splits(self, count: int) -> None:
        """Readings that could not be put together."""
        self._split.inc(count)

    def history(self, values: int) -> None:
        """Values were read from the history."""
        self._history.inc(values)

    def connected(self, side: str, is_it: bool) -> None:
        """Whether a side answers."""
        self._connected.labels(side).set(is_it)

    def lost(self, side: str) -> None:
        """A connection was lost."""
        self.connected(side, False)
        self._reconnects.labels(side).inc()

    def holds(self, messages: int) -> None:
        """So many messages are not in Kafka yet."""
        self._held.set(messages)

    def edges(self, count: dict[str, int]) -> None:
        """How many edge nodes there are, by state."""
        for state, number in count.items():
            self._edges.labels(state).set(number)
