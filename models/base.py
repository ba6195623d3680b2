"""The contract of a detector: windows in, scores out; higher is stranger.

A detector is one file in ``models/detectors``. It sees only numbers that the one scaler of its artifact has already
scaled, knows no threshold (``calibrate``), no alert (``stream.decide``) and no clock, and keeps no memory between
calls: scoring a window twice gives the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

#: What a verdict is about. Index 0 is a model's own verdict; the others are about the quality of the data.
KINDS: Final = ("model", "stuck", "missing", "out_of_range", "stale", "bad_quality")

#: Told how training goes: (steps done, steps in all, what is going on now, e.g. "epoch 3, validation loss 0.12").
Progress = Callable[[int, int, str], None]


def no_progress(done: int, total: int, note: str) -> None:
    """A ``Progress`` that tells nobody."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a detector says of a batch of windows; every array's first axis is the batch.

    score          (batch,) float64, 0 or more, higher is stranger; NaN where the newest row holds no usable value
    contributions  (batch, signal) float64, 0 or more; a row sums to 1 where the score is above 0, else it is all zero
    expected       (batch, signal) float32, scaled: what the newest row should have been; None if the detector can't say
    spread         (batch, signal) float32, scaled: the standard deviation of ``expected``'s error; None like it
    kind           (batch,) uint8, index into ``KINDS``; None means all of them are the model's own verdict
    classes        (batch, class) float32, how likely each of the detector's ``class_names`` is; a row sums to 1; None
    if
                   the detector does not tell faults apart
    heat           (batch,) a map (row, column) float32 for each picture, 0 or more, higher is stranger; None if what
                   was judged were no pictures
    """

    score: Float64
    contributions: Float64
    expected: Float32 | None = None
    spread: Float32 | None = None
    kind: UInt8 | None = None
    classes: Float32 | None = None
    heat: tuple[Float32, ...] | None = None


#: The class of everything that is in order, and the one of what resembles nothing that was learnt.
NORMAL: Final = "normal"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class FitReport:
    """How a training went: the figures to print, and the curves to draw."""

    figures: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A stretch of history and what was going on in each of its rows.

    rows (row, signal) float32, scaled, as ``Detector.fit`` takes them; classes (row,) int64, index into the classes.
    """

    rows: Float32
    classes: npt.NDArray[np.int64]


class Stepper(Protocol):
    """Judges each new row by itself, with a state per asset in place of a window (``models.stepping``)."""

    def begin(self, slots: int = 0) -> Any:
        """Return a state for ``slots`` assets, with ``grow(slots)`` and ``reset(slots)``."""
        ...

    def run(
        self,
        state: Any,
        slots: npt.NDArray[np.integer[Any]],
        counts: npt.NDArray[np.integer[Any]],
        rows: Float32,
        at_ms: npt.NDArray[np.int64] | None = None,
    ) -> Scored:
        """Judge some new rows of each of several assets, and update their state.

        ``slots``: (asset,) integers, each once; ``counts``: (asset,) how many rows each has, at least 1; ``rows``:
        (row, signal) float32, scaled, NaN where missing, the rows of an asset one after the other, in the order of
        ``slots``; ``at_ms``: (row,) when each of them was measured, epoch milliseconds, for detectors that know the
        time of day.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """What ``models`` and ``stream`` know of a detector.

    A class in ``models/detectors/<name>.py`` follows it with a constructor ``(signals: int, config: Config)`` where
    ``Config`` is a frozen dataclass of plain values with defaults and at least ``window: int`` (rows).
    """

    name: str
    signals: int
    config: Any

    @property
    def window(self) -> int:
        """Rows of a window: what ``score`` needs to judge the newest of them."""
        ...

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn what is normal.

        ``segments`` and ``validation`` are stretches of clean history, each (row, signal) float32, scaled, NaN where a
        value is missing, in the order of time and without gaps; ``validation`` is later than ``segments`` and is for
        stopping early and for the spread of errors, never for the weights. Same data and seed: same weights on a CPU.

        Raises ``TrainingError`` if no window fits into the segments.
        """
        ...

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window.

        ``windows``: (batch, time, signal) float32, scaled, NaN where a value is missing, time = ``window`` rows with
        the newest last. Raises ``ValueError`` for any other shape. Thread-safe once fitted.
        """
        ...

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learnt, as named arrays (float32, float64 or int64), enough to restore the detector."""
        ...

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact`` on a missing, misshapen or non-finite array."""
        ...


@runtime_checkable
class Classifier(Detector, Protocol):
    """A detector that also tells faults apart, once it was shown some (``models.diagnosis``)."""

    #: Distances beyond which a window is ``UNKNOWN``, and is not ``NORMAL``.
    limits: tuple[float, float]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the columns of ``Scored.classes`` are; the first is ``NORMAL``, the last ``UNKNOWN``."""
        ...

    def fit_labelled(
        self,
        segments: Sequence[Labelled],
        validation: Sequence[Labelled],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """``fit`` with the class of every row known; a window is of the class of its newest row."""
        ...
