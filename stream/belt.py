"""Batches on their way from records to sinks: one is scored while the one before is being published.

Scoring takes a core, publishing waits for brokers and databases: done one after the other, each waits for the other.
Order is kept: a batch is published only when the one before it is, so no alert overtakes an earlier one. Two batches
are in hand at most, which bounds memory; whoever brings a third waits, which stops fetching: the back-pressure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from stream.records import DeadLetter, Output, RawRecord

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What an agent takes at once: records of one partition, in their order, with offsets ``first`` to ``last``.

    done  they are through, and may be committed
    skip  they are let go of: not committed, they will be read again
    after what comes before this offset was read just before them, as far as is known
    """

    partition: int
    records: Sequence[RawRecord]
    first: int
    last: int
    done: Callable[[], object]
    skip: Callable[[], object]
    after: int = 0


class Process(Protocol):
    """``Pipeline.process``."""

    def __call__(self, partition: int, records: Sequence[RawRecord]) -> Output:
        """Records of one partition, in order, to what they led to."""
        ...


class Belt:
    """Runs ``process`` in ``executor``, beside the event loop, and ``publish`` behind it."""

    def __init__(self, process: Process, publish: Callable[[Output], Awaitable[None]], executor: Executor) -> None:
        self._process = process
        self._publish = publish
        self._executor = executor
        self._last: asyncio.Task[None] | None = None

    async def beside(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run something else where the batches are scored: never at the same time as they are."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def put(self, partition: int, records: Sequence[RawRecord], done: Callable[[], object]) -> None:
        """Score a batch; returns when it is being published. ``done`` is called once every essential sink has it.

        Raises what publishing an earlier batch raised. What was begun is published even if whoever brought it goes
        away: it is part of the pipeline's state.
        """
        scored = asyncio.create_task(self._score(partition, records))
        before, self._last = self._last, asyncio.create_task(self._finish(self._last, scored, done))
        await asyncio.shield(scored)
        if before is not None:
            await asyncio.shield(before)

    async def apply(self, work: Callable[..., Output], *args: Any) -> None:
        """Run something that has an output of its own between two batches; returns when that is published.

        Raises what ``work`` raised, which costs nobody else anything, or what publishing raised.
        """
        failed: list[Exception] = []

        async def run() -> Output:
            try:
                output: Output = await self.beside(work, *args)
            except Exception as error:  # its own: the batches behind it are published all the same
                failed.append(error)
                return Output()
            return output

        done = asyncio.create_task(run())
        self._last = asyncio.create_task(self._finish(self._last, done, lambda: None))
        await asyncio.shield(self._last)
        if failed:
            raise failed[0]

    async def settled(self) -> None:
        """Return when all that was put until now is published. Raises what publishing it raised."""
        if self._last is not None:
            await asyncio.shield(self._last)

    async def _score(self, partition: int, records: Sequence[RawRecord]) -> Output:
        try:
            output: Output = await self.beside(self._process, partition, records)
        except Exception as error:  # a fault of ours: the records are kept for repair, and the worker goes on
            _log.exception("the pipeline failed on %d records of partition %d", len(records), partition)
            output = Output(dead=_all_dead(records, error), counts={"records": len(records)})
        return output

    async def _finish(
        self, before: asyncio.Task[None] | None, scored: asyncio.Task[Output], done: Callable[[], object]
    ) -> None:
        output = await scored
        if before is not None:
            await before
        await self._publish(output)
        done()


def _all_dead(records: Sequence[RawRecord], error: Exception) -> tuple[DeadLetter, ...]:
    detail = f"{type(error).__name__}: {error}"
    return tuple(DeadLetter(record, "pipeline", "pipeline_failed", detail) for record in records)
