"""Made-up sensor windows of labelled classes: learnt from recordings, written as recordings.

Of some faults there is an hour of rows, and of normal operation a year. ``learn`` trains two networks against each
other (``models.wasserstein``) on all classes at once, so that a scarce class borrows from the others how signals move
together, and ``Maker.make`` gives as many windows of a class as are asked for. They come with the same names, units and
period as what was learnt from, and a column ``fault``, so that whatever reads recordings reads them.

The networks never see raw values. They are scaled as for every detector, drawn in (asinh: a fault goes many spreads
far), taken relative to mean and spread of their own class, and turned so that signals are uncorrelated within a class
(principal components, each of unit spread). What the networks have to learn is the course of a window and the colour of
its noise; level, size and company of the signals are right from the start, for a class with forty rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import NORMAL, Float32, Float64, Progress, no_progress
from models.datasets import Recording
from models.errors import TrainingError
from models.ranges import within
from models.scaling import RobustScaler
from models.train import columns_of, infer_period_s, unbroken

_LONGEST: Final = 64  # rows of a window unless asked for more
_SHARE: Final = 0.7  # of a class's longest stretch that a window is long, at most
_LEAST_WINDOWS: Final = 8  # of a class
_LEAST_ROWS: Final = 16
_BORROWED: Final = 10.0  # rows of the other classes' spread that a class's own counts with
_LEAST_SPREAD: Final = 1e-3  # scaled
_FLOOR: Final = 1e-3  # of a component's variance, where signals follow each other exactly
_MEASURED: Final = 256  # windows of a class are made to see where its level lies
_MOST_CHANGE: Final = 2.0  # of a component's spread
#: Made windows lie so many of their lengths apart in time: no detector takes two of them for one stretch.
_APART: Final = 4

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Config:
    """rows: of a window, a multiple of 4, 0 for as many as the scarcest class allows (up to 64); steps: of training;
    filters: of the hidden layers; code: numbers drawn for a window as a whole.
    """

    rows: int = 0
    steps: int = 1200
    filters: int = 64
    code: int = 32

    def __post_init__(self) -> None:
        within(self, rows=(0, 1024), steps=(1, 1_000_000), filters=(4, 512), code=(1, 512))
        if self.rows % 4 or 0 < self.rows < _LEAST_ROWS:
            raise ValueError(f"rows: expected 0 or a multiple of 4 from {_LEAST_ROWS} on, got {self.rows}")


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Between the signals' own units and what the networks see.

    mean, spread (class, signal): of the drawn-in values; turn (signal, component) and back (component, signal)
    """

    scaler: RobustScaler
    mean: Float64
    spread: Float64
    turn: Float64
    back: Float64

    @classmethod
    def of(cls, stretches: Sequence[Sequence[Float64]], normal: int) -> _Frame:
        """``stretches`` by class, each (row, signal)."""
        scaler = RobustScaler.fit(stretches[normal])
        drawn_in = [np.concatenate([_drawn_in(scaler, rows) for rows in held]) for held in stretches]
        counts = np.array([len(rows) for rows in drawn_in], np.float64)[:, None]
        mean = np.stack([rows.mean(axis=0) for rows in drawn_in])
        variance = np.stack([rows.var(axis=0) for rows in drawn_in])
        pooled = variance.mean(axis=0)
        spread = np.sqrt((counts * variance + _BORROWED * pooled) / (counts + _BORROWED) + _LEAST_SPREAD**2)
        within_class = [(rows - mean[k]) / spread[k] for k, rows in enumerate(drawn_in)]
        values, vectors = np.linalg.eigh(np.mean([rows.T @ rows / len(rows) for rows in within_class], axis=0))
        size = np.sqrt(np.maximum(values, _FLOOR))
        return cls(scaler, mean, spread, vectors / size, (vectors * size).T)

    def seen(self, rows: Float64, number: int) -> Float32:
        """(row, signal) of a class in own units -> (row, component)."""
        relative = (_drawn_in(self.scaler, rows) - self.mean[number]) / self.spread[number]
        return np.asarray(relative @ self.turn, np.float32)

    def own(self, seen: Float32, number: int) -> Float64:
        """(..., component) of a class -> (..., signal) in own units."""
        drawn_in = (seen.astype(np.float64) @ self.back) * self.spread[number] + self.mean[number]
        return np.asarray(np.sinh(drawn_in) * self.scaler.scale + self.scaler.centre, np.float64)


#: (class (window,), random numbers) -> (window, row, component).
_Make = Callable[[Int64, np.random.Generator], Float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """What is left between made and real windows of a class when the networks are done: ``shift`` and ``size``
    (component,) of each, taken out.
    """

    made: tuple[Float32, Float32]
    real: tuple[Float32, Float32]

    @classmethod
    def between(cls, made: Float32, real: Float32) -> _Level:
        """(window, row, component) of one class each."""
        both = [(part.mean(axis=(0, 1)), part.std(axis=(0, 1)) + np.float32(_LEAST_SPREAD)) for part in (made, real)]
        return cls(both[0], both[1])

    def apply(self, seen: Float32) -> Float32:
        """Made windows (window, row, component) as they should be."""
        size = np.clip(self.real[1] / self.made[1], 1 / _MOST_CHANGE, _MOST_CHANGE)
        return np.asarray((seen - self.made[0]) * size + self.real[0], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Maker:
    """What ``learn`` gives.

    classes in the order of the alphabet; signals; period_s; rows: of a window; windows: how many of each class it
    learnt from; gaps: the course of the critic's distance
    """

    classes: tuple[str, ...]
    signals: tuple[str, ...]
    period_s: float
    rows: int
    windows: tuple[int, ...]
    gaps: Sequence[float]
    _frame: _Frame
    _level: Sequence[_Level]
    _make: _Make

    def make(self, name: str, count: int, *, seed: int = 0) -> Float64:
        """(count, row, signal) of the class ``name``, in the signals' own units. Raises ``TrainingError``."""
        number = self._number(name)
        rng = np.random.default_rng([seed, number])
        return self._frame.own(self._level[number].apply(self._make(np.full(count, number, np.int64), rng)), number)

    def recordings(self, name: str, count: int, *, seed: int = 0, start_ms: int = 0) -> list[Recording]:
        """The same as recordings, one a window, named ``made-<class>-<number>``; the class of each row is in
        ``faults``.
        """
        step_ms = round(1000 * self.period_s)
        at_ms = start_ms + step_ms * np.arange(self.rows, dtype=np.int64)
        told = np.full(self.rows, name)
        wrong = told != NORMAL
        stem = "made-" + "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        return [
            Recording(
                f"{stem}-{number:04d}", at_ms + number * _APART * self.rows * step_ms, self.signals, values, wrong, (),
                told,
            )
            for number, values in enumerate(self.make(name, count, seed=seed))
        ]  # fmt: skip

    def _number(self, name: str) -> int:
        if name not in self.classes:
            raise TrainingError(f"no class is called {name!r}; learnt were {', '.join(self.classes)}")
        return self.classes.index(name)


def learn(
    recordings: Sequence[Recording],
    *,
    config: Config | None = None,
    signals: Sequence[str] | None = None,
    seed: int = 0,
    period_s: float | None = None,
    max_gap_s: float | None = None,
    progress: Progress = no_progress,
) -> Maker:
    """Learn every class that the recordings' ``faults`` name; recordings without are normal throughout.

    Rows with a missing value are left out. Raises ``TrainingError`` naming the class that is too scarce.
    """
    if not recordings:
        raise TrainingError("there is no recording to learn from")
    asked = config or Config()
    names = tuple(signals) if signals is not None else recordings[0].signals
    period = period_s if period_s is not None else infer_period_s(recordings)
    found = by_class(recordings, names, 5.0 * period if max_gap_s is None else max_gap_s)
    if NORMAL not in found:
        raise TrainingError("no row is normal: there is nothing to scale by; give clean history as well")
    classes = tuple(sorted(found))
    stretches = [found[name] for name in classes]
    rows = asked.rows or _rows(classes, stretches)
    frame = _Frame.of(stretches, classes.index(NORMAL))
    parts = [
        np.concatenate([_windows(frame.seen(part, number), rows) for part in held])
        for number, held in enumerate(stretches)
    ]
    for name, part in zip(classes, parts, strict=True):
        if len(part) < _LEAST_WINDOWS:
            raise TrainingError(
                f"{name}: {len(part)} windows of {rows} rows, at least {_LEAST_WINDOWS} are needed: give more of it, "
                "shorter windows, or leave the class out"
            )
    from models import wasserstein  # noqa: PLC0415  # it imports TensorFlow

    sizes = wasserstein.Sizes(rows, len(names), len(classes), asked.filters, asked.code)
    which = np.repeat(np.arange(len(classes)), [len(part) for part in parts])
    played = wasserstein.play(np.concatenate(parts), which, sizes, steps=asked.steps, seed=seed, progress=progress)
    rng = np.random.default_rng([seed, len(classes)])
    levels = [
        _Level.between(played.make(np.full(_MEASURED, number, np.int64), rng), part)
        for number, part in enumerate(parts)
    ]
    counts = tuple(len(part) for part in parts)
    return Maker(classes, names, period, rows, counts, played.gaps, frame, levels, played.make)


def by_class(recordings: Sequence[Recording], names: Sequence[str], max_gap_s: float) -> dict[str, list[Float64]]:
    """Stretches (row, signal) without a gap or a missing value, by what was going on in them."""
    found: dict[str, list[Float64]] = {}
    for held in recordings:
        values = columns_of(held, names)
        told = np.full(len(values), NORMAL) if held.faults is None else held.faults
        whole = np.isfinite(values).all(axis=1)
        for name in np.unique(told).tolist():
            for rows in unbroken(held.at_ms, whole & (told == name), max_gap_s):
                found.setdefault(name, []).append(values[rows])
    return found


def windows_of(stretches: Sequence[Float64], rows: int) -> Float64:
    """All windows of ``rows`` rows in stretches (row, signal): (window, row, signal)."""
    signals = stretches[0].shape[1]
    return np.concatenate([np.empty((0, rows, signals)), *(_windows(part, rows) for part in stretches)])


def _rows(classes: Sequence[str], stretches: Sequence[Sequence[Float64]]) -> int:
    longest = [max(map(len, held)) for held in stretches]
    rows = min(_LONGEST, 4 * int(_SHARE * min(longest) / 4))
    if rows < _LEAST_ROWS:
        scarce = classes[int(np.argmin(longest))]
        raise TrainingError(
            f"{scarce}: its longest stretch without a gap has {min(longest)} rows, too few for a window of "
            f"{_LEAST_ROWS}: give more of it, or leave the class out"
        )
    return rows


def _windows(rows: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    starts = np.arange(max(len(rows) - length + 1, 0))
    cut: npt.NDArray[Any] = rows[starts[:, None] + np.arange(length)]
    return cut


def _drawn_in(scaler: RobustScaler, rows: Float64) -> Float64:
    return np.asarray(np.arcsinh(scaler.transform(rows).astype(np.float64)), np.float64)
