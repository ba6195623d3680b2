"""Watches single signals for what is new, with no training, from the first minutes on, and spends alarms by a budget.

Each signal is seen as four channels: its size (signed logarithm), what is left when the usual value for this time of
day is taken away, and its means over 24 and over 48 rows. How new each of them is (``models.novelty``) counts over what
is usual for the stream, and a weighted geometric mean says how new the row is: one channel alone makes no alarm.

An alarm has to be worth it: each raises the bar for the next, and the bar sinks with the logarithm of time, so a stream
that is always strange soon has to be stranger. After an alarm follows a rest, in which only what is three times as
strange alarms. The score is 1 where an alarm is raised; it is over that at the beginning of what is new, not all along.

The state is carried, in bounded memory (``size`` values a channel). Trained on history, it begins with that history's
memory instead of none. Where rows come without their time (windows), the channel of the time of day is left out.

Limits: a state that comes back is not new; relations between signals are not looked at (``innovations`` does); false
alarms are cheap to it in a stream's first hours and get rarer, and a threshold of the plan above 1 asks for more.
Cost: no TensorFlow; some 15 microseconds a signal and reading in a batch of many assets, ten times that for one alone;
about ten kilobytes a signal and asset. Shapes as in ``models.base``, in the signals' own units. Paper for the measure:
Ramaswamy et al. 2000, Efficient Algorithms for Mining Outliers from Large Data Sets.

>>> import numpy as np
>>> rows = np.random.default_rng(0).normal(20, 1, size=(400, 1)).astype("f4")
>>> rows[300] = 35.0
>>> detector = Novelty(signals=1, config=Config())
>>> detector.begin_empty()
>>> scores = detector.run(detector.begin(1), np.array([0]), np.array([400]), rows).score
>>> int(np.nanargmax(scores)), bool(np.nanmax(scores) > 5)
(300, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models.base import FitReport, Float32, Float64, Progress, Scored, no_progress
from models.errors import InvalidArtifact
from models.novelty import relative, shapes
from models.ranges import within
from models.stepping import CarriedState, Order, pieces
from models.weights import checked
from models.windows import WindowSet, check_windows

_Ints = npt.NDArray[np.integer[Any]]
_Local = dict[str, npt.NDArray[Any]]

#: Channels: size, rest after the time of day, short mean, long mean.
_WEIGHTS: Final = np.array([2.0, 2.0, 1.0, 1.0])
_RELATIVE: Final = np.array([0.0, 2.0, 2.0, 2.0])  # how far the distance from the mean makes a value less surprising
_REST_OF_DAY: Final = 1
_SHORT, _LONG = 24, 48
_SLOTS: Final = 288  # of five minutes in a day
_SLOT_MS: Final = 300_000
_RATE: Final = 0.25  # at which the usual value of a time of day is learnt
_SOFT: Final = 0.05  # keeps one calm channel from silencing all
_WARM_UP: Final = 50  # rows before the first alarm
_PRICE: Final = 0.35  # of an alarm, in units of the logarithm of novelty
_ALARMS_PER_E: Final = 3.5  # prices that the bar sinks by, each time the stream's age grows by a factor of e
_REST: Final = (0.06, 10.0, 200.0)  # share of the age, least and most rows
_ESCALATION: Final = math.log(3.0)
_LEARNT: Final = ("values", "held", "moments", "largest", "seen")


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows an asset must have shown before it is judged; size: values remembered of each channel."""

    window: int = _WARM_UP
    size: int = 512

    def __post_init__(self) -> None:
        within(self, window=(_LONG, 4096), size=(16, 8192))


@dataclass(slots=True)
class NoveltyState(CarriedState):
    """``initial``: what an asset begins with, by name, first axis 1."""

    initial: _Local

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets, each at its beginning."""
        held = len(self.rows)
        CarriedState.grow(self, slots)
        if len(self.rows) > held:
            self.reset(np.arange(held, len(self.rows)))

    def reset(self, slots: _Ints) -> None:
        """Put assets back to their beginning."""
        for name, array in self.arrays.items():
            array[slots] = self.initial[name]
        self.rows[slots] = 0


class Novelty:
    """Novelty of single signals under an alarm budget; see the top of this file."""

    name: ClassVar[str] = "novelty"
    natural_threshold: ClassVar[float] = 1.0
    #: It sees the signals' own units, and forgets nothing over a gap.
    unscaled: ClassVar[bool] = True
    outlives_gaps: ClassVar[bool] = True

    def __init__(self, signals: int, config: Config) -> None:
        self.signals, self.config = signals, config
        self._initial: _Local | None = None

    @property
    def window(self) -> int:
        """Rows of a window."""
        return self.config.window

    @property
    def stepper(self) -> Novelty:
        """It steps itself: ``begin`` and ``run``."""
        return self

    def begin_empty(self) -> None:
        """Be of use without any history: all that counts as known comes from the stream itself."""
        kinds = shapes(len(_WEIGHTS), self.config.size)
        kinds |= {
            "recent": ((_LONG,), np.float32),
            "daily": ((_SLOTS,), np.float32),
            "visits": ((_SLOTS,), np.uint8),
        }
        self._initial = {name: np.zeros((1, self.signals, *shape), kind) for name, (shape, kind) in kinds.items()}
        self._initial["recent"][:] = np.nan
        self._initial |= {name: np.zeros(1, np.float32) for name in ("bar", "last_size")}
        self._initial |= {"seen": np.zeros(1, np.int32), "last_alarm": np.full(1, -1, np.int32)}

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing here is drawn by lot
        progress: Progress = no_progress,
    ) -> FitReport:
        """Remember the values of both: history is told without the time of day, so that channel begins empty."""
        WindowSet.over(segments, self.window, signals=self.signals).require(8, "training")
        WindowSet.over(validation, self.window, signals=self.signals)
        self.begin_empty()
        state, stretches = self.begin(1), [rows for rows in (*segments, *validation) if len(rows)]
        for done, rows in enumerate(stretches, 1):
            self.run(state, np.zeros(1, np.int64), np.array([len(rows)]), rows)
            state.arrays["recent"][:] = np.nan
            progress(done, len(stretches), f"remembered {state.arrays['seen'][0]} rows")
        initial = self._ready()
        for name in _LEARNT:
            initial[name] = state.arrays[name].copy()
        for name in _LEARNT[:-1]:
            initial[name][:, :, _REST_OF_DAY] = 0
        return FitReport({"rows": float(initial["seen"][0])})

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window by what was remembered in training, without learning from it."""
        check_windows(windows, self.window, self.signals)
        initial = self._ready()
        batch = len(windows)
        now = windows[:, -1].astype(np.float64)
        recent = np.ascontiguousarray(windows[:, -_LONG:].transpose(0, 2, 1)).reshape(batch * self.signals, _LONG)
        there = np.isfinite(now)
        known = np.where(there, now, 0.0)
        channels = _channels(known.reshape(-1), np.zeros(batch * self.signals), recent)
        memory = {name: np.repeat(initial[name], batch, axis=0) for name in _LEARNT[:-1]} if batch else {}
        memory = {name: array.reshape(-1, *array.shape[2:]) for name, array in memory.items()}
        ratio = relative(memory, channels, _RELATIVE) if batch else channels
        weights = np.where(np.arange(len(_WEIGHTS)) == _REST_OF_DAY, 0.0, _WEIGHTS)
        strange = np.where(there, _combined(ratio, weights).reshape(batch, self.signals), 0.0)
        return _said(np.log(np.maximum(strange.max(axis=1), 1e-9) / _SOFT), strange, there)

    def begin(self, slots: int = 0) -> NoveltyState:
        """A state for ``slots`` assets, each with what was learnt and nothing more."""
        initial = self._ready()
        arrays = {name: np.repeat(array, slots, axis=0) for name, array in initial.items()}
        return NoveltyState(arrays, np.zeros(slots, np.int32), initial)

    def run(
        self,
        state: NoveltyState,
        slots: _Ints,
        counts: _Ints,
        rows: Float32,
        at_ms: npt.NDArray[np.int64] | None = None,
    ) -> Scored:
        """Judge some new rows of each of several assets; see ``models.base.Stepper``."""
        level, strange = np.empty(len(rows)), np.empty(rows.shape)
        for piece in pieces(slots, counts):
            order = Order(*piece)
            mine = {name: array[order.slots] for name, array in state.arrays.items()}
            for start, count in zip(order.bounds.tolist(), order.active.tolist(), strict=False):
                take = order.take[start : start + count]
                local = mine if count == len(order.slots) else {name: array[:count] for name, array in mine.items()}
                moments_ms = None if at_ms is None else at_ms[take]
                level[take], strange[take] = _step(local, rows[take].astype(np.float64), moments_ms)
            for name, array in state.arrays.items():
                array[order.slots] = mine[name]
            state.rows[order.slots] += order.counts.astype(state.rows.dtype)
        return _said(level, strange, np.isfinite(rows))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """What history left."""
        initial = self._ready()
        return {name: initial[name].astype(_kind(name), copy=True) for name in _LEARNT}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        before = self._initial
        self.begin_empty()
        empty = self._ready()
        self._initial = before
        found = {name: checked(weights, name, empty[name].shape, _kind(name)) for name in _LEARNT}
        if not ((found["held"] >= 0) & (found["held"] <= self.config.size)).all() or (found["seen"] < 0).any():
            raise InvalidArtifact("weights: array 'held' or 'seen' counts what cannot be")
        if (found["moments"][..., [0, 2]] < 0).any() or (found["largest"] < 0).any():
            raise InvalidArtifact("weights: array 'moments' or 'largest' is below 0")
        self._initial = empty | {name: array.astype(empty[name].dtype) for name, array in found.items()}

    def _ready(self) -> _Local:
        if self._initial is None:
            raise RuntimeError("novelty is neither trained nor loaded")
        return self._initial


def _step(held: _Local, rows: Float64, at_ms: npt.NDArray[np.int64] | None) -> tuple[Float64, Float64]:
    """One row (asset, signal) of each asset: how far each lies over the bar (asset,), how strange (asset, signal)."""
    assets, signals = rows.shape
    there = np.isfinite(rows)
    flat = {name: array.reshape(assets * signals, *array.shape[2:]) for name, array in held.items() if array.ndim > 1}
    now, learn = np.where(there, rows, 0.0).reshape(-1), there.reshape(-1)
    recent = flat["recent"]
    recent[learn] = np.concatenate([recent[learn, 1:], now[learn, None].astype(np.float32)], axis=1)
    slot = np.zeros(assets, np.int64) if at_ms is None else at_ms // _SLOT_MS % _SLOTS
    rest = _rest_of_day(flat["daily"], flat["visits"], np.repeat(slot, signals), now, learn)
    ratio = relative(flat, _channels(now, rest, recent), _RELATIVE, learn)
    strange = np.where(there, _combined(ratio, _WEIGHTS).reshape(assets, signals), 0.0)
    if not all(np.shares_memory(flat[name], held[name]) for name in flat):
        raise RuntimeError("the state's arrays must be contiguous, or what is learnt would be lost")
    size = np.log(np.maximum(strange.max(axis=1), 1e-9) / _SOFT)
    return _over_the_bar(held, size, np.asarray(there.any(axis=1))), strange


def _over_the_bar(held: _Local, size: Float64, any_there: npt.NDArray[np.bool_]) -> Float64:
    """Spend the budget: how far ``size`` (asset,) lies over what an alarm has to reach; NaN while warming up."""
    age, last = held["seen"].astype(np.float64), held["last_alarm"]
    sunk = _PRICE * _ALARMS_PER_E * np.log(np.maximum(age, 2) / np.maximum(age - 1, 1)) * (age > 1)
    held["bar"][any_there] = np.maximum(held["bar"] - sunk, 0)[any_there]
    share, least, most = _REST
    resting = (last >= 0) & (age - last <= np.clip(share * age, least, most))
    need = np.where(resting, np.maximum(held["bar"], held["last_size"] + _ESCALATION), held["bar"])
    over = size - need
    alarm = (over > 0) & (age >= _WARM_UP) & any_there
    held["bar"][alarm] += np.float32(_PRICE)
    held["last_size"][alarm] = size[alarm]
    last[alarm] = held["seen"][alarm]
    held["seen"][any_there] += 1
    return np.where(age >= _WARM_UP, over, np.nan)


def _rest_of_day(
    daily: npt.NDArray[Any],
    visits: npt.NDArray[Any],
    slot: npt.NDArray[np.int64],
    now: Float64,
    learn: npt.NDArray[np.bool_],
) -> Float64:
    """What is left of (stream,) values when the usual one for the slot is taken away, 0 at the first; learns it."""
    stream = np.arange(len(now))
    usual, before = daily[stream, slot].astype(np.float64), visits[stream, slot].astype(np.int64)
    rest = np.where(before > 0, now - usual, 0.0)
    moved = np.where(before > 0, usual + np.maximum(_RATE, 1 / (before + 1)) * rest, now)
    daily[stream[learn], slot[learn]] = moved[learn]
    visits[stream[learn], slot[learn]] = np.minimum(before + 1, 255)[learn]
    return rest


def _channels(now: Float64, rest: Float64, recent: npt.NDArray[Any]) -> Float64:
    """(stream,) values -> (stream, channel)."""
    known = ~np.isnan(recent)
    filled = np.where(known, recent, np.float32(0)).astype(np.float64)
    means = [filled[:, -rows:].sum(axis=1) / np.maximum(known[:, -rows:].sum(axis=1), 1) for rows in (_SHORT, _LONG)]
    return np.stack([np.sign(now) * np.log1p(np.abs(now)), rest, *means], axis=1)


def _combined(ratio: Float64, weights: Float64) -> Float64:
    """(stream, channel) -> (stream,) the weighted geometric mean, softened."""
    return np.asarray(np.exp((np.log(ratio + _SOFT) * (weights / weights.sum())).sum(axis=1)) - _SOFT)


def _said(over: Float64, strange: Float64, there: npt.NDArray[np.bool_]) -> Scored:
    """(row,) logarithms of how far over the bar, (row, signal) how strange -> the detector's word."""
    total = strange.sum(axis=1)
    score = np.where(total > 1e-9, np.exp(np.clip(over, -20, 20)), 0.0)
    score[np.isnan(over) | ~there.any(axis=1)] = np.nan
    positive = (total > 1e-9)[:, None]
    contributions = np.divide(strange, total[:, None], out=np.zeros_like(strange), where=positive)
    return Scored(score, contributions)


def _kind(name: str) -> Any:
    """The type a learnt array is kept as in an artifact."""
    return np.float32 if name in {"values", "largest"} else np.float64
