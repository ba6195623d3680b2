"""The last scores, for the drawings of an asset.

What comes is kept by reference, as the arrays that the pipeline made, until it fills half of the memory: that costs
nothing for a reading. Only of an asset that is looked at, or that has an alert, the rows are picked out into a history
of its own, which goes on while the batches are let go. The histories share the other half: when it is full, that of the
asset that was looked at longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream.records import Scores
from stream.sinks.rows import take

#: Rows of a history.
ROWS: Final = 1800
_FIRST_ROWS: Final = 64
_BATCH_BYTES: Final = 1500  # of a batch besides its arrays and names
_NAME_BYTES: Final = 70

Array = npt.NDArray[Any]


@dataclass(slots=True)
class History:
    """An asset's last rows by one detector: columns of ``Scores``, the oldest first; ``columns`` gives them.

    nbytes  what the columns take
    """

    detector: str
    kind: str
    model_version: str
    signals: tuple[str, ...]
    _held: dict[str, Array] = field(default_factory=dict)
    _start: int = 0
    _stop: int = 0
    nbytes: int = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, new: Mapping[str, Array], model_version: str) -> int:
        """Add rows, which are newer than all before; those that are not are passed over. By how much it has grown.

        new  columns as ``columns`` gives them, of rows in the order of time
        """
        at_ms = new["at_ms"]
        first = max(len(at_ms) - ROWS, 0)
        if len(self):
            first = max(first, int(np.searchsorted(at_ms, self._held["at_ms"][self._stop - 1], "right")))
        rows = len(at_ms) - first
        if not rows:
            return 0
        before = self.nbytes
        self.model_version = model_version
        if self._held.keys() != new.keys():
            self._held = {name: np.empty((0, *column.shape[1:]), column.dtype) for name, column in new.items()}
            self._start = self._stop = 0
        self._make_room(rows)
        stop = self._stop + rows
        for name, column in new.items():
            self._held[name][self._stop : stop] = column[first:]
        self._stop = stop
        self._start = max(self._start, stop - ROWS)
        return self.nbytes - before

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
        self.nbytes = sum(column.nbytes for column in self._held.values())


class Recent:
    """The last batches, and the histories of some assets; ``most_bytes`` bounds all of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes // 2
        self._batches: deque[tuple[int, Scores]] = deque()
        self._held = 0
        self._histories: OrderedDict[str, dict[str, History]] = OrderedDict()
        self._in_histories = 0

    @property
    def nbytes(self) -> int:
        """What is held, about."""
        return self._held + self._in_histories

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
            self._go_on(scores)
            self._let_go()

    def follow(self, asset: str) -> None:
        """Begin the asset's history with what the batches have of it, or go on with it; it is the last to go then."""
        held = self._histories.get(asset)
        if held is None:
            held = {}
            for _, scores in self._batches:
                if asset in scores.names:
                    rows = np.flatnonzero(scores.asset == scores.names.index(asset))
                    self._add(held, scores, _columns(take(scores, rows)))
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
            self._forget(self._histories.pop(asset))

    def _let_go(self) -> None:
        while len(self._histories) > 1 and self._in_histories > self._most:
            self._forget(self._histories.popitem(last=False)[1])

    def _forget(self, held: Mapping[str, History]) -> None:
        self._in_histories -= sum(history.nbytes for history in held.values())

    def _go_on(self, scores: Scores) -> None:
        """Add a batch's rows to the histories that there are. Its rows are put in the order of assets once for all."""
        get = self._histories.get
        followed = [(code, held) for code, held in enumerate(map(get, scores.names)) if held is not None]
        if not followed:
            return
        codes, columns = scores.asset, _columns(scores)
        if (codes[1:] < codes[:-1]).any():
            order = np.argsort(codes, kind="stable")
            codes, columns = codes[order], {name: column[order] for name, column in columns.items()}
        wanted = np.array([code for code, _ in followed], dtype=codes.dtype)
        bounds = zip(
            np.searchsorted(codes, wanted).tolist(), np.searchsorted(codes, wanted, "right").tolist(), strict=True
        )
        for (_, held), (start, stop) in zip(followed, bounds, strict=True):
            self._add(held, scores, {name: column[start:stop] for name, column in columns.items()})

    def _add(self, held: dict[str, History], scores: Scores, rows: Mapping[str, Array]) -> None:
        """Add rows of one asset, as columns."""
        history = held.get(scores.detector)
        if history is None or history.signals != scores.signals:
            self._in_histories -= 0 if history is None else history.nbytes
            history = History(scores.detector, scores.kind, scores.model_version, scores.signals)
            held[scores.detector] = history
        self._in_histories += history.append(rows, scores.model_version)


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
