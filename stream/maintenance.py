"""Maintenance windows: those of the plan, and those that operators begin and stop.

While one holds nobody is called, and nothing is learnt: thresholds that follow drift stand still, and retraining leaves
the stretch out.

What is told depends on what holds now: a window that was stopped is over, whatever the readings' time. What is learnt
depends on the readings' time alone, as far as that is known: a window that was stopped still holds for the readings
observed while it was open, so that those which are judged again after a crash are not learnt then. A window that was
begun without a time holds for all readings while it is open, and for the past from when it was begun.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from stream.actions import Action
from stream.operating import MaintenanceSettings, epoch_ms
from stream.records import Bool, Int32, Int64

#: Windows over patterns of assets that were stopped and are remembered, and as many over each single asset.
MOST_STOPPED: Final = 1000
#: Assets whose windows are remembered together; beyond, all are found anew.
MOST_ASKED: Final = 200_000


@dataclass(frozen=True, slots=True)
class Window:
    """``since_ms`` and ``until_ms`` of the readings' time, None where it has no such bound; ``begun_ms`` when it was
    begun, where an operator did.
    """

    pattern: str
    since_ms: int | None
    until_ms: int | None
    reason: str
    begun_ms: int | None = None

    def holds(self, asset: str, at_ms: int) -> bool:
        """Whether a reading of ``asset`` at this time falls into it."""
        return (
            (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
            and fnmatchcase(asset, self.pattern)
        )

    def held(self, at_ms: Int64) -> Bool:
        """Which readings of its assets fall into it, (row,) as ``at_ms``."""
        inside: Bool = np.ones(len(at_ms), dtype=bool)
        if self.since_ms is not None:
            inside &= at_ms >= self.since_ms
        if self.until_ms is not None:
            inside &= at_ms < self.until_ms
        return inside

    def from_its_beginning(self) -> Window:
        """As it is seen from later: one without a beginning began when it was begun."""
        return self if self.since_ms is not None else replace(self, since_ms=self.begun_ms)

    def stopped(self, at_ms: int) -> Window | None:
        """What was of it until ``at_ms``; None: nothing."""
        was = self.from_its_beginning()
        until_ms = at_ms if was.until_ms is None else min(was.until_ms, at_ms)
        return None if was.since_ms is not None and was.since_ms >= until_ms else replace(was, until_ms=until_ms)


@dataclass(slots=True)
class Maintenance:
    """All windows. ``planned``: of the plan, by name."""

    planned: Mapping[str, MaintenanceSettings]
    _planned: list[Window] = field(init=False)
    _open: dict[str, Window] = field(default_factory=dict)  # by pattern
    _stopped: defaultdict[str, list[Window]] = field(default_factory=lambda: defaultdict(list))  # of single assets
    _stopped_wide: list[Window] = field(default_factory=list)  # of patterns
    _of: dict[str, tuple[Window, ...]] = field(default_factory=dict)  # by asset, as it was asked for

    def __post_init__(self) -> None:
        self._planned = [
            Window(pattern, epoch_ms(held.since), epoch_ms(held.until), held.reason or name)
            for name, held in self.planned.items()
            for pattern in held.assets
        ]

    def take(self, action: Action) -> None:
        """Begin or stop a window."""
        at_ms = _ms(action.at) or 0
        before = self._open.pop(action.asset, None)
        was = None if before is None else before.stopped(at_ms)
        if was is not None:
            wide = any(letter in was.pattern for letter in "*?[")
            held = self._stopped_wide if wide else self._stopped[was.pattern]
            held.append(was)
            del held[:-MOST_STOPPED]
        if action.action == "maintenance_start":
            reason = f"{action.comment or 'maintenance'} ({action.by})"
            self._open[action.asset] = Window(action.asset, _ms(action.since), _ms(action.until), reason, at_ms)
        self._of.clear()

    def reason(self, asset: str, at_ms: int) -> str:
        """Why nobody is to be called about an asset now; empty if they are."""
        windows = (*self._planned, *self._open.values())
        return next((window.reason for window in windows if window.holds(asset, at_ms)), "")

    def open(self) -> tuple[Window, ...]:
        """Those that operators have begun and not stopped."""
        return tuple(self._open.values())

    def of(self, asset: str) -> tuple[Window, ...]:
        """All that are, or were, over an asset, for what may be learnt from its readings."""
        found = self._of.get(asset)
        if found is None:
            if len(self._of) >= MOST_ASKED:
                self._of.clear()
            some = (*self._planned, *self._open.values(), *self._stopped_wide)
            mine = [window for window in some if fnmatchcase(asset, window.pattern)]
            found = self._of[asset] = (*mine, *self._stopped.get(asset, ()))
        return found

    def still(self, names: Sequence[str], slots: Int32, at_ms: Int64) -> Bool | None:
        """From which rows nothing may be learnt; None: from each of them something may.

        names        the asset of each slot
        slots, at_ms (row,)
        """
        if not (self._planned or self._open or self._stopped or self._stopped_wide):
            return None
        concerned: defaultdict[Window, list[int]] = defaultdict(list)
        for slot in np.unique(slots).tolist():
            for window in self.of(names[slot]):
                concerned[window].append(slot)
        found: Bool | None = None
        for window, of in concerned.items():
            inside = window.held(at_ms)
            if inside.any():
                inside &= np.isin(slots, of)
                found = inside if found is None else found | inside
        return found


def _ms(stamp: str | None) -> int | None:
    return None if stamp is None else epoch_ms(datetime.fromisoformat(stamp))
