"""How new a value is: its distance to the nearest of all values that went before, in bounded memory, for many streams.

Novelty of a value v is ``sqrt(d2 d3) / (sd + rel |v - mean|)``, with d2 and d3 the distances to the second and third
nearest of the past values (the nearest alone would forgive whatever happened once) and mean and sd those of all of the
past. It calibrates itself: novelty counts over the fifth-largest so far, so one threshold serves all streams.

The past is kept as ``size`` values in order. When there is no room, the value between the two nearest others goes: what
is dense stays dense enough, and what is rare is never forgotten. All is vectorised over streams; one row of each at a
time, since each row changes the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float64

_LARGEST: Final = 5  # self-calibration: the fifth-largest novelty so far is usual
_FLOOR: Final = 0.03  # and so is this much of a standard deviation
_LEAST_PAST: Final = 3
Arrays = Mapping[str, npt.NDArray[Any]]


def shapes(channels: int, size: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Of what is remembered of one stream: shape and type by name, all 0 at the beginning.

    values (channel, size) ascending behind each other, of which the first ``held`` count; held (channel,) int32;
    moments (channel, 3) how many, their mean, the sum of squares about it; largest (channel, ``_LARGEST``) ascending
    """
    return {
        "values": ((channels, size), np.float32),
        "held": ((channels,), np.int32),
        "moments": ((channels, 3), np.float64),
        "largest": ((channels, _LARGEST), np.float32),
    }


def relative(memory: Arrays, now: Float64, rel: Float64, learn: npt.NDArray[np.bool_] | None = None) -> Float64:
    """Novelty of each stream's newest value over what is usual for it: (stream, channel), 0 with hardly any past.

    memory  arrays (stream, ...) as in ``shapes``; updated in place where ``learn`` (stream,) says so, else left alone
    now     (stream, channel), finite
    rel     (channel,) how far the distance from the mean makes a value less surprising
    """
    values, held, moments, largest = (memory[name] for name in ("values", "held", "moments", "largest"))
    now32 = now.astype(np.float32)
    place = _place(values, held, now32)
    near = np.sort(_neighbours(values, held, place, now32), axis=2)
    count, mean, squares = moments[..., 0], moments[..., 1], moments[..., 2]
    known = np.maximum(count, 1)
    size = np.sqrt(squares / known) + rel * np.abs(now - mean)
    enough = (held >= _LEAST_PAST) & (size > 0)
    second, third = (np.where(enough, near[..., place], 0).astype(np.float64) for place in (1, 2))
    distance = np.sqrt(second * third)
    novelty = np.divide(distance, size, out=np.zeros(now.shape), where=enough)
    usual = largest[..., 0].astype(np.float64) + _FLOOR
    if learn is not None and learn.any():
        chosen = slice(None) if learn.all() else np.flatnonzero(learn)
        _insert(values, held, place, now32, chosen)
        top = largest[chosen]
        top[..., 0] = np.maximum(top[..., 0], novelty[chosen].astype(np.float32))
        largest[chosen] = np.sort(top, axis=2)
        off = now[chosen] - mean[chosen]
        grown = count[chosen] + 1
        middle = mean[chosen] + off / grown
        moments[chosen] = np.stack([grown, middle, squares[chosen] + off * (now[chosen] - middle)], axis=2)
    return np.asarray(novelty / usual)


def _place(values: npt.NDArray[Any], held: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each value belongs: how many of those held are below it; by bisection, so in a dozen small steps."""
    low, high = np.zeros(now.shape, np.int64), held.astype(np.int64)
    for _ in range(int(values.shape[2]).bit_length()):
        middle = (low + high) // 2
        inside = low < high
        there = np.take_along_axis(values, np.minimum(middle, values.shape[2] - 1)[..., None], axis=2)[..., 0]
        below = inside & (there < now)
        low = np.where(below, middle + 1, low)
        high = np.where(inside & ~below, middle, high)
    return low


def _neighbours(
    values: npt.NDArray[Any], held: npt.NDArray[Any], place: npt.NDArray[np.int64], now: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Distances to the three values on either side, infinite where there is none: (stream, channel, 6)."""
    around = place[..., None] + np.arange(-3, 3)
    there = (around >= 0) & (around < held[..., None])
    value = np.take_along_axis(values, np.clip(around, 0, values.shape[2] - 1), axis=2)
    return np.where(there, np.abs(value - now[..., None]), np.float32(np.inf))


def _insert(
    values: npt.NDArray[Any],
    held: npt.NDArray[Any],
    place: npt.NDArray[np.int64],
    now: npt.NDArray[Any],
    chosen: slice | npt.NDArray[np.int64],
) -> None:
    """Put values where they belong; where there is no room, the one between the two nearest others goes."""
    size = values.shape[2]
    old, at, new = values[chosen], place[chosen][..., None], now[chosen][..., None]
    room = np.arange(size + 1)
    wide = np.concatenate([old, old[..., -1:]], axis=2)
    wide = np.where(room < at, wide, np.where(room == at, new, np.concatenate([old[..., :1], old], axis=2)))
    full = held[chosen] >= size
    if full.any():
        gone = np.where(full, (wide[..., 2:] - wide[..., :-2]).argmin(axis=2) + 1, size)[..., None]
        values[chosen] = np.where(room[:size] < gone, wide[..., :size], wide[..., 1:])
    else:
        values[chosen] = wide[..., :size]
    held[chosen] = np.minimum(held[chosen] + 1, size)
