"""What waits for an address, and who brings it there: in order, again and again with pauses, until it is taken.

A sink that tells people must neither delay the batches nor be hurried by them. So it only puts what is to be told into
a queue for each address, and a task for each (``Courier``) brings it, independently: an address that is away costs the
others nothing. What waits is in memory (``Held``) or on disk (``OnDisk``), where it outlives the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from stream.errors import SinkRefused, SinkUnavailable
from stream.sinks.spool import Entry, Spool

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parcel(Generic[T]):
    """Something to bring. ``key``: a later one with the same key takes its place."""

    key: Hashable
    what: T


class Waiting(Protocol[T]):
    """What waits for one address, the oldest first."""

    def __len__(self) -> int: ...

    @property
    def size_bytes(self) -> int:
        """Bytes of it on disk."""
        ...

    async def open(self) -> None:
        """Find what an earlier run has left. Raises ``OSError``."""
        ...

    async def put(self, parcel: Parcel[T]) -> int:
        """Hold one behind all others; how many had to be dropped for it, the oldest first."""
        ...

    async def next(self, most: int) -> Sequence[Parcel[T]]:
        """The oldest; they stay until they are ``done``."""
        ...

    async def done(self, parcels: Sequence[Parcel[T]]) -> None:
        """Forget what ``next`` gave, unless something has taken its place."""
        ...

    async def close(self) -> None:
        """Let go of files."""
        ...


class Held(Generic[T]):
    """In memory. ``most``: beyond, the oldest are dropped."""

    size_bytes = 0

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Hashable, Parcel[T]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def open(self) -> None:
        """Nothing is left of an earlier run."""

    async def put(self, parcel: Parcel[T]) -> int:
        """As ``add``."""
        return self.add(parcel)

    def add(self, parcel: Parcel[T]) -> int:
        """Hold it behind all others, in place of one with the same key; how many were dropped."""
        self._waiting.pop(parcel.key, None)
        self._waiting[parcel.key] = parcel
        dropped = max(len(self._waiting) - self._most, 0)
        for key in list(self._waiting)[:dropped]:
            del self._waiting[key]
        return dropped

    def remind(self, parcel: Parcel[T]) -> None:
        """Hold it unless one with its key waits."""
        self._waiting.setdefault(parcel.key, parcel)

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Forget some."""
        self._waiting = {key: held for key, held in self._waiting.items() if not unwanted(held.what)}

    async def next(self, most: int) -> Sequence[Parcel[T]]:
        """The oldest."""
        return list(islice(self._waiting.values(), most))

    async def done(self, parcels: Sequence[Parcel[T]]) -> None:
        """Forget these."""
        for parcel in parcels:
            if self._waiting.get(parcel.key) is parcel:
                del self._waiting[parcel.key]

    async def close(self) -> None:
        """What waits stays readable."""


class OnDisk(Generic[T]):
    """In a spool of its own, one at a time. What the disk does not take is held in memory, which is said.

    pack, unpack   to text and back; whatever is no text of ours is passed over
    most           held in memory
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        pack: Callable[[Parcel[T]], str],
        unpack: Callable[[str], Parcel[T]],
        *,
        most: int,
    ) -> None:
        self._folder = folder
        self._spool = Spool(folder, max_bytes)
        self._pack = pack
        self._unpack = unpack
        self._memory: Held[T] = Held(most)
        self._entry: tuple[Parcel[T], Entry] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")  # it is for one thread at a time
        self._told = False

    def __len__(self) -> int:
        return self._spool.lines + len(self._memory)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size_bytes

    async def open(self) -> None:
        """Take over what an earlier run, or a worker that is no more, has left. Raises ``OSError``."""
        await self._do(self._spool.open)

    async def put(self, parcel: Parcel[T]) -> int:
        """Onto the disk itself: on return a power cut does not take it."""
        try:
            dropped = await self._do(partial(self._append, self._pack(parcel).encode()))
        except OSError as error:
            if not self._told:
                _log.error("the spool %s: %s; held in memory", self._folder, error)
            self._told = True
            return self._memory.add(parcel)
        self._told = False
        return dropped

    def _append(self, text: bytes) -> int:
        dropped = 0
        while not self._spool.append(text, 1):
            dropped += self._spool.drop_oldest()
        self._spool.sync()
        return dropped

    async def next(self, most: int) -> Sequence[Parcel[T]]:
        """The oldest on disk, then those in memory; ``most`` is 1 at the least, and as much as comes at once."""
        while (entry := await self._do(self._spool.first)) is not None:
            try:
                parcel = self._unpack(entry.text.decode())
            except ValueError as error:
                _log.error("the spool %s: passed over: %s", self._folder, error)
                await self._do(partial(self._spool.done, entry))
                continue
            self._entry = parcel, entry
            return [parcel]
        return await self._memory.next(most)

    async def done(self, parcels: Sequence[Parcel[T]]) -> None:
        """Forget these."""
        held, self._entry = self._entry, None
        if held is not None and any(parcel is held[0] for parcel in parcels):
            await self._do(partial(self._spool.done, held[1]))
        await self._memory.done(parcels)

    async def close(self) -> None:
        """Bring all to the disk, and leave it to the next run."""
        await self._do(self._spool.close)

    async def _do(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@dataclass(slots=True)
class Figures:
    """What became of parcels, all addresses together; see ``Couriers``."""

    written: int = 0
    refused: int = 0
    dropped: int = 0
    failed: int = 0


class Courier(Generic[T]):
    """Brings what waits to one address.

    address   for the log: nothing secret
    deliver   brings a batch; raises ``SinkUnavailable``, then it waits on, or ``SinkRefused``: then each of it is
              brought by itself, and what is refused alone is passed over
    batch     so many at once
    refill    called every ``every_s`` seconds: puts what is to be brought again
    """

    def __init__(
        self,
        sink: str,
        address: str,
        waiting: Waiting[T],
        deliver: Callable[[Sequence[T]], Awaitable[None]],
        *,
        batch: int = 1,
        longest_pause_s: float = 60.0,
        refill: Callable[[], None] | None = None,
        every_s: float = float("inf"),
    ) -> None:
        self.waiting = waiting
        self.figures = Figures()
        self._sink = sink
        self._address = address
        self._deliver = deliver
        self._batch = batch
        self._longest_pause_s = longest_pause_s
        self._refill = refill
        self._every_s = every_s
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    async def put(self, parcel: Parcel[T]) -> None:
        """Bring it, when all before it are there."""
        self.figures.dropped += await self.waiting.put(parcel)
        self._changed.set()

    def wake(self) -> None:
        """Something waits."""
        self._changed.set()

    def begin(self) -> None:
        """Before ``run``."""
        self._stopping.clear()

    def hurry(self) -> None:
        """Let ``run`` end as soon as nothing waits."""
        self._stopping.set()
        self._changed.set()

    async def run(self) -> None:
        """Until stopped and brought."""
        attempt = 0
        due = time.monotonic() + self._every_s
        while True:
            self._changed.clear()
            if self._refill is not None and time.monotonic() >= due:
                due = time.monotonic() + self._every_s
                self._refill()
            batch = await self.waiting.next(self._batch)
            if not batch:
                if self._stopping.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self._refill is None else max(due - time.monotonic(), 0.0)):
                        await self._changed.wait()
                continue
            try:
                await self._bring(batch)
            except SinkUnavailable as error:
                self.figures.failed += 1
                if attempt == 0:
                    _log.warning("%s: %s; %d wait", self._sink, error, len(self.waiting))
                backoff_s = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 10), self._longest_pause_s)
                await self._pause(max(error.retry_after_s, backoff_s * random.uniform(0.5, 1.0)))  # noqa: S311
                attempt += 1
                continue
            except Exception:  # a fault of ours: what comes after it must not be lost as well
                _log.exception("%s: %d cannot be sent", self._sink, len(batch))
                self.figures.refused += len(batch)
                await self.waiting.done(batch)
            else:
                if attempt:
                    _log.info("%s: %s takes them again after %d attempts", self._sink, self._address, attempt)
            attempt = 0

    async def _bring(self, batch: Sequence[Parcel[T]]) -> None:
        """Raises ``SinkUnavailable``."""
        try:
            await self._deliver([parcel.what for parcel in batch])
        except SinkRefused as error:
            if len(batch) > 1:
                for parcel in batch:
                    await self._bring([parcel])
                return
            self.figures.refused += 1
            _log.error("%s: refused %s: %s", self._sink, batch[0].key, error)
        else:
            self.figures.written += len(batch)
        await self.waiting.done(batch)

    async def _pause(self, seconds: float) -> None:
        """Sleep; much shorter when the worker is about to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may lose a cancellation, and stop would hang
                await self._stopping.wait()
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, 0.25))


class Couriers(Generic[T]):
    """One for each address of a sink; its figures are for the metrics, a line is a parcel.

    stop_s  how long ``stop`` tries to bring what waits
    """

    def __init__(self, sink: str, couriers: Sequence[Courier[T]], stop_s: float) -> None:
        self.each = tuple(couriers)
        self._sink = sink
        self._stop_s = stop_s
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def held_lines(self) -> int:
        """What waits."""
        return sum(len(courier.waiting) for courier in self.each)

    @property
    def spooled_bytes(self) -> int:
        """Bytes of it on disk."""
        return sum(courier.waiting.size_bytes for courier in self.each)

    def figures(self) -> Figures:
        """Of all addresses."""
        every = [courier.figures for courier in self.each]
        return Figures(*(sum(getattr(one, name) for one in every) for name in Figures.__slots__))

    @property
    def running(self) -> bool:
        """Whether ``start`` was called, and ``stop`` was not since."""
        return bool(self._tasks)

    async def start(self) -> None:
        """Begin. Raises ``SinkUnavailable`` where a spool cannot be opened."""
        for courier in self.each:
            try:
                await courier.waiting.open()
            except OSError as error:
                raise SinkUnavailable(f"{self._sink}: the spool: {error}") from None
            if len(courier.waiting):
                _log.info("%s: %d of an earlier run are on disk and go first", self._sink, len(courier.waiting))
            courier.begin()
        self._tasks = [asyncio.create_task(held.run(), name=f"headrace-{self._sink}") for held in self.each]

    async def stop(self) -> None:
        """Bring what waits, within ``stop_s`` seconds."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        for courier in self.each:
            courier.hurry()
        _, late = await asyncio.wait(tasks, timeout=self._stop_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self.held_lines:
            where = "; those on disk go first at the next start" if self.spooled_bytes else ""
            _log.warning("%s: stopped with %d not sent%s", self._sink, self.held_lines, where)
        for courier in self.each:
            await courier.waiting.close()
