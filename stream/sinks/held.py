"""What a sink holds in memory until it is written: in order, and measured in lines and bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from stream.records import Alert, Scores

#: Scores of one detector, or alerts; a line each row or alert.
Item = Scores | tuple[Alert, ...]

_NAME_BYTES: Final = 70  # a short text of its own
_ALERT_BYTES: Final = 4096  # roughly, with its causes


class Held:
    """A queue of items that knows how many lines and bytes are in it."""

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self.lines = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Hold an item behind all others."""
        size = size_of(item)
        self._items.append((item, size))
        self.lines += len(item)
        self.size_bytes += size

    def take(self, most_lines: int) -> list[Item]:
        """The oldest items, as many as have at most so many lines together; one if there is one."""
        taken: list[Item] = []
        count = 0
        while self._items and (not taken or count + len(self._items[0][0]) <= most_lines):
            taken.append(self._pop())
            count += len(taken[-1])
        return taken

    def put_back(self, items: Sequence[Item]) -> None:
        """Undo ``take``."""
        for item in reversed(items):
            size = size_of(item)
            self._items.appendleft((item, size))
            self.lines += len(item)
            self.size_bytes += size

    def drop_oldest(self) -> int:
        """Forget the oldest item; how many lines it had."""
        return len(self._pop())

    def _pop(self) -> Item:
        item, size = self._items.popleft()
        self.lines -= len(item)
        self.size_bytes -= size
        return item


def size_of(item: Item) -> int:
    """The memory that an item takes, in bytes; roughly for alerts."""
    if not isinstance(item, Scores):
        return len(item) * _ALERT_BYTES
    arrays = (
        item.asset, item.at_ms, item.score, item.threshold, item.anomalous, item.values, item.contributions,
        item.expected, item.spread, item.verdict,
    )  # fmt: skip
    return len(item.names) * _NAME_BYTES + sum(array.nbytes for array in arrays if array is not None)
