"""Recordings to a topic, as a plant would send them: in the order of time, keyed by asset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.errors import BrokerError
from stream.settings import KafkaSettings
from stream.sources.json import encode

if TYPE_CHECKING:
    from models.datasets import Recording


def replay(
    kafka: KafkaSettings,
    topic: str,
    recordings: Sequence[Recording],
    *,
    speed: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send every reading; returns how many were sent and acknowledged.

    speed  seconds of recorded time per second; None sends as fast as the broker takes them. Recordings start together:
           each is paced by the time since its own first reading, so recordings of different days need no waiting.

    Raises ``BrokerError``.
    """
    try:
        producer = KafkaProducer(
            **kafka.client_options(), acks="all", linger_ms=5, max_request_size=kafka.max_record_bytes
        )
    except KafkaError as error:
        raise BrokerError(
            f"{kafka.bootstrap}: {error}; is the broker up, and HEADRACE_KAFKA_BOOTSTRAP right?"
        ) from None
    sent = 0
    pending = []
    try:
        started = time.monotonic()
        for since_s, asset, payload in _in_order(recordings):
            if speed is not None:
                ahead = since_s / speed - (time.monotonic() - started)
                if ahead > 0.001:
                    time.sleep(ahead)
            pending.append(producer.send(topic, key=asset, value=payload))
            if len(pending) >= 1000:
                sent += _settle(pending, progress)
        producer.flush()
        sent += _settle(pending, progress)
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        producer.close(timeout=5)
    return sent


def _settle(pending: list[object], progress: Callable[[int], None]) -> int:
    """Wait for what was sent; the first that the broker refused is raised."""
    for future in pending:
        future.get(timeout=60)  # type: ignore[attr-defined]  # kafka-python publishes no types
    count = len(pending)
    pending.clear()
    progress(count)
    return count


def _in_order(recordings: Sequence[Recording]) -> Iterator[tuple[float, bytes, bytes]]:
    """(seconds since the recording's first reading, key, payload), earliest first, each recording's order kept."""
    if not recordings:
        return
    which = np.concatenate([np.full(len(held.at_ms), index) for index, held in enumerate(recordings)])
    rows = np.concatenate([np.arange(len(held.at_ms)) for held in recordings])
    # A reading is never sent before its predecessor, even where a recording's clock went back.
    since = np.concatenate(
        [np.maximum.accumulate(held.at_ms) - held.at_ms[0] for held in recordings if len(held.at_ms)]
    )
    for position in np.argsort(since, kind="stable").tolist():
        held = recordings[which[position]]
        row = rows[position]
        values = dict(zip(held.signals, held.values[row].tolist(), strict=True))
        yield since[position] / 1000, held.asset.encode(), encode(held.asset, int(held.at_ms[row]), values)
