"""A plant that sends: readings of recordings, in the order of time, from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from kafka import KafkaProducer
from oracle import committed
from worker_process import Worker

from models.datasets import Recording
from stream.settings import KafkaSettings
from stream.sources.json import encode


class Feeder:
    """Sends every reading of ``recordings`` to ``topic``, keyed by asset; or ``pieces``, keys and values as they are.

    rate       readings a second; None: as fast as it goes
    ends       partition -> the offset after the last record that was acknowledged
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        recordings: Sequence[Recording] = (),
        *,
        pieces: Sequence[tuple[bytes, bytes]] = (),
        rate: float | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._recordings = recordings
        self._pieces = pieces
        self.rate = rate
        self.ends: dict[int, int] = {}
        self.sent = 0
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> Feeder:
        self._thread.start()
        return self

    @property
    def busy(self) -> bool:
        """Whether there is still something to send."""
        return self._thread.is_alive()

    def stop(self) -> int:
        """Send no more; what was sent is acknowledged on return. How many readings it was."""
        self._stopping.set()
        return self.finish()

    def finish(self, within_s: float = 300.0) -> int:
        """Wait until all is sent and acknowledged; how many readings it was."""
        self._thread.join(within_s)
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive(), f"not all sent within {within_s:g} s"
        return self.sent

    def _run(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self._kafka.servers,
            acks="all",
            linger_ms=5,
            retries=1000,  # a broker that is away for a while is what some tests are about
            delivery_timeout_ms=180_000,
            max_in_flight_requests_per_connection=1,  # an asset's readings stay in order over a retry
        )
        try:
            pending: list[Any] = []
            due = time.monotonic()
            for key, value in self._pieces or _readings(self._recordings):
                if self._stopping.is_set():
                    break
                pending.append(producer.send(self._topic, key=key, value=value))
                if self.rate is not None:
                    due += 1.0 / self.rate
                    if (ahead := due - time.monotonic()) > 0.005:
                        time.sleep(ahead)
                if len(pending) >= 2000:
                    self._settle(pending)
            producer.flush(timeout=180)
            self._settle(pending)
        except BaseException as error:  # told to whoever waits
            self._error = error
        finally:
            producer.close(timeout=5)

    def _settle(self, pending: list[Any]) -> None:
        for future in pending:
            at = future.get(timeout=180)
            self.ends[at.partition] = max(self.ends.get(at.partition, 0), at.offset + 1)
        self.sent += len(pending)
        pending.clear()


def _readings(recordings: Sequence[Recording]) -> Iterator[tuple[bytes, bytes]]:
    if not recordings:
        return
    at_ms = np.concatenate([held.at_ms for held in recordings])
    which = np.repeat(np.arange(len(recordings)), [len(held.at_ms) for held in recordings])
    row = np.concatenate([np.arange(len(held.at_ms)) for held in recordings])
    for place in np.lexsort((which, at_ms)).tolist():
        held = recordings[which[place]]
        values = dict(zip(held.signals, held.values[row[place]].tolist(), strict=True))
        yield held.asset.encode(), encode(held.asset, int(at_ms[place]), values)


def in_order(recordings: Sequence[Recording]) -> list[tuple[bytes, bytes]]:
    """Keys and values of all readings, in the order of time."""
    return list(_readings(recordings))


def wait_committed(
    kafka: KafkaSettings, feeder: Feeder, topic: str, *workers: Worker, within_s: float = 180.0
) -> float:
    """Wait until the group has committed all that ``feeder`` has sent; how many seconds that took.

    A worker of ``workers`` that ends meanwhile fails the test.
    """
    started = time.monotonic()
    while True:
        now = committed(kafka, topic)
        behind = {number: (now.get(number, 0), end) for number, end in feeder.ends.items() if now.get(number, 0) < end}
        if not behind:
            return time.monotonic() - started
        for worker in workers:
            worker.must_live()
        assert time.monotonic() - started < within_s, f"not committed within {within_s:g} s: {behind}"
        time.sleep(0.1)
