"""The compiled way of ``models.stepping``: all steps of a batch in one call of ``native/steps.c``.

Checks what it hands on, for the compiled side believes it. The arrays are all numpy's, so that nothing is freed twice
or too soon.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.base import Float32, Float64
from models.compiled import address, library

#: As in steps.c.
TILE: Final = 16
_PANEL: Final = 12
_ALIGNED: Final = 64
_Int64 = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


class Laid(NamedTuple):
    """A recurrent layer.

    states   names of the arrays (slot, unit) of its state, what it puts out first
    weights  (row, unit + input + 1): what its product with (state, input, 1) is made of. Its gates come first; in the
             last layer what the state before a step foretells of the row, ``signals`` rows, comes behind them
    """

    cell: int
    units: int
    inputs: int
    states: tuple[str, ...]
    weights: Float32


class Views(NamedTuple):
    """What a score is made of; see ``models.innovation``.

    spread        (signal,) usual size of an innovation
    whitener      (signal, signal), to be multiplied with a column
    weights       (2, 3), plain and whitened by newest, recent and level
    recent_total  (age,) from 1 on, what the weights of the recent mean sum to; level_power: those of the level, squared
    """

    spread: Float32
    whitener: Float32
    weights: Float32
    recent_total: Float32
    level_power: Float32
    clip: float
    recent: float
    level: float


class Judged(NamedTuple):
    """Where a batch's results go: score (row,), contributions (row, signal), expected (row, signal)."""

    score: Float64
    contributions: Float64
    expected: Float32

    @classmethod
    def of(cls, rows: int, signals: int) -> Judged:
        """Room for so many rows."""
        return cls(np.empty(rows), np.empty((rows, signals)), np.empty((rows, signals), np.float32))


class _Layer(ctypes.Structure):
    """``Layer`` of steps.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cell", "units", "inputs", "rows")),
        ("weights", ctypes.c_void_p),
    )


class _Model(ctypes.Structure):
    """``Model`` of steps.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("signals", "lags", "ages", "layers")),
        ("layer", ctypes.POINTER(_Layer)),
        *(
            (name, ctypes.c_void_p)
            for name in ("linear", "spread", "whitener", "recent_total", "level_power", "weights")
        ),
        *((name, ctypes.c_float) for name in ("clip", "recent", "level", "recent_keep", "level_keep")),
    )


class _Batch(ctypes.Structure):
    """``Batch`` of steps.c."""

    _fields_ = (
        ("assets", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("slots", "counts", "starts", "rows", "foretold")),
        ("states", ctypes.POINTER(ctypes.c_void_p)),
        *((name, ctypes.c_void_p) for name in ("past", "means", "seen")),
        *((name, ctypes.c_void_p) for name in ("score", "contributions", "expected", "scratch")),
    )


class Steps:
    """Steps and judges with one set of weights. Threads may share it. Raises ``NotBuilt``.

    ``level`` of the instruction set, 0 being what every CPU has: the highest there is, if it is not given.
    """

    def __init__(self, layers: Sequence[Laid], linear: Float32, views: Views, level: int | None = None) -> None:
        opened = library("models._steps")
        self._run, self.level = opened.headrace_steps_run, best_level() if level is None else level
        self._run.restype = None
        self._run.argtypes = (ctypes.c_int64, ctypes.POINTER(_Model), ctypes.POINTER(_Batch))
        self._lags, self._signals = linear.shape
        self._layers = layers = tuple(layers)
        ages = len(views.recent_total)
        whitener = _checked("whitener", views.whitener, (self._signals, self._signals))
        laid = [_panels(layer.weights) for layer in layers]
        rates = np.array([views.clip, views.recent, views.level], np.float32)
        clip, recent, level_rate = rates.tolist()
        recent_keep, level_keep = (1 - rates[1:]).tolist()
        held = (
            _checked("linear", linear, (self._lags, self._signals)),
            1 / _checked("spread", views.spread, (self._signals,)),
            _panels(whitener),
            1 / _checked("recent_total", views.recent_total, (ages,)),
            1 / _checked("level_power", views.level_power, (ages,)),
            _checked("weights", views.weights, (2, 3)),
        )
        self._kept = held, laid  # their addresses are in the model
        self._model = _Model(
            self._signals,
            self._lags,
            ages,
            len(layers),
            (_Layer * len(layers))(
                *(
                    _Layer(layer.cell, layer.units, layer.inputs, len(layer.weights), address(weights))
                    for layer, weights in zip(layers, laid, strict=True)
                )
            ),
            *map(address, held),
            clip,
            recent,
            level_rate,
            recent_keep,
            level_keep,
        )
        self._check_layers()
        #: Whether the cells are walked as well; what was foretold is to be given otherwise.
        self.walks = bool(layers)
        opened.headrace_steps_scratch.restype = ctypes.c_int64
        self._scratch = int(opened.headrace_steps_scratch(ctypes.byref(self._model)))

    def _check_layers(self) -> None:
        inputs = self._signals
        for number, layer in enumerate(self._layers):
            last = number == len(self._layers) - 1
            gates, states = _SHAPES[layer.cell]
            rows = gates * layer.units + (self._signals if last else 0)
            shape = (rows, layer.units + layer.inputs + 1)
            if layer.weights.shape != shape or layer.inputs != inputs or len(layer.states) != states:
                raise ValueError(f"layer {number} does not fit the one below it")
            inputs = layer.units

    def run(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        seen: npt.NDArray[np.int32],
        runs: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
        rows: Float32,
        into: Judged,
        foretold: Float32 | None = None,
    ) -> None:
        """Judge runs of rows, and update what is remembered of their assets.

        arrays    by name, first axis = slot: the layers' states, ``past`` (slot, lag, signal), ``means`` (slot, 2
                  signals); seen: (slot,) rows since the asset's beginning
        runs      (asset,) each: the slots, each once, how many rows (at least 1), and where in ``rows`` they begin
        foretold  (row, signal) without the autoregression, where there are no layers
        """
        slots, counts, starts = (np.ascontiguousarray(part, np.int64) for part in runs)
        if counts[0] != counts[-1] or (counts != counts[0]).any():
            longest_first = np.argsort(-counts, kind="stable")
            slots, counts, starts = slots[longest_first], counts[longest_first], starts[longest_first]
        room, signals = len(seen), self._signals
        if not len(slots) == len(counts) == len(starts) or slots.min() < 0 or slots.max() >= room:
            raise IndexError("slots that are not there, or not as many as runs")
        if counts.min() < 1 or starts.min() < 0 or (starts + counts).max() > len(rows):
            raise IndexError("runs of rows that are not there")
        _check("seen", seen, (room,), np.int32)
        states = []
        for layer in self._layers:
            for name in layer.states:
                _check(name, arrays[name], (room, layer.units))
                states.append(address(arrays[name]))
        _check("past", arrays["past"], (room, self._lags, signals))
        _check("means", arrays["means"], (room, 2 * signals))
        rows = _checked("rows", rows, (len(rows), signals))
        _check("score", into.score, (len(rows),), np.float64)
        _check("contributions", into.contributions, (len(rows), signals), np.float64)
        _check("expected", into.expected, (len(rows), signals))
        if not self._layers:
            if foretold is None:
                raise ValueError("there are no layers to foretell")
            _check("foretold", foretold, (len(rows), signals))
        scratch = np.empty(self._scratch + _ALIGNED // 4, np.float32)
        at = address(scratch)
        batch = _Batch(
            len(slots),
            address(slots),
            address(counts),
            address(starts),
            address(rows),
            None if foretold is None else address(foretold),
            (ctypes.c_void_p * len(states))(*states),
            address(arrays["past"]),
            address(arrays["means"]),
            address(seen),
            address(into.score),
            address(into.contributions),
            address(into.expected),
            at + -at % _ALIGNED,
        )
        self._run(self.level, ctypes.byref(self._model), ctypes.byref(batch))


#: By cell, LSTM, GRU, simple: blocks of gates and arrays of state.
_SHAPES: Final = ((4, 2), (4, 1), (1, 1))


@functools.cache
def best_level() -> int:
    """The widest instruction set that this CPU has: 1 is AVX2 with FMA, 2 AVX-512, 0 what every CPU has.

    A few rows are judged by it first. No release can be tried on every CPU: one that goes wrong on this is not used.
    """
    opened = library("models._steps")
    opened.headrace_steps_level.restype = ctypes.c_int64
    plain = _trial(0)
    for level in range(int(opened.headrace_steps_level()), 0, -1):
        if np.allclose(_trial(level), plain, rtol=1e-3):
            return level
        _log.error("this CPU's instruction set %d judges otherwise than the plain one: it is not used", level)
    return 0


def _trial(level: int) -> Float64:
    """Scores of a few rows by an LSTM of arbitrary weights."""
    draw = np.random.default_rng(1)
    signals, units, lags, assets, rows = 3, 20, 2, 21, 6

    def some(*shape: int) -> Float32:
        return draw.normal(0, 0.4, shape).astype(np.float32)

    weights = some(4 * units + signals, units + signals + 1)
    ages = np.linspace(0.1, 1, 8, dtype=np.float32)
    mixing = (np.eye(signals) + some(signals, signals) / 4).astype(np.float32)
    views = Views(np.ones(signals, np.float32), mixing, np.full((2, 3), 0.3, np.float32), ages, ages, 8.0, 0.3, 0.05)
    steps = Steps([Laid(0, units, signals, ("hidden", "memory"), weights)], some(lags, signals), views, level)
    shapes = {"hidden": (units,), "memory": (units,), "past": (lags, signals), "means": (2 * signals,)}
    arrays = {name: np.zeros((assets, *shape), np.float32) for name, shape in shapes.items()}
    counts = np.full(assets, rows)
    into = Judged.of(assets * rows, signals)
    runs = np.arange(assets), counts, np.cumsum(counts) - counts
    steps.run(arrays, np.ones(assets, np.int32), runs, some(assets * rows, signals), into)
    return into.score


def _panels(weights: Float32) -> Float32:
    """(row, depth) -> (panel, depth, 12), filled up with zeros: what the compiled product reads."""
    rows, depth = weights.shape
    padded = np.zeros((-(-rows // _PANEL) * _PANEL, depth), np.float32)
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(-1, _PANEL, depth).transpose(0, 2, 1))


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: Any = np.float32) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.carray:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}, C-contiguous")


def _checked(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> Float32:
    """As float32, C-contiguous. Raises ``ValueError`` if it has another shape."""
    array = np.ascontiguousarray(array, np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} is {array.shape}, expected {shape}")
    return array
