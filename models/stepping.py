"""State carried: a recurrent forecaster that takes one step for each new reading, instead of a pass over a window.

A window of 32 rows makes the network look at every row 31 times. Carried on, its state has seen each row once, and all
rows since the asset's last reset instead of the last 31. What a step foretells equals what the network foretells when
it is run over that whole history (a test holds it). The score's views (``models.innovation``) are means with
exponential weights, so they are carried as well.

Cost: one small matrix product a reading, tens of times less than a window. Memory: ``bytes_per_asset``, all in arrays
whose first axis is the asset's slot. The bits of a step do not depend on which other assets step with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64, Scored
from models.innovation import LEVEL, RECENT, Yardstick, combine
from models.network import BLOCK, EDGE

_MOST: Final = 512  # assets that step at once: what a step works on then stays in the cache

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
        shapes |= {"past": (max(len(r.linear) - 1, 1), r.signals), "foretold": (r.signals,)}
        shapes |= dict.fromkeys(("recent", "recent_whitened", "level"), (r.signals,))
        arrays = {name: np.zeros((slots, *shape), np.float32) for name, shape in shapes.items()}
        return CarriedState(arrays, np.zeros(slots, np.int64))

    def step(self, state: CarriedState, slots: npt.NDArray[np.integer[Any]], rows: Float32) -> Scored:
        """One new row of each of several assets.

        slots: (asset,) integers, each once; rows: (asset, signal) float32, scaled, NaN where a value is missing.
        Updates ``state``. Returns scores of the rows by what the step before foretold; before the second row of an
        asset nothing was foretold, so its score is NaN.
        """
        parts = [
            self._block(state, slots[start : start + _MOST], rows[start : start + _MOST])
            for start in range(0, len(slots), _MOST)
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

    def usual(self, stretches: Sequence[Float32], warm_up: int) -> Float64:
        """What each view mostly is over clean stretches (row, signal), after ``warm_up`` rows: (2, 3) float64.

        The stretches should be those of the yardstick's own spread. Needs at least one row past the warm-up.
        """
        seen: list[list[list[float]]] = []
        for rows in stretches:
            state = self.begin(1)
            slot = np.zeros(1, np.int64)
            for number, row in enumerate(rows):
                innovations = row[None] - state.arrays["foretold"]
                views = self._views(state.arrays, slot, innovations, np.array([max(number, 1)]))
                if number >= warm_up:
                    seen.append([[float(part.mean()) for part in parts] for parts in views])
                self._advance(state.arrays, slot, row[None])
        return np.asarray(np.maximum(np.median(np.array(seen), axis=0), 1e-3), np.float64)

    def _judge(
        self,
        arrays: dict[str, Float32],
        slots: npt.NDArray[np.integer[Any]],
        innovations: Float32,
        seen: npt.NDArray[np.int64],
        expected: Float32,
    ) -> Scored:
        views = self._views(arrays, slots, innovations, np.maximum(seen, 1))
        score, contributions = combine(views, self.yardstick.usual, ~np.isnan(innovations))
        return Scored(score, contributions, expected, np.broadcast_to(self.yardstick.spread, expected.shape))

    def _views(
        self,
        arrays: dict[str, Float32],
        slots: npt.NDArray[np.integer[Any]],
        innovations: Float32,
        ages: npt.NDArray[np.int64],
    ) -> list[tuple[Float64, Float64, Float64]]:
        """Take innovations (asset, signal) into the carried means; newest, recent and level, plain and whitened."""
        z = np.nan_to_num(self.yardstick.standardised(innovations))
        whitened = _product(z, self.yardstick.whitener)
        mean = _follow(arrays["level"], slots, z, LEVEL)
        # weights of an exponential mean over n rows sum to 1 - (1 - rate) ** n: young assets are not judged too mildly
        age = ages[:, None]
        left = (1 - LEVEL) ** age
        squared = LEVEL / (2 - LEVEL) * (1 + left) * (1 - left)  # sum of the squared weights, which sum to 1 - left
        recent_total = 1 - (1 - RECENT) ** age
        views = []
        # the mean of what is whitened is the whitened mean: one of them is enough to carry
        levels = (mean, _product(mean, self.yardstick.whitener))
        for name, each, level in zip(("recent", "recent_whitened"), (z, whitened), levels, strict=True):
            power = each**2
            recent = _follow(arrays[name], slots, power, RECENT) / recent_total
            views.append((power, recent, level**2 / squared))
        return views

    def _advance(self, arrays: dict[str, Float32], slots: npt.NDArray[np.integer[Any]], rows: Float32) -> None:
        """Let the network see the rows, and foretell the next."""
        r = self.recurrence
        past = arrays["past"][slots]
        x = np.where(np.isnan(rows), past[:, -1], rows)  # a missing value is read as the last one known, 0 at first
        known = np.concatenate([past, x[:, None]], axis=1)
        before = [arrays[f"state{n}"][slots] for n in range(r.states)]
        after = r.cell(before, _product(x, r.kernel) + r.bias, r.recurrent, r.recurrent_bias)
        for n, values in enumerate(after):
            arrays[f"state{n}"][slots] = values
        arrays["past"][slots] = known[:, 1:]
        arrays["foretold"][slots] = (
            _product(after[0], r.rest) + r.rest_bias + (known[:, -len(r.linear) :] * r.linear).sum(axis=1)
        )


def lstm(
    state: Sequence[Float32],
    gates: Float32,
    recurrent: Float32,
    bias: Float32 | None,  # noqa: ARG001
) -> tuple[Float32, ...]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997); gates in Keras's order: input, forget, cell, output."""
    hidden, memory = state
    entry, forget, candidate, output = np.split(gates + _product(hidden, recurrent), 4, axis=1)
    memory = _sigmoid(forget) * memory + _sigmoid(entry) * np.tanh(candidate)
    return _sigmoid(output) * np.tanh(memory), memory


def gru(state: Sequence[Float32], gates: Float32, recurrent: Float32, bias: Float32 | None) -> tuple[Float32, ...]:
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
    state: Sequence[Float32],
    gates: Float32,
    recurrent: Float32,
    bias: Float32 | None,  # noqa: ARG001
) -> tuple[Float32, ...]:
    """A simple recurrent layer (Elman 1990)."""
    return (np.tanh(gates + _product(state[0], recurrent)),)


#: (cell, arrays of state) by the name of the Keras layer.
CELLS: Final[Mapping[str, tuple[Cell, int]]] = {"LSTM": (lstm, 2), "GRU": (gru, 1), "SimpleRNN": (rnn, 1)}


def _sigmoid(x: Float32) -> Float32:
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * x) + half, np.float32)


def _follow(mean: Float32, slots: npt.NDArray[np.integer[Any]], values: Float64, rate: float) -> Float64:
    """Move exponential means towards new values; they are kept in float32 and used in float64."""
    moved = mean[slots] * (1 - rate) + values * rate
    mean[slots] = moved
    return np.asarray(moved, np.float64)


def _product(x: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(asset, in) times (in, out), with a row's bits the same in any company and place.

    In blocks of one size with the assets across and an empty edge on both sides, as in ``models.network``, for the
    same reason: the kernels of BLAS differ with the shape, and on some CPUs outer columns are added in another order.
    """
    out = np.empty((len(x), weights.shape[1]), np.result_type(x, weights))
    block = np.zeros((x.shape[1], BLOCK + 2 * EDGE), x.dtype)
    across = weights.T
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        held = slice(EDGE, EDGE + len(part))
        block[:, held] = part.T
        out[start : start + BLOCK] = (across @ block)[:, held].T
    return out


def recurrence_of(layer: str, weights: Mapping[str, npt.NDArray[Any]]) -> Recurrence:
    """Take a trained forecaster's arrays, as its ``weights()`` name them, apart. ``layer``: its Keras layer's name."""
    network: dict[str, list[Any]] = defaultdict(list)
    for name in sorted(weights):
        if name.startswith("network."):
            network[name.split(".", 2)[2]].append(weights[name])
    cell, states = CELLS[layer]
    (kernel, rest), (bias, rest_bias) = network["kernel"], network["bias"]
    (recurrent,), (linear,) = network["recurrent_kernel"], network["zeros_kernel"]
    return Recurrence(
        cell=cell,
        states=states,
        kernel=kernel,
        bias=bias[0] if bias.ndim == 2 else bias,
        recurrent=recurrent,
        recurrent_bias=bias[1] if bias.ndim == 2 else None,
        rest=rest,
        rest_bias=rest_bias,
        linear=linear,
    )
