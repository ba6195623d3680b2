"""What the plant itself says of its data: values that are physically impossible, and values called bad by their source.

Both are masked, so that no model sees them, and are an alert of their own: one an asset, detector ``signals``, with the
signals that caused it and the kind of the worst, ``out_of_range`` or ``bad_quality``. Its score is 1 for a bad value,
and for one out of range 1 plus how far it is out, in widths of the range; nothing is trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from models.base import KINDS
from stream.decide import DecisionState, decide
from stream.episode import Identity, Rules
from stream.plan import QualitySettings, SignalSettings
from stream.records import Alert, Bool, Float64, Int32, Int64, UInt8
from stream.window import room_for

#: The detector that these alerts name: the plan's detectors cannot be called so.
SIGNALS: Final = "signals"
_OUT, _BAD = KINDS.index("out_of_range"), KINDS.index("bad_quality")
_FARTHEST: Final = 9.0  # widths of the range: farther is no worse


class Ranges:
    """The physical ranges of a plan, for the columns of the readings.

    low, high  (group, signal) float64; assets of one group have the same ranges
    """

    def __init__(self, settings: Mapping[str, SignalSettings], signals: Sequence[str]) -> None:
        self._settings = settings
        self._signals = tuple(signals)
        self._group: dict[tuple[tuple[float, float], ...], int] = {}
        self.low = np.zeros((0, len(signals)))
        self.high = np.zeros((0, len(signals)))

    def group(self, asset: str) -> int:
        """The group of an asset."""
        mine = [held for held in self._settings.items() if held[1].concerns(asset)]
        key = tuple(self._range(signal, mine) for signal in self._signals)
        if key not in self._group:
            self._group[key] = len(self._group)
            self.low = np.concatenate([self.low, [[low for low, _ in key]]])
            self.high = np.concatenate([self.high, [[high for _, high in key]]])
        return self._group[key]

    @staticmethod
    def _range(signal: str, settings: Sequence[tuple[str, SignalSettings]]) -> tuple[float, float]:
        """The narrowest of all ranges whose pattern fits."""
        fits = [held for pattern, held in settings if fnmatchcase(signal, pattern)]
        low = max((held.low for held in fits if held.low is not None), default=-np.inf)
        high = min((held.high for held in fits if held.high is not None), default=np.inf)
        return low, high


@dataclass(frozen=True, slots=True)
class _Findings:
    """``decide.Evidence`` of the rows of assets with something wrong."""

    score: Float64
    at_ms: Int64
    signals: tuple[str, ...]
    values: Float64
    contributions: Float64
    verdict: UInt8
    expected: Float64 | None = None
    spread: Float64 | None = None


@dataclass(slots=True)
class Limits:
    """Judges a partition's readings by ``ranges``.

    decisions  by the asset's index in the partition
    groups     (asset,) int32, see ``Ranges``
    """

    ranges: Ranges
    signals: tuple[str, ...]
    rules: Rules
    identity: Identity
    decisions: DecisionState = field(default_factory=DecisionState)
    groups: Int32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def admit(self, index: int, name: str) -> None:
        """Begin with an asset."""
        if index >= len(self.groups):
            more = room_for(index + 1, len(self.groups)) - len(self.groups)
            self.groups = np.concatenate([self.groups, np.zeros(more, dtype=np.int32)])
        self.groups[index] = self.ranges.group(name)

    def judge(
        self, names: Sequence[str], assets: Int32, at_ms: Int64, values: Float64, bad: Bool | None
    ) -> tuple[Float64, list[Alert]]:
        """The values with what is impossible masked, and the alerts.

        names          (asset,) by index
        assets, at_ms  (row,), sorted by asset, and by time within it
        values, bad    (row, signal); a bad value is masked already
        """
        group = self.groups[assets]
        low, high = self.ranges.low[group], self.ranges.high[group]
        out = (values < low) | (values > high)
        wrong = out if bad is None else out | bad
        concerned = wrong.any(axis=1)
        if self.decisions.episodes:
            concerned |= np.isin(assets, np.fromiter(self.decisions.episodes, dtype=assets.dtype))
        elif not concerned.any():
            return values, []
        rows = np.flatnonzero(np.isin(assets, assets[concerned]))
        shares = self._shares(values[rows], low[rows], high[rows], out[rows], wrong[rows])
        total = shares.sum(axis=1, keepdims=True)
        evidence = _Findings(
            score=shares.max(axis=1),
            at_ms=at_ms[rows],
            signals=self.signals,
            values=values[rows],
            contributions=np.divide(shares, total, out=np.zeros_like(shares), where=total > 0),
            verdict=np.where(out[rows].any(axis=1), _OUT, _BAD).astype(np.uint8),
        )
        alerts = decide(self.decisions, self.rules, self.identity, assets[rows], names, evidence).alerts
        if out.any():
            values = np.where(out, np.nan, values)
        return values, alerts

    @staticmethod
    def _shares(values: Float64, low: Float64, high: Float64, out: Bool, wrong: Bool) -> Float64:
        """How wrong each value is, (row, signal): 0 where it is not."""
        beyond = np.where(values < low, low - values, values - high)
        width = high - low
        far = np.divide(beyond, width, out=np.zeros(values.shape), where=out & np.isfinite(width) & (width > 0))
        return np.where(wrong, 1.0 + np.minimum(far, _FARTHEST), 0.0)


def limits_of(quality: QualitySettings, ranges: Ranges, signals: tuple[str, ...], site: str) -> Limits:
    """A partition's, at its beginning."""
    rules = Rules(
        threshold=1.0,
        on_delay_ms=round(quality.on_delay_s * 1000),
        off_delay_ms=round(quality.off_delay_s * 1000),
        deadband=0.0,
        update_every_ms=round(quality.update_every_s * 1000),
    )
    return Limits(ranges, signals, rules, Identity(site, SIGNALS, SIGNALS, ""))
