"""Values that come one by one, gathered: those of an asset with the same time are one reading.

A worker takes the second reading of an asset with the same time for a repetition, so what belongs together must go
together. A reading is complete when it has every signal that its asset has shown; one that lacks some goes after a
wait. So does an asset's first: what it has is not known before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from stream.bridge.reading import PlantReading, Quality, Ticket

_MOST_ASSETS: Final = 200_000
_MOST_SIGNALS: Final = 100_000


@dataclass(slots=True)
class Group:
    """A reading that grows, and what its values came in."""

    reading: PlantReading
    since: float
    tickets: dict[int, Ticket] = field(default_factory=dict)


@dataclass(slots=True)
class _Asset:
    """What is known of an asset.

    signals  that it has shown
    learnt   whether these are all, as far as can be known: its first reading has waited for them
    waiting  readings, by their times
    gone_ms  time of the newest that has gone
    """

    signals: set[str] = field(default_factory=set)
    learnt: bool = False
    waiting: dict[int, Group] = field(default_factory=dict)
    gone_ms: int = -(1 << 62)


class WorkingClock:
    """Seconds, without those spent waiting for Kafka: what a reading lacks may be in line behind that wait."""

    def __init__(self) -> None:
        self._waited_s = 0.0

    def __call__(self) -> float:
        """Seconds of work so far, from an arbitrary zero."""
        return time.monotonic() - self._waited_s

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not go on within."""
        since = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - since


class Gatherer:
    """Gathers values of many assets.

    wait_s   so long a reading waits for the signals that it lacks
    signals  of each asset, where they are known beforehand
    """

    def __init__(
        self, wait_s: float, signals: dict[str, set[str]] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wait_s = wait_s
        self._clock = clock
        self._assets = {asset: _Asset(set(known), learnt=True) for asset, known in (signals or {}).items()}
        self._with_some: dict[str, None] = {}
        self.split = 0

    def add(
        self, asset: str, signal: str, at_ms: int, value: float | None, quality: Quality, ticket: Ticket | None = None
    ) -> list[Group]:
        """Take a value; what is complete by it, in the order of time."""
        held = self._assets.get(asset)
        if held is None:
            if len(self._assets) >= _MOST_ASSETS:  # names come from outside
                self._forget_idle()
            held = self._assets[asset] = _Asset()
        if len(held.signals) < _MOST_SIGNALS:
            held.signals.add(signal)
        group = held.waiting.get(at_ms)
        if group is None:
            self.split += at_ms == held.gone_ms  # the rest of it has gone: the worker will take it for a repetition
            group = held.waiting[at_ms] = Group(PlantReading(asset, at_ms, {}), self._clock())
            self._with_some[asset] = None
        group.reading.put(signal, value, quality)
        if ticket is not None and id(ticket) not in group.tickets:
            ticket.hold()
            group.tickets[id(ticket)] = ticket
        if not held.learnt or len(group.reading.values) < len(held.signals):
            return []
        return list(self._release(asset, held, at_ms))

    def waits(self, asset: str, at_ms: int) -> bool:
        """Whether a reading of this time still waits for signals."""
        held = self._assets.get(asset)
        return held is not None and at_ms in held.waiting

    def due(self) -> list[Group]:
        """What has waited long enough."""
        before = self._clock() - self._wait_s
        ready: list[Group] = []
        for asset in list(self._with_some):
            held = self._assets[asset]
            late = [at_ms for at_ms, group in held.waiting.items() if group.since <= before]
            if late:
                held.learnt = True
                ready += self._release(asset, held, max(late))
        return ready

    def forget(self) -> None:
        """Drop what waits: it will be read again, whole."""
        for asset in self._with_some:
            self._assets[asset].waiting.clear()
        self._with_some.clear()

    def drain(self) -> list[Group]:
        """All that waits."""
        ready: list[Group] = []
        for asset in list(self._with_some):
            held = self._assets[asset]
            ready += self._release(asset, held, max(held.waiting))
        return ready

    def _release(self, asset: str, held: _Asset, until_ms: int) -> Iterator[Group]:
        """An asset's readings up to a time: none overtakes an older one."""
        for at_ms in sorted(at_ms for at_ms in held.waiting if at_ms <= until_ms):
            yield held.waiting.pop(at_ms)
            held.gone_ms = at_ms
        if not held.waiting:
            self._with_some.pop(asset, None)

    def _forget_idle(self) -> None:
        for asset in [asset for asset in self._assets if asset not in self._with_some]:
            del self._assets[asset]
