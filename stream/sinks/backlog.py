"""What a sink has taken and not yet written: in memory within a bound, and beyond it on disk, in order.

A block is taken from the disk first, for what is there is older than what is in memory. While the server is away all
goes to the disk, and so does what a slow one leaves when a quarter of the memory's bound is taken. What has no room
anywhere is dropped, the oldest first, counted and said, or the giver waits: as ``when_full`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from stream.errors import SinkUnavailable
from stream.sinks.held import Held, Item, size_of
from stream.sinks.spool import Entry, Spool

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SPILL_AT: Final = 0.25
_DISK_RETRY_S: Final = 5.0
_SYNC_S: Final = 1.0


class Bounds(Protocol):
    """What a sink's settings say of its backlog; ``stream.sinks.influxclient.InfluxSettings`` explains each."""

    @property
    def batch_lines(self) -> int: ...  # noqa: D102
    @property
    def held_lines(self) -> int: ...  # noqa: D102
    @property
    def held_bytes(self) -> int: ...  # noqa: D102
    @property
    def spool_dir(self) -> str: ...  # noqa: D102
    @property
    def spool_max_bytes(self) -> int: ...  # noqa: D102
    @property
    def when_full(self) -> str: ...  # noqa: D102
    @property
    def linger_s(self) -> float: ...  # noqa: D102


@dataclass(slots=True, eq=False)
class Block:
    """What is being written.

    entry   its place on disk, once it has one; until then it is in memory alone
    gone    that place was dropped to make room: it is in memory alone again
    """

    text: bytes
    lines: int
    size_bytes: int
    entry: Entry | None = None
    gone: bool = False

    @property
    def on_disk(self) -> bool:
        """Whether it survives a crash."""
        return self.entry is not None and not self.gone


class Backlog:
    """Holds items for a sink, which takes blocks of their lines one at a time.

    name     the sink's, for the log
    encode   items as the lines that are written; called in a thread
    away     set by the sink: the server did not take what it was last given
    """

    def __init__(self, name: str, bounds: Bounds, encode: Callable[[Sequence[Item]], bytes]) -> None:
        self.away = False
        self.dropped_lines = 0
        self._name = name
        self._bounds = bounds
        self._encode = encode
        self._queue = Held()
        self._in_hand: Block | None = None
        self._moving = 0  # lines on their way from the queue to the disk
        self._changed = asyncio.Condition()
        self._order = asyncio.Lock()  # held by whoever takes from the queue, so that nothing overtakes it
        self._stopping = asyncio.Event()
        self._told_drop = False
        self._told_disk = False
        self._threads: ThreadPoolExecutor | None = None
        self._spool: Spool | None = None
        self._spilling: asyncio.Task[None] | None = None
        self._synced_at = 0.0

    @property
    def lines(self) -> int:
        """Lines that are held, in memory and on disk."""
        return self.lines_in_memory + (self._spool.lines if self._spool else 0)

    @property
    def lines_in_memory(self) -> int:
        """Lines that are nowhere else."""
        block = self._in_hand
        return self._queue.lines + self._moving + (block.lines if block and not block.on_disk else 0)

    @property
    def spooled_bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size_bytes if self._spool else 0

    async def open(self) -> None:
        """Find what an earlier run has left on disk. Raises ``SinkUnavailable`` where that cannot be opened."""
        self._stopping.clear()
        self.away = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"{self._name}-backlog")
        if not self._bounds.spool_dir:
            return
        spool = Spool(Path(self._bounds.spool_dir), self._bounds.spool_max_bytes)
        try:
            await self._do(spool.open)
        except OSError as error:
            self._threads.shutdown(wait=False)
            raise SinkUnavailable(f"{self._name}: the spool {self._bounds.spool_dir}: {error}") from None
        self._spool = spool
        if spool.lines:
            _log.info("%s: %d lines of an earlier run are on disk and go first", self._name, spool.lines)
        self._spilling = asyncio.create_task(self._spill_on(spool), name=f"headrace-{self._name}-spool")

    async def put(self, item: Item) -> None:
        """Hold an item behind all others. Waits for room, or makes some, as ``when_full`` says."""
        async with self._changed:
            while not self._fits(item):
                if self._may_drop:
                    if not self._queue:
                        break  # what is left is on its way
                    self._dropped(self._queue.drop_oldest(), "in memory")
                    continue
                if self._stopping.is_set():
                    raise SinkUnavailable(f"{self._name}: stopped")
                await self._changed.wait()
            self._queue.put(item)
            self._changed.notify_all()

    async def more(self) -> bool:
        """Wait until there is something to write; False when stopping and there is nothing."""
        async with self._changed:
            while not self._queue and not (self._spool and self._spool.lines):
                if self._stopping.is_set():
                    return False
                await self._changed.wait()
        await self._linger()
        return True

    async def next(self) -> Block | None:
        """The oldest block; None if there is none after all. It is in hand until it is ``done``. Raises ``OSError``."""
        async with self._order:
            if self._spool and self._spool.lines:
                damaged = self._spool.damaged_bytes
                entry = await self._do(self._spool.first)
                if self._spool.damaged_bytes > damaged:
                    lost = self._spool.damaged_bytes - damaged
                    _log.error("%s: %d bytes of the spool are torn or damaged and left out", self._name, lost)
                if entry is not None:
                    self._in_hand = Block(entry.text, entry.lines, len(entry.text), entry)
                    return self._in_hand
            items = self._queue.take(self._bounds.batch_lines)
            if not items:
                return None
            self._in_hand = Block(b"", sum(map(len, items)), sum(map(size_of, items)))
            try:
                self._in_hand.text = await self._do(partial(self._encode, items))
            except asyncio.CancelledError:
                self._queue.put_back(items)
                self._in_hand = None
                raise
            return self._in_hand

    async def keep(self, block: Block) -> None:
        """The server is away: bring the block in hand to safety, and all that is held behind it."""
        self.away = True
        if self._spool:
            async with self._order:
                await self._keep(self._spool, block)
        await self._notify()

    async def done(self) -> None:
        """The block in hand is written, or lost."""
        block, self._in_hand = self._in_hand, None
        if not self.away:
            self._told_drop = False
        if block and block.entry and self._spool:
            try:
                await self._do(partial(self._spool.done, block.entry))
            except OSError as error:  # it will be written again after the next start, which does no harm
                _log.error("%s: the spool %s: %s", self._name, self._bounds.spool_dir, error)
        await self._notify()

    @property
    def lines_in_hand(self) -> int:
        """Lines of the block that is being written."""
        return self._in_hand.lines if self._in_hand else 0

    @property
    def stopping(self) -> bool:
        """Whether ``end`` was called."""
        return self._stopping.is_set()

    async def pause(self, seconds: float) -> None:
        """Sleep; much shorter when stopping."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, 0.25))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def end(self) -> None:
        """Take no more, and let ``more`` come to an end."""
        self._stopping.set()
        await self._notify()

    async def close(self, within_s: float) -> None:
        """After ``end``: put on disk what is still in memory, and say what is left where."""
        task, self._spilling = self._spilling, None
        if task is not None and self._spool is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task, within_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._spill_rest(self._spool), within_s)
        if self.lines_in_memory:
            _log.warning("%s: stopped with %d lines not written", self._name, self.lines_in_memory)
        if self._spool is not None:
            if self._spool.lines:
                _log.info("%s: %d lines are on disk until the next start", self._name, self._spool.lines)
            with contextlib.suppress(OSError):
                await self._do(self._spool.close)
            self._spool = None
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # Room

    def _fits(self, item: Item) -> bool:
        lines = self.lines_in_memory
        size = self._queue.size_bytes + (self._in_hand.size_bytes if self._in_hand else 0)
        fits = lines + len(item) <= self._bounds.held_lines and size + size_of(item) <= self._bounds.held_bytes
        return fits or not lines  # a single item is taken whatever it is

    @property
    def _may_drop(self) -> bool:
        return self._bounds.when_full == "drop_oldest" or (self._bounds.when_full == "auto" and self.away)

    @property
    def _much_is_held(self) -> bool:
        lines, size = self._queue.lines, self._queue.size_bytes
        return lines > _SPILL_AT * self._bounds.held_lines or size > _SPILL_AT * self._bounds.held_bytes

    def _dropped(self, lines: int, where: str) -> None:
        self.dropped_lines += lines
        if not self._told_drop:
            self._told_drop = True
            _log.error(
                "%s: %d lines are held and there is no room for more: the oldest %s are dropped from now on",
                self._name, self.lines, where,
            )  # fmt: skip

    # To the disk

    async def _spill_on(self, spool: Spool) -> None:
        """While the server is away or slow: put what is in memory on disk."""
        while True:
            async with self._changed:
                while not self._queue or not (self.away or self._much_is_held):
                    if self._stopping.is_set():
                        return
                    await self._changed.wait()
            if not self._much_is_held:
                await self._linger()
            if self._stopping.is_set():
                return
            try:
                async with self._order:
                    kept = await self._keep_in_hand(spool) and await self._spill_one(spool)
            except Exception:  # a fault of ours: what was taken is lost, the next must not be
                _log.exception("%s: lines cannot be put on disk", self._name)
                kept = False
            await self._notify()
            if not kept:
                await self.pause(_DISK_RETRY_S)

    async def _spill_rest(self, spool: Spool) -> None:
        async with self._order:
            kept = await self._keep_in_hand(spool)
            while kept and self._queue:
                kept = await self._spill_one(spool)
            await self._sync(spool)

    async def _spill_one(self, spool: Spool) -> bool:
        """A block of the queue to the disk; False if there is no room, then it is in the queue as before."""
        items = self._queue.take(self._bounds.batch_lines)
        if not items:
            return True
        kept = False
        self._moving = sum(map(len, items))
        try:
            text = await self._do(partial(self._encode, items))
            kept = await self._put(spool, text, self._moving)
        except asyncio.CancelledError:
            self._queue.put_back(items)
            raise
        finally:
            self._moving = 0
        if not kept:
            self._queue.put_back(items)
        return kept

    async def _keep_in_hand(self, spool: Spool) -> bool:
        """The block in hand goes to the disk before anything that is newer; ``_order`` is held."""
        return self._in_hand is None or await self._keep(spool, self._in_hand)

    async def _keep(self, spool: Spool, block: Block) -> bool:
        """The block in hand to the disk, unless it is there: if not, it came from the queue, and the spool is empty."""
        if block.entry is None and await self._put(spool, block.text, block.lines):
            block.entry = await self._do(spool.first)
        return block.entry is not None

    async def _put(self, spool: Spool, text: bytes, lines: int) -> bool:
        """A block to the disk; whether there was room. Makes some where that is what ``when_full`` says."""
        try:
            while not await self._do(partial(spool.append, text, lines)):
                if not self._may_drop:
                    return False
                dropped = await self._do(spool.drop_oldest)
                block = self._in_hand
                if block and block.entry and block.on_disk and not spool.holds(block.entry):
                    block.gone = True
                    dropped -= block.lines
                self._dropped(dropped, "on disk")
        except OSError as error:
            if not self._told_disk:
                self._told_disk = True
                _log.error(
                    "%s: the spool %s: %s; %d lines are held", self._name, self._bounds.spool_dir, error, self.lines
                )
            return False
        self._told_disk = False
        if not self._queue or time.monotonic() - self._synced_at > _SYNC_S:
            await self._sync(spool)
        return True

    async def _sync(self, spool: Spool) -> None:
        self._synced_at = time.monotonic()
        try:
            await self._do(spool.sync)
        except OSError as error:
            _log.error("%s: the spool %s: %s", self._name, self._bounds.spool_dir, error)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _linger(self) -> None:
        """Let others join a block that is not full."""
        if self._queue.lines < self._bounds.batch_lines and self._bounds.linger_s:
            await self.pause(self._bounds.linger_s)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
