"""Other versions of models while the worker runs: orders are heard, versions loaded and tried beside the work.

An order names what is to serve and what is a candidate. Loading, with all its checks, is done in a thread; only what
has passed them is wanted, and ``Snapshots`` brings it about, partition by partition, between two batches. What does not
pass is refused with a reason, in the log, the metrics and a report on the topic, and what serves goes on serving.

Of the store's newest decision and the topic's newest order the later counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from models.errors import InvalidArtifact, ModelError
from stream.changelog import Changelog
from stream.control import Control
from stream.errors import BrokerError
from stream.orders import Comparison, Message
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.records import to_json
from stream.shelf import Shelf
from stream.state import Served

_log = logging.getLogger(__name__)

#: How often comparisons are published.
COMPARE_S: Final = 5.0


class Observer(Protocol):
    """What is told to the metrics; ``stream.sinks.model_metrics.ModelMetrics`` follows it."""

    def switched(self, detector: str, kind: str, version: str) -> None:
        """Another version is at work in a partition."""
        ...

    def refused(self, detector: str, reason: str) -> None:
        """A version was not taken: ``invalid``, ``signals`` or ``absent``."""
        ...

    def compared(self, detector: str, comparisons: Sequence[Comparison]) -> None:
        """How the candidate of a detector compares in each partition; nothing: it has none any more."""
        ...


class Swap:
    """Hears orders, and keeps ``wanted``; ``run`` is its task.

    changed   called when ``wanted`` is another
    beside    runs something in the pipeline's thread
    """

    def __init__(
        self,
        plan: Plan,
        shelf: Shelf,
        pipeline: Pipeline,
        reports: Changelog,
        *,
        metrics: Observer,
        beside: Callable[..., Awaitable[Any]],
        changed: Callable[[], object],
        worker: str,
    ) -> None:
        self._plan = plan
        self._shelf = shelf
        self._pipeline = pipeline
        self._reports = reports
        self._metrics = metrics
        self._beside = beside
        self._changed = changed
        self._worker = worker
        self._orders: dict[str, Message] = {}
        self._refused: dict[str, tuple[str, str]] = {}
        self._due = asyncio.Event()
        self._said: dict[str, bytes] = {}
        self._provided: set[tuple[str, str]] = set()
        self._outbox: list[Message] = []
        self.wanted: dict[str, tuple[str, str]] = {
            name: (held.version, "") for name, held in shelf.serving() if plan.detectors[name].is_stored
        }
        self._due.set()  # the store may have a candidate

    async def hear(self, control: Control[Message]) -> None:
        """Take an order; reports, ours and others', are passed over."""
        order = control.value
        if order is None or not order.is_order or order.detector not in self.wanted:
            return
        held = self._orders.get(order.detector)
        if held is None or held.at <= order.at:
            self._orders[order.detector] = order
            self._refused.pop(order.detector, None)
            self._due.set()

    def look(self) -> None:
        """The store may say something new: see to it soon."""
        self._due.set()

    def serves_as(self, detector: str) -> str:
        """The kind of what is to serve as a detector whose model is in the store."""
        return self._kind(detector, self.wanted[detector][0])

    async def settle(self) -> None:
        """Load what is asked for now: before the first batch."""
        self._due.clear()
        for detector in list(self.wanted):
            await self._see_to(detector)

    async def run(self) -> None:
        """Load what is asked for, and publish how candidates compare, until cancelled."""
        due = time.monotonic() + COMPARE_S
        while True:
            try:
                async with asyncio.timeout(max(due - time.monotonic(), 0.01)):
                    await self._due.wait()
            except TimeoutError:
                due = time.monotonic() + COMPARE_S
                await self._compare()
            else:
                await self.settle()
            await self._publish()

    async def provide(self, served: dict[str, Served]) -> dict[str, Served]:
        """Load what a state was left with; what cannot be had any more is left out."""
        found = {}
        for detector, held in served.items():
            if detector not in self.wanted:
                continue
            try:
                for version in (held.version, held.heir):
                    if version:
                        await asyncio.to_thread(self._shelf.fetch, detector, version)
                        self._provided.add((detector, version))
            except ModelError as error:
                _log.error("%s: %s", detector, error)
            else:
                found[detector] = held
        return found

    def switched(self, partition: int, detector: str, offset: int, served: Served) -> None:
        """Tell of versions that are at work in a partition."""
        serving, candidate = served.wanted
        _log.info("partition %d: %s serves %s from offset %d on", partition, detector, serving, offset)
        self._metrics.switched(detector, self._kind(detector, serving), serving)
        self._say(
            Message(
                action="switched",
                detector=detector,
                serving=serving,
                candidate=candidate,
                worker=self._worker,
                partition=partition,
                offset=offset,
            )
        )

    def _kind(self, detector: str, version: str) -> str:
        held = self._shelf.version(detector, version)
        return self._plan.detectors[detector].kind if held is None else held.manifest.detector

    async def _see_to(self, detector: str) -> None:
        """Load what is asked for, if that is not what is wanted already."""
        serving, candidate = await asyncio.to_thread(self._asked, detector)
        loaded = [self.wanted[detector][0], ""]
        for place, version in enumerate((serving, candidate)):
            if not version:
                continue
            try:
                held = await asyncio.to_thread(self._shelf.fetch, detector, version)
                self._check_signals(detector, held.signals)
            except ModelError as error:
                self._refuse(detector, serving, candidate, error)
                if place == 0:
                    return
            else:
                loaded[place] = version
        if (pair := (loaded[0], loaded[1])) != self.wanted[detector]:
            self.wanted[detector] = pair
            self._changed()

    def _asked(self, detector: str) -> tuple[str, str]:
        """(what is to serve, the candidate): the later of the store's decision and the order. In a thread."""
        order, assumed = self._orders.get(detector), self.wanted[detector]
        try:
            assert self._shelf.store is not None  # noqa: S101 (a detector is stored)
            decision = self._shelf.store.now(self._plan.stored(detector))
        except ModelError as error:
            _log.error("%s: %s", detector, error)
            return (order.serving or assumed[0], order.candidate) if order is not None else assumed
        if order is None or order.action == "reload" or decision.at >= order.at:
            return decision.serving or assumed[0], decision.candidate
        return order.serving or assumed[0], order.candidate

    def _check_signals(self, detector: str, signals: Sequence[str]) -> None:
        serving = self._shelf.find(detector, "")
        if serving is not None and set(serving.signals) != set(signals):
            raise WrongSignals(
                f"{detector}: trained on {', '.join(signals)}, and what serves on {', '.join(serving.signals)}: "
                f"other signals take a restart"
            )

    def _refuse(self, detector: str, serving: str, candidate: str, error: ModelError) -> None:
        if self._refused.get(detector) == (serving, candidate):
            return  # it was said
        self._refused[detector] = serving, candidate
        reason = (
            "signals" if isinstance(error, WrongSignals)
            else "invalid" if isinstance(error, InvalidArtifact)
            else "absent"
        )  # fmt: skip
        _log.error("refused, and %s goes on serving: %s", self.wanted[detector][0], error)
        self._metrics.refused(detector, reason)
        self._say(
            Message(
                action="refused",
                detector=detector,
                serving=serving,
                candidate=candidate,
                why=str(error)[:2000],
                worker=self._worker,
            )
        )

    async def _compare(self) -> None:
        found: dict[str, list[Comparison]] = {detector: [] for detector in self.wanted}
        for partition, detector, serving, candidate, held in await self._beside(self._pipeline.compared):
            comparison = Comparison(
                readings=held.readings,
                over_serving=held.over_serving,
                over_candidate=held.over_candidate,
                over_both=held.over_both,
                begun_serving=held.begun_serving,
                begun_candidate=held.begun_candidate,
                correlation=held.correlation,
                lasted_s=held.lasted_ms / 1000,
                cost=held.cost,
            )
            found[detector].append(comparison)
            message = Message(
                action="compared",
                detector=detector,
                serving=serving,
                candidate=candidate,
                worker=self._worker,
                partition=partition,
                comparison=comparison,
            )
            if held.readings:
                self._say(message)
        for detector, comparisons in found.items():
            self._metrics.compared(detector, comparisons)
        at_work = await self._beside(self._pipeline.versions_at_work)
        at_work |= self._provided  # restored in a moment
        at_work |= {(detector, version) for detector, pair in self.wanted.items() for version in pair if version}
        self._shelf.forget(at_work)

    def _say(self, message: Message) -> None:
        self._outbox.append(message)
        self._due.set()

    async def _publish(self) -> None:
        """Write reports; what cannot be written now is left out: it is said anew, or is in the log."""
        outbox, self._outbox = self._outbox, []
        records = [(message.key().encode(), to_json(message)) for message in outbox]
        records = [(key, value) for key, value in records if self._said.get(key.decode()) != value]
        if not records:
            return
        try:
            await self._reports.write(0, records)
        except BrokerError as error:
            _log.warning("%s: no report: %s", self._plan.topics.models, error)
        else:
            self._said.update((key.decode(), value) for key, value in records)


class WrongSignals(InvalidArtifact):
    """A version looks at other signals than what serves: readings are decoded for those from the start on."""
