"""State carried: a recurrent forecaster that takes one step for each new reading, instead of a pass over a window.

A window of 32 rows makes the network look at every row 31 times. Carried on, its state has seen each row once, and all
rows since the asset's last reset instead of the last 31. What a step foretells equals what the network foretells when
it is run over that whole history (a test holds it). The score's views (``models.innovation``) are means with
exponential weights, so they are carried as well.

A batch is taken as a whole. Only the cells and the means go from row to row: the first rows of all assets together,
then their second rows, ... Everything else (the autoregression, whitening, the score) is done for all rows at once.

Memory: ``bytes_per_asset``, all in arrays whose first axis is the asset's slot. The bits of a row's score depend
neither on the other assets of a batch nor on how batches are cut: products go through BLAS in tiles of one shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64, Scored
from models.innovation import CLIP, LEVEL, RECENT, Yardstick, combine
from models.network import EDGE

_Ints = npt.NDArray[np.integer[Any]]
_Int64 = npt.NDArray[np.int64]
_Views = list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]

_LANES: Final = 32  # assets that one call of BLAS takes, each a column
#: Rows that are worked on at once: bounds the memory of a burst, and stays in the cache.
_MOST: Final = 16384
_HALF: Final = np.float32(0.5)
#: Beyond this age the weights of an exponential mean sum to 1 in float32.
_AGES: Final = 512


class Cell:
    """A recurrent layer's way from its state and input to the next state.

    states   arrays of ``units`` numbers that make up the state; the first is what the layer puts out
    gates    blocks of ``units`` rows that ``lay`` makes
    """

    states: int
    gates: int

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

    states, gates = 2, 4

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

    states, gates = 1, 4

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

    states, gates = 1, 1

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


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A trained recurrent forecaster as plain arrays.

    layers  from the input up
    rest    (unit, signal) from the last layer, with ``rest_bias`` (signal,)
    linear  (lag, signal): the autoregression's weight for each of the last rows, the newest last
    """

    layers: tuple[Layer, ...]
    rest: Float32
    rest_bias: Float32
    linear: Float32

    @property
    def signals(self) -> int:
        """Signals that come in and are foretold."""
        return len(self.layers[0].kernel)


@dataclass(slots=True)
class CarriedState:
    """What is remembered of each asset: ``arrays`` by name, first axis = slot; ``rows`` since the last reset."""

    arrays: dict[str, Float32]
    rows: npt.NDArray[np.int32]

    @property
    def bytes_per_asset(self) -> int:
        """Bytes of arrays that one asset takes."""
        return sum(array[0].nbytes for array in (*self.arrays.values(), self.rows)) if len(self.rows) else 0

    def grow(self, slots: int) -> None:
        """Make room for ``slots`` assets, each at its beginning."""
        held = len(self.rows)
        if slots <= held:
            return
        room = max(slots, held + max(held // 4, 16))
        for name, array in self.arrays.items():
            grown = np.zeros((room, *array.shape[1:]), array.dtype)
            grown[:held] = array
            self.arrays[name] = grown
        self.rows = np.concatenate([self.rows, np.zeros(room - held, self.rows.dtype)])

    def reset(self, slots: _Ints) -> None:
        """Put assets back to their beginning: after a gap there is nothing to carry on from."""
        for array in self.arrays.values():
            array[slots] = 0
        self.rows[slots] = 0


class Stepper:
    """Steps many assets with one set of weights. One thread at a time for one state; the weights are shared."""

    def __init__(self, recurrence: Recurrence, yardstick: Yardstick) -> None:
        self.recurrence = recurrence
        self.yardstick = yardstick
        r = recurrence
        self._laid = [layer.cell.lay(layer.kernel, layer.bias, layer.recurrent) for layer in r.layers]
        # The last layer's product also gives what its state before the step foretells of this row.
        foretelling = np.zeros((r.signals, self._laid[-1].shape[1]), np.float32)
        foretelling[:, : len(r.rest)], foretelling[:, -1] = r.rest.T, r.rest_bias
        self._laid[-1] = np.concatenate([self._laid[-1], foretelling])
        self._whitener = np.ascontiguousarray(yardstick.whitener.T, np.float32)
        self._keep = np.repeat(np.array([1 - RECENT, 1 - RECENT, 1 - LEVEL], np.float32), r.signals)
        # weights of an exponential mean over n rows sum to 1 - (1 - rate) ** n: young assets are not judged too mildly
        left = (1 - LEVEL) ** np.arange(_AGES)
        # sum of the squared weights, which sum to 1 - left
        self._level_power = np.asarray(LEVEL / (2 - LEVEL) * (1 + left) * (1 - left), np.float32)
        self._recent_total = np.asarray(1 - (1 - RECENT) ** np.arange(_AGES), np.float32)

    def begin(self, slots: int = 0) -> CarriedState:
        """A state for ``slots`` assets that have shown nothing yet."""
        r = self.recurrence
        shapes: dict[str, tuple[int, ...]] = {
            f"state{n}.{number}": (layer.units,)
            for number, layer in enumerate(r.layers)
            for n in range(layer.cell.states)
        }
        shapes |= {"past": (len(r.linear), r.signals), "means": (3 * r.signals,)}
        arrays = {name: np.zeros((slots, *shape), np.float32) for name, shape in shapes.items()}
        return CarriedState(arrays, np.zeros(slots, np.int32))

    def step(self, state: CarriedState, slots: _Ints, rows: Float32) -> Scored:
        """One new row of each of several assets: ``run`` with runs of one row."""
        return self.run(state, slots, np.ones(len(slots), np.int64), rows)

    def run(self, state: CarriedState, slots: _Ints, counts: _Ints, rows: Float32) -> Scored:
        """Some new rows of each of several assets.

        slots: (asset,) each once; counts: (asset,) how many rows, at least 1; rows: (row, signal) float32, scaled, NaN
        where a value is missing, an asset's rows one after the other and assets in the order of ``slots``.

        Updates ``state``. Returns scores of the rows by what the row before foretold; before the second row of an asset
        nothing was foretold, so its score is NaN.
        """
        parts: list[tuple[_Int64, _Views, npt.NDArray[np.bool_], Float32]] = []
        ends = np.cumsum(counts)
        starts = ends - counts
        most = int(counts.max())
        longest = max(_MOST // len(slots), 1)
        for first in range(0, most, longest):
            left = counts > first
            for begin in range(0, int(np.count_nonzero(left)), _MOST):
                some = np.flatnonzero(left)[begin : begin + _MOST]
                parts.append(
                    self._piece(
                        state, slots[some], np.minimum(counts[some] - first, longest), starts[some] + first, rows
                    )
                )
        scored = [combine(views, self.yardstick.usual, known) for _, views, known, _ in parts]
        place = np.concatenate([take for take, *_ in parts])
        score, contributions = np.empty(len(rows)), np.empty(rows.shape)
        expected = np.empty(rows.shape, np.float32)
        score[place] = np.concatenate([own for own, _ in scored])
        contributions[place] = np.concatenate([shares for _, shares in scored])
        expected[place] = np.concatenate([foretold for *_, foretold in parts])
        return Scored(score, contributions, expected, np.broadcast_to(self.yardstick.spread, expected.shape))

    def usual(self, stretches: Sequence[Float32], warm_up: int) -> Float64:
        """What each view mostly is over clean stretches (row, signal), after ``warm_up`` rows: (2, 3) float64.

        The stretches should be those of the yardstick's own spread. Needs at least one row past the warm-up.
        """
        seen: list[Float64] = []
        for rows in stretches:
            state, slot = self.begin(1), np.zeros(1, np.int64)
            for start in range(0, len(rows), _MOST):
                part = rows[start : start + _MOST]
                _, views, _, _ = self._piece(state, slot, np.array([len(part)]), np.zeros(1, np.int64), part)
                means = np.array([[view.mean(axis=1) for view in parts] for parts in views], np.float64)
                seen.append(means[:, :, max(warm_up - start, 0) :])
        return np.asarray(np.maximum(np.median(np.concatenate(seen, axis=2), axis=2), 1e-3), np.float64)

    def _piece(
        self, state: CarriedState, slots: _Ints, counts: _Ints, starts: _Ints, rows: Float32
    ) -> tuple[_Int64, _Views, npt.NDArray[np.bool_], Float32]:
        """Take rows ``starts`` to ``starts + counts`` of each asset: (which rows, views, known, expected) of them.

        Rows are worked on step by step: all assets' first ones, then the second ones. Assets with more rows come first,
        so that those that are left at a step are always the first ones.
        """
        lags, held = len(self.recurrence.linear), state.arrays["past"]
        assets, steps = len(slots), int(counts.max())
        even = steps == counts.min()
        if even:
            active = np.full(steps, assets)
            take = (starts + np.arange(steps)[:, None]).ravel()
        else:
            order = np.argsort(-counts, kind="stable")
            slots, counts, starts = slots[order], counts[order], starts[order]
            active = assets - np.searchsorted(counts[::-1], np.arange(steps), side="right")
            rank = np.arange(active.sum()) - np.repeat(np.cumsum(active) - active, active)
            step = np.repeat(np.arange(steps), active)
            take = starts[rank] + step
        bounds = np.concatenate([[0], np.cumsum(active)])
        given = rows[take]

        # What is known: the past, as steps before the first, then the new rows with what is missing filled in.
        known = np.concatenate([held[slots].transpose(1, 0, 2).reshape(lags * assets, -1), given])
        before = np.concatenate([np.arange(lags) * assets, lags * assets + bounds])
        if np.isnan(given).any():
            for number in range(steps):
                now, last = before[lags + number], before[lags + number - 1]
                part = known[now : now + active[number]]
                # a missing value is read as the last one known, 0 at first
                np.copyto(part, known[last : last + active[number]], where=np.isnan(part))
        foretold = self._recur(state, slots, known[lags * assets :], bounds, active)
        for lag, weight in enumerate(self.recurrence.linear):
            if even:
                foretold += known[lag * assets : lag * assets + len(given)] * weight
            else:
                foretold += known[before[step + lag] + rank] * weight
        if even:
            held[slots] = known[steps * assets :].reshape(lags, assets, -1).transpose(1, 0, 2)
            seen = (state.rows[slots] + np.arange(steps)[:, None]).ravel()
        else:
            held[slots] = known[before[counts[:, None] + np.arange(lags)] + np.arange(assets)[:, None]]
            seen = state.rows[slots][rank] + step
        state.rows[slots] += counts.astype(state.rows.dtype)
        innovations = given - foretold
        if not seen.min():
            innovations[seen == 0] = np.nan
        there = ~np.isnan(innovations)
        return take, self._views(state, slots, innovations, there, seen, bounds, active), there, foretold

    def _recur(self, state: CarriedState, slots: _Ints, inputs: Float32, bounds: _Int64, active: _Int64) -> Float32:
        """Let the cells see inputs (row, signal) step by step; what the state before each foretold without the lags."""
        r = self.recurrence
        tiles = -(-len(slots) // _LANES)
        fed, made, spare = [], [], []
        held: list[list[Float32]] = []
        for number, (layer, laid) in enumerate(zip(r.layers, self._laid, strict=True)):
            x = np.zeros((tiles, laid.shape[1], _TILE), np.float32)  # (state, input, 1): what goes into the product
            x[:, -1] = 1
            others = [np.zeros((tiles, layer.units, _TILE), np.float32) for _ in range(layer.cell.states - 1)]
            held.append([x[:, : layer.units], *others])
            for n, tile in enumerate(held[-1]):
                _lay(state.arrays[f"state{n}.{number}"][slots], tile)
            fed.append(x)
            made.append(np.empty((tiles, len(laid), _TILE), np.float32))
            spare.append(np.empty((tiles, layer.units, _TILE), np.float32))
        foretold = np.empty((len(inputs), r.signals), np.float32)
        after = [[np.empty((len(slots), tile.shape[1]), np.float32) for tile in states] for states in held]
        bound, left = 0, len(slots)
        for start, count in zip(bounds.tolist(), [*active.tolist(), 0], strict=True):
            if count < left:  # these have no more rows, but their columns would go on with the others of their tile
                ended = np.arange(count, left)
                for states, kept in zip(held, after, strict=True):
                    for tile, rows in zip(states, kept, strict=True):
                        rows[count:left] = tile[ended // _LANES, :, _EDGE + ended % _LANES]
                left = count
                if not count:
                    break
            n = -(-count // _LANES)
            if n != bound:
                bound = n
                entry, outcome, work = self._bind([[part[:n] for part in parts] for parts in (fed, made, spare)], held)
            _lay(inputs[start : start + count], entry)
            for go in work:
                go()
            _unlay(outcome, foretold[start : start + count])
        for number, kept in enumerate(after):
            for n, rows in enumerate(kept):
                state.arrays[f"state{n}.{number}"][slots] = rows
        return foretold

    def _bind(
        self, parts: Sequence[Sequence[Float32]], held: Sequence[Sequence[Float32]]
    ) -> tuple[Float32, Float32, list[Callable[[], object]]]:
        """A step bound to its arrays: where the input goes, where what was foretold comes out, and what to call."""
        fed, made, spare = parts
        work: list[Callable[[], object]] = []
        outcome = made[-1]
        for number, (layer, laid) in enumerate(zip(self.recurrence.layers, self._laid, strict=True)):
            states = [tile[: len(fed[number])] for tile in held[number]]
            if number:
                below = self.recurrence.layers[number - 1].units
                work.append(partial(np.copyto, fed[number][:, layer.units : -1], fed[number - 1][:, :below]))
            work.append(partial(np.matmul, laid, fed[number], made[number]))
            gates = layer.cell.gates * layer.units
            if number == len(self._laid) - 1:
                outcome = made[number][:, gates:]
            work.append(layer.cell.bind(made[number][:, :gates], states, spare[number]))
        return fed[0][:, self.recurrence.layers[0].units : -1], outcome, work

    def _views(
        self,
        state: CarriedState,
        slots: _Ints,
        innovations: Float32,
        there: npt.NDArray[np.bool_],
        seen: _Int64,
        bounds: _Int64,
        active: _Int64,
    ) -> _Views:
        """Take innovations (row, signal) into the carried means; newest, recent and level, plain and whitened."""
        signals = innovations.shape[1]
        z = innovations / self.yardstick.spread
        np.clip(z, -CLIP, CLIP, out=z)
        if not there.all():
            z[~there] = 0
        whitened = _product(self._whitener, z)
        powers = (z * z, whitened * whitened)
        means = np.empty((len(z), 3 * signals), np.float32)
        np.multiply(powers[0], np.float32(RECENT), out=means[:, :signals])
        np.multiply(powers[1], np.float32(RECENT), out=means[:, signals : 2 * signals])
        np.multiply(z, np.float32(LEVEL), out=means[:, 2 * signals :])
        last = state.arrays["means"][slots]
        faded = np.empty_like(last)
        after = np.empty_like(last)
        for start, count in zip(bounds.tolist(), active.tolist(), strict=False):
            now = means[start : start + count]
            if count < len(last):
                after[count : len(last)] = last[count:]
                last, faded = last[:count], faded[:count]
            np.multiply(last, self._keep, faded)
            np.add(now, faded, now)
            last = now
        after[: len(last)] = last
        state.arrays["means"][slots] = after
        ages = np.clip(seen, 1, _AGES - 1) if seen.min() < _AGES else np.array([_AGES - 1])
        total, squared = self._recent_total[ages][:, None], self._level_power[ages][:, None]
        level = means[:, 2 * signals :]
        # the mean of what is whitened is the whitened mean: one of them is enough to carry
        levels = (level, _product(self._whitener, level))
        recents = (means[:, :signals], means[:, signals : 2 * signals])
        return [
            (power, recent / total, own * own / squared)
            for power, recent, own in zip(powers, recents, levels, strict=True)
        ]


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


def _lay(rows: Float32, tiles: Float32) -> None:
    """(row, number) into (tile, number, column): a row becomes a column between the edges."""
    full, rest = divmod(len(rows), _LANES)
    held = slice(_EDGE, _EDGE + _LANES)
    if full:
        tiles[:full, :, held] = rows[: full * _LANES].reshape(full, _LANES, -1).transpose(0, 2, 1)
    if rest:
        tiles[full, :, _EDGE : _EDGE + rest] = rows[full * _LANES :].T


def _unlay(tiles: Float32, rows: Float32) -> None:
    """The reverse of ``_lay``."""
    full, rest = divmod(len(rows), _LANES)
    held = slice(_EDGE, _EDGE + _LANES)
    if full:
        rows[: full * _LANES].reshape(full, _LANES, -1)[:] = tiles[:full, :, held].transpose(0, 2, 1)
    if rest:
        rows[full * _LANES :] = tiles[full, :, _EDGE : _EDGE + rest].T


def _product(weights: Float32, rows: Float32) -> Float32:
    """(out, in) times each of (row, in): (row, out), a row's bits the same in any company and place."""
    tiles = np.zeros((-(-len(rows) // _LANES), rows.shape[1], _TILE), np.float32)
    _lay(rows, tiles)
    out = np.empty((len(rows), len(weights)), np.float32)
    _unlay(np.matmul(weights, tiles), out)
    return out


def _edge() -> int:
    """Columns at each side of a tile that must hold no asset.

    OpenBLAS's kernels for CPUs with AVX2 alone add the outer columns of a product in another order than those between
    (``models.network``); others do not. Which is the case depends on shapes alone, so it is tried once, on those of
    some networks, with a block whose columns are turned.
    """
    random = np.random.default_rng(0)
    for out, wide in ((136, 41), (264, 73), (8, 8), (100, 33), (50, 129)):
        weights, block = (random.normal(size=shape).astype(np.float32) for shape in ((out, wide), (wide, _LANES)))
        straight = np.matmul(weights, block[None])[0]
        for turn in range(1, _LANES, 5):
            turned = np.matmul(weights, np.ascontiguousarray(np.roll(block, turn, axis=1))[None])[0]
            if not np.array_equal(np.roll(straight, turn, axis=1), turned):
                return EDGE
    return 0


_EDGE: Final = _edge()
_TILE: Final = _LANES + 2 * _EDGE


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
