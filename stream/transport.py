"""Faust's own Kafka transport, made to hand an agent a partition's batch of records as one event.

Faust spends 70 to 120 microseconds on an event whatever is in it, most of it in ``Consumer._drain_messages``, which
starts several asyncio tasks for each message. So one poll's records of one partition travel together, as the value of
one message, and are acknowledged together. While they wait for the agent, those of the next poll join them: what a busy
worker is behind with goes through in few batches, each of which has its fixed costs. Where plain Faust keeps a sorted
list of single acknowledged offsets and an interval tree of gaps, here is a queue of batches per partition: what may be
committed is the end of the longest run of acknowledged batches at its head. The end of a batch is the offset after its
last record, so holes in the offsets (compaction, transaction markers) need no handling.

Only methods that Faust's ``Consumer`` defines for its subclasses are replaced; nothing is patched from outside.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.utils.futures import notify

from stream.belt import Taken
from stream.records import Fetched, RawRecord, Record


@dataclass(slots=True, eq=False)
class Batch:
    """The records of one partition from one poll, or from some that follow each other.

    end   the offset to commit when all of them are done
    after the end of the batch before it, where that is not committed yet
    done  set by the agent once their output is safe. Faust also acknowledges events that it skips at a rebalance
          without having shown them to the agent; those must not count.
    open  others may still join it: it waits for the agent
    moment  when it was handed out: the group's generation, and the seeks until then
    size  bytes of its records, once that was asked; -1 before
    """

    tp: TP
    records: Sequence[RawRecord]
    end: int
    done: bool = False
    after: int = 0
    open: bool = False
    moment: tuple[int, int] = (-1, 0)
    size: int = -1


#: How long the broker may hold a fetch that finds nothing. Faust's own 1,500 ms would delay the other partitions of the
#: same broker, for aiokafka has one fetch in flight for each broker. And some brokers look for new records only every
#: half of it: with 50 ms a record was on its way for 14 ms (median), with 10 for 4. An idle worker pays with a fetch
#: every 10 ms.
_FETCH_WAIT_MS = 10
#: How soon to look again whether a paused partition may be read on.
_PAUSED_S = 0.01
#: Records join a batch that waits as long as it stays below this: what one fetch brings of a partition at most.
_MOST_BYTES = 1 << 20


class _Arrivals(dict[Any, Any]):
    """What aiokafka's fetcher has got and not handed out, by partition; its records stay as they were parsed.

    Making a ``ConsumerRecord`` of each takes as long as all the rest of fetching. Should a release of aiokafka do
    things differently, the records are ``ConsumerRecord``s again, which serve as well.
    """

    def __init__(self, held: Mapping[Any, Any]) -> None:
        super().__init__()
        for partition, result in held.items():
            self[partition] = result

    def __setitem__(self, partition: Any, result: Any) -> None:
        unread = getattr(result, "_partition_records", None)
        if unread is not None:
            unread._consumer_record = _as_parsed  # noqa: SLF001 (see above)
        super().__setitem__(partition, result)


def _as_parsed(_: Any, record: Any) -> Any:
    return record


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka's consumer, with a fetch that waits less."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 (Faust sets it and offers no way to)
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(consumer._fetcher._records, _Arrivals):  # noqa: SLF001 (aiokafka offers no way to)
            consumer._fetcher._records = _Arrivals(consumer._fetcher._records)  # noqa: SLF001 (likewise)
        return await super()._fetch_records(consumer, *args, **kwargs)

    async def on_thread_stop(self) -> None:
        """Close the consumer. With the broker gone, aiokafka hands on the cancellation of its own fetch.

        Left alone that ends the thread before it reports its end, for which Faust then waits a minute.
        """
        with suppress(asyncio.CancelledError):
            await super().on_thread_stop()


class _Draining:
    """Tells the application while Faust waits for all that is in hand: before partitions go, and before the end.

    Acknowledgements that would wait for the next snapshot must not keep it waiting.
    """

    app: Any

    async def wait_empty(self) -> None:
        """Wait for all messages that are in hand to be acknowledged."""
        self.app.hurry(True)
        try:
            await super().wait_empty()  # type: ignore[misc]  # of the class that this is mixed into
        finally:
            self.app.hurry(False)


class Consumer(_Draining, driver.Consumer):
    """Yields one message per partition and poll; its value is a ``Batch``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._batches: dict[TP, deque[Batch]] = {}
        self._seeks = 0
        super().__init__(*args, **kwargs)
        self._most_records: int = self.app.conf.broker_max_poll_records

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, and give each partition's records as one message with the offset of the first."""
        if self.flow_active and not self._get_active_partitions():
            # All are paused because the agent has enough to do; Faust would now sleep for a second.
            await self.sleep(_PAUSED_S)
            return
        if self._buffered_partitions:
            # Some are paused: waiting long for the others would not notice when these may be read on.
            timeout = _PAUSED_S
        begun = self._moment()
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active or self._moment() != begun:
            # Fetched before or during a rebalance or a seek: these records come again from the committed offset. Others
            # may have gone on from there meanwhile, or not have come so far.
            await self.perform_seek()
            return
        for partition, batch in records.items():
            if not self.flow_active or self._moment() != begun:
                break
            tp = TP(partition.topic, partition.partition)
            if batch and (active is None or tp in active or tp in self._buffered_partitions):
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                # Faust drops what lies before the offset it believes to have read; what was fetched is the truth.
                self._read_offset[tp] = None
                if not self._join(tp, batch):
                    yield tp, self._batch_message(tp, batch)

    def _join(self, tp: TP, raw: Sequence[Any]) -> bool:
        """Add records to the batch before them, if that still waits for the agent, and is not too large."""
        queued = self._batches.get(tp)
        if not queued:
            return False
        last = queued[-1]
        if not last.open or last.moment != self._moment() or raw[0].offset < last.end:
            return False
        held = last.records.raw if isinstance(last.records, Fetched) else last.records
        if len(held) + len(raw) > self._most_records:
            return False
        size = (_size(held) if last.size < 0 else last.size) + _size(raw)
        if size > _MOST_BYTES:
            return False
        last.records, last.end, last.size = Fetched(tp.topic, tp.partition, [*held, *raw]), raw[-1].offset + 1, size
        return True

    def _moment(self) -> tuple[int, int]:
        """What was fetched at another moment than now does not follow on what was handed out before.

        A rebalance makes another generation. A seek does not; and Faust's recovery of a rebalance may let the flow go
        on while the next one begins, whose recovery then seeks back under a fetch that is on its way.
        """
        return self.app.consumer_generation_id, self._seeks

    def _batch_message(self, tp: TP, raw: Sequence[Any]) -> Any:
        first = raw[0]
        batch = Batch(tp, Fetched(tp.topic, tp.partition, raw), raw[-1].offset + 1, open=True, moment=self._moment())
        message = ConsumerMessage(
            tp.topic,
            tp.partition,
            first.offset,
            first.timestamp / 1000.0,
            0,
            (),
            first.key,
            batch,
            None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        pending = self._batches.setdefault(tp, deque())
        if pending and first.offset < pending[-1].end:
            # The position went back (a seek to the committed offset): what was in flight will be read again.
            pending.clear()
        batch.after = pending[-1].end if pending else 0
        pending.append(batch)
        return message

    def ack(self, message: Any) -> bool:
        """Let a batch that the agent is done with be committed.

        One that was read before a rebalance or a seek is no longer queued, so nothing happens: it is read again.
        """
        first = not message.acked
        message.acked = True
        message.value.open = False  # passed over without having been shown to the agent: nothing may join it
        self._unacked_messages.discard(message)
        if first and message.value.done and message.value in self._batches.get(message.tp, ()):
            self._acked[message.tp].append(message.offset)
            self._n_acked += 1
        notify(self._waiting_for_ack)
        return first

    def _new_offset(self, tp: TP) -> int | None:
        """The end of the longest run of done batches at the head of the partition's queue."""
        end = None
        pending = self._batches.get(tp, deque())
        while pending and pending[0].done:
            end = pending.popleft().end
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return end

    def committed_offset(self, tp: TP) -> int:
        """The next offset that a restart would read, as far as this consumer knows; 0 before anything was committed."""
        return self._committed_offset[tp] or 0

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Batches end after their last record, so there are no gaps to bridge."""

    async def perform_seek(self) -> None:
        """Seek to the committed offsets: all that is in flight will be read again."""
        self._seeks += 1
        self._batches.clear()
        try:
            await super().perform_seek()
        finally:
            self._seeks += 1  # a fetch that began meanwhile may be of before or after

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drop the queues of partitions that go to another worker, after Faust has committed what is done."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._batches.pop(tp, None)


class PlainConsumer(_Draining, driver.Consumer):
    """Faust's own consumer, an event a message; only what the agent is done with counts as acknowledged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._through: WeakSet[Any] = WeakSet()
        super().__init__(*args, **kwargs)

    def through(self, message: Any) -> None:
        """The agent is done with ``message``: acknowledging it lets it be committed."""
        self._through.add(message)

    def ack(self, message: Any) -> bool:
        """Let a message that the agent is done with be committed.

        Faust also acknowledges what it passes over at a rebalance; that is let go of, and read again.
        """
        if message in self._through:
            self._through.discard(message)
            return bool(super().ack(message))
        first = not message.acked
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        return first

    def committed_offset(self, tp: TP) -> int:
        """The next offset that a restart would read, as far as this consumer knows; 0 before anything was committed."""
        return self._committed_offset[tp] or 0


class Transport(driver.Transport):
    """Faust's aiokafka transport with the batching ``Consumer``."""

    Consumer = Consumer


class PlainTransport(driver.Transport):
    """Faust's aiokafka transport, an event a message."""

    Consumer = PlainConsumer


def _size(raw: Sequence[Any]) -> int:
    """Bytes of the values of records."""
    return sum([len(record.value) for record in raw if record.value])


def of_batch(event: Any) -> Taken:
    """The event of a ``Batch``."""
    batch: Batch = event.value
    batch.open = False
    records, batch.records = batch.records, ()  # it may wait long for its commit: not with the records in memory

    def done() -> None:
        batch.done = True
        event.ack()

    return Taken(batch.tp.partition, records, event.message.offset, batch.end - 1, done, event.ack, batch.after)


def by_partition(events: Sequence[Any]) -> Iterator[Taken]:
    """Events of single messages, each partition's together."""
    held: dict[int, list[Any]] = {}
    for event in events:
        held.setdefault(event.message.partition, []).append(event)
    for partition, of in held.items():
        records = [_record(event.message) for event in of]
        acks = [event.ack for event in of]
        first, last = records[0].offset, records[-1].offset
        yield Taken(partition, records, first, last, partial(_through, of), partial(_call_all, acks))


def _through(events: Sequence[Any]) -> None:
    for event in events:
        event.app.consumer.through(event.message)
        event.ack()


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.value,
        message.key,
        round(message.timestamp * 1000),
        tuple(message.headers or ()),
    )


class RawSchema(faust.Schema):
    """Hands values through untouched: decoding is our own stage, where a bad record can be dead-lettered."""

    def loads_key(
        self, app: Any, message: Any, *, loads: Callable[..., Any] | None = None, serializer: Any = None
    ) -> Any:
        """The first record's key, untouched."""
        return message.key

    def loads_value(
        self, app: Any, message: Any, *, loads: Callable[..., Any] | None = None, serializer: Any = None
    ) -> Any:
        """The ``Batch``, or a message's bytes."""
        return message.value
