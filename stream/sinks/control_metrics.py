"""Metrics about the control topics: what came on them, and whether they have been read. No label names an asset."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

_OUTCOMES: Final = ("applied", "malformed", "failed")


class ControlMetrics:
    """Follows ``stream.control.Observer``; ``Metrics.control``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Counter(
            "headrace_control_records",
            "records of the control topics by what became of them; all come again at each start",
            ("control", "outcome"),
            registry=registry,
        )
        self._ready = Gauge(
            "headrace_control_ready",
            "1 when all that the control topics held at the start has been read",
            registry=registry,
        )
        self._reconnects = Counter(
            "headrace_control_reconnects", "times that the control topics could not be read", registry=registry
        )

    def expected(self, control: str) -> None:
        """There is such a control topic."""
        for outcome in _OUTCOMES:
            self._records.labels(control, outcome)

    def took(self, control: str, outcome: str) -> None:
        """A record was ``applied``, or is ``malformed``, or its handler ``failed``."""
        self._records.labels(control, outcome).inc()

    def ready(self, done: bool) -> None:
        """Whether all that the topics held at the start has been read."""
        self._ready.set(done)

    def reconnects(self) -> None:
        """The topics could not be read, and are asked for again."""
        self._reconnects.inc()


class Aside:
    """The same for topics that are read beside these and that nothing waits for: ``metrics`` but for ``ready``."""

    def __init__(self, metrics: ControlMetrics) -> None:
        self.expected, self.took, self.reconnects = metrics.expected, metrics.took, metrics.reconnects

    def ready(self, done: bool) -> None:
        """Nobody waits for it."""
