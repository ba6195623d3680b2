"""The control topics, read whole by every worker: what operators do, labels, which model serves.

They are of low volume, and everybody has to know all of it: so there is no consumer group. A worker reads them from
their beginning when it starts, within a deadline, and then as they grow; each record is handed, decoded, to whoever
asked for its topic. To apply one twice must do no harm, for after a restart all come again.

A record that is malformed, or whose handler fails, is counted, logged and dead-lettered; it stops nothing. A broker
that is away is asked again, from where the reading was left.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from stream.records import DeadLetter, RawRecord
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: The longest value of a control record; what a person writes is far shorter.
MOST_BYTES: Final = 256 << 10
_POLL_MS: Final = 500
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Control(Generic[T]):
    """A record of a control topic.

    key         as text; empty where it has none
    value       decoded; None where the record deletes its key
    offset      within its partition
    written_ms  when it was written, epoch milliseconds
    live        False while the topic is read from its beginning, at the start
    """

    key: str
    value: T | None
    partition: int
    offset: int
    written_ms: int
    live: bool


class Observer(Protocol):
    """What the reader tells the metrics; ``stream.sinks.control_metrics.ControlMetrics`` follows it."""

    def expected(self, control: str) -> None:
        """There is such a control topic."""
        ...

    def took(self, control: str, outcome: str) -> None:
        """A record was ``applied``, or is ``malformed``, or its handler ``failed``."""
        ...

    def ready(self, done: bool) -> None:
        """Whether all that the topics held at the start has been read."""
        ...

    def reconnects(self) -> None:
        """The topics could not be read, and are asked for again."""
        ...


@dataclass(frozen=True, slots=True)
class _Topic:
    control: str
    decode: Callable[[bytes], Any]
    handler: Callable[[Control[Any]], Awaitable[None] | None]


class ControlReader:
    """Reads control topics. Say what to do with each (``handle``), then ``start``, then let ``run`` go on.

    about     what the topics are, for the log
    start_s   how long ``start`` may take; what is not read by then is read by ``run``
    back_s    how far back the topics are read, by when their records were written; None: from their beginning
    bury      takes dead letters; called while ``buries`` says that this worker is the one to do it, as each has read
              the record
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        metrics: Observer,
        about: str = "control topics",
        client_id: str = "headrace-control",
        start_s: float = 15.0,
        back_s: float | None = None,
        bury: Callable[[Sequence[DeadLetter]], Awaitable[object]] | None = None,
        buries: Callable[[], bool] = lambda: True,
        consumer: Callable[..., Any] = AIOKafkaConsumer,
    ) -> None:
        self._kafka = kafka
        self._metrics = metrics
        self._about = about
        self._client_id = client_id
        self._start_s = start_s
        self._back_s = back_s
        self.bury = bury
        self.buries = buries
        self._make = consumer
        self._topics: dict[str, _Topic] = {}
        self._consumer: Any = None
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] | None = None
        self.ready = asyncio.Event()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that somebody has asked for."""
        return tuple(self._topics)

    def handle(
        self,
        control: str,
        topic: str,
        kind: type[T],
        handler: Callable[[Control[T]], Awaitable[None] | None],
    ) -> None:
        """Hand each record of ``topic`` to ``handler``, a function or a coroutine function; before ``start``.

        control  what the topic is about, in a word that the metrics show: actions, labels, models
        kind     what its values are: JSON of this type; a value that is not is a dead letter
        """
        if topic in self._topics:
            raise ValueError(f"{topic} has a handler already")
        self._topics[topic] = _Topic(control, msgspec.json.Decoder(kind).decode, handler)
        self._metrics.expected(control)

    async def start(self) -> bool:
        """Read what the topics hold, within ``start_s`` seconds; whether that was all. Never raises for the broker.

        Work begins in any case: a plant must not be unwatched because a label cannot be read.
        """
        if not self._topics:
            self._done()
            return True
        self._metrics.ready(False)
        try:
            async with asyncio.timeout(self._start_s):
                await self._catch_up()
        except TimeoutError:
            _log.error("%s: not read to their end within %g s; reading on beside the work", self._about, self._start_s)
            await self._disconnect()  # it may be half connected
        except (errors.KafkaError, OSError) as error:
            _log.error("%s: %s; trying again beside the work", self._about, _say(error))
            await self._disconnect()
        return self.ready.is_set()

    async def run(self) -> None:
        """Read on until cancelled."""
        attempt = 0
        if not self._topics:
            return
        while True:
            try:
                if self._consumer is None:
                    await self._connect()
                await self._take()
                attempt = 0
            except (errors.KafkaError, OSError, TimeoutError) as error:
                if attempt == 0:
                    _log.warning("%s: %s; trying again", self._about, _say(error))
                self._metrics.reconnects()
                await self._disconnect()
                pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_S)
                attempt += 1
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # no secret

    async def stop(self) -> None:
        """Disconnect. Safe to call twice, or without ``start``."""
        await self._disconnect()

    async def _catch_up(self) -> None:
        if self._consumer is None:
            await self._connect()
        while not self.ready.is_set():
            await self._take()

    async def _connect(self) -> None:
        consumer = self._make(
            *self._topics,
            **self._kafka.client_options(),
            client_id=self._client_id,
            group_id=None,  # every worker reads all of it
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
        )
        self._consumer = consumer
        await consumer.start()
        partitions = sorted(consumer.assignment())
        for place, offset in self._next.items():
            if place in partitions:
                consumer.seek(place, offset)
        if self._back_s is not None:
            await self._pass_over(consumer, [place for place in partitions if place not in self._next], self._back_s)
        if self._ends is None:
            self._ends = await consumer.end_offsets(partitions)
            await self._see_whether_ready()

    async def _pass_over(self, consumer: Any, partitions: Sequence[TopicPartition], back_s: float) -> None:
        """Begin with what was written in the last ``back_s`` seconds."""
        since_ms = round((time.time() - back_s) * 1000)
        if not partitions:
            return
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        ends = await consumer.end_offsets(partitions)
        for place in partitions:
            written = found.get(place)
            self._next[place] = ends[place] if written is None else written.offset
            consumer.seek(place, self._next[place])

    async def _take(self) -> None:
        """Take what there is now, or wait for a moment."""
        batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
        for place in sorted(batches):
            for record in batches[place]:
                await self._hand_on(record)
                self._next[place] = record.offset + 1
        if not self.ready.is_set():
            await self._see_whether_ready()

    async def _see_whether_ready(self) -> None:
        for place, end in (self._ends or {}).items():
            # some brokers answer the base offset of the last batch as the end: what comes with a fetch is right
            at = await self._consumer.position(place)
            if at < max(end, self._consumer.highwater(place) or 0):
                return
        self._done()

    def _done(self) -> None:
        self.ready.set()
        self._metrics.ready(True)

    async def _hand_on(self, record: RawRecord) -> None:
        """Decode a record and give it to its handler; whatever is wrong with it stays here."""
        topic = self._topics[record.topic]
        try:
            held = _decoded(topic, record, live=self.ready.is_set())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            await self._refuse(topic, DeadLetter(record, "control", "malformed", str(error)))
            return
        try:
            answer = topic.handler(held)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:  # one record that nobody foresaw must not end the reading of all others
            _log.exception("%s: the handler failed", _place(record))
            await self._refuse(topic, DeadLetter(record, "control", "failed", f"{type(error).__name__}: {error}"))
        else:
            self._metrics.took(topic.control, "applied")

    async def _refuse(self, topic: _Topic, letter: DeadLetter) -> None:
        self._metrics.took(topic.control, letter.reason)
        _log.error("%s: %s: %.500s", _place(letter.record), letter.reason, letter.detail)
        # what was there before the start has had its dead letter
        if self.bury is not None and self.ready.is_set() and self.buries():
            await self.bury([letter])

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                async with asyncio.timeout(5.0):
                    await consumer.stop()
            except (errors.KafkaError, OSError, TimeoutError) as error:
                _log.warning("%s: the consumer did not stop in order: %s", self._about, _say(error))


def _decoded(topic: _Topic, record: RawRecord, *, live: bool) -> Control[Any]:
    value = record.value
    if value is not None and len(value) > MOST_BYTES:
        raise ValueError(f"{len(value)} bytes: at most {MOST_BYTES}")
    key = (record.key or b"").decode()
    return Control(
        key,
        None if value is None else topic.decode(value),
        record.partition,
        record.offset,
        record.timestamp if record.timestamp > 0 else round(time.time() * 1000),
        live,
    )


def _place(record: RawRecord) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
