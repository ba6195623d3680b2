"""The batching consumer's bookkeeping, without a broker: what may be committed, and what never."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from stream.records import Record
from stream.transport import Batch, Consumer, _Thread, of_batch

TOPIC, OTHER = TP("readings", 0), TP("readings", 1)


def consumer() -> Any:
    """A ``Consumer`` with only the state that acknowledging needs."""
    made = Consumer.__new__(Consumer)
    made._batches = {}
    made._acked = {TOPIC: []}
    made._acked_index = {TOPIC: set()}
    made.app = SimpleNamespace(consumer_generation_id=1)
    made._unacked_messages = set()
    made._n_acked = 0
    made._waiting_for_ack = None
    made._most_records = 20
    made._seeks = 0
    return made


def give(held: Any, first: int, count: int) -> Any:
    """What ``getmany`` does with a partition's records; returns the message."""
    records = [Record(TOPIC.topic, 0, first + nth, b"") for nth in range(count)]
    return held._batch_message(TOPIC, records)


def joins(held: Any, first: int, count: int, value: bytes = b"") -> bool:
    """Whether records that follow go with the batch before them."""
    return bool(held._join(TOPIC, [Record(TOPIC.topic, 0, first + nth, value) for nth in range(count)]))


def taken(message: Any) -> Any:
    """What the agent gets of a message."""
    return of_batch(SimpleNamespace(value=message.value, message=message, ack=lambda: None))


def finish(held: Any, message: Any) -> None:
    message.value.done = True
    held.ack(message)


def test_nothing_is_committed_past_a_batch_that_is_not_done() -> None:
    held = consumer()
    first, second, third = give(held, 0, 10), give(held, 10, 5), give(held, 15, 1)
    finish(held, second)
    assert held._new_offset(TOPIC) is None
    finish(held, first)
    assert held._new_offset(TOPIC) == 15
    finish(held, third)
    assert held._new_offset(TOPIC) == 16
    assert held._new_offset(TOPIC) is None


def test_an_event_that_faust_skipped_is_not_done_although_it_is_acknowledged() -> None:
    held = consumer()
    message = give(held, 0, 10)
    held.ack(message)
    assert held._new_offset(TOPIC) is None


def test_a_batch_knows_where_the_one_before_it_ended_until_that_is_committed() -> None:
    held = consumer()
    first, second = give(held, 0, 10), give(held, 12, 5)
    assert (first.value.after, second.value.after) == (0, 10)
    finish(held, first)
    finish(held, second)
    assert held._new_offset(TOPIC) == 17
    assert give(held, 20, 5).value.after == 0
    assert give(held, 3, 5).value.after == 0, "after a seek back"


def test_holes_in_the_offsets_need_no_handling() -> None:
    held = consumer()
    finish(held, give(held, 100, 3))
    finish(held, give(held, 5000, 2))
    assert held._new_offset(TOPIC) == 5002


def test_what_was_in_flight_before_a_seek_back_counts_no_more() -> None:
    held = consumer()
    before = give(held, 0, 10)
    again = give(held, 0, 4)
    finish(held, before)
    assert held._new_offset(TOPIC) is None
    finish(held, again)
    assert held._new_offset(TOPIC) == 4


class Fetching(Consumer):
    """A consumer whose fetch of two partitions is still on its way when ``meanwhile`` happens."""

    flow_active = True
    should_stop = False

    def __init__(self, meanwhile: Callable[[Fetching], Awaitable[object]]) -> None:
        self.__dict__.update(vars(consumer()))
        self.app = SimpleNamespace(
            consumer_generation_id=1, monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None)
        )
        self._seeks = 0
        self._buffered_partitions: set[TP] = set()
        self._read_offset: dict[TP, int | None] = {}
        self._committed_offset: dict[TP, int | None] = {}
        self._meanwhile = meanwhile
        self.position = 10

    def _get_active_partitions(self) -> set[TP]:
        return {TOPIC, OTHER}

    def highwater(self, tp: TP) -> int:
        return 100

    async def seek_to_committed(self) -> dict[TP, int]:
        self.position = 0
        return {TOPIC: 0, OTHER: 0}

    async def _wait_next_records(self, _: float) -> Any:
        fetched = {tp: [Record(tp.topic, tp.partition, self.position, b"")] for tp in (TOPIC, OTHER)}
        await self._meanwhile(self)
        return fetched, {TOPIC, OTHER}


async def nothing(_: Fetching) -> None:
    await asyncio.sleep(0)


async def handed_out(fetching: Fetching) -> list[int]:
    return [message.offset async for _, message in fetching.getmany(1.0)]


async def test_what_was_on_its_way_during_a_seek_or_a_rebalance_is_not_handed_out() -> None:
    assert await handed_out(Fetching(nothing)) == [10, 10]

    async def rebalanced(fetching: Fetching) -> None:
        fetching.app.consumer_generation_id += 1

    for meanwhile in (Fetching.perform_seek, rebalanced):
        fetching = Fetching(meanwhile)
        assert await handed_out(fetching) == []
        fetching._meanwhile = nothing
        assert await handed_out(fetching) == [0, 0], "from where all of it is read again"


async def test_a_seek_between_two_partitions_of_a_fetch_ends_it() -> None:
    fetching = Fetching(nothing)
    offsets = []
    async for _, message in fetching.getmany(1.0):
        offsets.append(message.offset)
        await fetching.perform_seek()
    assert offsets == [10]
    assert not fetching._batches


def test_what_is_fetched_while_a_batch_waits_for_the_agent_joins_it() -> None:
    held = consumer()
    assert not joins(held, 0, 5), "there is none to join"
    message = give(held, 0, 5)
    assert joins(held, 5, 3)
    assert joins(held, 20, 2), "a hole in the offsets, as compaction leaves it"
    given = taken(message)
    assert [record.offset for record in given.records] == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21]
    assert (given.first, given.last) == (0, 21)
    assert not joins(held, 22, 1), "the agent has it"
    finish(held, message)
    assert held._new_offset(TOPIC) == 22


def test_nothing_joins_what_the_agent_may_never_be_shown() -> None:
    held = consumer()
    held.ack(give(held, 0, 5))
    assert not joins(held, 5, 1), "Faust passed over it"
    give(held, 5, 5)
    held.app.consumer_generation_id = 2
    assert not joins(held, 10, 1), "a rebalance came between"
    give(held, 10, 5)
    held._seeks += 1
    assert not joins(held, 15, 1), "a seek came between"
    give(held, 10, 5)
    assert not joins(held, 8, 1), "the position went back"
    assert not joins(held, 15, 16), "too many"
    assert not joins(held, 15, 2, bytes(600_000)), "too many bytes"
    assert joins(held, 15, 1, bytes(600_000))
    assert not joins(held, 16, 1, bytes(600_000)), "too many bytes together"
    assert joins(held, 16, 14)
    assert not joins(held, 30, 1)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_every_record_is_in_one_batch_in_its_order_however_busy_the_agent_is(
    steps: list[tuple[int, bool, bool]],
) -> None:
    held = consumer()
    waiting: deque[Any] = deque()
    unfinished: deque[Any] = deque()
    seen: list[int] = []
    start = committed = 0
    for count, takes, finishes in steps:
        if not joins(held, start, count):
            waiting.append(give(held, start, count))
        start += count
        if takes and waiting:
            message = waiting.popleft()
            seen += [record.offset for record in taken(message).records]
            unfinished.append((message, len(seen)))
        if finishes and unfinished:
            message, committed = unfinished.popleft()
            finish(held, message)
            assert held._new_offset(TOPIC) == committed
    while waiting:
        seen += [record.offset for record in taken(waiting.popleft()).records]
    assert seen == list(range(start))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.randoms())
def test_the_committed_offset_is_the_end_of_the_done_prefix(counts: list[int], random: Any) -> None:
    held = consumer()
    messages, start = [], 0
    for count in counts:
        messages.append(give(held, start, count))
        start += count
    order = list(range(len(messages)))
    random.shuffle(order)
    committed = 0
    finished: set[int] = set()
    for index in order:
        finish(held, messages[index])
        finished.add(index)
        offset = held._new_offset(TOPIC)
        prefix = next((n for n in range(len(messages)) if n not in finished), len(messages))
        expected = sum(counts[:prefix])
        assert (committed if offset is None else offset) == expected
        committed = expected
    assert held._batches[TOPIC] == deque()


def test_a_batch_is_compared_by_identity() -> None:
    assert Batch(TOPIC, [], 0) != Batch(TOPIC, [], 0)
    with pytest.raises(AttributeError):
        Batch(TOPIC, [], 0).unknown = 1  # type: ignore[attr-defined]


async def test_a_cancelled_fetch_does_not_end_the_thread_before_it_reports_its_end() -> None:
    # aiokafka 0.14 raises its fetch's own cancellation from stop() when the broker is gone.
    class Gone:
        async def stop(self) -> None:
            raise asyncio.CancelledError

    thread = _Thread.__new__(_Thread)
    thread._consumer = Gone()
    thread._method_queue = None
    await thread.on_thread_stop()
