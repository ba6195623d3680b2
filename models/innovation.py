"""From errors to a score: what forecasters, autoencoders and the baseline do with their innovations.

An innovation is what a detector did not expect: the value less its expectation. One large innovation is a spike; many
fairly large ones are changed dynamics; small ones that keep their sign are drift, or a level that a forecaster has
learnt to follow; a few that are usual alone but never together are a broken relation between signals. So three views of
the newest innovations, each over what is usual for it on clean data:

    newest   power of the newest row
    recent   power of the last rows, weighted exponentially (as Telemanom smooths its errors; Hundman et al. 2018)
    level    square of the exponentially weighted mean with its sign

each once per signal and once after whitening across signals (Ledoit and Wolf 2004 shrinkage; ZCA, so that a whitened
innovation still belongs to its signal). The score is the root of their weighted mean, about 1 on clean data, and
because it is a sum over signals of squares, each signal's share of it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64
from models.weights import checked

#: Standardised innovations are clipped here, far above any threshold, so that no square can overflow.
CLIP: Final = 1e3
_Floats = npt.NDArray[np.floating[Any]]
_FLOOR: Final = 0.05  # scaled: an error smaller than this is never strange, however well a signal is predicted
RECENT: Final = 0.15  # weight of the newest row in the recent power
LEVEL: Final = 0.06  # and in the signed mean: about 16 rows
#: Weight of (newest, recent, level), per signal and whitened.
_VIEWS: Final = ((1.0, 1.0, 2.0), (1.0, 1.0, 2.0))


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """What is usual for the innovations of a trained detector.

    spread: (signal,) float32, scaled units; whitener: (signal, signal) float64, symmetric;
    usual: (2, 3) float64, what each view mostly is on clean data (plain and whitened by newest, recent and level).
    """

    spread: Float32
    whitener: Float64
    usual: Float64

    @classmethod
    def fit(cls, innovations: Float32) -> Yardstick:
        """Measure clean ``innovations`` (window, time, signal), NaN where unknown, the newest row last."""
        newest = innovations[:, -1].astype(np.float64)
        spread = robust_spread(newest)
        draft = cls(spread, np.eye(len(spread)), np.ones((2, 3)))
        z = np.nan_to_num(np.clip(draft.standardised(innovations), -5.0, 5.0))  # a few faults must not shape it
        whitened = cls(spread, whitener(z[:, -1]), np.ones((2, 3)))
        usual = np.array([[np.median(part.mean(axis=1)) for part in row] for row in whitened._views(innovations)])
        return cls(spread, whitened.whitener, np.maximum(usual, 1e-3))

    def score(self, innovations: Float32) -> tuple[Float64, Float64]:
        """(batch, time, signal), NaN where unknown -> score (batch,) and contributions (batch, signal), float64.

        The score is NaN where the whole newest row is.
        """
        return combine(self._views(innovations), self.usual, ~np.isnan(innovations[:, -1]))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays for the artifact."""
        return {f"yardstick.{name}": getattr(self, name) for name in ("spread", "whitener", "usual")}

    @classmethod
    def from_weights(cls, weights: Mapping[str, npt.NDArray[Any]], signals: int) -> Yardstick:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        return cls(
            checked(weights, "yardstick.spread", (signals,)),
            checked(weights, "yardstick.whitener", (signals, signals), np.float64),
            checked(weights, "yardstick.usual", (2, 3), np.float64),
        )

    def standardised(self, innovations: Float32) -> Float64:
        """(..., signal) innovations over their usual size, clipped."""
        return np.clip(innovations.astype(np.float64) / self.spread, -CLIP, CLIP)

    def _views(self, innovations: Float32) -> list[tuple[Float64, Float64, Float64]]:
        """For plain and whitened: the (batch, signal) squares of newest, recent and level."""
        z = np.nan_to_num(self.standardised(innovations))
        # a stack of small products, not one large one: each window's product has the same shape in any batch
        whitened = z @ self.whitener
        return [_views(z), _views(whitened)]


def combine(
    views: Sequence[tuple[_Floats, _Floats, _Floats]], usual: Float64, known: npt.NDArray[np.bool_]
) -> tuple[Float64, Float64]:
    """Views of (batch, signal) each, plain and whitened -> score (batch,) and contributions (batch, signal).

    ``usual`` is what each view mostly is; ``known`` (batch, signal) tells which of the newest values are there.
    """
    shares: Any = None
    for parts, weights in zip(views, view_weights(usual), strict=True):
        for part, weight in zip(parts, weights, strict=True):
            weighted = part * part.dtype.type(weight)
            shares = weighted if shares is None else np.add(shares, weighted, out=shares)
    return summed(shares.astype(np.float64), known)


def view_weights(usual: Float64) -> Float64:
    """(2, 3): what each view, plain and whitened by newest, recent and level, counts in a signal's share."""
    weights = np.array(_VIEWS)
    return np.asarray(weights / usual / weights.sum())


def summed(shares: Float64, known: npt.NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """What is strange about each signal, 1 being usual -> score (batch,) and contributions (batch, signal).

    ``known`` (batch, signal) tells which of the newest values are there. Spoils ``shares``.
    """
    everything = bool(known.all())
    if not everything:
        shares *= known  # what is not there contributes nothing
    total = shares.sum(axis=1)
    # A missing signal counts as a usual one: a mean over fewer signals would swing more, and alarm by itself.
    missing = 0 if everything else (~known).sum(axis=1)
    score = np.sqrt(np.where(total > 0, total + missing, 0.0) / shares.shape[1])
    if not everything:
        score[~known.any(axis=1)] = np.nan
    if total.size and total.min() > 0:
        contributions = np.divide(shares, total[:, None], out=shares)
    else:
        contributions = np.divide(shares, total[:, None], out=np.zeros_like(shares), where=total[:, None] > 0)
    return score, contributions


def robust_spread(errors: Float64) -> Float32:
    """(row, signal), NaN where unknown -> (signal,) the usual size of an error, robust, never below a floor.

    A lasting bias is no constant to take away but a sign of how far the signal drifts from what was learnt, and it will
    drift on: it counts as spread (on the Tennessee Eastman process that alone found 5 % more of the faulty rows).
    """
    spread = np.full(errors.shape[1], _FLOOR)
    for signal, column in enumerate(errors.T):
        known = column[np.isfinite(column)]
        if len(known) >= 4:
            low, middle, high = np.percentile(known, [16, 50, 84])
            # heavy tails and rare steps are part of what is usual: between the robust spread and the full one
            spread[signal] = np.hypot(max(_FLOOR, (high - low) / 2, 0.5 * float(np.std(known))), middle)
    return spread.astype(np.float32)


def _views(z: Float64) -> tuple[Float64, Float64, Float64]:
    recent, level = (_decay(z.shape[1], rate) for rate in (RECENT, LEVEL))
    # products of one window each, like the whitening's: a third of the time of multiplying and then summing
    return z[:, -1] ** 2, recent @ (z * z), (level @ z) ** 2 / float((level**2).sum())


def _decay(length: int, rate: float) -> Float64:
    """Weights of an exponentially weighted mean over ``length`` rows, the newest last; they sum to 1."""
    weights = (1.0 - rate) ** np.arange(length - 1, -1, -1)
    return np.asarray(weights / weights.sum(), np.float64)


def whitener(z: Float64) -> Float64:
    """(row, signal) standardised -> the symmetric inverse root of the shrunk covariance (signal, signal)."""
    rows, signals = z.shape
    z = z - z.mean(axis=0)
    sample = z.T @ z / max(rows, 1)
    target = np.trace(sample) / signals * np.eye(signals)
    distance = float(((sample - target) ** 2).sum())
    noise = float((((z**2).T @ (z**2)) / max(rows, 1) - sample**2).sum()) / max(rows, 1)
    shrink = 1.0 if distance <= 0 else float(np.clip(noise / distance, 0.02, 1.0))
    values, vectors = np.linalg.eigh((1 - shrink) * sample + shrink * target)
    values = np.maximum(values, max(0.05 * float(values.max()), 1e-6))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T, np.float64)
