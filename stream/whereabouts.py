"""Which index a partition has for an asset, by the number that the reader of records gave to its name.

That is a look into an array. A dictionary of a hundred thousand names lies where no cache holds it, and took a tenth of
what a reading of so many assets costs. Eight bytes an asset.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat

import numpy as np

from stream.records import Int32, Readings


class Whereabouts:
    """Of all partitions of a pipeline: an asset's records come on one of them, as a rule."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: after partitions have come or gone, or forgotten assets."""
        self._book: object = None
        # (number,) the partition that it was last seen in, and its index there
        self._partition = self._index = np.full(0, -1, dtype=np.int32)

    def find(self, partition: int, readings: Readings, index: Mapping[str, int]) -> Int32:
        """(name,) the index of each of ``readings.names`` in a partition, which has it in ``index``; -1: not there."""
        names, numbered = readings.names, readings.numbered
        if numbered is None:
            return np.fromiter(map(index.get, names, repeat(-1)), np.int32, len(names))
        numbers = numbered.numbers
        if numbered.book is not self._book:
            self.forget()
            self._book = numbered.book
        if len(numbers) and (highest := int(numbers.max())) >= len(self._index):
            more = np.full(highest + 1 + highest // 8 - len(self._index), -1, dtype=np.int32)
            self._partition, self._index = np.concatenate([self._partition, more]), np.concatenate([self._index, more])
        found = np.where(self._partition.take(numbers) == partition, self._index.take(numbers), np.int32(-1))
        for place in np.flatnonzero(found < 0).tolist():
            found[place] = index.get(names[place], -1)
        return found

    def keep(self, partition: int, readings: Readings, indices: Int32) -> None:
        """Remember what ``find`` gave, with those that were admitted since."""
        if readings.numbered is not None:
            self._partition[readings.numbered.numbers] = partition
            self._index[readings.numbered.numbers] = indices
