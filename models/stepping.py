"""State carried: a forecaster that takes one step for each new reading, instead of a pass over a window.

A window of 32 rows makes the network look at every row 31 times. Carried on, its state has seen each row once, and all
rows since the asset's last reset instead of the last 31. What a step foretells equals what the network foretells when
it is run over that whole history (a test holds it). The score's views (``models.innovation``) are means with
exponential weights, so they are carried as well.

A batch is taken as a whole. Only recurrent cells (``models.recurrence``) and the means go from row to row: the first
rows of all assets together, then their second rows, ... Everything else (dilated convolutions, the autoregression,
whitening, the score) is done for all rows at once.

Memory: ``bytes_per_asset``, all in arrays whose first axis is the asset's slot. The bits of a row's score depend
neither on the other assets of a batch nor on how batches are cut (``models.tiles``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64, Scored
from models.columns import Columns
from models.compiled import NotBuilt
from models.compiled_steps import Judged, Laid, Steps, Views
from models.innovation import CLIP, LEVEL, RECENT, Yardstick, summed, view_weights
from models.tiles import product

_Ints = npt.NDArray[np.integer[Any]]
_Int64 = npt.NDArray[np.int64]
#: Rows that are worked on at once: bounds the memory of a burst, and stays in the cache.
_MOST: Final = 32768
#: Beyond this age the weights of an exponential mean sum to 1 in float32.
_AGES: Final = 512
#: A state grows by so small a part that what growth leaves over is next to nothing; copying it 32 times costs 2 us.
_GROWTH: Final = 32


class Body(Protocol):
    """A trained forecaster's network as plain arrays, apart from its autoregression.

    linear  (lag, signal): the autoregression's weight for each of the last rows, the newest last
    """

    @property
    def linear(self) -> Float32:
        """See above."""
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that are remembered of an asset, all 0 at its beginning."""
        ...

    def laid(self) -> list[Laid]:
        """Its layers for the compiled way, from the input up; none where only ``walk`` can walk it."""
        ...

    def walk(self, arrays: Mapping[str, Float32], order: Order, inputs: Float32) -> Float32:
        """What was foretold of each of ``inputs`` (row, signal) by the rows before it; updates ``arrays``."""
        ...


class Order:
    """The rows of a batch step by step: the first rows of all assets, then their second ones, ...

    Assets with more rows come first, so that those that are left at a step are always the first ones.

    slots         (asset,) in that order
    take          (row,) where each row is in the batch
    active        (step,) how many assets have a row at it
    bounds        (step + 1,) where each step's rows begin
    """

    def __init__(self, slots: _Ints, counts: _Ints, starts: _Ints) -> None:
        assets, steps = len(slots), int(counts.max())
        self._even = steps == counts.min()
        if self._even:
            self.active = np.full(steps, assets)
            self.take = (starts + np.arange(steps)[:, None]).ravel()
        else:
            longest_first = np.argsort(-counts, kind="stable")
            slots, counts, starts = slots[longest_first], counts[longest_first], starts[longest_first]
            self.active = assets - np.searchsorted(counts[::-1], np.arange(steps), side="right")
            self._rank = np.arange(self.active.sum()) - np.repeat(np.cumsum(self.active) - self.active, self.active)
            self._step = np.repeat(np.arange(steps), self.active)
            self.take = starts[self._rank] + self._step
        self.slots, self.counts = slots, counts
        self.bounds = np.concatenate([[0], np.cumsum(self.active)])

    def after(self, past: Float32, now: Float32) -> Float32:
        """Rows ``now`` (row, number) behind each asset's ``past`` (asset, lag, number), as steps before the first."""
        lags, assets = past.shape[1], len(self.slots)
        return np.concatenate([past.transpose(1, 0, 2).reshape(lags * assets, -1), now])

    def before(self, known: Float32, lags: int, back: int) -> Float32:
        """What lies ``back`` rows before each row in what ``after`` gave."""
        assets = len(self.slots)
        if self._even:
            start = (lags - back) * assets
            return known[start : start + len(self.take)]
        rows: _Ints = self._begins(lags)[self._step + lags - back] + self._rank
        return known[rows]

    def newest(self, known: Float32, lags: int) -> Float32:
        """Each asset's last rows (asset, lag, number) in what ``after`` gave."""
        assets = len(self.slots)
        if self._even:
            return known[len(self.take) :].reshape(lags, assets, -1).transpose(1, 0, 2)
        rows: _Ints = self._begins(lags)[self.counts[:, None] + np.arange(lags)] + np.arange(assets)[:, None]
        return known[rows]

    def fill(self, known: Float32, lags: int) -> None:
        """Put the last known value in place of what is missing; the past has all."""
        begins = self._begins(lags)
        for number, count in enumerate(self.active.tolist()):
            now, last = begins[lags + number], begins[lags + number - 1]
            part = known[now : now + count]
            np.copyto(part, known[last : last + count], where=np.isnan(part))

    def ages(self, rows: _Ints) -> _Int64:
        """How many rows of its asset lie before each row; ``rows``: (asset,) before the first."""
        if self._even:
            return np.asarray((rows + np.arange(len(self.active))[:, None]).ravel(), np.int64)
        return np.asarray(rows[self._rank] + self._step, np.int64)

    def fade(self, held: Float32, keep: Sequence[np.float32], fresh: Sequence[Float32]) -> Float32:
        """Carry exponential means on: each row's is its asset's last one times ``keep``, and its own ``fresh`` part.

        held: (asset, number) before the first row, the numbers of each kind of mean one after the other; keep, fresh:
        of each kind, fresh being (row, number) and made the means after each row, in place. Returns what is held after
        the last rows.
        """
        after, first = np.empty_like(held), 0
        for share, rows in zip(keep, fresh, strict=True):
            kind = slice(first, first + rows.shape[1])
            first = kind.stop
            last = np.ascontiguousarray(held[:, kind])
            faded = np.empty_like(last)
            for start, count in zip(self.bounds.tolist(), self.active.tolist(), strict=False):
                now = rows[start : start + count]
                if count < len(last):
                    after[count : len(last), kind] = last[count:]
                    last, faded = last[:count], faded[:count]
                np.multiply(last, share, faded)
                np.add(now, faded, now)
                last = now
            after[: len(last), kind] = last
        return after

    def _begins(self, lags: int) -> _Int64:
        assets = len(self.slots)
        return np.concatenate([np.arange(lags) * assets, lags * assets + self.bounds])


def pieces(slots: _Ints, counts: _Ints) -> Iterator[tuple[_Ints, _Ints, _Ints]]:
    """Cut a batch, assets and runs of rows, so that few enough rows are worked on at once: slots, counts, starts."""
    starts = np.cumsum(counts) - counts
    longest = max(_MOST // len(slots), 1)
    for first in range(0, int(counts.max()), longest):
        left = np.flatnonzero(counts > first)
        for begin in range(0, len(left), _MOST):
            some = left[begin : begin + _MOST]
            yield slots[some], np.minimum(counts[some] - first, longest), starts[some] + first


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(slots=True)
class CarriedState:
    """What is remembered of each asset: ``arrays`` by name, first axis = slot; ``rows`` since the last reset."""

    arrays: dict[str, npt.NDArray[Any]]
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
        room = max(slots, held + max(held // _GROWTH, 16))
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


class _Seen(NamedTuple):
    """What came of some rows: (row, signal) each, ``take`` (row,) where they are in the batch.

    newest, level  plain and whitened; recent  their weighted sum, or each where the stepper keeps them apart
    """

    take: _Int64
    known: npt.NDArray[np.bool_]
    expected: Float32
    newest: tuple[Float32, Float32]
    recent: list[Float32]
    level: tuple[Float32, Float32]


class Stepper:
    """Steps many assets with one set of weights. One thread at a time for one state; the weights are shared.

    The recent power enters a score once plain and once whitened, by fixed weights, so the mean of the weighted sum is
    all that need be carried. ``apart``: carry both, to measure what is usual for each.
    """

    def __init__(self, body: Body, yardstick: Yardstick, *, apart: bool = False) -> None:
        self.body = body
        self.yardstick = yardstick
        self._signals = body.linear.shape[1]
        self._apart = apart
        self._weights = view_weights(yardstick.usual).astype(np.float32)
        self._whitener = np.ascontiguousarray(yardstick.whitener.T, np.float32)
        rates = [RECENT, RECENT, LEVEL] if apart else [RECENT, LEVEL]
        self._keep = list(1 - np.array(rates, np.float32))
        self._spread = Columns(np.asarray(yardstick.spread, np.float32))
        self._linear = [Columns(weight) for weight in body.linear]
        # weights of an exponential mean over n rows sum to 1 - (1 - rate) ** n: young assets are not judged too mildly
        left = (1 - LEVEL) ** np.arange(_AGES)
        # sum of the squared weights, which sum to 1 - left
        level_power = LEVEL / (2 - LEVEL) * (1 + left) * (1 - left)
        recent_total = 1 - (1 - RECENT) ** np.arange(_AGES)
        self._level_power, self._recent_total = self._by_age(level_power), self._by_age(recent_total)
        self._steps = None if apart else self._compiled()

    def _compiled(self) -> Steps | None:
        """The compiled way, None where it cannot be had."""
        try:
            return Steps(self.body.laid(), self.body.linear, self._measures())
        except NotBuilt:  # the worker said so at its start
            return None

    def _measures(self) -> Views:
        """What a score is made of."""
        return Views(
            self.yardstick.spread,
            self._whitener,
            self._weights,
            np.ascontiguousarray(self._recent_total[1:, 0]),
            np.ascontiguousarray(self._level_power[1:, 0]),
            CLIP,
            RECENT,
            LEVEL,
        )

    def _by_age(self, numbers: npt.NDArray[Any]) -> Float32:
        """(age, signal): a number for each age, once for each signal, so that it is read as rows are."""
        return np.repeat(numbers.astype(np.float32)[:, None], self._signals, axis=1)

    def begin(self, slots: int = 0) -> CarriedState:
        """A state for ``slots`` assets that have shown nothing yet."""
        shapes = self.body.shapes() | {"past": self.body.linear.shape, "means": (len(self._keep) * self._signals,)}
        arrays = {name: np.zeros((slots, *shape), np.float32) for name, shape in shapes.items()}
        return CarriedState(arrays, np.zeros(slots, np.int32))

    def step(self, state: CarriedState, slots: _Ints, rows: Float32) -> Scored:
        """One new row of each of several assets: ``run`` with runs of one row."""
        return self.run(state, slots, np.ones(len(slots), np.int64), rows)

    def run(
        self,
        state: CarriedState,
        slots: _Ints,
        counts: _Ints,
        rows: Float32,
        at_ms: _Int64 | None = None,  # noqa: ARG002  # the network was trained on rows, not on their times
    ) -> Scored:
        """Some new rows of each of several assets.

        slots: (asset,) each once; counts: (asset,) how many rows, at least 1; rows: (row, signal) float32, scaled, NaN
        where a value is missing, an asset's rows one after the other and assets in the order of ``slots``.

        Updates ``state``. Returns scores of the rows by what the row before foretold; before the second row of an asset
        nothing was foretold, so its score is NaN.
        """
        if self._steps is not None:
            return self._judged(self._steps, state, slots, counts, rows)
        parts = [self._piece(state, *piece, rows) for piece in pieces(slots, counts)]
        scored = [summed(self._shares(seen).astype(np.float64), seen.known) for seen in parts]
        place = np.empty(len(rows), np.int64)  # of each row of the batch among those that were scored
        place[_joined([seen.take for seen in parts])] = np.arange(len(rows))
        score, contributions, expected = (
            _joined(held).take(place, axis=0)
            for held in (
                [own for own, _ in scored],
                [shares for _, shares in scored],
                [seen.expected for seen in parts],
            )
        )
        return Scored(score, contributions, expected, np.broadcast_to(self.yardstick.spread, expected.shape))

    def _judged(self, steps: Steps, state: CarriedState, slots: _Ints, counts: _Ints, rows: Float32) -> Scored:
        """``run`` in the compiled way."""
        into = Judged.of(len(rows), self._signals)
        if steps.walks:
            steps.run(state.arrays, state.rows, (slots, counts, np.cumsum(counts) - counts), rows, into)
        else:
            foretold = np.empty_like(rows)
            for piece in pieces(slots, counts):
                order = Order(*piece)
                foretold[order.take] = self._walked(state, order, rows.take(order.take, axis=0))[1]
                steps.run(state.arrays, state.rows, piece, rows, into, foretold)
        return Scored(*into, np.broadcast_to(self.yardstick.spread, rows.shape))

    def _walked(self, state: CarriedState, order: Order, given: Float32) -> tuple[Float32, Float32]:
        """Rows behind the asset's past (``Order.after``), none missing; what was foretold of them without the lags."""
        past, lags = state.arrays["past"], len(self.body.linear)
        known = order.after(past.take(order.slots, axis=0), given)
        if np.isnan(given).any():
            order.fill(known, lags)  # a missing value is read as the last one known, 0 at first
        return known, self.body.walk(state.arrays, order, known[lags * len(order.slots) :])

    def _shares(self, seen: _Seen) -> Float32:
        """Each signal's share of the score, (row, signal)."""
        shares = seen.recent[0].copy()
        for views, column in ((seen.newest, 0), (seen.level, 2)):
            for view, weight in zip(views, self._weights[:, column], strict=True):
                shares += view * weight
        return shares

    def usual(self, stretches: Sequence[Float32], warm_up: int) -> Float64:
        """What each view mostly is over clean stretches (row, signal), after ``warm_up`` rows: (2, 3) float64.

        The stretches should be those of the yardstick's own spread. Needs at least one row past the warm-up.
        """
        apart = Stepper(self.body, self.yardstick, apart=True)
        seen: list[Float64] = []
        for rows in stretches:
            state, slot = apart.begin(1), np.zeros(1, np.int64)
            for start in range(0, len(rows), _MOST):
                part = rows[start : start + _MOST]
                said = apart._piece(state, slot, np.array([len(part)]), np.zeros(1, np.int64), part)
                views = zip(said.newest, said.recent, said.level, strict=True)
                means = np.array([[view.mean(axis=1) for view in parts] for parts in views], np.float64)
                seen.append(means[:, :, max(warm_up - start, 0) :])
        return np.asarray(np.maximum(np.median(np.concatenate(seen, axis=2), axis=2), 1e-3), np.float64)

    def _piece(self, state: CarriedState, slots: _Ints, counts: _Ints, starts: _Ints, rows: Float32) -> _Seen:
        """Take rows ``starts`` to ``starts + counts`` of each asset."""
        order = Order(slots, counts, starts)
        given = rows.take(order.take, axis=0)
        known, foretold = self._walked(state, order, given)
        past, lags = state.arrays["past"], len(self.body.linear)
        weighed = np.empty_like(foretold)
        for lag, weigh in enumerate(self._linear):
            foretold += weigh(np.multiply, order.before(known, lags, lags - lag), weighed)
        past[order.slots] = order.newest(known, lags)
        seen = order.ages(state.rows[order.slots])
        state.rows[order.slots] += order.counts.astype(state.rows.dtype)
        innovations = given - foretold
        if not seen.min():
            innovations[seen == 0] = np.nan
        there = ~np.isnan(innovations)
        return _Seen(order.take, there, foretold, *self._views(state, order, innovations, there, seen))

    def _views(
        self,
        state: CarriedState,
        order: Order,
        innovations: Float32,
        there: npt.NDArray[np.bool_],
        seen: _Int64,
    ) -> tuple[tuple[Float32, Float32], list[Float32], tuple[Float32, Float32]]:
        """Take innovations (row, signal) into the carried means; newest, recent and level as in ``_Seen``."""
        z = self._spread(np.divide, innovations, innovations)
        np.clip(z, -CLIP, CLIP, out=z)
        if not there.all():
            z[~there] = 0
        whitened = product(self._whitener, z)
        powers = (z * z, np.multiply(whitened, whitened, out=whitened))
        if self._apart:
            recents = [power * np.float32(RECENT) for power in powers]
        else:
            recents = [powers[0] * (np.float32(RECENT) * self._weights[0, 1])]
            recents[0] += powers[1] * (np.float32(RECENT) * self._weights[1, 1])
        level = np.multiply(z, np.float32(LEVEL), out=z)
        held = state.arrays["means"].take(order.slots, axis=0)
        state.arrays["means"][order.slots] = order.fade(held, self._keep, (*recents, level))
        # the mean of what is whitened is the whitened mean: one of them is enough to carry
        levels = (level * level, product(self._whitener, level))
        np.multiply(levels[1], levels[1], out=levels[1])
        if seen.min() < _AGES - 1:
            ages = np.clip(seen, 1, _AGES - 1)
            total, squared = self._recent_total.take(ages, axis=0), self._level_power.take(ages, axis=0)
        else:
            total, squared = self._recent_total[-1, 0], self._level_power[-1, 0]
        for part in levels:
            np.divide(part, squared, out=part)
        for part in recents:
            np.divide(part, total, out=part)
        return powers, recents, levels
