"""Metrics about what operators do and say. No label names an asset, an alert or a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from stream.actions import Deed

_VERDICTS = ("true", "false_alarm", "taken_back")


class OperatorMetrics:
    """Told by the app; ``Metrics.operators``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._actions = Counter(
            "headrace_operator_actions",
            "actions read, on every worker; all come again at each start",
            ("action",),
            registry=registry,
        )
        self._labels = Counter(
            "headrace_labels",
            "labels read, on every worker; all come again at each start",
            ("verdict",),
            registry=registry,
        )
        self._moved = Gauge(
            "headrace_moved_thresholds",
            "assets on this worker whose threshold labels have moved",
            ("detector",),
            registry=registry,
        )
        for deed in get_args(Deed):
            self._actions.labels(deed)
        for verdict in _VERDICTS:
            self._labels.labels(verdict)

    def acted(self, action: str) -> None:
        """An action was read."""
        self._actions.labels(action).inc()

    def labelled(self, verdict: str) -> None:
        """A label was read; ``taken_back``: it holds no longer."""
        self._labels.labels(verdict).inc()

    def moved(self, assets: Mapping[str, int]) -> None:
        """For how many assets of this worker the threshold is moved, by detector."""
        for detector, count in assets.items():
            self._moved.labels(detector).set(count)
