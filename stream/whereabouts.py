"""Where something is kept of an asset, by the number that the reader of records gave to its name.

That is a look into an array, eight bytes an asset. A dictionary of a hundred thousand names lies where no cache holds
it: a look takes 0.7 us, half of what all else costs a reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np

from stream.records import Int32, Numbered


class Whereabouts:
    """Of several keepers, each of which has a dictionary by name; an asset is with one of them, as a rule.

    It remembers what they had when they were last asked. One that forgets an asset, or gives its place to another, must
    say so (``forget``).
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._book: object = None
        # (number,) the keeper that it was last found with, and its place there
        self._keeper = self._place = np.full(0, -1, dtype=np.int32)

    def find(self, keeper: int, names: Sequence[str], places: Mapping[str, int]) -> Int32:
        """(name,) the place of each of ``names`` with a keeper, which has them in ``places``; -1: not there."""
        if not isinstance(names, Numbered):
            return np.fromiter(map(places.get, names, repeat(-1)), np.int32, len(names))
        numbers = names.numbers
        if names.book is not self._book:
            self.forget()
            self._book = names.book
        if len(numbers) and (highest := int(numbers.max())) >= len(self._place):
            more = np.full(highest + 1 + highest // 8 - len(self._place), -1, dtype=np.int32)
            self._keeper, self._place = np.concatenate([self._keeper, more]), np.concatenate([self._place, more])
        found = np.where(self._keeper.take(numbers) == keeper, self._place.take(numbers), np.int32(-1))
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            found[unknown] = [places.get(names[at], -1) for at in unknown.tolist()]
            self.keep(keeper, names, found)
        return found

    def keep(self, keeper: int, names: Sequence[str], places: Int32) -> None:
        """Remember what ``find`` gave, with those that the keeper has taken in since."""
        if isinstance(names, Numbered):
            self._keeper[names.numbers] = keeper
            self._place[names.numbers] = places
