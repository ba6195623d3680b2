"""Snapshots of what the pipeline remembers, and acknowledgements that wait for them.

Every few seconds the blocks of assets that were touched are written to the changelog, then the record that says up to
which offset all of them have applied what was read; only then are the batches up to there acknowledged. So what a crash
makes us read again is what the state has not seen, or has seen and passes over: no window has a hole, and no reading
counts twice. A block is copied between two batches and written when the output of all before it is published, for what
a state has applied is never published again.

After an assignment a partition's state is read back before its first batch is let through.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from stream.assembly import block_key, meta_key
from stream.belt import Belt, Taken
from stream.changelog import Changelog
from stream.errors import BrokerError
from stream.pipeline import Pipeline
from stream.recovery import Recovery, RecoveryObserver
from stream.state import Served, encode
from stream.web import Health

_log = logging.getLogger(__name__)

#: Blocks copied and encoded in one go: readings wait for as long.
_AT_ONCE: Final = 4
#: Batches that may wait for a snapshot before no more are taken.
_MOST_HELD: Final = 20_000
#: In a hurry (a rebalance, a stop): how often to try again, and for how long before what is held is given up.
_AGAIN_S: Final = 0.2
_GIVE_UP_S: Final = 10.0
#: How often to see whether a batch is through.
_MOMENT_S: Final = 0.005


class Versions(Protocol):
    """Which versions of models are wanted, for snapshots to bring about; ``stream.swap.Swap`` follows it.

    wanted   (what serves, what is a candidate) by detector; each has been loaded
    """

    wanted: dict[str, tuple[str, str]]

    async def provide(self, served: dict[str, Served]) -> dict[str, Served]:
        """Load what a state was left with; what cannot be had any more is left out."""
        ...

    def switched(self, partition: int, detector: str, offset: int, served: Served) -> None:
        """These versions are at work in a partition from ``offset`` on, and that is recorded."""
        ...


class Observer(RecoveryObserver, Protocol):
    """What snapshots tell the metrics; ``stream.sinks.state_metrics.StateMetrics`` follows it."""

    def snapshot_written(self, seconds: float, size: int) -> None:
        """A partition's snapshot is complete; ``size`` in bytes."""
        ...

    def snapshot_failed(self) -> None:
        """A partition's snapshot could not be written."""
        ...

    def held(self, assets: int, size: int, held_back: int) -> None:
        """So many assets are remembered, in so many bytes of the changelog, and so many readings are held back."""
        ...

    def evicted(self, assets: int) -> None:
        """Silent assets were forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    """A batch whose output is safe, and whose acknowledgement waits; without its records."""

    last: int
    done: Callable[[], object]
    skip: Callable[[], object]


class Snapshots:
    """Stands between the agent and the belt; ``run`` is its task.

    prefix      what the keys of our records begin with (``assembly.prefix``)
    every_s     how often snapshots are written
    recovery_s  how long reading a partition's state back may take, while the broker answers
    highwater   the offset after the last record of a partition of readings, None if it is not known
    restored    called when what the pipeline remembers is another: read back, or gone with a partition
    versions    which models are to be at work, where some are in a store: a switch is part of a snapshot, so that
                whoever reads it back goes on with the same version from the same offset
    """

    def __init__(
        self,
        pipeline: Pipeline,
        belt: Belt,
        changelog: Changelog,
        *,
        prefix: bytes,
        every_s: float,
        recovery_s: float,
        highwater: Callable[[int], int | None],
        metrics: Observer,
        restored: Callable[[], Awaitable[object]],
        health: Health,
        versions: Versions | None = None,
    ) -> None:
        self._pipeline = pipeline
        self.versions = versions
        self._closed = False  # no batch is let through while versions are exchanged
        self._putting = 0
        self._unrecorded: set[int] = set()
        self._not_before: dict[int, int] = {}
        self._belt = belt
        self._changelog = changelog
        self._prefix = prefix
        self._every_s = every_s
        self._highwater = highwater
        self._metrics = metrics
        self._tell_restored = restored
        self._recovery = Recovery(
            pipeline,
            belt,
            changelog,
            prefix=prefix,
            deadline_s=recovery_s,
            metrics=metrics,
            restored=restored,
            health=health,
            provide=self._provided,
        )
        self._held: dict[int, deque[_Held]] = defaultdict(deque)
        self._assignment = 0
        self._known: set[int] = set()
        self._let_go_from: dict[int, int] = {}  # the first offset that was not taken since the last assignment
        self._hurried = asyncio.Event()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, taken: Taken) -> None:
        """Score and publish a batch; it is acknowledged after the next snapshot."""
        assignment, let_go = self._assignment, self._let_go_from.get(taken.partition)
        behind = let_go is not None and taken.first > let_go  # what comes after a hole would make it one for good
        ready = not behind and await self._is_ready(taken.partition, taken.first)
        # Faust passes over events while a rebalance begins, and may hand out those behind them before it ends.
        if not ready or taken.after > self._pipeline.applied(taken.partition) + 1:
            self._pass_over(taken, assignment)
            return
        self._let_go_from.pop(taken.partition, None)
        await self._room.wait()
        while self._closed:
            if self._hurried.is_set():
                self._pass_over(taken, assignment)
                return
            await asyncio.sleep(_MOMENT_S)
        if taken.partition not in self._known and not await self._is_ready(taken.partition, taken.first):
            self._pass_over(taken, assignment)  # its versions are not recorded: it is read back before it goes on
            return
        held = _Held(taken.last, taken.done, taken.skip)
        self._putting += 1
        try:
            await self._belt.put(taken.partition, taken.records, partial(self._published, taken.partition, held))
        finally:
            self._putting -= 1

    def _pass_over(self, taken: Taken, assignment: int) -> None:
        """Let go of a batch, which was handed out at ``assignment``, and of what comes behind it."""
        if assignment == self._assignment:
            self._let_go_from.setdefault(taken.partition, taken.first)
        taken.skip()

    def look(self) -> None:
        """Other versions may be wanted: see to it soon."""
        self._wake.set()

    async def assigned(self, partitions: set[int]) -> None:
        """These are ours from now on, and no others: begin to read back the states that we have not."""
        self._recovery.keep_only(partitions)
        self._let_go(*self._held)
        self._assignment += 1
        self._known.clear()
        self._let_go_from.clear()
        await self._belt.beside(self._pipeline.keep_only, partitions)
        for partition in sorted(partitions - self._pipeline.partitions - self._recovery.partitions):
            self._recovery.begin(partition)
        await self._tell_restored()

    def hurry(self, on: bool) -> None:
        """Faust waits for all that is in hand: write snapshots at once, whenever something is held."""
        if on:
            self._hurried.set()
        else:
            self._hurried.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write snapshots until cancelled."""
        due = time.monotonic() + self._every_s
        hurried_since: float | None = None
        while True:
            now = time.monotonic()
            hurried = self._hurried.is_set()
            if not hurried:
                await self._exchange()
            hurried_since = (hurried_since or now) if hurried else None
            if (not hurried and now < due) or (hurried and not any(self._held.values())):
                await self._sleep(max(due - now, 0) if not hurried else None)
                continue
            due = now + self._every_s
            complete = await self._round()
            if hurried_since is not None and not complete:
                if time.monotonic() - hurried_since > _GIVE_UP_S:
                    self._let_go(*self._held)
                else:
                    await asyncio.sleep(_AGAIN_S)

    async def stop(self) -> None:
        """End what is being read back."""
        await self._recovery.stop()

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _round(self) -> bool:
        """A snapshot of each partition; whether nothing is left that waits for one."""
        if not self._hurried.is_set():
            self._metrics.evicted(await self._belt.beside(self._pipeline.evict))
        complete = True
        for partition in sorted(self._known):
            try:
                if not await self._write(partition):
                    complete = False
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever it is, nothing is acknowledged, and the next round tries again
                self._metrics.snapshot_failed()
                _log.error("no snapshot of partition %d: %s: %s", partition, type(error).__name__, error)
                complete = False
        assets, held_back = await self._belt.beside(lambda: (self._pipeline.assets(), self._pipeline.held_back()))
        self._metrics.held(assets, sum(sum(held.values()) for held in self._recovery.sizes.values()), held_back)
        return complete

    async def _exchange(self) -> None:
        """Bring about the versions that are wanted, in each partition between two batches."""
        for partition in sorted(self._known):
            if self.versions is None or self._hurried.is_set():
                return
            wanted = await self._belt.beside(self._differing, partition)
            if wanted:
                try:
                    await self._switch(partition, wanted)
                finally:
                    self._closed = False

    def _differing(self, partition: int) -> dict[str, tuple[str, str]]:
        """What is wanted and is not so yet; nothing while it is too early for that."""
        served = self._pipeline.served(partition)
        assert self.versions is not None  # noqa: S101 (asked only where there are some)
        wanted = {
            detector: pair
            for detector, pair in self.versions.wanted.items()
            if detector not in served
            or not (
                served[detector].wanted == pair or (served[detector].succeeding and served[detector].heir == pair[0])
            )
        }
        early = self._pipeline.applied(partition) + 1 < self._not_before.get(partition, 0)
        return {} if early or self._pipeline.touched(partition) is None else wanted

    async def _switch(self, partition: int, wanted: dict[str, tuple[str, str]]) -> None:
        """Exchange versions in a partition: no batch is let through before that is recorded."""
        self._closed = True
        while self._putting:
            if self._hurried.is_set():
                return
            await asyncio.sleep(_MOMENT_S)
        assignment = self._assignment
        if partition not in self._known:
            return
        for detector, pair in wanted.items():
            await self._belt.beside(self._pipeline.switch, partition, detector, *pair)
        while not await self._recorded(partition):
            if self._hurried.is_set() or assignment != self._assignment:
                # It may or may not be written: what is written decides.
                self._known.discard(partition)
                self._unrecorded.add(partition)
                self._let_go(partition)
                return
            await asyncio.sleep(_AGAIN_S)
        await self._tell_switched(partition, wanted)

    async def _recorded(self, partition: int) -> bool:
        assignment = self._assignment
        try:
            return await self._write(partition, always=True) and assignment == self._assignment
        except BrokerError as error:
            self._metrics.snapshot_failed()
            _log.error("partition %d: the exchange of a model is not recorded yet: %s", partition, error)
            return False

    async def _tell_switched(self, partition: int, detectors: Iterable[str]) -> None:
        assert self.versions is not None  # noqa: S101 (asked only where there are some)
        offset = self._pipeline.applied(partition) + 1
        served = await self._belt.beside(self._pipeline.served, partition)
        for detector in detectors:
            self.versions.switched(partition, detector, offset, served[detector])

    async def _begin_with(self, partition: int) -> None:
        """A partition that has recorded no version of a detector begins with the one that is wanted."""
        assert self.versions is not None  # noqa: S101 (asked only where there are some)
        served = await self._belt.beside(self._pipeline.served, partition)
        absent = {name: pair for name, pair in self.versions.wanted.items() if name not in served}
        for detector, pair in absent.items():
            await self._belt.beside(self._pipeline.switch, partition, detector, *pair)
        if absent:
            while not await self._recorded(partition):
                if self._hurried.is_set():
                    return
                if await self._belt.beside(self._pipeline.touched, partition) is None:
                    break  # blocks of a release before are ahead of each other: the next snapshot has it
                await asyncio.sleep(_AGAIN_S)
            await self._tell_switched(partition, absent)

    async def _write(self, partition: int, *, always: bool = False) -> bool:
        """Write a partition's snapshot and acknowledge what it holds; False if none can be taken now.

        always   also where nothing has changed
        """
        started = time.monotonic()
        state = await self._belt.beside(self._pipeline.touched, partition)
        held = self._held.get(partition)
        if state is None:  # some blocks are ahead of others until more is read
            if self._hurried.is_set():
                self._let_go(partition)  # nothing more will be read
            return not held
        applied, numbers = state
        if not held and not numbers and not always:
            return True
        assignment, written = self._assignment, 0
        for start in range(0, len(numbers), _AT_ONCE):
            if assignment != self._assignment:
                return True  # what was taken meanwhile may not be what this snapshot began with
            written += await self._write_blocks(partition, numbers[start : start + _AT_ONCE])
        await self._belt.settled()
        meta = await self._belt.beside(self._pipeline.meta, partition, applied)
        if meta is None or assignment != self._assignment:
            return True
        value = encode(meta)
        await self._changelog.write(partition, [(meta_key(self._prefix), value)])
        self._release(partition, applied)
        if unwanted := self._recovery.unwanted.pop(partition, None):
            wanted = {block_key(self._prefix, meta.size, n) for n, at in enumerate(meta.blocks) if at >= 0}
            gone = sorted(unwanted - wanted - {meta_key(self._prefix)})
            await self._changelog.write(partition, [(key, None) for key in gone])
        self._metrics.snapshot_written(time.monotonic() - started, written + len(value))
        return True

    async def _write_blocks(self, partition: int, numbers: Sequence[int]) -> int:
        """Copy, encode and write blocks; how many bytes they are."""
        try:
            records = await self._belt.beside(self._encoded, partition, numbers)
            await self._belt.settled()  # their output is safe before they are
            await self._changelog.write(partition, [(key, value) for key, value, _ in records])
        except BaseException:
            await self._belt.beside(self._pipeline.touch, partition, numbers)
            raise
        self._recovery.sizes.setdefault(partition, {}).update((number, len(value)) for _, value, number in records)
        return sum(len(value) for _, value, _ in records)

    def _encoded(self, partition: int, numbers: Sequence[int]) -> list[tuple[bytes, bytes, int]]:
        return [
            (block_key(self._prefix, block.size, block.number), encode(block), block.number)
            for block in self._pipeline.take(partition, numbers)
        ]

    def _published(self, partition: int, held: _Held) -> None:
        self._held[partition].append(held)
        if sum(map(len, self._held.values())) >= _MOST_HELD:
            self._room.clear()
        reached = partition in self._not_before and held.last + 1 >= self._not_before[partition]
        if reached:
            del self._not_before[partition]
        if reached or self._hurried.is_set():
            self._wake.set()

    def _release(self, partition: int, applied: int) -> None:
        """Acknowledge the batches up to an offset."""
        waiting = self._held[partition]
        while waiting and waiting[0].last <= applied:
            waiting.popleft().done()
        self._room.set()

    def _let_go(self, *partitions: int) -> None:
        """Give up the acknowledgements that wait: these batches will be read again, and passed over."""
        for partition in partitions:
            waiting = self._held[partition]
            while waiting:
                waiting.popleft().skip()
        self._room.set()

    async def _is_ready(self, partition: int, first: int) -> bool:
        """Wait for a partition's state; False if Faust is in a hurry before it is there."""
        if partition in self._known:
            return True
        known = partition in self._pipeline.partitions
        unsure = partition in self._unrecorded
        if partition not in self._recovery.partitions and (
            not known or unsure or first > self._pipeline.applied(partition) + 1
        ):
            self._unrecorded.discard(partition)
            # Ours was behind what is committed: others have gone on with this partition while we were away.
            self._recovery.begin(partition)
        if not await self._recovery.ended(partition, self._hurried):
            return False
        await self._check_place(partition, first)
        if self.versions is not None:
            # what was read by whoever had it before, and is not in the state, it has judged by the versions of then
            end = self._highwater(partition)
            self._not_before[partition] = end or 0
            await self._begin_with(partition)
        self._known.add(partition)
        return True

    async def _provided(self, served: dict[str, Served]) -> dict[str, Served]:
        return served if self.versions is None else await self.versions.provide(served)

    async def _check_place(self, partition: int, first: int) -> None:
        """The state must be of this topic, not of one of the same name that was deleted."""
        applied, end = self._pipeline.applied(partition), self._highwater(partition)
        if end is not None and applied >= end:
            _log.error(
                "partition %d: its state is of offset %d, but the topic ends at %d, so it is another: begun anew",
                partition,
                applied,
                end,
            )
            await self._recovery.begin_anew(partition, "topic_made_anew")
        elif first > applied + 1 and applied >= 0:
            _log.warning(
                "partition %d: offsets %d to %d were never part of its state", partition, applied + 1, first - 1
            )
