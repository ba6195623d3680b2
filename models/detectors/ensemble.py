"""Asks several detectors and believes them by how rare each finds what it sees: one artifact, one score.

Raw scores of different detectors cannot be compared, let alone added. So each member is calibrated first: it is trained
on all folds of the history but one and scores that one, in turn, and the tail of these scores, none of which it could
have learnt, says how rare any later score is. The ensemble's score is the mean over the members of minus the logarithm
of that probability, as Fisher combined tests. A member that is often surprised needs a larger surprise to be heard.

Members are named in the config; each has its own defaults and sees the newest rows that it asks for. The expected value
and its band are the first member's that gives one; contributions are the members', weighted by what each adds.

Limits: no better than its members where they all err alike; the mean waters down the one member that is right alone.
Where one detector is known to be best, take it alone. Cost: of all members together, to score, and ``folds + 1`` times
that to train; the default pair scores 5,700 windows of 8 signals a second, 0.8 ms for one. Shapes as in
``models.base``. Papers: Fisher 1932, Statistical Methods for Research Workers; Kriegel et al. 2011, Interpreting and
Unifying Outlier Scores; Aggarwal and Sathe 2017, Outlier Ensembles.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> def plant(rows):
...     return (rng.normal(size=(rows, 1)) + 0.1 * rng.normal(size=(rows, 2))).astype("f4")
>>> detector = Ensemble(signals=2, config=Config(members=("pca", "ewma"), window=32))
>>> _ = detector.fit([plant(600)], [plant(150)])
>>> window = plant(32)[None]
>>> calm = detector.score(window).score[0]
>>> window[0, -1, 1] += 4
>>> strange = detector.score(window)
>>> bool(strange.score[0] > 2 * calm), int(strange.contributions[0].argmax())
(True, 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models import registry
from models.base import Detector, FitReport, Float32, Float64, Progress, Scored, no_progress
from models.calibrate import Calibration, calibrate
from models.errors import InvalidArtifact, UnknownDetector
from models.ranges import within
from models.walking import folds
from models.weights import Part, checked
from models.windows import WindowSet, check_windows

#: Windows of a left-out fold that are scored; more only cost time.
_MOST_SCORES: Final = 4096
_CHUNK: Final = 1024  # windows worked on at once


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows it looks back over, at least as many as each member; members: names of detectors, each with its own
    defaults; folds: in how many parts the history is cut to calibrate them.
    """

    window: int = 64
    members: tuple[str, ...] = ("innovations", "mset")
    folds: int = 2

    def __post_init__(self) -> None:
        within(self, window=(4, 4096), folds=(2, 8))
        if len(self.members) < 2 or len(set(self.members)) < len(self.members):
            raise ValueError(f"members: expected two or more different detectors, got {', '.join(self.members)!r}")
        for name in self.members:
            try:
                found = registry.detector_class(name)
            except UnknownDetector as error:
                raise ValueError(f"members: {error}") from None
            if found is Ensemble or hasattr(found, "natural_threshold"):
                raise ValueError(f"members: {name} does not judge the plant by a score that could be calibrated")
            if (rows := registry.configure(name, {}).window) > self.window:
                raise ValueError(f"window: {name} looks back over {rows} rows, so at least {rows}; got {self.window}")


class Ensemble:
    """The mean rarity over several detectors; see the top of this file."""

    name: ClassVar[str] = "ensemble"

    def __init__(self, signals: int, config: Config) -> None:
        self.signals, self.config = signals, config
        self._members = self._fresh()
        self._calibrations: list[Calibration] = []  # one a member, once trained

    @property
    def window(self) -> int:
        """Rows of a window."""
        return self.config.window

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Train each member without each fold in turn, to calibrate it, and then on all of ``segments``."""
        windows = WindowSet.over(segments, self.window, signals=self.signals)
        WindowSet.over(validation, self.window, signals=self.signals).require(4, "validation")
        windows.require(8, "training")
        cut = folds(segments, self.config.folds)
        rounds, calibrations = len(self._members) * (len(cut) + 1), []
        for place, member in enumerate(self._members):
            left_out: list[Float64] = []
            for number, (rest, fold) in enumerate(cut):
                draft = self._fresh()[place]
                draft.fit(
                    rest, validation, seed=seed, progress=_part(progress, place * (len(cut) + 1) + number, rounds)
                )
                left_out += [self._scores(draft, rows) for rows in fold if len(rows) >= self.window]
            calibrations.append(calibrate(left_out, period_s=1.0, cluster_rows=self.window // 2))
            member.fit(
                segments, validation, seed=seed, progress=_part(progress, place * (len(cut) + 1) + len(cut), rounds)
            )
        self._calibrations = calibrations
        return FitReport({f"{name}.level": c.level for name, c in zip(self.config.members, calibrations, strict=True)})

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        if not self._calibrations:
            raise RuntimeError("ensemble is neither trained nor loaded")
        total = np.zeros(len(windows))
        shares = np.zeros((len(windows), self.signals))
        expected = spread = None
        for member, calibration in zip(self._members, self._calibrations, strict=True):
            said = _newest(member, windows)
            rarity = calibration.rarity(said.score)
            total += rarity / len(self._members)
            shares += np.nan_to_num(rarity)[:, None] * said.contributions
            if expected is None:
                expected, spread = said.expected, said.spread
        whole = shares.sum(axis=1, keepdims=True)
        contributions = np.divide(shares, whole, out=np.zeros_like(shares), where=whole > 0)
        return Scored(total, contributions, expected, spread)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Each member's arrays under its name, with its calibration."""
        if not self._calibrations:
            raise RuntimeError("ensemble is neither trained nor loaded")
        named: dict[str, npt.NDArray[Any]] = {}
        for name, member, c in zip(self.config.members, self._members, self._calibrations, strict=True):
            named |= {f"{name}.{key}": array for key, array in member.weights().items()}
            tail = (c.level, c.shape, c.scale, c.rate, c.extremal_index, float(c.count), c.period_s, c.highest)
            named[f"{name}.calibration"] = np.array([*tail, *c.body])
        return named

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        calibrations = []
        for name, member in zip(self.config.members, self._members, strict=True):
            own = Part(weights, f"{name}.")
            member.load_weights(own)
            size = own["calibration"].size if "calibration" in own else 0
            array = checked(own, "calibration", (size,), np.float64)
            try:
                calibrations.append(_calibration(array))
            except InvalidArtifact as error:
                raise InvalidArtifact(f"weights: array '{name}.calibration': {error}") from None
        self._calibrations = calibrations

    def _fresh(self) -> list[Detector]:
        return [registry.create(name, signals=self.signals) for name in self.config.members]

    def _scores(self, member: Detector, rows: Float32) -> Float64:
        """What a member makes of a stretch, as the ensemble will ask it: window by window."""
        windows = WindowSet.over([rows], self.window, signals=self.signals, most=_MOST_SCORES)
        starts = range(0, len(windows), _CHUNK)
        return np.concatenate([_newest(member, windows.take(slice(s, s + _CHUNK))).score for s in starts])


def _newest(member: Detector, windows: Float32) -> Scored:
    """What a member makes of the newest rows that it asks for."""
    return member.score(np.ascontiguousarray(windows[:, windows.shape[1] - member.window :]))


def _calibration(array: Float64) -> Calibration:
    fields = ("level", "shape", "scale", "rate", "extremal_index", "count", "period_s", "highest")
    if len(array) <= len(fields):
        raise InvalidArtifact("too few numbers")
    values: dict[str, Any] = dict(zip(fields, array.tolist(), strict=False))
    return Calibration.from_dict(values | {"body": array[len(fields) :].tolist(), "natural": None})


def _part(progress: Progress, number: int, parts: int) -> Progress:
    """One of several trainings as a stretch of one progress."""
    return lambda done, total, note: progress(number * 1000 + 1000 * done // max(total, 1), parts * 1000, note)
