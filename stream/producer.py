"""A producer of readings for gateways and bridges written in Python: it gathers them into frames and sends those.

    from stream.producer import ReadingProducer
    from stream.settings import KafkaSettings

    with ReadingProducer(KafkaSettings(bootstrap="kafka:9092"), "plant.readings.v1") as readings:
        readings.send("pump-17", 1795420800250, {"temperature": 71.2, "vibration": 0.31})

A frame goes when it is full, when its first reading has waited long enough, or when the signals of its asset change.
Its key is the asset, so that all of an asset's readings stay in order on one partition.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.errors import BrokerError
from stream.settings import KafkaSettings
from stream.sources.frame import encode_frame
from stream.sources.packed import encode_packed

_log = logging.getLogger(__name__)

#: Frames sent and not yet acknowledged, at most.
_IN_FLIGHT = 1000


@dataclass(slots=True)
class _Frame:
    """An asset's readings that wait."""

    signals: tuple[str, ...]
    since: float
    at_ms: list[int] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)


class ReadingProducer:
    """Sends readings as frames; from any thread. Use it as a context manager, or call ``close``.

    rows       readings in a frame at most: 50 to 500 is a good size
    linger_s   how long a reading waits at most for others of its asset; an alert waits as long
    packed     send packed frames, which are smaller and read ten times as fast, instead of JSON
    producer   makes the client; for tests
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        *,
        rows: int = 100,
        linger_s: float = 1.0,
        packed: bool = False,
        producer: Callable[..., Any] = KafkaProducer,
    ) -> None:
        if rows < 1 or linger_s <= 0:
            raise ValueError("rows: at least 1; linger_s: above 0")
        self._topic, self._rows, self._linger_s = topic, rows, linger_s
        self._encode = encode_packed if packed else encode_frame
        self._frames: dict[str, _Frame] = {}
        self._futures: deque[Any] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failed: Exception | None = None
        try:
            self._producer = producer(
                **kafka.client_options(),
                acks="all",
                enable_idempotence=True,  # a retry neither repeats nor overtakes
                linger_ms=5,
                max_request_size=kafka.max_record_bytes,
            )
        except KafkaError as error:
            raise BrokerError(f"{kafka.bootstrap}: {error}; is the broker up, and the address right?") from None
        self._ticker = threading.Thread(target=self._tick, name="headrace-producer", daemon=True)
        self._ticker.start()

    def send(self, asset: str, at_ms: int, values: Mapping[str, float | None]) -> None:
        """Take a reading: ``at_ms`` epoch milliseconds, ``values`` in the plant's units, None or NaN where missing.

        Raises ``BrokerError`` if an earlier frame was refused, and ``ValueError`` for a reading without values.
        """
        if not values:
            raise ValueError(f"{asset}: a reading without values")
        signals = tuple(values)
        with self._lock:
            self._raise()
            frame = self._frames.get(asset)
            if frame is not None and frame.signals != signals:
                self._go(asset)
                frame = None
            if frame is None:
                frame = self._frames[asset] = _Frame(signals, time.monotonic())
            frame.at_ms.append(at_ms)
            frame.rows.append([np.nan if value is None else value for value in values.values()])
            if len(frame.at_ms) >= self._rows:
                self._go(asset)

    def flush(self) -> None:
        """Send all that waits, and return when the broker has it. Raises ``BrokerError``."""
        with self._lock:
            for asset in list(self._frames):
                self._go(asset)
            self._producer.flush()
            self._settle(0)
            self._raise()

    def close(self) -> None:
        """Flush and disconnect. Raises ``BrokerError``."""
        self._closing.set()
        self._ticker.join()
        try:
            self.flush()
        finally:
            self._producer.close(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _go(self, asset: str) -> None:
        """Give the asset's frame to the client; the lock is held."""
        frame = self._frames.pop(asset)
        value = self._encode(asset, np.array(frame.at_ms), frame.signals, np.array(frame.rows))
        try:
            self._futures.append(self._producer.send(self._topic, key=asset.encode(), value=value))
        except KafkaError as error:
            self._failed = self._failed or error
        self._settle(_IN_FLIGHT)

    def _settle(self, most: int) -> None:
        """Look at what became of frames sent; wait for the oldest while there are more than ``most``."""
        while self._futures and (len(self._futures) > most or self._futures[0].is_done):
            try:
                self._futures.popleft().get(timeout=60)
            except KafkaError as error:
                self._failed = self._failed or error

    def _raise(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise BrokerError(f"{self._topic}: a frame was refused: {type(failed).__name__}: {failed}")

    def _tick(self) -> None:
        """Send frames whose first reading has waited long enough."""
        while not self._closing.wait(self._linger_s / 4):
            oldest = time.monotonic() - self._linger_s
            with self._lock:
                for asset in [asset for asset, frame in self._frames.items() if frame.since <= oldest]:
                    self._go(asset)
