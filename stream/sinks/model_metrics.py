"""Metrics about versions of models: exchanged, refused, grown, and how candidates compare. No label names an asset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from stream.growing import OUTCOMES, Outcome
from stream.orders import Comparison

_REASONS: Final = ("invalid", "signals", "absent")
_OVER: Final = ("serving", "candidate", "both")


class ModelMetrics:
    """Follows ``stream.swap.Observer`` and ``stream.growing.Observer``; ``Metrics.models``.

    info   ``headrace_model_info``, kept true to what serves
    """

    def __init__(self, registry: CollectorRegistry, info: Gauge) -> None:
        self._info = info
        self._serving: dict[str, tuple[str, str]] = {}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"headrace_shadow_{name}", text, ("detector", *labels), registry=registry)

        self._switches = Counter(
            "headrace_model_switches", "times that a partition went on with other versions", ("detector",),
            registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "headrace_models_refused", "versions that were not taken; what served goes on", ("detector", "reason"),
            registry=registry,
        )  # fmt: skip
        self._grown = Counter(
            "headrace_grown_models", "attempts to grow a model for a detector that began without history",
            ("detector", "outcome"), registry=registry,
        )  # fmt: skip
        self._growing = Gauge(
            "headrace_growing", "1 while a model is being grown, in a process of its own", ("detector",),
            registry=registry,
        )  # fmt: skip
        self._readings = gauge("readings", "readings that what serves and the candidate have both judged")
        self._over = gauge("over_threshold_readings", "of these, those at or over the threshold", "model")
        self._begun = gauge("episodes", "times that an asset went over the threshold", "model")
        self._correlation = gauge("score_correlation", "of the logarithms of score over threshold, mean of partitions")
        self._cost = gauge("cost_ratio", "what scoring the candidate takes, by what scoring what serves takes")

    def known(self, detectors: Iterable[tuple[str, str, str]]) -> None:
        """There are such detectors, each with its kind and what serves."""
        for detector, kind, version in detectors:
            self._serving[detector] = kind, version
            self._switches.labels(detector)
            for reason in _REASONS:
                self._refused.labels(detector, reason)
            self.compared(detector, ())

    def switched(self, detector: str, kind: str, version: str) -> None:
        """Another version is at work in a partition."""
        self._switches.labels(detector).inc()
        if detector in self._serving:
            self._info.remove(detector, *self._serving[detector])
        self._serving[detector] = kind, version
        self._info.labels(detector, kind, version).set(1)

    def may_grow(self, detector: str) -> None:
        """A model may be grown for this detector."""
        self._growing.labels(detector).set(0)
        for outcome in OUTCOMES:
            self._grown.labels(detector, outcome)

    def growing(self, detector: str, on: bool) -> None:
        """Whether a model is being grown for it."""
        self._growing.labels(detector).set(on)

    def grew(self, detector: str, outcome: Outcome) -> None:
        """What came of it."""
        self._grown.labels(detector, outcome).inc()

    def refused(self, detector: str, reason: str) -> None:
        """A version was not taken."""
        self._refused.labels(detector, reason).inc()

    def compared(self, detector: str, comparisons: Sequence[Comparison]) -> None:
        """How the candidate of a detector compares in each partition; nothing: it has none any more."""
        self._readings.labels(detector).set(sum(held.readings for held in comparisons))
        for model in _OVER:
            self._over.labels(detector, model).set(sum(getattr(held, f"over_{model}") for held in comparisons))
        for model in _OVER[:2]:
            self._begun.labels(detector, model).set(sum(getattr(held, f"begun_{model}") for held in comparisons))
        known = [held.correlation for held in comparisons if held.correlation is not None]
        self._correlation.labels(detector).set(float(np.mean(known)) if known else float("nan"))
        costs = [held.cost for held in comparisons]
        self._cost.labels(detector).set(float(np.mean(costs)) if costs else 0.0)
