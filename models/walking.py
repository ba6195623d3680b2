"""Goes through rows with a linear forecast and carries each asset's means: what ``innovations`` scores by.

A row is taken as in ``models.stepping``: all that needs no state for all rows of a batch at once, and step by step only
the exponential means. Bits of a row's members depend neither on its company nor on how batches are cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.autoregression import LAGS, Autoregression, clipped
from models.base import Float32, Float64
from models.errors import InvalidArtifact
from models.innovation import whitener
from models.memory import BLOCKS, ROWS, WindowMemory
from models.stepping import CarriedState, Order, pieces
from models.tiles import product
from models.weights import checked

MEMBERS: Final = ("power", "level", "memory")
PURGE: Final = 40  # rows left out at the seams of a fold, and not judged at its beginning
_Ints = npt.NDArray[np.integer[Any]]
_POWER: Final = np.float32(0.1)  # weight of the newest row in the exponential means
_LEVEL: Final = np.float32(0.06)
_FOLDS: Final = 4
_LEAST_SPREAD: Final = 0.05  # scaled: the band around an expected value is never narrower
_LEAST_USUAL: Final = 1e-4  # of the average signal: one that hardly ever moved is strange at once when it does


def begin(slots: int, signals: int, remember: bool) -> CarriedState:
    """A state for ``slots`` assets that have shown nothing yet."""
    shapes = {"past": (ROWS - 1 if remember else LAGS, signals), "means": (2 * signals,)}
    arrays = {name: np.zeros((slots, *shape), np.float32) for name, shape in shapes.items()}
    return CarriedState(arrays, np.zeros(slots, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What was found in the rows ``take`` (row,) of a batch.

    members (row, member) float64; shares (member, row, signal) of them; known (row, signal); expected (row, signal)
    """

    take: npt.NDArray[np.int64]
    members: Float64
    shares: Float32
    known: npt.NDArray[np.bool_]
    expected: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Walker:
    """Goes through rows with what was learnt, carrying each asset's state.

    spread (signal,) of the errors; whitener (signal, signal); usual (2, signal): mean square of each whitened signal's
    error and of its level.
    """

    forecast: Autoregression
    spread: Float32
    whitener: Float32
    usual: Float32
    memory: WindowMemory

    @classmethod
    def fit(cls, stretches: Sequence[Float32], remember: bool) -> Walker:
        """Learn from stretches (row, signal) without NaN."""
        signals = stretches[0].shape[1]
        forecast, errors = Autoregression.fit(stretches)
        pooled = np.concatenate(errors)
        spread = np.maximum(np.sqrt((pooled**2).mean(axis=0)), _LEAST_SPREAD)
        matrix = whitener(pooled)
        powers, levels = [], []
        for part in errors:
            white = part @ matrix
            powers.append(white**2)
            levels.append(_faded(white, float(_LEVEL))[PURGE // 2 :] ** 2)  # a mean over few rows swings more
        usual = np.stack([np.concatenate(powers).mean(axis=0), np.concatenate(levels).mean(axis=0)])
        usual = np.maximum(usual, _LEAST_USUAL * np.median(usual, axis=1, keepdims=True))
        nothing = WindowMemory(np.ones(signals, np.float32), np.empty((0, BLOCKS * signals), np.float32))
        memory = WindowMemory.fit(stretches) if remember else nothing
        arrays = [np.ascontiguousarray(part, np.float32) for part in (spread, matrix.T, np.maximum(usual, 1e-6))]
        return cls(forecast, arrays[0], arrays[1], arrays[2], memory)

    def members(self, rows: Float32) -> Float64:
        """Of one stretch (row, signal): the members at each row, (row, member)."""
        state = begin(1, rows.shape[1], bool(len(self.memory.windows)))
        parts = [
            self.walk(state, *piece, rows, newest=False).members
            for piece in pieces(np.zeros(1, int), np.array([len(rows)]))
        ]
        return np.concatenate(parts)

    def walk(
        self, state: CarriedState, slots: _Ints, counts: _Ints, starts: _Ints, rows: Float32, newest: bool
    ) -> Judged:
        """Take rows ``starts`` to ``starts + counts`` of each asset; judge all, or each asset's newest alone."""
        order = Order(slots, counts, starts)
        given = rows[order.take]
        there = ~np.isnan(given)
        past = state.arrays["past"]
        back = past.shape[1]
        known = order.after(past[order.slots], given)
        if not there.all():
            order.fill(known, back)  # a missing value is read as the last one known, 0 at first
        seen = order.ages(state.rows[order.slots])
        past[order.slots] = order.newest(known, back)
        state.rows[order.slots] += order.counts.astype(state.rows.dtype)

        lagged = [clipped(order.before(known, back, lag)) for lag in range(1, LAGS + 1)]
        expected = product(
            self.forecast.weights, np.concatenate([*lagged, np.ones((len(given), 1), np.float32)], axis=1)
        )
        errors = given - expected
        errors[~there | (seen < LAGS)[:, None]] = 0
        white = product(self.whitener, errors)
        powers, levels = _POWER * white * white, _LEVEL * white
        held = state.arrays["means"]
        held[order.slots] = order.fade(held.take(order.slots, axis=0), (1 - _POWER, 1 - _LEVEL), (powers, levels))

        judged = (
            np.arange(len(given)) if not newest else np.asarray(order.bounds[order.counts - 1] + np.arange(len(slots)))
        )
        # an exponential mean over n rows weighs 1 - (1 - rate) ** n in all: young assets are not judged too mildly
        age = np.maximum(seen[judged] - LAGS + 1, 1)[:, None].astype(np.float64)
        power = powers[judged] / (1 - (1 - float(_POWER)) ** age) / self.usual[0]
        level = (levels[judged] / (1 - (1 - float(_LEVEL)) ** age)) ** 2 / self.usual[1]
        far, unlike = self._memory(order, known, back, judged)
        members = np.stack([np.sqrt(power.mean(axis=1)), np.sqrt(level.max(axis=1)), far.astype(np.float64)], axis=1)
        shares = np.stack([_shares(power), _shares(level), unlike]).astype(np.float32)
        take = order.take[judged] if not newest else _places(order, slots)
        return Judged(take, members, shares, there[judged], expected[judged])

    def _memory(self, order: Order, known: Float32, back: int, judged: _Ints) -> tuple[Float32, Float32]:
        if not len(self.memory.windows):
            signals = known.shape[1]
            return np.zeros(len(judged), np.float32), np.zeros((len(judged), signals), np.float32)
        width = ROWS // BLOCKS
        means = []
        for block in range(BLOCKS - 1, -1, -1):  # the oldest first
            parts = [order.before(known, back, block * width + row)[judged] for row in range(width - 1, -1, -1)]
            means.append(np.sum(parts, axis=0, dtype=np.float32) / np.float32(width))
        return self.memory.distances(np.concatenate(means, axis=1))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays."""
        return {
            "forecast": self.forecast.weights,
            "spread": self.spread,
            "whitener": self.whitener,
            "typical": self.usual,
            "stray": self.memory.stray,
            "windows": self.memory.windows if len(self.memory.windows) else np.zeros((1, 1), np.float32),
        }

    @classmethod
    def from_weights(cls, weights: Mapping[str, npt.NDArray[Any]], signals: int, remember: bool) -> Walker:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        windows = weights.get("windows", np.empty((0, 0)))
        shape = (len(windows) if windows.ndim else 0, BLOCKS * signals) if remember else (1, 1)
        remembered = checked(weights, "windows", shape)
        if not remember:
            remembered = np.empty((0, BLOCKS * signals), np.float32)
        positive = {
            name: checked(weights, name, shape)
            for name, shape in (("spread", (signals,)), ("typical", (2, signals)), ("stray", (signals,)))
        }
        for name, array in positive.items():
            if (array <= 0).any():
                raise InvalidArtifact(f"weights: array {name!r} must be above 0")
        return cls(
            Autoregression(checked(weights, "forecast", (signals, LAGS * signals + 1))),
            positive["spread"],
            checked(weights, "whitener", (signals, signals)),
            positive["typical"],
            WindowMemory(positive["stray"], remembered),
        )


def _places(order: Order, slots: _Ints) -> npt.NDArray[np.int64]:
    """The place of each of the order's assets in the batch."""
    place = np.empty(int(slots.max()) + 1, np.int64)
    place[slots] = np.arange(len(slots))
    return place[order.slots]


def _shares(parts: Float64) -> Float64:
    total = parts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(parts, total, out=np.zeros_like(parts), where=total > 0))


def _faded(rows: Float64, rate: float) -> Float64:
    """The exponential mean after each row, (row, number)."""
    out, mean, weight = np.empty_like(rows), np.zeros(rows.shape[1]), 0.0
    for number, row in enumerate(rows):
        mean = (1 - rate) * mean + rate * row
        weight = (1 - rate) * weight + rate
        out[number] = mean / weight
    return out


def folds(stretches: Sequence[Float32], most: int = _FOLDS) -> list[tuple[list[Float32], list[Float32]]]:
    """At most ``most`` contiguous folds: (what is left to learn from, what was left out), with a purge at the seams.

    Fewer folds where there are few rows: each has to have some left after its warm-up.
    """
    total = sum(map(len, stretches))
    folds = int(np.clip(total // (2 * PURGE + 20), 2, most))
    cuts = np.linspace(0, total, folds + 1).astype(int)
    found = []
    for start, stop in itertools.pairwise(cuts):
        rest, left_out, first = [], [], 0
        for rows in stretches:
            inside = rows[max(start - first, 0) : max(stop - first, 0)]
            sides = rows[: max(start - first - PURGE, 0)], rows[max(stop - first + PURGE, 0) :]
            rest += [side for side in sides if len(side) > ROWS]
            left_out += [inside] if len(inside) > PURGE else []
            first += len(rows)
        if rest and left_out:
            found.append((rest, left_out))
    return found
