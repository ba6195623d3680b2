"""How good a run of alarms was, told in events: what a person at the plant counts.

An alarm belongs to a fault if it starts while the fault lasts, on the same asset. Nothing is point-adjusted: a fault is
found once or missed, however many rows it has; an alarm that starts outside of any fault is false, however long it
lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Event:
    """Something that happened to an asset in [start_ms, end_ms), epoch milliseconds; a fault or an alarm.

    Of a fault may be known of what ``sort`` it is, which ``signals`` it touches, and a ``sentence`` for a person.
    """

    asset: str
    start_ms: int
    end_ms: int
    sort: str = ""
    signals: tuple[str, ...] = ()
    sentence: str = ""

    def __post_init__(self) -> None:
        if self.end_ms < self.start_ms:
            raise ValueError(f"{self.asset}: the event ends at {self.end_ms} before its start {self.start_ms}")


@dataclass(frozen=True, slots=True)
class Found:
    """A fault that was noticed.

    fault      index of the fault
    alarms     indices of the alarms that started during it, in the order of their start
    delay_ms   from the fault's start to the first alarm; 0 if that came early
    """

    fault: int
    alarms: tuple[int, ...]
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Matching:
    """Which alarm belongs to which fault; indices point into the sequences that ``match`` was given.

    watched_ms   how long the assets were watched, summed over them
    """

    faults: int
    alarms: int
    found: tuple[Found, ...]
    missed: tuple[int, ...]
    false_alarms: tuple[int, ...]
    watched_ms: int

    @property
    def recall(self) -> float:
        """Share of the faults that were found; NaN without faults."""
        return len(self.found) / self.faults if self.faults else float("nan")

    @property
    def precision(self) -> float:
        """Share of the alarms that belong to a fault; NaN without alarms."""
        return 1 - len(self.false_alarms) / self.alarms if self.alarms else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is right, NaN without faults."""
        if not self.faults or not self.found:
            return 0.0 if self.faults else float("nan")
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def false_alarms_per_day(self) -> float:
        """False alarms a day of one asset's time; NaN if nothing was watched."""
        return len(self.false_alarms) * DAY_MS / self.watched_ms if self.watched_ms else float("nan")

    @property
    def median_delay_s(self) -> float:
        """Median seconds from a found fault's start to its first alarm; NaN if none was found."""
        return median(found.delay_ms for found in self.found) / 1000 if self.found else float("nan")


def match(
    faults: Sequence[Event],
    alarms: Sequence[Event],
    *,
    watched_ms: int = 0,
    early_s: float = 0.0,
    grace_s: float = 0.0,
) -> Matching:
    """Say which fault was found by which alarms, which was missed, and which alarms are false.

    early_s   an alarm that starts so long before a fault still belongs to it, where labels are not exact
    grace_s   likewise after a fault's end, for detectors that see a fault until it has left their window

    An alarm that could belong to several faults belongs to the newest that had begun. One that was open before a fault
    began and stays open does not find it: nobody was told anything new.
    """
    early_ms, grace_ms = round(early_s * 1000), round(grace_s * 1000)
    order = sorted(range(len(alarms)), key=lambda i: (alarms[i].start_ms, i))
    owner: dict[int, int] = {}
    for i in order:
        alarm = alarms[i]
        candidates = [
            k
            for k, fault in enumerate(faults)
            if fault.asset == alarm.asset and fault.start_ms - early_ms <= alarm.start_ms < fault.end_ms + grace_ms
        ]
        if candidates:
            owner[i] = max(candidates, key=lambda k: (faults[k].start_ms <= alarm.start_ms, faults[k].start_ms))
    found = []
    for k, fault in enumerate(faults):
        mine = tuple(i for i in order if owner.get(i) == k)
        if mine:
            found.append(Found(k, mine, max(0, alarms[mine[0]].start_ms - fault.start_ms)))
    seen = {item.fault for item in found}
    return Matching(
        faults=len(faults),
        alarms=len(alarms),
        found=tuple(found),
        missed=tuple(k for k in range(len(faults)) if k not in seen),
        false_alarms=tuple(i for i in range(len(alarms)) if i not in owner),
        watched_ms=watched_ms,
    )


def events_of(
    asset: str, at_ms: npt.NDArray[np.int64], labels: npt.NDArray[np.bool_], join_s: float = 0.0
) -> list[Event]:
    """Labelled rows as events: one for every run of true rows; runs at most ``join_s`` apart are one.

    ``at_ms``: (row,) ascending epoch milliseconds; ``labels``: (row,) bool. An event ends where the next row
    begins, the last one at its last row.
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], labels, [False])).astype(np.int8)))
    events: list[Event] = []
    for first, end in edges.reshape(-1, 2):
        start_ms, end_ms = int(at_ms[first]), int(at_ms[min(end, len(at_ms) - 1)])
        if events and start_ms - events[-1].end_ms <= join_s * 1000:
            start_ms = events.pop().start_ms
        events.append(Event(asset, start_ms, end_ms))
    return events


def merge(alarms: Iterable[Event], within_s: float = 0.0) -> list[Event]:
    """Alarms of one asset that overlap, or are at most ``within_s`` apart, as one: a person's one incident."""
    merged: dict[str, list[Event]] = {}
    for alarm in sorted(alarms, key=lambda event: event.start_ms):
        row = merged.setdefault(alarm.asset, [])
        if row and alarm.start_ms - row[-1].end_ms <= within_s * 1000:
            row[-1] = Event(alarm.asset, row[-1].start_ms, max(row[-1].end_ms, alarm.end_ms))
        else:
            row.append(Event(alarm.asset, alarm.start_ms, alarm.end_ms))
    return sorted((event for row in merged.values() for event in row), key=lambda event: event.start_ms)
