"""The two ends of a demo in threads of their own: what plant and camera send, and the alerts that come of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from stream.follow import follow
from stream.plan import TopicSettings
from stream.records import Alert
from stream.replay import replay
from stream.settings import KafkaSettings

if TYPE_CHECKING:
    from models.datasets import Recording


class Feed:
    """Sends recordings to the readings topic and listens to the alert topic, from ``start`` to ``stop``.

    speed   seconds of the plant's time a second; None sends as fast as the broker takes it
    beside  what else there is to send, in a thread of its own
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicSettings,
        recordings: Sequence[Recording],
        speed: float | None,
        beside: Callable[[], None] | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._recordings = recordings
        self._speed = speed
        self._arrived: queue.SimpleQueue[Alert | Exception] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._listener = self._thread(self._listen)
        self._senders = [self._thread(send) for send in (self._send, beside) if send is not None]
        self.sent = 0

    def start(self) -> None:
        """Begin to listen and to send."""
        self._listener.start()
        for sender in self._senders:
            sender.start()

    def stop(self) -> None:
        """Stop listening; what is still being sent ends with the process."""
        self._ended.set()
        if self._listener.is_alive():
            self._listener.join(timeout=3)

    def alerts(self) -> Iterator[Alert]:
        """Alerts that have arrived since the last call. Raises what went wrong in a thread."""
        while not self._arrived.empty():
            item = self._arrived.get()
            if isinstance(item, Exception):
                raise item
            yield item

    def _send(self) -> None:
        replay(self._kafka, self._topics.readings, self._recordings, speed=self._speed, progress=self._count)

    def _count(self, readings: int) -> None:
        self.sent += readings

    def _listen(self) -> None:
        for alert in follow(self._kafka, self._topics.alerts, from_start=True, wait_s=0.2):
            if self._ended.is_set():
                return
            if alert is not None:
                self._arrived.put(alert)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:  # handed to the thread that shows it
                if not self._ended.is_set():
                    self._arrived.put(error)

        return threading.Thread(target=run, daemon=True)
