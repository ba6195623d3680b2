"""What a bridge gives on: a reading with the quality of each value, and when the message it came in is done with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from stream.sources.json import encode

Quality = Literal["good", "uncertain", "bad"]
QUALITIES: Final[tuple[Quality, ...]] = ("good", "uncertain", "bad")


@dataclass(slots=True)
class PlantReading:
    """One reading of an asset, in the plant's units.

    values   None where a value is null, not finite or stale
    quality  of the values that are not good
    """

    asset: str
    at_ms: int
    values: dict[str, float | None]
    quality: dict[str, Quality] = field(default_factory=dict)

    def put(self, signal: str, value: float | None, quality: Quality = "good") -> None:
        """Add a value; of two for one signal the later counts."""
        self.values[signal] = value
        if quality == "good":
            self.quality.pop(signal, None)
        else:
            self.quality[signal] = quality

    def encoded(self) -> bytes:
        """As on the readings topic."""
        return encode(self.asset, self.at_ms, self.values, self.quality)


class Ticket:
    """What a bridge has taken from its plant. It is settled when all that was made of it is in Kafka.

    settled  called then, once
    """

    __slots__ = ("_parts", "_settled")

    def __init__(self, settled: Callable[[], None]) -> None:
        self._parts = 1
        self._settled = settled

    def hold(self) -> None:
        """Something more was made of it."""
        self._parts += 1

    def release(self) -> None:
        """Part of it is in Kafka, or (the first) all of it has been given on."""
        self._parts -= 1
        if not self._parts:
            self._settled()


class Outlet(Protocol):
    """Where a bridge's output goes: Kafka, or the console for a sample."""

    async def reading(self, reading: PlantReading, tickets: tuple[Ticket, ...] = ()) -> None:
        """Take a reading; waits while there is no room. It releases the tickets when the reading is safe."""
        ...

    async def refuse(self, origin: str, value: bytes | None, reason: str, detail: str, ticket: Ticket | None) -> None:
        """Take something that cannot become readings: a dead letter."""
        ...

    async def remember(self, key: str, value: bytes) -> None:
        """Keep something for the next start, after all that was given before it."""
        ...

    async def flushed(self) -> None:
        """Return when all that was given is safe."""
        ...
