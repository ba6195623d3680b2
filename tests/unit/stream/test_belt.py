"""One batch is scored while the one before is being published; order and outputs are kept whatever happens."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stream.belt import Belt
from stream.records import Output, Record


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as held:
        yield held


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.001)


def process(partition: int, records: Any) -> Output:
    return Output(counts={"batch": records[0].offset})


def batch(number: int) -> list[Record]:
    return [Record("readings", 0, number, b"")]


async def test_the_next_batch_is_scored_while_one_is_published_and_a_third_waits(executor: ThreadPoolExecutor) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    scored: list[int] = []
    published: list[int] = []
    finished: list[int] = []

    def score(partition: int, records: Any) -> Output:
        scored.append(records[0].offset)
        return process(partition, records)

    async def publish(output: Output) -> None:
        await gates[output.counts["batch"]].wait()
        published.append(output.counts["batch"])

    belt = Belt(score, publish, executor)
    await belt.put(0, batch(0), lambda: finished.append(0))
    second = asyncio.create_task(belt.put(0, batch(1), lambda: finished.append(1)))
    await until(lambda: scored == [0, 1])
    await asyncio.sleep(0.01)
    assert not second.done()  # two are in hand: no third is asked for
    gates[1].set()
    await asyncio.sleep(0.01)
    assert (published, finished) == ([], [])  # the second does not overtake the first
    gates[0].set()
    await second
    await belt.put(0, batch(2), lambda: finished.append(2))
    gates[2].set()
    await until(lambda: finished == [0, 1, 2])
    assert published == [0, 1, 2]


async def test_what_was_scored_is_published_although_its_bringer_was_cancelled(executor: ThreadPoolExecutor) -> None:
    gate = asyncio.Event()
    finished: list[int] = []

    async def publish(output: Output) -> None:
        await gate.wait()

    belt = Belt(process, publish, executor)
    await belt.put(0, batch(0), lambda: finished.append(0))
    second = asyncio.create_task(belt.put(0, batch(1), lambda: finished.append(1)))
    await asyncio.sleep(0.05)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await until(lambda: finished == [0, 1])


async def test_nothing_after_a_failed_publication_counts_as_done(executor: ThreadPoolExecutor) -> None:
    finished: list[int] = []

    async def publish(output: Output) -> None:
        if output.counts["batch"] == 0:
            raise ZeroDivisionError("ours")

    belt = Belt(process, publish, executor)
    await belt.put(0, batch(0), lambda: finished.append(0))
    for number in (1, 2):
        with pytest.raises(ZeroDivisionError):
            await belt.put(0, batch(number), lambda: finished.append(1))
    assert finished == []
    assert belt._last is not None
    with pytest.raises(ZeroDivisionError):
        await belt._last
