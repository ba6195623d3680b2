"""State carried: a recurrent forecaster that takes one step for each new reading, instead of a pass over a window.

A window of 32 rows makes the network look at every row 31 times. Carried on, its state has seen each row once, and all
rows since the asset's last reset instead of the last 31. What a step foretells equals what the network foretells when it
is run over that whole history (a test holds it). The score's views (``models.innovation``) are means with exponential
weights, so they are carried as well: two numbers a signal and view.

Cost: one small matrix product a reading, tens of times less than a window. Memory: ``bytes_per_asset``, all in arrays
whose first axis is the asset's slot. The bits of a step do not depend on which other assets step with it: products are
made in blocks whose number of rows is a multiple of 16 and at most 512, for which BLAS adds in the same order (a test
holds that too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64, Scored
from models.innovation import LEVEL, RECENT, Yardstick, combine

_ROWS: Final = 16
_MOST_ROWS: Final = 512

#: (state, gates' input, recurrent kernel, recurrent bias) -> the next state, all (asset, unit) float32.
Cell = Callable[[Sequence[Float32], Float32, Float32, Float32 | None], tuple[Float32, ...]]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A trained recurrent forecaster as plain arrays.

    cell           what makes a state of a state; ``states`` arrays of ``units`` numbers an asset
    kernel         (signal, gate x unit), with ``bias`` (gate x unit,)
    recurrent      (unit, gate x unit), with ``recurrent_bias`` or None
    rest           (unit, signal), with ``rest_bias`` (signal,)
    linear         (lag, signal): the autoregression's weight for each of the last rows, the newest last
    """

    cell: Cell
    states: int
    kernel: Float32
    bias: Float32
    recurrent: Float32
    recurrent_bias: Float32 | None
    rest: Float32
    rest_bias: Float32
    linear: Float32

    @property
    def units(self) -> int:
        """Cells of the recurrent layer."""
        return len(self.recurrent)

    @property
    def signals(self) -> int:
        """Signals that come in and are foretold."""
        return len(self.kernel)


@dataclass(slots=True)
class CarriedState:
    """What is remembered of each asset: ``arrays`` by name, first axis = slot; ``rows`` since the last reset."""

    arrays: dict[str, Float32]
    rows: npt.NDArray[np.int64]

    @property
    def bytes_per_asset(self) -> int:
        """Bytes of arrays that one asset takes."""
        return sum(array[0].nbytes for array in self.arrays.values()) + 8 if len(self.rows) else 0

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets, each at its beginning."""
        held = len(self.rows)
        if slots <= held:
            return
        room = max(slots, 2 * held)
        for name, array in self.arrays.items():
            grown = np.zeros((room, *array.shape[1:]), array.dtype)
            grown[:held] = array
            self.arrays[name] = grown
        self.rows = np.concatenate([self.rows, np.zeros(room - held, np.int64)])

    def reset(self, slots: npt.NDArray[np.integer[Any]]) -> None:
        """Put assets back to their beginning: after a gap there is nothing to carry on from."""
        for array in self.arrays.values():
            array[slots] = 0
        self.rows[slots] = 0


class Stepper:
    """Steps many assets at once with one set of weights. Thread-safe: all state is an argument."""

    def __init__(self, recurrence: Recurrence, yardstick: Yardstick) -> None:
        self.recurrence = recurrence
        self.yardstick = yardstick

    def begin(self, slots: int = 0) -> CarriedState:
        """A state for ``slots`` assets that have shown nothing yet."""
        r = self.recurrence
        shapes: dict[str, tuple[int, ...]] = {f"state{n}": (r.units,) for n in range(r.states)}
        shapes |= {"past": (len(r.linear), r.signals), "foretold": (r.signals,)}
        shapes |= {f"{view}{n}": (r.signals,) for view in ("recent", "level") for n in range(2)}
        arrays = {name: np.zeros((slots, *shape), np.float32) for name, shape in shapes.items()}
        return CarriedState(arrays, np.zeros(slots, np.int64))

    def step(self, state: CarriedState, slots: npt.NDArray[np.integer[Any]], rows: Float32) -> Scored:
        """One new row of each of several assets.

        slots: (asset,) integers, each once; rows: (asset, signal) float32, scaled, NaN where a value is missing.
        Updates ``state``. Returns scores of the rows by what the step before foretold; before the second row of an asset
        nothing was foretold, so its score is NaN.
        """
        parts = [
            self._block(state, slots[start : start + _MOST_ROWS], rows[start : start + _MOST_ROWS])
            for start in range(0, len(slots), _MOST_ROWS)
        ]
        if len(parts) == 1:
            return parts[0]
        names = ("score", "contributions", "expected", "spread")
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Scored(**joined)

    def _block(self, state: CarriedState, slots: npt.NDArray[np.integer[Any]], rows: Float32) -> Scored:
        arrays = state.arrays
        expected = arrays["foretold"][slots]
        seen = state.rows[slots]
        innovations = rows - expected
        innovations[seen == 0] = np.nan
        scored = self._judge(arrays, slots, innovations, seen, expected)
        self._advance(arrays, slots, rows)
        state.rows[slots] = seen + 1
        return scored

    def _judge(
        self,
        arrays: dict[str, Float32],
        slots: npt.NDArray[np.integer[Any]],
        innovations: Float32,
        seen: npt.NDArray[np.int64],
        expected: Float32,
    ) -> Scored:
        yardstick = self.yardstick
        z = np.nan_to_num(yardstick.standardised(innovations))
        whitened = _product(z, yardstick.whitener)
        # weights of an exponential mean over n rows sum to 1 - (1 - rate) ** n: young assets are not judged too mildly
        age = np.maximum(seen, 1)[:, None]
        views = []
        for n, each in enumerate((z, whitened)):
            recent = _follow(arrays[f"recent{n}"], slots, each**2, RECENT) / (1 - (1 - RECENT) ** age)
            mean = _follow(arrays[f"level{n}"], slots, each, LEVEL) / (1 - (1 - LEVEL) ** age)
            keep = 1 - LEVEL
            squared = LEVEL / (1 + keep) * (1 + keep**age) / (1 - keep**age)  # sum of the squared weights
            views.append((each**2, recent, mean**2 / squared))
        score, contributions = combine(views, yardstick.usual, ~np.isnan(innovations))
        spread = np.broadcast_to(yardstick.spread, expected.shape)
        return Scored(score, contributions, expected, spread)

    def _advance(self, arrays: dict[str, Float32], slots: npt.NDArray[np.integer[Any]], rows: Float32) -> None:
        """Let the network see the rows, and foretell the next."""
        r = self.recurrence
        past = arrays["past"][slots]
        x = np.where(np.isnan(rows), past[:, -1], rows)  # a missing value is read as the last one known, 0 at first
        past = np.concatenate([past[:, 1:], x[:, None]], axis=1)
        before = [arrays[f"state{n}"][slots] for n in range(r.states)]
        after = r.cell(before, _product(x, r.kernel) + r.bias, r.recurrent, r.recurrent_bias)
        for n, values in enumerate(after):
            arrays[f"state{n}"][slots] = values
        arrays["past"][slots] = past
        arrays["foretold"][slots] = _product(after[0], r.rest) + r.rest_bias + (past * r.linear).sum(axis=1)


def lstm(
    state: Sequence[Float32], gates: Float32, recurrent: Float32, bias: Float32 | None  # noqa: ARG001
) -> tuple[Float32, ...]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997); gates in Keras's order: input, forget, cell, output."""
    hidden, memory = state
    entry, forget, candidate, output = np.split(gates + _product(hidden, recurrent), 4, axis=1)
    memory = _sigmoid(forget) * memory + _sigmoid(entry) * np.tanh(candidate)
    return _sigmoid(output) * np.tanh(memory), memory


def gru(
    state: Sequence[Float32], gates: Float32, recurrent: Float32, bias: Float32 | None
) -> tuple[Float32, ...]:
    """Gated recurrent unit (Cho et al. 2014) as Keras has it: reset after the product; order: update, reset, state."""
    (hidden,) = state
    inner = _product(hidden, recurrent)
    if bias is not None:
        inner = inner + bias
    update, reset, candidate = np.split(gates, 3, axis=1)
    inner_update, inner_reset, inner_candidate = np.split(inner, 3, axis=1)
    kept = _sigmoid(update + inner_update)
    new = np.tanh(candidate + _sigmoid(reset + inner_reset) * inner_candidate)
    return (kept * hidden + (1 - kept) * new,)


def rnn(
    state: Sequence[Float32], gates: Float32, recurrent: Float32, bias: Float32 | None  # noqa: ARG001
) -> tuple[Float32, ...]:
    """A simple recurrent layer (Elman 1990)."""
    return (np.tanh(gates + _product(state[0], recurrent)),)


#: (cell, arrays of state) by the name of the Keras layer.
CELLS: Final[Mapping[str, tuple[Cell, int]]] = {"LSTM": (lstm, 2), "GRU": (gru, 1), "SimpleRNN": (rnn, 1)}


def _sigmoid(x: Float32) -> Float32:
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * x) + half, np.float32)


def _follow(
    mean: Float32, slots: npt.NDArray[np.integer[Any]], values: Float64, rate: float
) -> Float64:
    """Move exponential means towards new values; they are kept in float32 and used in float64."""
    moved = mean[slots] * (1 - rate) + values * rate
    mean[slots] = moved
    return np.asarray(moved, np.float64)


def _product(x: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``x @ weights``, with a row's bits the same in any company: see the module's docstring."""
    rows = len(x)
    short = -rows % _ROWS
    if not short:
        return np.asarray(x @ weights)
    padded = np.zeros((rows + short, x.shape[1]), x.dtype)
    padded[:rows] = x
    return np.asarray((padded @ weights)[:rows])
