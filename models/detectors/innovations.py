"""Foretells all signals from all signals, and watches for innovations that are large, that last, or that are new.

A ridge autoregression foretells each row from the five before it; what it could not foretell is whitened across
signals, so that a change of a relation counts as much as a change of a level. Three members look at it:

    power   root of the mean over signals of an exponential mean of squares: spikes, noise, changed dynamics
    level   the largest exponential mean with its sign over the signals: drift and steps that a forecaster follows
    memory  distance of the last 40 rows to all windows of training (``models.memory``): states never seen

Each counts over its own 99 % quantile on folds of training that the member had not seen, and so does their weighted
mean: a score of 1 is what one clean row in a hundred reaches. The state is carried: a row costs one step, taken in
``models.walking``.

Limits: linear in what it foretells; a mode that training never ran is strange to it; faults in the training data widen
its yardsticks. Cost: no TensorFlow; a second or two to train; most of a reading's time goes to the memory, which
``memory = false`` leaves out. Shapes as in ``models.base``. Papers: Lütkepohl 2005 for vector autoregression; Ledoit
and Wolf 2004 for the whitening; Roberts 1959 for the exponential means; Ramaswamy et al. 2000 for the memory.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> def plant(rows):  # the second signal follows the first
...     first = np.cumsum(rng.normal(size=rows)) % 7
...     return np.stack([first, -first + 0.1 * rng.normal(size=rows)], axis=1).astype("f4") - [3.5, -3.5]
>>> detector = Innovations(signals=2, config=Config())
>>> _ = detector.fit([plant(800).astype("f4")], [])
>>> window = plant(64).astype("f4")[None]
>>> calm = detector.score(window).score[0]
>>> window[0, -3:, 1] *= -1  # each value is usual, the two together are not
>>> bool(detector.score(window).score[0] > 2 * calm)
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models.autoregression import LAGS
from models.base import FitReport, Float32, Float64, Progress, Scored, no_progress
from models.errors import InvalidArtifact
from models.memory import ROWS
from models.ranges import within
from models.scaling import RobustScaler
from models.search import OneOf, Space, Whole
from models.stepping import CarriedState, pieces
from models.walking import MEMBERS, PURGE, Judged, Walker, begin, folds
from models.weights import checked
from models.windows import WindowSet, check_windows, fill_forward

_Ints = npt.NDArray[np.integer[Any]]
_WEIGHTS: Final = (2.0, 2.0, 1.0)
_QUANTILE: Final = 0.99


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows an asset must have shown before it is judged; memory: whether windows are remembered as well."""

    window: int = 64
    memory: bool = True

    def __post_init__(self) -> None:
        within(self, window=(ROWS, 4096))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {"window": Whole(40, 256, log=True), "memory": OneOf((True, False))}


class Innovations:
    """Whitened innovations and a memory of windows; see the top of this file."""

    name: ClassVar[str] = "innovations"
    #: A score of 1 is its own 99 % quantile on rows it had not seen.
    calibrates_itself: ClassVar[bool] = True

    def __init__(self, signals: int, config: Config) -> None:
        self.signals, self.config = signals, config
        self._walker: Walker | None = None
        self._usual = np.ones(len(MEMBERS) + 1)  # each member's and their mean's own quantile

    @property
    def window(self) -> int:
        """Rows of a window."""
        return self.config.window

    @property
    def stepper(self) -> Innovations:
        """It steps itself: ``begin`` and ``run``."""
        return self

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing here is drawn by lot
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn from ``segments``; what is usual, from folds of it left out in turn and from ``validation``."""
        WindowSet.over(segments, self.window, signals=self.signals).require(8, "training")
        WindowSet.over(validation, self.window, signals=self.signals)
        stretches = [fill_forward(rows[None])[0] for rows in segments if len(rows) > LAGS]
        held = [fill_forward(rows[None])[0] for rows in validation if len(rows) > PURGE]
        seen: list[Float64] = []
        cut = folds(stretches)
        for done, (rest, left_out) in enumerate(cut, 1):
            scaler = RobustScaler.fit(rest)  # what was left out must not even have set the scale
            draft = Walker.fit([scaler.transform(rows) for rows in rest], self.config.memory)
            seen += [draft.members(scaler.transform(rows))[PURGE:] for rows in left_out]
            progress(done, len(cut) + 1, f"fold {done} of {len(cut)} left out")
        self._walker = Walker.fit(stretches, self.config.memory)
        seen += [self._walker.members(rows)[PURGE:] for rows in held]
        pooled = np.concatenate(seen)
        each = np.maximum(np.quantile(pooled, _QUANTILE, axis=0), 1e-6)
        self._usual = np.append(each, 1.0)
        self._usual[-1] = max(float(np.quantile(self._mean(pooled), _QUANTILE)), 1e-6)
        progress(len(cut) + 1, len(cut) + 1, "measured what is usual")
        return FitReport({"usual_rows": float(len(pooled)), "windows": float(len(self._walker.memory.windows))})

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window, as if its rows were all that was ever seen."""
        check_windows(windows, self.window, self.signals)
        if not len(windows):
            return self._scored([], 0)
        count = np.full(len(windows), self.window)
        rows = windows.reshape(-1, self.signals)
        return self._judge(self.begin(len(windows)), np.arange(len(windows)), count, rows, newest=True)

    def begin(self, slots: int = 0) -> CarriedState:
        """A state for ``slots`` assets that have shown nothing yet."""
        return begin(slots, self.signals, self.config.memory)

    def run(
        self,
        state: CarriedState,
        slots: _Ints,
        counts: _Ints,
        rows: Float32,
        at_ms: npt.NDArray[np.int64] | None = None,  # noqa: ARG002  # it foretells rows, whenever they come
    ) -> Scored:
        """Judge some new rows of each of several assets; see ``models.base.Stepper``."""
        return self._judge(state, slots, counts, rows, newest=False)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learnt, as named arrays."""
        return self._trained().weights() | {"usual": self._usual}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        walker = Walker.from_weights(weights, self.signals, self.config.memory)
        usual = checked(weights, "usual", (len(MEMBERS) + 1,), np.float64)
        if (usual <= 0).any():
            raise InvalidArtifact("weights: array 'usual' must be above 0")
        self._walker, self._usual = walker, usual

    def _judge(self, state: CarriedState, slots: _Ints, counts: _Ints, rows: Float32, *, newest: bool) -> Scored:
        walker = self._trained()
        parts = [walker.walk(state, *piece, rows, newest) for piece in pieces(slots, counts)]
        return self._scored(parts, len(slots) if newest else len(rows))

    def _scored(self, parts: Sequence[Judged], rows: int) -> Scored:
        score, contributions = np.empty(rows), np.empty((rows, self.signals))
        expected = np.empty((rows, self.signals), np.float32)
        spread = self._trained().spread
        for part in parts:
            score[part.take] = self._mean(part.members)
            weighted = np.asarray(_WEIGHTS)[:, None] * (part.members / self._usual[:-1]).T
            shares = np.einsum("mr,mrs->rs", weighted, part.shares.astype(np.float64))
            shares[~part.known] = 0.0
            total = shares.sum(axis=1, keepdims=True)
            contributions[part.take] = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
            score[part.take] *= total[:, 0] > 0  # nothing known is strange
            score[part.take[~part.known.any(axis=1)]] = np.nan
            expected[part.take] = part.expected
        return Scored(score, contributions, expected, np.broadcast_to(spread, expected.shape))

    def _mean(self, members: Float64) -> Float64:
        """(row, member) -> the weighted mean over what is usual, over what is usual for that."""
        weights = np.asarray(_WEIGHTS) * (1.0, 1.0, float(self.config.memory))
        return np.asarray((members / self._usual[:-1] * (weights / weights.sum())).sum(axis=1) / self._usual[-1])

    def _trained(self) -> Walker:
        if self._walker is None:
            raise RuntimeError("innovations is neither trained nor loaded")
        return self._walker
