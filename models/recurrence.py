"""Recurrent layers that take one step for each new row, many assets at once; what ``models.stepping`` carries.

One product a step gives the gates of a layer and, for the last layer, what its state before the step foretells of the
row. Its weights stand as one matrix for (state, input, 1) below each other, as in ``models.runtime``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32
from models.compiled_steps import Laid
from models.stepping import Order
from models.tiles import LANES, TILE, drawn, filled, lay, unlay

_HALF: Final = np.float32(0.5)


class Cell:
    """A recurrent layer's way from its state and input to the next state.

    states   arrays of ``units`` numbers that make up the state; the first is what the layer puts out
    gates    blocks of ``units`` rows that ``lay`` makes
    number   which cell it is in ``native/steps.c``
    """

    states: int
    gates: int
    number: int

    def lay(self, kernel: Float32, bias: Float32, recurrent: Float32) -> Float32:
        """Weights of one product with (state, input, 1): (gates x unit, unit + input + 1)."""
        raise NotImplementedError

    def bind(self, made: Float32, states: Sequence[Float32], spare: Float32) -> Callable[[], None]:
        """What turns the state (tile, unit, column) into the next one.

        ``made`` (tile, gates x unit, column) is what came of the product by then; it is spoilt,
        as ``spare`` (tile, unit, column) is. Bound to its arrays, because a step of few assets costs
        what its calls cost.
        """
        raise NotImplementedError


class Lstm(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); Keras's gates: input, forget, cell, output."""

    states, gates, number = 2, 4, 0

    def lay(self, kernel: Float32, bias: Float32, recurrent: Float32) -> Float32:
        """Gates as input, forget, output, cell; the first three halved, for sigmoid(x) = tanh(x / 2) / 2 + 1 / 2."""
        return _halved(_stacked(kernel, bias, recurrent, (0, 1, 3, 2)), 3 * len(recurrent))

    def bind(self, made: Float32, states: Sequence[Float32], spare: Float32) -> Callable[[], None]:
        """See ``Cell``."""
        hidden, memory = states
        units = hidden.shape[1]
        sigmoids = made[:, : 3 * units]
        entry, forget, output, candidate = (made[:, n * units : (n + 1) * units] for n in range(4))

        def step() -> None:
            np.tanh(made, made)
            np.multiply(sigmoids, _HALF, sigmoids)
            np.add(sigmoids, _HALF, sigmoids)
            np.multiply(memory, forget, memory)
            np.multiply(entry, candidate, entry)
            np.add(memory, entry, memory)
            np.tanh(memory, spare)
            np.multiply(output, spare, hidden)

        return step


class Gru(Cell):
    """Gated recurrent unit (Cho et al. 2014) as Keras has it: reset after the product; update, reset, state."""

    states, gates, number = 1, 4, 1

    def lay(self, kernel: Float32, bias: Float32, recurrent: Float32) -> Float32:
        """Update, reset, and the candidate's part from the input and that from the state, which reset keeps apart."""
        units = len(recurrent)
        own, inner = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        both = _stacked(kernel, own + inner, recurrent, (0, 1))
        from_input = _stacked(kernel, own, np.zeros_like(recurrent), (2,))
        from_state = _stacked(np.zeros_like(kernel), inner, recurrent, (2,))
        return _halved(np.concatenate([both, from_input, from_state]), 2 * units)

    def bind(self, made: Float32, states: Sequence[Float32], spare: Float32) -> Callable[[], None]:
        """See ``Cell``."""
        (hidden,) = states
        units = hidden.shape[1]
        sigmoids = made[:, : 2 * units]
        update, reset, from_input, from_state = (made[:, n * units : (n + 1) * units] for n in range(4))

        def step() -> None:
            np.tanh(sigmoids, sigmoids)
            np.multiply(sigmoids, _HALF, sigmoids)
            np.add(sigmoids, _HALF, sigmoids)
            np.multiply(reset, from_state, from_state)
            np.add(from_input, from_state, from_input)
            np.tanh(from_input, spare)
            np.subtract(hidden, spare, hidden)
            np.multiply(update, hidden, hidden)
            np.add(hidden, spare, hidden)

        return step


class Simple(Cell):
    """A simple recurrent layer (Elman 1990)."""

    states, gates, number = 1, 1, 2

    def lay(self, kernel: Float32, bias: Float32, recurrent: Float32) -> Float32:
        """As it is."""
        return _stacked(kernel, bias, recurrent, (0,))

    def bind(
        self,
        made: Float32,
        states: Sequence[Float32],
        spare: Float32,  # noqa: ARG002 (as it is called)
    ) -> Callable[[], None]:
        """See ``Cell``."""
        (hidden,) = states

        def step() -> None:
            np.tanh(made, hidden)

        return step


#: By the name of the Keras layer.
CELLS: Final[Mapping[str, Cell]] = {"LSTM": Lstm(), "GRU": Gru(), "SimpleRNN": Simple()}


@dataclass(frozen=True, slots=True)
class Layer:
    """A trained recurrent layer: kernel (input, gate x unit), recurrent (unit, gate x unit), bias as Keras has it."""

    cell: Cell
    kernel: Float32
    bias: Float32
    recurrent: Float32

    @property
    def units(self) -> int:
        """Cells of the layer."""
        return len(self.recurrent)


@dataclass(frozen=True)
class Recurrence:
    """A trained recurrent forecaster as plain arrays: a ``models.stepping.Body``.

    layers  from the input up
    rest    (unit, signal) from the last layer, with ``rest_bias`` (signal,)
    linear  (lag, signal): the autoregression's weight for each of the last rows, the newest last
    """

    layers: tuple[Layer, ...]
    rest: Float32
    rest_bias: Float32
    linear: Float32

    @cached_property
    def _laid(self) -> list[Float32]:
        laid = [layer.cell.lay(layer.kernel, layer.bias, layer.recurrent) for layer in self.layers]
        # The last layer's product also gives what its state before the step foretells of this row.
        foretelling = np.zeros((self.rest.shape[1], laid[-1].shape[1]), np.float32)
        foretelling[:, : len(self.rest)], foretelling[:, -1] = self.rest.T, self.rest_bias
        laid[-1] = np.concatenate([laid[-1], foretelling])
        return laid

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What is remembered of an asset."""
        return {
            f"state{n}.{number}": (layer.units,)
            for number, layer in enumerate(self.layers)
            for n in range(layer.cell.states)
        }

    def laid(self) -> list[Laid]:
        """Its layers as ``models.compiled_steps`` walks them."""
        return [
            Laid(
                layer.cell.number,
                layer.units,
                len(layer.kernel),
                tuple(f"state{n}.{number}" for n in range(layer.cell.states)),
                laid,
            )
            for number, (layer, laid) in enumerate(zip(self.layers, self._laid, strict=True))
        ]

    def walk(self, arrays: Mapping[str, Float32], order: Order, inputs: Float32) -> Float32:
        """Let the cells see inputs (row, signal) step by step; what the state before each foretold without the lags."""
        slots = order.slots
        tiles = -(-len(slots) // LANES)
        fed, made = [], []
        held: list[list[Float32]] = []
        for number, (layer, laid) in enumerate(zip(self.layers, self._laid, strict=True)):
            x = np.zeros((tiles, laid.shape[1], TILE), np.float32)  # (state, input, 1): what goes into the product
            x[:, -1] = 1
            others = [np.zeros((tiles, layer.units, LANES), np.float32) for _ in range(layer.cell.states - 1)]
            held.append([x[:, : layer.units], *others])
            for n, tile in enumerate(held[-1]):
                lay(arrays[f"state{n}.{number}"].take(slots, axis=0), tile)
            fed.append(x)
            made.append(np.empty((tiles, len(laid), TILE), np.float32))
        foretold = np.empty((len(inputs), self.rest.shape[1]), np.float32)
        after = [[np.empty((len(slots), tile.shape[1]), np.float32) for tile in states] for states in held]
        bound, left = (0, slice(0)), len(slots)
        for start, count in zip(order.bounds.tolist(), [*order.active.tolist(), 0], strict=True):
            if count < left:  # these have no more rows, but their columns would go on with the others of their tile
                ended = np.arange(count, left)
                for states, kept in zip(held, after, strict=True):
                    for tile, rows in zip(states, kept, strict=True):
                        rows[count:left] = drawn(tile, ended)
                left = count
                if not count:
                    break
            n, columns = -(-count // LANES), filled(count)
            if (n, columns) != bound:
                bound = n, columns
                entry, outcome, work = self._bind([x[:n] for x in fed], [out[:n] for out in made], held, columns)
            lay(inputs[start : start + count], entry)
            for go in work:
                go()
            unlay(outcome, foretold[start : start + count])
        for number, kept in enumerate(after):
            for n, rows in enumerate(kept):
                arrays[f"state{n}.{number}"][slots] = rows
        return foretold

    def _bind(
        self, fed: Sequence[Float32], made: Sequence[Float32], held: Sequence[Sequence[Float32]], columns: slice
    ) -> tuple[Float32, Float32, list[Callable[[], object]]]:
        """A step bound to its arrays: where the input goes, where what was foretold comes out, and what to call.

        Products need whole tiles, with their edges; the rest is done for ``columns`` alone, which hold assets.
        """
        work: list[Callable[[], object]] = []
        outcome = made[-1]
        width = columns.stop - columns.start
        for number, (layer, laid) in enumerate(zip(self.layers, self._laid, strict=True)):
            x, out = fed[number], made[number]
            if number:
                below = self.layers[number - 1].units
                work.append(partial(np.copyto, x[:, layer.units : -1], fed[number - 1][:, :below]))
            work.append(partial(np.matmul, laid, x, out))
            rows = layer.cell.gates * layer.units
            gates = out[:, :rows]
            if number == len(self._laid) - 1:
                outcome = out[:, rows:]
            if width < TILE:
                gates = np.empty((len(x), rows, width), np.float32)
                work.append(partial(np.copyto, gates, out[:, :rows, columns]))
            states = [x[:, : layer.units, columns], *(tile[: len(x), :, :width] for tile in held[number][1:])]
            spare = np.empty((len(x), layer.units, width), np.float32)
            work.append(layer.cell.bind(gates, states, spare))
        return fed[0][:, self.layers[0].units : -1], outcome, work


def _stacked(kernel: Float32, bias: Float32, recurrent: Float32, order: Sequence[int]) -> Float32:
    """Gates in another order, as rows of a product with (state, input, 1)."""
    units = len(recurrent)
    wide = np.concatenate([recurrent, kernel, bias[None]])
    return np.concatenate([wide[:, gate * units : (gate + 1) * units] for gate in order], axis=1).T


def _halved(laid: Float32, rows: int) -> Float32:
    """The first rows halved, which is exact."""
    laid = np.ascontiguousarray(laid)
    laid[:rows] *= np.float32(0.5)
    return laid


def recurrence_of(layer: str, weights: Mapping[str, npt.NDArray[Any]]) -> Recurrence:
    """Take a trained forecaster's arrays, as its ``weights()`` name them, apart. ``layer``: its Keras layer's name."""
    network: dict[str, list[Any]] = defaultdict(list)
    for name in sorted(weights):
        if name.startswith("network."):
            network[name.split(".", 2)[2]].append(weights[name])
    (*kernels, rest), (*biases, rest_bias) = network["kernel"], network["bias"]
    (linear,) = network["zeros_kernel"]
    layers = zip(kernels, biases, network["recurrent_kernel"], strict=True)
    return Recurrence(tuple(Layer(CELLS[layer], *parts) for parts in layers), rest, rest_bias, linear)
