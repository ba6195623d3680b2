"""Metrics about the worker, for Prometheus to fetch from ``stream.web``. Never blocks, never fails a batch.

Every label has few values that the plan or the code fixes (site, detector, stage, reason, sink, severity, state): there
is no label by asset or signal, so the number of series is the same for 10 assets and for 100,000. Units are base units.
"""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any, Final, Protocol, get_args

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.errors import REASONS
from stream.records import Alert, Output, Scores, Severity, State
from stream.sinks.control_metrics import ControlMetrics
from stream.sinks.model_metrics import ModelMetrics
from stream.sinks.operator_metrics import OperatorMetrics
from stream.sinks.state_metrics import StateMetrics

_STATES: Final[tuple[State, ...]] = get_args(State)
_SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_RATIOS: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
#: Names in ``Output.counts`` that have a metric of their own; others are counted in ``headrace_events_total``.
_COUNTS: Final = {
    "records": "Kafka records taken from the input topic",
    "readings": "readings decoded",
    "duplicates": "readings dropped because their asset had already shown that time",
    "late": "readings older than what their asset had already shown",
    "unwatched": "readings of assets that no detector watches",
}


class Watched(Protocol):
    """A sink that holds lines; the counters are read when Prometheus asks."""

    name: str
    written_lines: int
    refused_lines: int
    failed_writes: int

    @property
    def dropped_lines(self) -> int:
        """Lines for which there was no room."""
        ...

    @property
    def held_lines(self) -> int:
        """Lines taken and not yet written."""
        ...

    @property
    def spooled_bytes(self) -> int:
        """Bytes of these that are on disk."""
        ...


class Metrics:
    """All metrics of a worker, in a registry of its own; thread-safe.

    The app calls ``loaded``, ``lag``, ``committed``, ``rebalanced`` and ``restore_open``; the publisher calls
    ``known``, ``sink_failed``, ``dead_lettered`` and ``watch``; ``PrometheusSink`` calls ``observe``. Counters whose
    labels are known begin at 0: Prometheus does not count the first step of a series that was not there before.
    """

    def __init__(self, *, version: str = "", site: str = "", clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._clock = clock
        self._open: dict[str, dict[str, Severity]] = defaultdict(dict)
        self._sinks: dict[str, Watched] = {}
        self._ratios: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._known = {name: self._counter(name, text) for name, text in _COUNTS.items()}
        self._events = self._counter("events", "other things that happened to readings", "event")
        self._dead = self._counter("dead_letters", "records and output that could not be used", "stage", "reason")
        self._scores = self._counter("scores", "readings judged", "detector")
        self._raised = self._counter(
            "raised_thresholds", "readings held against a threshold that had followed drift", "detector"
        )
        self._invalid = self._counter("invalid_scores", "readings without a usable score", "detector")
        self._alerts = self._counter(
            "alert_transitions", "alerts published, again after a replay", "detector", "state", "severity"
        )
        self._open_alerts = self._gauge("open_alerts", "alerts that are open on this worker", "detector", "severity")
        self._stages = self._histogram("stage_seconds", "what a stage took for one batch", "stage")
        # looking a label up costs as much as counting
        self._stage: dict[str, Histogram] = {}
        self._judged: dict[str, tuple[Counter, Counter, Counter]] = {}
        self._latency = self._histogram(
            "produce_to_publish_seconds", "from the newest record's timestamp to its output"
        )
        self._failures = self._counter("sink_failures", "writes that a sink did not take", "sink", "reason")
        self._models = self._gauge("model_info", "1 for each model that serves", "detector", "kind", "version")
        self._lag = self._gauge(
            "consumer_lag_records",
            "records not yet committed (that is done with each snapshot)",
        )
        self._committed = self._gauge("last_commit_timestamp_seconds", "when offsets were last committed")
        self._partitions = self._gauge("assigned_partitions", "partitions of the input topic assigned to this worker")
        self._tasks = self._gauge("event_loop_tasks", "tasks on the event loop: a number that grows is a leak")
        self._rebalances = self._counter("rebalances", "times that partitions were assigned to this worker")
        self._gauge("build_info", "1", "version", "python").labels(version, platform.python_version()).set(1)
        self.state = StateMetrics(self.registry)
        self.control = ControlMetrics(self.registry)
        self.operators = OperatorMetrics(self.registry)
        self.models = ModelMetrics(self.registry, self._models)
        self._gauge("site_info", "1; to join a worker's other series with its plan's site", "site").labels(site).set(1)
        for stage, reasons in REASONS.items():
            for reason in reasons:
                self._dead.labels(stage, reason)
        self.registry.register(_AtScrape(self._sinks, self._ratios))

    def observe(self, output: Output) -> None:
        """Count one batch's output, which has just been published."""
        for name, count in output.counts.items():
            counter = self._known.get(name) or self._events.labels(name)
            counter.inc(count)
        for stage, seconds in output.stage_s.items():
            child = self._stage.get(stage)
            if child is None:
                child = self._stage[stage] = self._stages.labels(stage)
            child.observe(seconds)
        for scores in output.scores:
            self._observe_scores(scores)
        for alert in output.alerts:
            self._observe_alert(alert)
        for letter in output.dead:
            self._dead.labels(letter.stage, letter.reason).inc()
        if output.produced_ms > 0:
            self._latency.observe(max(self._clock() - output.produced_ms / 1000.0, 0.0))

    def loaded(self, models: Iterable[tuple[str, str, str]]) -> None:
        """Say which models serve now: (detector, kind, version) each."""
        self._models.clear()
        models = list(models)
        self.models.known(models)
        for detector, kind, version in models:
            self._models.labels(detector, kind, version).set(1)
            for state, severity in product(_STATES, _SEVERITIES):
                self._alerts.labels(detector, state, severity)
            for counter in (self._scores, self._invalid, self._raised):
                counter.labels(detector)
            self._ratios.setdefault(detector, np.zeros(len(_RATIOS) + 2))
            self._show_open(detector)

    def lag(self, records: int, partitions: int) -> None:
        """Say how many records wait on the partitions that this worker has."""
        self._lag.set(records)
        self._partitions.set(partitions)

    def tasks(self, count: int) -> None:
        """Say how many tasks the event loop has."""
        self._tasks.set(count)

    def committed(self) -> None:
        """Say that offsets have just been committed."""
        self._committed.set(self._clock())

    def rebalanced(self) -> None:
        """Say that partitions have just been assigned."""
        self._rebalances.inc()

    def restore_open(self, alerts: Iterable[Alert]) -> None:
        """Replace what is known of open alerts: after a restart or a rebalance."""
        for known in self._open.values():
            known.clear()
        for alert in alerts:
            self._open[alert.detector][alert.id] = alert.severity
        for detector in self._open:
            self._show_open(detector)

    def known(self, sink: str) -> None:
        """Say that there is such a sink."""
        for reason in ("unavailable", "refused", "error"):
            self._failures.labels(sink, reason)

    def sink_failed(self, sink: str, reason: str) -> None:
        """Count a write that a sink did not take; ``reason``: unavailable, refused or error."""
        self._failures.labels(sink, reason).inc()

    def dead_lettered(self, stage: str, reason: str, count: int = 1) -> None:
        """Count dead letters that were made after the pipeline."""
        self._dead.labels(stage, reason).inc(count)

    def watch(self, sink: Watched) -> None:
        """Show a sink's held, written, refused and dropped lines from now on."""
        self._sinks[sink.name] = sink

    def _observe_scores(self, scores: Scores) -> None:
        counters = self._judged.get(scores.detector)
        if counters is None:
            counters = self._judged[scores.detector] = (
                self._scores.labels(scores.detector),
                self._raised.labels(scores.detector),
                self._invalid.labels(scores.detector),
            )
        judged, raised, invalid = counters
        judged.inc(len(scores))
        raised.inc(scores.raised)
        good = np.isfinite(scores.score) & (scores.threshold > 0)
        invalid.inc(len(scores) - int(np.count_nonzero(good)))
        ratios = scores.score / scores.threshold if good.all() else scores.score[good] / scores.threshold[good]
        sums = self._ratios.setdefault(scores.detector, np.zeros(len(_RATIOS) + 2))
        buckets = np.searchsorted(_RATIOS, ratios, side="left")
        sums[:-1] += np.bincount(buckets, minlength=len(_RATIOS) + 1)
        sums[-1] += ratios.sum()

    def _observe_alert(self, alert: Alert) -> None:
        self._alerts.labels(alert.detector, alert.state, alert.severity).inc()
        known = self._open[alert.detector]
        if alert.state == "resolved":
            known.pop(alert.id, None)
        else:
            known[alert.id] = alert.severity
        self._show_open(alert.detector)

    def _show_open(self, detector: str) -> None:
        severities = list(self._open[detector].values())
        for severity in _SEVERITIES:
            self._open_alerts.labels(detector, severity).set(severities.count(severity))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"headrace_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"headrace_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"headrace_{name}", text, labels, registry=self.registry, buckets=_SECONDS)


class _AtScrape(Collector):
    """What is put together when Prometheus asks: the sinks' counters, and the histogram that is kept as an array."""

    def __init__(self, sinks: dict[str, Watched], ratios: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> None:
        self._sinks = sinks
        self._ratios = ratios

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        held = GaugeMetricFamily("headrace_sink_held_lines", "lines taken and not yet written", labels=["sink"])
        spooled = GaugeMetricFamily("headrace_sink_spooled_bytes", "bytes of these lines on disk", labels=["sink"])
        lines = CounterMetricFamily("headrace_sink_lines", "lines by what became of them", labels=["sink", "outcome"])
        failed = CounterMetricFamily(
            "headrace_sink_failed_writes", "requests that failed and are repeated", labels=["sink"]
        )
        for name, sink in list(self._sinks.items()):
            held.add_metric([name], sink.held_lines)
            spooled.add_metric([name], sink.spooled_bytes)
            lines.add_metric([name, "written"], sink.written_lines)
            lines.add_metric([name, "refused"], sink.refused_lines)
            lines.add_metric([name, "dropped"], sink.dropped_lines)
            failed.add_metric([name], sink.failed_writes)
        ratio = HistogramMetricFamily(
            "headrace_score_threshold_ratio", "score over threshold: above 1 is an anomaly", labels=["detector"]
        )
        for detector, sums in list(self._ratios.items()):
            counts = np.cumsum(sums[:-1]).tolist()
            bounds = [*(str(bound) for bound in _RATIOS), "+Inf"]
            ratio.add_metric([detector], list(zip(bounds, counts, strict=True)), float(sums[-1]))
        yield from (held, spooled, lines, failed, ratio)


class PrometheusSink:
    """Feeds ``metrics`` with what is published."""

    name = "prometheus"
    essential = False

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    async def start(self) -> None:
        """Nothing to connect to: Prometheus comes and fetches."""

    async def write(self, output: Output) -> None:
        """Count; a millisecond for a batch of thousands."""
        self.metrics.observe(output)

    async def stop(self) -> None:
        """The metrics stay readable."""
