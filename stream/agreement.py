"""How a candidate compares with the model that serves, on the same readings: a few sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from stream.records import Bool, Float64, Int32, Int64
from stream.window import NEVER, room_for


@dataclass(slots=True)
class Agreement:
    """Since the candidate began on this worker; a restart begins it anew.

    readings                                  judged by both
    over_serving, over_candidate, over_both   readings at or over their thresholds
    begun_serving, begun_candidate            how often an asset went from below to there
    lasted_ms                                 event time from the first of these readings to the last, of all assets
    serving_s, candidate_s                    what scoring took
    """

    readings: int = 0
    over_serving: int = 0
    over_candidate: int = 0
    over_both: int = 0
    begun_serving: int = 0
    begun_candidate: int = 0
    lasted_ms: int = 0
    serving_s: float = 0.0
    candidate_s: float = 0.0
    logs: int = 0
    _sums: Float64 = field(default_factory=lambda: np.zeros(5))  # x, y, xx, yy, xy of logarithms
    _over: Bool = field(default_factory=lambda: np.zeros((2, 0), dtype=bool))
    _last_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def take(self, slots: Int32, at_ms: Int64, serving: Float64, candidate: Float64) -> None:
        """Rows that both judged, sorted by slot and time; ``serving``, ``candidate``: score over threshold."""
        if not len(slots):
            return
        self._grow(int(slots[-1]) + 1)
        over = np.stack([serving >= 1.0, candidate >= 1.0])
        first = np.ones(len(slots), dtype=bool)
        first[1:] = slots[1:] != slots[:-1]
        last = np.append(first[1:], True)
        before = np.empty_like(over)
        before[:, 1:] = over[:, :-1]
        before[:, first] = self._over[:, slots[first]]
        began_ms = np.empty_like(at_ms)
        began_ms[1:] = at_ms[:-1]
        held = self._last_ms[slots[first]]
        began_ms[first] = np.where(held == NEVER, at_ms[first], held)
        self.readings += len(slots)
        self.over_serving += int(over[0].sum())
        self.over_candidate += int(over[1].sum())
        self.over_both += int((over[0] & over[1]).sum())
        self.begun_serving += int((over[0] & ~before[0]).sum())
        self.begun_candidate += int((over[1] & ~before[1]).sum())
        self.lasted_ms += int((at_ms - began_ms).sum())
        self._over[:, slots[last]] = over[:, last]
        self._last_ms[slots[last]] = at_ms[last]
        good = np.isfinite(serving) & np.isfinite(candidate) & (serving > 0) & (candidate > 0)
        x, y = np.log(serving[good]), np.log(candidate[good])
        self.logs += len(x)
        # a new array: whoever took a copy of this object keeps its own sums
        self._sums = self._sums + np.array([x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])

    def forget(self, slot: int) -> None:
        """The slot goes to another asset."""
        if slot < len(self._last_ms):
            self._over[:, slot], self._last_ms[slot] = False, NEVER

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the logarithms of score over threshold; None while it is not defined."""
        if self.logs < 3:
            return None
        x, y, xx, yy, xy = (self._sums / self.logs).tolist()
        spread = (xx - x * x) * (yy - y * y)
        if spread <= 1e-18:
            return None
        return float(max(-1.0, min(1.0, (xy - x * y) / math.sqrt(spread))))

    @property
    def cost(self) -> float:
        """Seconds of the candidate for each second of what serves."""
        return self.candidate_s / self.serving_s if self.serving_s > 0 else 0.0

    def _grow(self, slots: int) -> None:
        held = len(self._last_ms)
        if slots > held:
            more = room_for(slots, held) - held
            self._over = np.concatenate([self._over, np.zeros((2, more), dtype=bool)], axis=1)
            self._last_ms = np.concatenate([self._last_ms, np.full(more, NEVER, dtype=np.int64)])
