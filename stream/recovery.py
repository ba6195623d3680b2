"""Reading a partition's state back from the changelog, within a deadline and with progress that can be watched."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from stream.assembly import Assembly, Image
from stream.belt import Belt
from stream.changelog import Changelog
from stream.errors import BrokerError
from stream.partition import Restored
from stream.pipeline import Pipeline
from stream.state import Served
from stream.web import Health

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_RECONNECT_S: Final = 1.0


class RecoveryObserver(Protocol):
    """What is told of recoveries."""

    def recovering(self, partitions: int) -> None:
        """The states of so many partitions are being read back."""
        ...

    def recovered(self, seconds: float) -> None:
        """A partition's state was read back, or is begun anew."""
        ...

    def begun_anew(self, reason: str, count: int = 1) -> None:
        """So many memories (of an asset, of a block, of a partition: the reason says) are begun anew."""
        ...


class Recovery:
    """Brings partitions' states back into the pipeline.

    prefix      what the keys of our records begin with (``assembly.prefix``)
    deadline_s  how long reading a partition's state back may take, while the broker answers
    restored    called when what the pipeline remembers is another
    provide     loads the versions of models that a state was left with, and leaves out what cannot be had any more

    unwanted    keys of the changelog that were found of a partition; the next snapshot says which are gone
    sizes       bytes of each block of a partition, by its number
    """

    def __init__(
        self,
        pipeline: Pipeline,
        belt: Belt,
        changelog: Changelog,
        *,
        prefix: bytes,
        deadline_s: float,
        metrics: RecoveryObserver,
        restored: Callable[[], Awaitable[object]],
        health: Health,
        provide: Callable[[dict[str, Served]], Awaitable[dict[str, Served]]],
    ) -> None:
        self._pipeline = pipeline
        self._belt = belt
        self._changelog = changelog
        self._prefix = prefix
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._tell_restored = restored
        self._health = health
        self._provide = provide
        self.sizes: dict[int, dict[int, int]] = {}
        self.unwanted: dict[int, set[bytes]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def partitions(self) -> set[int]:
        """Those that are being read back."""
        return set(self._tasks)

    def keep_only(self, partitions: set[int]) -> None:
        """End what is being read back of others."""
        for partition in self._tasks.keys() - partitions:
            self._tasks.pop(partition).cancel()
        for partition in self.sizes.keys() - partitions:
            del self.sizes[partition]

    async def stop(self) -> None:
        """End what is being read back."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, partition: int) -> None:
        """Begin to read a partition's state back."""
        task = asyncio.create_task(self._recovery(partition))
        self._tasks[partition] = task
        task.add_done_callback(lambda _: self._recovered(partition, task))
        self._health.recovering[partition] = "its state is being read back"
        self._metrics.recovering(len(self._health.recovering))

    async def ended(self, partition: int, hurried: asyncio.Event) -> bool:
        """Wait until a partition is read back; False if that was given up, or ``hurried`` comes first."""
        task = self._tasks.get(partition)
        if task is None:
            return True
        hurry = asyncio.create_task(hurried.wait())
        await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done() or task.cancelled():
            return False
        task.result()
        return True

    async def begin_anew(self, partition: int, reason: str) -> None:
        """Let a partition's memories go: what was read back is not its state."""
        await self._restore(partition, _anew(Image()), reason)

    def _recovered(self, partition: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(partition) in {task, None}:
            self._tasks.pop(partition, None)
            self._health.recovering.pop(partition, None)
            self._metrics.recovering(len(self._health.recovering))

    async def _recovery(self, partition: int) -> None:
        """Read a partition's state back, within the time that there is for it."""
        started = time.monotonic()
        assembly = Assembly(self._prefix)
        reading = asyncio.create_task(self._read(partition, assembly))
        spent_s = 0.0
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=_TICK_S)
                spent_s += _TICK_S * self._health.connected
                if spent_s > self._deadline_s:
                    break
            if reading.done():
                image, reason = reading.result(), ""
                if image.problems and not image.blocks and image.applied < 0:
                    image = _anew(image)
            else:
                _log.error("partition %d: its state was not read within %g s", partition, self._deadline_s)
                image, reason = _anew(Image()), "deadline"
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await self._restore(partition, image, reason)
        self._metrics.recovered(time.monotonic() - started)
        self._health.progressed()

    async def _read(self, partition: int, assembly: Assembly) -> Image:
        def progress(done: int, of: int) -> None:
            self._health.recovering[partition] = f"{done} of {of} records of its state are read"
            self._health.progressed()

        while True:
            assembly.clear()
            try:
                async for chunk in self._changelog.read(partition, progress):
                    await self._belt.beside(assembly.add, chunk)
                break
            except BrokerError as error:
                _log.warning("partition %d: its state cannot be read yet: %s", partition, error)
                await asyncio.sleep(_RECONNECT_S)
        image: Image = await self._belt.beside(assembly.image)
        return image

    async def _restore(self, partition: int, image: Image, reason: str) -> None:
        for kind, detail in image.problems[:20]:
            _log.error("partition %d: %s state: %s", partition, kind, detail)
            self._metrics.begun_anew(kind)
        had, image.served = image.served, await self._provide(image.served)
        for detector in had.keys() - image.served.keys():
            self._metrics.begun_anew("version_gone")
            _log.error("partition %d: %s served %s, which is gone", partition, detector, had[detector].version)
        restored: Restored = await self._belt.beside(self._pipeline.restore, partition, image)
        if reason:
            self._metrics.begun_anew(reason)
        for why, assets in restored.anew.items():
            _log.warning("partition %d: %d memories are begun anew: %s", partition, assets, why)
            self._metrics.begun_anew("changed_plan", assets)
        self.unwanted[partition] = image.keys
        self.sizes[partition] = dict(image.sizes)
        await self._tell_restored()
        _log.info(
            "partition %d goes on from offset %d with %d assets and %d open alerts",
            partition,
            image.applied + 1,
            restored.assets,
            restored.open_alerts,
        )


def _anew(found: Image) -> Image:
    """An empty state that is newer than what was found, and than what may not have been."""
    return Image(epoch=max(found.epoch + 1, int(time.time()) // 60), keys=found.keys, problems=found.problems)
