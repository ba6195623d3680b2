"""Where a measured process writes down how far it is, in shared memory, so that looking costs it nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import numpy as np

from stream.records import Float64

_HEAD: Final = 16
_TICKS: Final = 400_000
RECORDS, READINGS, SCORES, LOST, WALL, CPU, PARTITIONS, TICKS, PID = range(9)


class Board:
    """A file of float64, mapped: the counts so far, the clocks when they were written, and the loop's ticks.

    Both clocks can be read by another process as well: CLOCK_MONOTONIC, and the process's CPU time (``cpu_s``).
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            with path.open("wb") as file:
                file.truncate(8 * (_HEAD + 2 * _TICKS))
        held: Float64 = np.memmap(path, dtype=np.float64, mode="r+")
        self._held = held

    def sign(self) -> None:
        """Say which process this is."""
        self._held[PID] = os.getpid()

    def add(self, records: int, readings: int = 0, scores: int = 0, lost: int = 0) -> None:
        """Count, and note the clocks. The number of records is written last: who sees it sees the rest."""
        held = self._held
        held[READINGS] += readings
        held[SCORES] += scores
        held[LOST] += lost
        held[CPU] = time.process_time()
        held[WALL] = time.monotonic()
        held[RECORDS] += records

    def assigned(self, partitions: int) -> None:
        """Say how many partitions are assigned."""
        self._held[PARTITIONS] = partitions

    def tick(self, over_s: float) -> None:
        """Note by how much a sleep on the event loop was too long."""
        count = int(self._held[TICKS])
        if count < _TICKS:
            self._held[_HEAD + 2 * count : _HEAD + 2 * count + 2] = time.monotonic(), over_s
            self._held[TICKS] = count + 1

    def __getitem__(self, slot: int) -> float:
        return float(self._held[slot])

    def ticks(self, since: float, until: float) -> Float64:
        """What ``tick`` noted between two times of the monotonic clock."""
        pairs = self._held[_HEAD : _HEAD + 2 * int(self._held[TICKS])].reshape(-1, 2)
        chosen: Float64 = pairs[(pairs[:, 0] > since) & (pairs[:, 0] <= until), 1]
        return chosen


def cpu_s(pid: int) -> float:
    """CPU seconds of another process, all threads, user and system, to the nanosecond (Linux: a clock by process)."""
    return time.clock_gettime((~pid << 3) | 2)
