"""Clocks that run ahead: readings from the future are quarantined, so that they move nobody's time.

One reading an hour ahead would make all that its asset sends for an hour late. So where a plan says ``input.ahead_s``,
a reading that jumps ahead needs a witness. It is taken if it is at most so far ahead of

- the newest time that its own asset has shown, for then it is no jump, or
- the newest time of ``witnesses`` other assets of its partition: they have come as far.

Else it is quarantined: a dead letter, ``future``. It still bears witness for others, so that a partition that was still
for a night goes on as soon as enough assets have spoken; with a reading that is taken again an asset withdraws what it
claimed. And where nobody else speaks, there is nobody to contradict: an asset that keeps to its new time for
``ahead_s`` by its own clock, with no reading of anyone taken meanwhile, is believed. In a partition of no more than
twice as many assets as ``witnesses`` nobody is judged: there the rest is no majority. Nothing here knows the time of
day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.records import Bool, Int32, Int64
from stream.window import NEVER

#: Readings of others that are taken while an asset is in quarantine, until it is forgotten if it is new.
_LONG: Final = 100_000


@dataclass(slots=True)
class Skew:
    """What is remembered of a partition.

    taken    readings that were taken since the partition's beginning
    claimed  by asset in quarantine: the first and the newest time that it has claimed there, and what ``taken`` was
             when it went there
    """

    ahead_ms: int
    witnesses: int
    taken: int = 0
    claimed: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    _confirmed_ms: int | None = None  # nobody is judged up to here, so long as no asset comes or goes

    def changed(self) -> None:
        """The partition's assets are others than before."""
        self._confirmed_ms = None

    def forget(self, asset: int) -> None:
        """End with an asset: its index goes to another."""
        self.claimed.pop(asset, None)
        self.changed()

    def never_taken(self, newest_ms: Int64) -> list[int]:
        """Assets of which nothing was ever taken, though they have long been in quarantine: made up, it seems."""
        return [
            asset
            for asset, (_, _, taken) in self.claimed.items()
            if newest_ms[asset] == NEVER and self.taken - taken > _LONG
        ]

    def future(self, assets: Int32, at_ms: Int64, newest_ms: Int64) -> Bool | None:
        """Which of a batch's readings are from the future, (row,); None: none of them.

        assets, at_ms  (row,) as they came
        newest_ms      (asset,) the newest time that each has shown; ``NEVER`` where there is none
        """
        count = len(at_ms)
        if not count:
            return None
        if self._confirmed_ms is not None and not self.claimed and int(at_ms.max()) <= self._confirmed_ms:
            self.taken += count
            return None
        newest, seen = newest_ms.copy(), newest_ms.copy()
        for asset, (_, highest, _) in self.claimed.items():
            seen[asset] = max(int(seen[asset]), highest)
        refused = np.zeros(count, dtype=bool)
        start = 0
        while True:
            row = self._next(assets, at_ms, newest, seen, start)
            # what lies between is beyond doubt
            np.maximum.at(newest, assets[start:row], at_ms[start:row])
            np.maximum.at(seen, assets[start:row], at_ms[start:row])
            self.taken += row - start
            if row == count:
                break
            asset, at = int(assets[row]), int(at_ms[row])
            if self._believed(asset, at, newest, seen):
                newest[asset] = max(int(newest[asset]), at)
                seen[asset] = newest[asset]
                self.claimed.pop(asset, None)
                self.taken += 1
            else:
                refused[row] = True
                first, highest, taken = self.claimed.get(asset, (at, at, self.taken))
                self.claimed[asset] = first, max(highest, at), taken
                seen[asset] = max(int(seen[asset]), at)
            start = row + 1
        self._confirmed_ms = self._confirmed(seen)
        return refused if refused.any() else None

    def _next(self, assets: Int32, at_ms: Int64, newest: Int64, seen: Int64, start: int) -> int:
        """The first row from ``start`` on that must be looked at; the number of rows if there is none."""
        mine, times = assets[start:], at_ms[start:]
        confirmed = self._confirmed(seen)
        if confirmed is None:  # too few assets: until another appears
            doubtful = seen[mine] == NEVER
        else:
            doubtful = (times > confirmed) & (times > newest[mine] + self.ahead_ms)
        if self.claimed:
            doubtful |= np.isin(mine, list(self.claimed))
        return start + int(doubtful.argmax()) if doubtful.any() else len(assets)

    def _confirmed(self, seen: Int64) -> int | None:
        """Up to which time enough assets bear witness; None where there are too few to judge."""
        if np.count_nonzero(seen != NEVER) <= 2 * self.witnesses:
            return None
        place = len(seen) - 1 - self.witnesses
        return int(np.partition(seen, place)[place]) + self.ahead_ms

    def _believed(self, asset: int, at_ms: int, newest: Int64, seen: Int64) -> bool:
        present = np.count_nonzero(seen != NEVER) + int(seen[asset] == NEVER)
        if present <= 2 * self.witnesses or at_ms <= newest[asset] + self.ahead_ms:
            return True
        there = seen >= at_ms - self.ahead_ms
        if np.count_nonzero(there) - int(there[asset]) >= self.witnesses:
            return True
        first, _, taken = self.claimed.get(asset, (at_ms, at_ms, -1))
        return taken == self.taken and at_ms - first > self.ahead_ms
