"""What the sinks that tell people have in common: couriers, the book of incidents, and figures for the metrics."""

from __future__ import annotations

from typing import Generic, TypeVar

import aiohttp

from stream.incidentbook import IncidentBook
from stream.sinks.courier import Couriers

T = TypeVar("T")


class TellingSink(Generic[T]):
    """A sink whose output couriers bring. What comes of it sets ``_couriers`` and, in ``start``, ``_session``.

    Of the figures, which are for the metrics, a line is what a courier brings at once: an alert, or a POST.
    """

    name: str
    essential = False
    _couriers: Couriers[T]

    def __init__(self, incidents: IncidentBook | None) -> None:
        self._incidents = incidents or IncidentBook({})
        self._session: aiohttp.ClientSession | None = None

    @property
    def held_lines(self) -> int:
        """What waits, all addresses together."""
        return self._couriers.held_lines

    @property
    def spooled_bytes(self) -> int:
        """Bytes of it on disk."""
        return self._couriers.spooled_bytes

    @property
    def written_lines(self) -> int:
        """What was taken."""
        return self._couriers.figures().written

    @property
    def refused_lines(self) -> int:
        """What was refused for good."""
        return self._couriers.figures().refused

    @property
    def dropped_lines(self) -> int:
        """What there was no room for."""
        return self._couriers.figures().dropped

    @property
    def failed_writes(self) -> int:
        """Attempts in vain."""
        return self._couriers.figures().failed

    async def stop(self) -> None:
        """Tell what waits, within the seconds that the couriers have for it."""
        await self._couriers.stop()
        if self._session is not None:
            await self._session.close()
