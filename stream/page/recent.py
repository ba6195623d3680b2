"""The last scores, for the drawings of an asset.

What comes is kept by reference, as the arrays that the pipeline made, until it fills half of the memory: that costs
nothing for a reading. Only of an asset that is looked at, or that has an alert, the rows are picked out into a history
of its own, which goes on while the batches are let go. The histories share the other half: when it is full, that of the
asset that was looked at longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream.records import Int64, Scores
from stream.sinks.rows import take

#: Rows of a history.
ROWS: Final = 1800
_FIRST_ROWS: Final = 64
_BATCH_BYTES: Final = 1500  # of a batch besides its arrays and names
_NAME_BYTES: Final = 70

Array = npt.NDArray[Any]


@dataclass(slots=True)
class History:
    """An asset's last rows by one detector: columns of ``Scores``, the oldest first; ``columns`` gives them."""

    detector: str
    kind: str
    model_version: str
    signals: tuple[str, ...]
    _held: dict[str, Array] = field(default_factory=dict)
    _start: int = 0
    _stop: int = 0

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def nbytes(self) -> int:
        """What the columns take."""
        return sum(array.nbytes for array in self._held.values())

    def append(self, scores: Scores, rows: Int64) -> None:
        """Add rows, which are newer than all before; those that are not are passed over."""
        if len(self):
            rows = rows[scores.at_ms[rows] > self._held["at_ms"][self._stop - 1]]
        rows = rows[-ROWS:]
        if not len(rows):
            return
        self.model_version = scores.model_version
        new = _columns(take(scores, rows))
        if self._held.keys() != new.keys():
            self._held = {name: np.empty((0, *column.shape[1:]), column.dtype) for name, column in new.items()}
            self._start = self._stop = 0
        self._make_room(len(rows))
        for name, column in new.items():
            self._held[name][self._stop : self._stop + len(rows)] = column
        self._stop += len(rows)
        self._start = max(self._start, self._stop - ROWS)

    def columns(self, since_ms: int) -> dict[str, Array]:
        """Copies of the rows observed after ``since_ms``."""
        if not len(self):
            return {}
        first = self._start + int(np.searchsorted(self._held["at_ms"][self._start : self._stop], since_ms, "right"))
        return {name: column[first : self._stop].copy() for name, column in self._held.items()}

    def _make_room(self, rows: int) -> None:
        """Move what is kept to the front of longer columns: seldom, so a row costs the same at any length."""
        room = len(self._held["at_ms"])
        if self._stop + rows <= room:
            return
        kept = slice(max(self._start, self._stop + rows - ROWS), self._stop)
        length = kept.stop - kept.start
        room = min(max(2 * (length + rows), _FIRST_ROWS), ROWS + ROWS // 2 + rows)
        for name, column in self._held.items():
            moved = np.empty((room, *column.shape[1:]), column.dtype)
            moved[:length] = column[kept]
            self._held[name] = moved
        self._start, self._stop = 0, length


class Recent:
    """The last batches, and the histories of some assets; ``most_bytes`` bounds all of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes // 2
        self._batches: deque[tuple[int, Scores]] = deque()
        self._held = 0
        self._histories: OrderedDict[str, dict[str, History]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is held, about."""
        return self._held + self._history_bytes()

    @property
    def assets(self) -> Collection[str]:
        """The assets that have a history of their own."""
        return self._histories.keys()

    def take(self, scores: Scores) -> None:
        """Keep a batch, whose rows are in the order of time for each asset."""
        if not len(scores):
            return
        size = _size(scores)
        self._held += size
        self._batches.append((size, scores))
        while self._held > self._most and self._batches:
            self._held -= self._batches.popleft()[0]
        if self._histories:
            for asset in self._histories.keys() & scores.names:
                self._add(self._histories[asset], asset, scores)
            self._let_go()

    def follow(self, asset: str) -> None:
        """Begin the asset's history with what the batches have of it, or go on with it; it is the last to go then."""
        held = self._histories.get(asset)
        if held is None:
            held = {}
            for _, scores in self._batches:
                if asset in scores.names:
                    self._add(held, asset, scores)
            if not held:
                return
            self._histories[asset] = held
        self._histories.move_to_end(asset)
        self._let_go()

    def of(self, asset: str) -> list[History]:
        """The asset's histories, one a detector."""
        return list(self._histories.get(asset, {}).values())

    def keep_only(self, assets: Collection[str]) -> None:
        """Forget the histories of all others."""
        for asset in [asset for asset in self._histories if asset not in assets]:
            del self._histories[asset]

    def _let_go(self) -> None:
        while len(self._histories) > 1 and self._history_bytes() > self._most:
            self._histories.popitem(last=False)

    def _history_bytes(self) -> int:
        return sum(history.nbytes for held in self._histories.values() for history in held.values())

    def _add(self, held: dict[str, History], asset: str, scores: Scores) -> None:
        rows = np.flatnonzero(scores.asset == scores.names.index(asset))
        history = held.get(scores.detector)
        if history is None or history.signals != scores.signals:
            history = History(scores.detector, scores.kind, scores.model_version, scores.signals)
            held[scores.detector] = history
        history.append(scores, rows)


def _columns(scores: Scores) -> dict[str, Array]:
    columns: dict[str, Array] = {
        "at_ms": scores.at_ms,
        "score": scores.score,
        "threshold": scores.threshold,
        "verdict": scores.verdict,
        "values": scores.values,
        "share": scores.contributions.astype(np.float32),
    }
    if scores.expected is not None:
        columns["expected"] = scores.expected
    if scores.spread is not None:
        columns["spread"] = scores.spread.astype(np.float32)
    return columns


def _size(scores: Scores) -> int:
    arrays = (
        scores.asset,
        scores.at_ms,
        scores.score,
        scores.threshold,
        scores.anomalous,
        scores.values,
        scores.contributions,
        scores.expected,
        scores.spread,
        scores.verdict,
    )
    return _BATCH_BYTES + _NAME_BYTES * len(scores.names) + sum(array.nbytes for array in arrays if array is not None)
