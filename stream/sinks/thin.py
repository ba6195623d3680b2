"""Which scores are written where scores are kept: all of them, or one in so many seconds and what is new.

Alerts and metrics always see every score; what is thinned is the history: the scores topic and InfluxDB. Never left out
is a row at or over its threshold, a row of an open alert, and the first row after either; nor one whose verdict is not
that of the row before, or that has a score where the row before had none, or the other way round.

Beyond those, ``every_s`` writes the first row in each slot of so many seconds of event time. Slots begin at the same
times in every run, so that a replay writes the same points again and not others beside them; which times these are
differs by asset, so that not all of a plant is written in the same second. ``change`` writes, between these, each row
whose score differs by more than that share of the threshold from the score last written.

It is a loop over rows with a few comparisons each, which is compiled (``native/thin.c``), and in numpy where it is not.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import compress, count, repeat
from typing import Any, Final

import numpy as np

from models.compiled import NotBuilt, address, library
from stream.plan import ThinningSettings
from stream.records import Bool, Float64, Int64, Output, Scores
from stream.sinks.rows import take
from stream.state import BESIDE, Array
from stream.whereabouts import Whereabouts

_NEVER = np.iinfo(np.int64).min
_REMEMBERED: Final = ("slot", "status", "score")
#: A number for each thinner, never used again: what was shared of one that is gone is nobody's.
_KEEPERS: Final = count()


@dataclass(frozen=True, slots=True)
class Thinned(Output):
    """An output with ``kept``: those rows of ``scores`` that are to be kept as history."""

    kept: tuple[Scores, ...] = ()


def history(output: Output) -> tuple[Scores, ...]:
    """The scores of ``output`` that are to be kept: all, unless they were thinned."""
    return output.kept if isinstance(output, Thinned) else output.scores


class _Thinning(ctypes.Structure):
    """``Thinning`` of native/thin.c."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("asset", "at_ms", "score", "threshold", "anomalous", "verdict")),
        *((name, ctypes.c_void_p) for name in ("codes", "phase", "slot", "status", "written")),
        ("every_ms", ctypes.c_int64),
        ("change", ctypes.c_double),
        ("kept", ctypes.c_void_p),
    )


@functools.cache
def _compiled() -> Callable[[Any], int] | None:
    try:
        found = library("stream._thin").headrace_thin
    except NotBuilt:  # the worker said so at its start
        return None
    found.restype = ctypes.c_int64
    found.argtypes = (ctypes.POINTER(_Thinning),)
    return found


@dataclass(slots=True)
class _Last:
    """What was last seen and written of one detector's assets, by the asset's index.

    phase   (asset,) int64, milliseconds that the asset's slots are shifted by
    slot    (asset,) int64, slot of its newest row
    status  (asset,) int64, ``_status`` of its newest row; -1 before the first
    score   (asset,) float64, the score last written
    """

    index: dict[str, int] = field(default_factory=dict)
    phase: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slot: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    status: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    score: Float64 = field(default_factory=lambda: np.zeros(0))

    def codes(self, names: tuple[str, ...], every_ms: int) -> Int64:
        """The index of each name; new ones are admitted."""
        codes = np.fromiter(map(self.index.get, names, repeat(-1)), np.int64, len(names))
        if len(codes) and codes.min() < 0:
            known = len(self.index)
            codes = np.fromiter((self.index.setdefault(name, len(self.index)) for name in names), np.int64, len(names))
            new = list(self.index)[known:]
            shifts = [zlib.crc32(name.encode("utf-8", "replace")) % every_ms for name in new]
            self.phase = np.concatenate([self.phase, np.array(shifts, dtype=np.int64)])
            self.slot = np.concatenate([self.slot, np.full(len(new), _NEVER)])
            self.status = np.concatenate([self.status, np.full(len(new), -1)])
            self.score = np.concatenate([self.score, np.full(len(new), np.nan)])
        return codes


class Thinner:
    """Thins the scores of one partition. It remembers four numbers for each asset and detector.

    ``whereabouts``, by detector, may be shared by the thinners of all partitions.
    """

    def __init__(self, settings: ThinningSettings, whereabouts: dict[str, Whereabouts] | None = None) -> None:
        self._whereabouts = {} if whereabouts is None else whereabouts
        self._keeper = next(_KEEPERS)
        self._every_ms = max(round(settings.every_s * 1000), 1)
        self._change = settings.change
        self._last: dict[str, _Last] = {}

    def apply(self, output: Output) -> Thinned:
        """``output`` with what is to be kept of its scores, whose rows are in the order of time for each asset."""
        kept = tuple(held for held in map(self.thin, output.scores) if len(held))
        given: dict[str, Any] = {each.name: getattr(output, each.name) for each in fields(Output)}
        return Thinned(**given, kept=kept)

    def take(self, detector: str, names: Sequence[str]) -> dict[str, Array]:
        """What is remembered of assets for a snapshot, as arrays beside those of the detector."""
        last = self._last.setdefault(detector, _Last())
        codes = last.codes(tuple(names), self._every_ms)
        return {BESIDE + name: getattr(last, name)[codes] for name in _REMEMBERED}

    def put(self, detector: str, names: Sequence[str], arrays: Mapping[str, Array]) -> None:
        """Take over what ``take`` gave. Names that are empty are passed over, and so is what nothing was taken of."""
        if any(BESIDE + name not in arrays for name in _REMEMBERED):
            return
        rows = [row for row, name in enumerate(names) if name]
        last = self._last.setdefault(detector, _Last())
        codes = last.codes(tuple(names[row] for row in rows), self._every_ms)
        for name in _REMEMBERED:
            getattr(last, name)[codes] = arrays[BESIDE + name][rows]

    def thin(self, scores: Scores) -> Scores:
        """The rows of ``scores`` that are to be kept."""
        if not len(scores):
            return scores
        if (scores.asset[1:] >= scores.asset[:-1]).all():  # as the pipeline gives them
            return _of_their_own(take(scores, self._kept(scores)))
        order = np.argsort(scores.asset, kind="stable")
        return _of_their_own(take(scores, np.sort(order[self._kept(take(scores, order))])))

    def _kept(self, scores: Scores) -> Int64:
        """The rows of ``scores``, sorted by asset and time, that are to be kept."""
        last = self._last.setdefault(scores.detector, _Last())
        codes = self._codes(scores.detector, last, scores.names)
        call = _compiled()
        if call is None:
            return self._kept_by_columns(scores, last, codes)
        kept = np.empty(len(scores), np.int64)
        held = (
            *map(np.ascontiguousarray, (scores.asset, scores.at_ms, scores.score, scores.threshold)),
            *map(np.ascontiguousarray, (scores.anomalous, scores.verdict)),
            codes,
            *(last.phase, last.slot, last.status, last.score),
        )
        change = np.nan if self._change is None else self._change
        of = _Thinning(len(scores), *map(address, held), self._every_ms, change, address(kept))
        return kept[: call(ctypes.byref(of))]

    def _codes(self, detector: str, last: _Last, names: tuple[str, ...]) -> Int64:
        """The index of each name; new ones are admitted."""
        whereabouts = self._whereabouts.setdefault(detector, Whereabouts())
        codes = whereabouts.find(self._keeper, names, last.index)
        if len(codes) and codes.min() < 0:
            codes = last.codes(names, self._every_ms).astype(np.int32)
            whereabouts.keep(self._keeper, names, codes)
        return codes.astype(np.int64)

    def _kept_by_columns(self, scores: Scores, last: _Last, codes: Int64) -> Int64:
        """The same in numpy."""
        asset, score, threshold = scores.asset, scores.score, scores.threshold
        first = np.ones(len(asset), dtype=bool)  # of an asset's rows
        np.not_equal(asset[1:], asset[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        code = codes.take(asset.take(starts))  # of each asset that has rows

        slot = (scores.at_ms + last.phase.take(codes).take(asset)) // self._every_ms
        alarming = scores.anomalous | (score >= threshold)
        status = _status(scores, alarming)
        keep = (
            alarming | _differs(slot, starts, last.slot.take(code)) | _differs(status, starts, last.status.take(code))
        )
        if self._change is not None:
            reference = last.score.take(codes).take(asset)
            _keep_changes(keep, first, score, reference, self._change * threshold)

        ends = np.concatenate([starts[1:], [len(asset)]]) - 1
        last.slot[code], last.status[code] = slot[ends], status[ends]
        written = np.flatnonzero(keep)
        last.score[codes.take(asset.take(written))] = score[written]  # an asset's last one stays
        return written


def _of_their_own(scores: Scores) -> Scores:
    """``scores`` with the names of its rows alone: what is kept may wait long for its server."""
    occurs = np.zeros(len(scores.names), dtype=bool)
    occurs[scores.asset] = True
    if occurs.all():
        return scores
    code = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return replace(scores, names=tuple(compress(scores.names, occurs.tolist())), asset=code.take(scores.asset))


def _status(scores: Scores, alarming: Bool) -> Int64:
    """(row,): one number for all that a change of is always written."""
    status = scores.verdict.astype(np.int64)
    for flag in (alarming, scores.anomalous, np.isfinite(scores.score)):
        status += status
        status += flag
    return status


def _differs(column: Int64, starts: Int64, remembered: Int64) -> Bool:
    """(row,): whether ``column`` is not as in the row before; of assets' first rows, not as ``remembered``."""
    differs = np.empty(len(column), dtype=bool)
    np.not_equal(column[1:], column[:-1], out=differs[1:])
    differs[starts] = column[starts] != remembered
    return differs


def _keep_changes(keep: Bool, first: Bool, score: Float64, remembered: Float64, tolerance: Float64) -> None:
    """Set ``keep`` where a score differs by more than ``tolerance`` from the last one that was kept.

    Rows between two kept ones are looked at together; only where one of them differs, those after it one by one.
    """
    bounds = np.flatnonzero(keep | first)
    stretch = np.cumsum(keep | first) - 1
    reference = np.where(keep, score, remembered)[bounds][stretch]
    with np.errstate(invalid="ignore"):  # infinity less infinity: such rows are kept already
        differs = np.flatnonzero(np.abs(score - reference) > tolerance)
    differs = differs[~keep[differs]]
    if not len(differs):
        return
    found, at = np.unique(stretch[differs], return_index=True)
    ends = np.append(bounds, len(score))[found + 1]
    scores, limits = score.tolist(), tolerance.tolist()
    rows = []
    for begin, end in zip(differs[at].tolist(), ends.tolist(), strict=True):
        rows.append(begin)
        held = scores[begin]
        for row in range(begin + 1, end):
            if abs(scores[row] - held) > limits[row]:
                rows.append(row)
                held = scores[row]
    keep[rows] = True
