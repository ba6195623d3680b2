"""The newest score of every asset by every detector: what the list of assets shows.

A batch is taken in with numpy; what the states are is worked out only
when somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.records import Float64, Int64, Scores
from stream.whereabouts import Whereabouts

#: The states of an asset, the worst first. ``rising``: over a threshold, but no alert (yet); ``silent``: nothing has
#: come for much longer than usual; ``blind``: no detector had a usable value.
STATES: Final = ("critical", "major", "warning", "rising", "silent", "blind", "normal")
_RISING, _SILENT, _BLIND, _NORMAL = range(3, 7)

#: An asset is silent after so many times its usual pause, and at least so many seconds.
_SILENT_PAUSES: Final = 10.0
_SILENT_S: Final = 60.0
#: When there is no room, assets that have been silent for so long make it, looked for at most so often.
_FORGET_S: Final = 3600.0
_SWEEP_S: Final = 60.0
#: Numbers in names are sorted by their value: filled up with zeros to so many places.
_DIGITS: Final = re.compile(r"\d+")
_PLACES: Final = 12


@dataclass(slots=True)
class _Newest:
    """A detector's newest row of each asset: (asset,) each; ``at_ms`` is 0 where there is none."""

    at_ms: Int64
    score: Float64
    threshold: Float64


@dataclass(frozen=True, slots=True)
class Listed:
    """The assets as they are now, in the order of their names; (asset,) each.

    state     index into ``STATES``
    ratio     the highest of all detectors' score over threshold; NaN where there is none
    detector  index into ``detectors`` of the one that has it
    at_ms     when the newest reading was observed, epoch milliseconds
    quiet_s   seconds since anything came
    """

    names: Sequence[str]
    detectors: Sequence[str]
    state: Int64
    ratio: Float64
    detector: Int64
    at_ms: Int64
    quiet_s: Float64


@dataclass(slots=True)
class Listing:
    """Knows up to ``most`` assets; ``full`` says that there have been others, for which there was no room."""

    most: int
    full: bool = False
    _index: dict[str, int] = field(default_factory=dict)
    _keys: list[str] = field(default_factory=list)
    _tables: dict[str, _Newest] = field(default_factory=dict)
    _seen_s: Float64 = field(default_factory=lambda: np.zeros(0))
    _pause_s: Float64 = field(default_factory=lambda: np.zeros(0))
    _order: Int64 | None = None
    _swept_s: float = float("-inf")
    _whereabouts: Whereabouts = field(default_factory=Whereabouts)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, asset: str) -> bool:
        return asset in self._index

    def take(self, scores: Scores, now_s: float) -> None:
        """Take in a batch, in the order of time for each asset. ``now_s``: a clock that only goes forward."""
        newest = np.full(len(scores.names), -1)
        newest[scores.asset] = np.arange(len(scores))  # of an asset's rows the last one stays
        codes = self._codes(scores.names)
        if (codes < 0).any():
            codes = self._admit(scores.names, codes, now_s)
        there = (newest >= 0) & (codes >= 0)
        codes, rows = codes[there], newest[there]
        table = self._tables.get(scores.detector)
        if table is None or len(table.at_ms) < len(self._seen_s):
            table = self._tables[scores.detector] = _grown(table, len(self._seen_s))
        table.at_ms[codes] = scores.at_ms[rows]
        table.score[codes] = scores.score[rows]
        table.threshold[codes] = scores.threshold[rows]
        since = now_s - self._seen_s[codes]
        again = (since > 0) & np.isfinite(since)  # not what another detector has just told of the same readings
        fresh, since = codes[again], since[again]
        known = self._pause_s[fresh]
        self._pause_s[fresh] = np.where(np.isnan(known), since, 0.9 * known + 0.1 * since)
        self._seen_s[codes] = now_s

    def keep_only(self, assets: Collection[str]) -> None:
        """Forget all others: they have gone to another worker."""
        self._retain([name for name in self._index if name in assets])

    def now(self, now_s: float, alerts: Mapping[str, int]) -> Listed:
        """All assets as they are. ``alerts``: index into ``STATES`` of the worst open alert of those that have one."""
        names = list(self._index)
        count = len(names)
        detectors = list(self._tables)
        ratios = np.full((max(len(detectors), 1), count), np.nan)
        at_ms = np.zeros(count, dtype=np.int64)
        for row, table in enumerate(self._tables.values()):
            known = min(count, len(table.at_ms))
            with np.errstate(invalid="ignore", divide="ignore"):
                ratios[row, :known] = table.score[:known] / table.threshold[:known]
            at_ms[:known] = np.maximum(at_ms[:known], table.at_ms[:known])
        ratios[~np.isfinite(ratios)] = np.nan
        blind = np.isnan(ratios).all(axis=0)
        detector = np.where(np.isnan(ratios), -1.0, ratios).argmax(axis=0)
        ratio = ratios[detector, np.arange(count)]
        quiet_s = now_s - self._seen_s[:count]
        pause_s = np.nan_to_num(self._pause_s[:count])
        state = np.full(count, _NORMAL)
        state[blind] = _BLIND
        state[quiet_s > np.maximum(_SILENT_S, _SILENT_PAUSES * pause_s)] = _SILENT
        state[(state == _NORMAL) & (ratio >= 1.0)] = _RISING
        for asset, level in alerts.items():
            if (code := self._index.get(asset)) is not None:
                state[code] = level
        order = self._ordered()
        return Listed(
            [names[code] for code in order.tolist()],
            detectors,
            state[order],
            ratio[order],
            detector[order],
            at_ms[order],
            quiet_s[order],
        )

    def _codes(self, names: Sequence[str]) -> Int64:
        """The place of each; -1 for those that are not listed."""
        return self._whereabouts.find(0, names, self._index).astype(np.int64)

    def _ordered(self) -> Int64:
        """By name, numbers in them by value; worked out anew only when there are others."""
        if self._order is None:
            self._order = np.array(sorted(range(len(self._keys)), key=self._keys.__getitem__), dtype=np.int64)
        return self._order

    def _admit(self, names: Sequence[str], codes: Int64, now_s: float) -> Int64:
        if len(self._index) + int((codes < 0).sum()) > self.most:
            if now_s - self._swept_s < _SWEEP_S:
                self.full = True
                if len(self._index) == self.most:
                    return codes
            self._swept_s = now_s
            stays = now_s - self._seen_s[: len(self._index)] < _FORGET_S
            self._retain([name for name, stay in zip(self._index, stays.tolist(), strict=True) if stay])
        room = self.most - len(self._index)
        for name in names:
            if name not in self._index:
                if room <= 0:
                    self.full = True
                    break
                self._index[name] = len(self._index)
                self._keys.append(_DIGITS.sub(lambda found: found[0].zfill(_PLACES), name))
                room -= 1
        self._order = None
        more = len(self._index) - len(self._seen_s)
        if more > 0:
            more += min(len(self._seen_s) // 2, self.most - len(self._index))
            self._seen_s = np.concatenate([self._seen_s, np.full(more, -np.inf)])
            self._pause_s = np.concatenate([self._pause_s, np.full(more, np.nan)])
        return self._codes(names)

    def _retain(self, names: list[str]) -> None:
        if len(names) == len(self._index):
            return
        codes = np.fromiter((self._index[name] for name in names), np.int64, len(names))
        for detector, table in self._tables.items():
            grown = _grown(table, len(self._seen_s))
            self._tables[detector] = _Newest(grown.at_ms[codes], grown.score[codes], grown.threshold[codes])
        self._seen_s, self._pause_s = self._seen_s[codes], self._pause_s[codes]
        self._index = {name: code for code, name in enumerate(names)}
        self._whereabouts.forget()
        self._keys = [self._keys[code] for code in codes.tolist()]
        self._order = None
        self.full = False


def _grown(table: _Newest | None, size: int) -> _Newest:
    """``table`` with room for ``size`` assets."""
    if table is None:
        return _Newest(np.zeros(size, dtype=np.int64), np.full(size, np.nan), np.full(size, np.nan))
    more = size - len(table.at_ms)
    return _Newest(
        np.concatenate([table.at_ms, np.zeros(more, dtype=np.int64)]),
        np.concatenate([table.score, np.full(more, np.nan)]),
        np.concatenate([table.threshold, np.full(more, np.nan)]),
    )
