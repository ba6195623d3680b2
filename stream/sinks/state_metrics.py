"""Metrics about what is remembered: its size, its snapshots, and how it was read back. No label names an asset."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class StateMetrics:
    """Follows ``stream.snapshots.Observer``; ``Metrics.state``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"headrace_{name}", text, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"headrace_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"headrace_{name}", text, registry=registry, buckets=_SECONDS)

        self._assets = gauge("state_assets", "assets that are remembered on this worker")
        self._bytes = gauge("state_bytes", "what they take in the topic of states, newest records alone")
        self._held_back = gauge(
            "state_held_back_readings", "readings that wait for earlier ones, which may still come (input.lateness_s)"
        )
        self._snapshots = histogram("snapshot_seconds", "what a partition's snapshot took, its writing included")
        self._written = counter("snapshot_bytes", "written to the topic of states")
        self._failed = counter("snapshot_failures", "snapshots that could not be written; nothing is committed then")
        self._recovered = histogram("state_recovery_seconds", "what reading a partition's state back took")
        self._recovering = gauge("state_recovering_partitions", "partitions whose state is being read back")
        self._anew = counter("state_begun_anew", "memories that were begun anew instead of being read back", "reason")
        self._evicted = counter("state_evicted_assets", "assets forgotten because they were silent for so long")

    def snapshot_written(self, seconds: float, size: int) -> None:
        """A partition's snapshot is complete; ``size`` in bytes."""
        self._snapshots.observe(seconds)
        self._written.inc(size)

    def snapshot_failed(self) -> None:
        """A partition's snapshot could not be written."""
        self._failed.inc()

    def held(self, assets: int, size: int, held_back: int) -> None:
        """So many assets are remembered, in so many bytes of the changelog, and so many readings are held back."""
        self._assets.set(assets)
        self._bytes.set(size)
        self._held_back.set(held_back)

    def recovering(self, partitions: int) -> None:
        """The states of so many partitions are being read back."""
        self._recovering.set(partitions)

    def recovered(self, seconds: float) -> None:
        """A partition's state was read back, or is begun anew."""
        self._recovered.observe(seconds)

    def begun_anew(self, reason: str, count: int = 1) -> None:
        """So many memories (of an asset, of a block, of a partition: the reason says) are begun anew."""
        self._anew.labels(reason).inc(count)

    def evicted(self, assets: int) -> None:
        """Silent assets were forgotten."""
        self._evicted.inc(assets)
