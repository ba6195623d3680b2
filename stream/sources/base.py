"""The contract of a payload format: one record's bytes in, rows of readings out.

A new format is one file beside this one: a class ``Source`` with a ``parse`` as below. What a row may hold, what a time
means, and how rows become columns, is settled here once for all formats.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import compress, repeat
from typing import Annotated, Final, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np

from stream.errors import DecodeError
from stream.records import Bool, Float64, Int32, Int64, RawRecord, Readings, UInt8
from stream.times import UNITS

#: A value of a signal in a row: None where it is missing.
Values = Mapping[str, float | None]

MAX_NAME: Final = 200
Asset = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Quality = Literal["good", "uncertain", "bad"]
#: What producers send by mistake, in milliseconds, and what it is called.
_LIKELY: Final = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class Source(Protocol):
    """Turns the bytes of a record into rows."""

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the readings in ``value`` to ``rows``. Raises ``DecodeError``, having added nothing."""
        ...


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that can also take many records at once, which is quicker."""

    def parse_many(self, values: Sequence[bytes], rows: Rows) -> Sequence[int]:
        """Add what is plain to see in ``values``, one for each record of a batch; the places of what it left.

        ``parse`` then takes what was left, or says what is wrong with it. What is added here must be what ``parse``
        would have added.
        """
        ...


@runtime_checkable
class RecordSource(Source, Protocol):
    """A source that needs more of a record than its value: its key, its headers or its timestamp."""

    def parse_record(self, record: RawRecord, rows: Rows) -> None:
        """Add the readings in ``record`` to ``rows``. Raises ``DecodeError``, having added nothing."""
        ...


class Bounds(NamedTuple):
    """What readings may be.

    signals              the columns: what any detector of the plan watches
    earliest, latest     bounds of the time of observation, epoch milliseconds
    unit                 of the times that are numbers, ``s`` or ``ms``
    max_rows             the most rows that one record may have
    """

    signals: tuple[str, ...]
    earliest_ms: int
    latest_ms: int
    unit: str = "ms"
    max_rows: int = 10_000


class Rows:
    """Rows of readings on their way to columns, in the order of their records."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.signals = bounds.signals
        self.unknown_signals = 0
        self._column = {signal: index for index, signal in enumerate(self.signals)}
        self._codes: dict[str, int] = {}
        # What was added one by one: asset, time and record of each, and the values of those that share a layout (the
        # same signals in the same order) end to end, so that each layout becomes one array.
        self._assets: list[int] = []
        self._times: list[int] = []
        self._records: list[int] = []
        self._layouts: dict[tuple[str, ...], tuple[list[int], list[float | None]]] = {}
        # An asset keeps its layout as a rule: comparing costs half of looking it up.
        self._held: dict[str, tuple[int, tuple[str, ...], list[int], list[float | None]]] = {}
        # What came as blocks: (first row, assets, records, times, layout, matrix).
        self._blocks: list[tuple[int, int | Int32, int | Int32, Int64, tuple[str, ...], Float64]] = []
        self._in_blocks = 0
        # Values of bad quality: (place among those added one by one, or row of a block; column).
        self._bad_singles: list[tuple[int, int]] = []
        self._bad_rows: list[tuple[int, int]] = []
        self._plain: Readings | None = None
        self.record = 0
        #: Pixels (row, column) of the pictures that readings are made of, by their record.
        self.pictures: dict[int, UInt8] = {}

    def __len__(self) -> int:
        return self._own + (0 if self._plain is None else len(self._plain))

    @property
    def _own(self) -> int:
        """How many rows were not given as columns."""
        return len(self._times) + self._in_blocks

    def clear(self) -> None:
        """Forget all rows."""
        for held in (self._assets, self._times, self._records, self._layouts, self._held, self._blocks, self._codes):
            held.clear()
        self._bad_singles.clear()
        self._bad_rows.clear()
        self._in_blocks = self.unknown_signals = 0
        self._plain = None

    def add(self, asset: str, at_ms: int, values: Values, bad: Collection[str] = ()) -> None:
        """One reading of ``asset`` at ``at_ms``; the signals in ``bad`` count as missing. Raises ``DecodeError``."""
        if not self.bounds.earliest_ms <= at_ms <= self.bounds.latest_ms:
            raise self._absurd(at_ms)
        layout = tuple(values)
        held = self._held.get(asset)
        if held is None or held[1] != layout:
            held = self._admit(asset, layout)
        code, _, singles, numbers = held
        if bad:
            numbers += [None if signal in bad else values[signal] for signal in layout]
            self._bad_singles += [(len(self._times), self._column[signal]) for signal in bad if signal in self._column]
        else:
            numbers += values.values()
        singles.append(len(self._times))
        self._assets.append(code)
        self._times.append(at_ms)
        self._records.append(self.record)

    def _admit(self, asset: str, layout: tuple[str, ...]) -> tuple[int, tuple[str, ...], list[int], list[float | None]]:
        """Where readings of ``asset`` with this layout go. Raises ``DecodeError``."""
        self._check(layout)
        code = self._code(asset)
        singles, numbers = self._layouts.setdefault(layout, ([], []))
        held = self._held[asset] = (code, layout, singles, numbers)
        return held

    def add_block(
        self, asset: str, at_ms: Int64, layout: Sequence[str], matrix: Float64, bad: Iterable[tuple[int, str]] = ()
    ) -> None:
        """Many readings of one asset, all or none. Raises ``DecodeError``.

        at_ms   (row,) int64, epoch milliseconds, in the order of arrival
        layout  names of the columns of ``matrix``
        matrix  (row, len(layout)) float64, NaN where missing
        bad     (row, signal) of the values of bad quality, which are NaN too
        """
        count = len(at_ms)
        if count > self.bounds.max_rows:
            detail = f"{count} readings in one record, input.max_readings_per_record is {self.bounds.max_rows}"
            raise DecodeError("too_many_readings", detail)
        if not count:
            return
        self._check_times(at_ms)
        layout = tuple(layout)
        self._check(layout)
        start = self._own
        self._blocks.append((start, self._code(asset), self.record, at_ms, layout, matrix))
        self._bad_rows += [(start + row, self._column[signal]) for row, signal in bad if signal in self._column]
        self._in_blocks += count

    def add_many(
        self,
        records: Int32,
        assets: Sequence[str],
        at_ms: Int64,
        layout: tuple[str, ...],
        matrix: Float64,
        bad: Sequence[tuple[int, str]] = (),
    ) -> Bool:
        """One reading of each of many records, as far as they are beyond doubt; (row,) which of them were added.

        records         (row,) int32, ascending: the record in the batch that each came in
        assets, at_ms   (row,) names and int64, epoch milliseconds
        layout, matrix, bad  as for ``add_block``; NaN also where a record does not have the signal
        """
        plain: Bool = (at_ms >= self.bounds.earliest_ms) & (at_ms <= self.bounds.latest_ms)
        # without any value that is watched there may be something wrong with a reading
        watched = [place for place, signal in enumerate(layout) if signal in self._column]
        plain &= ~np.isnan(matrix[:, watched]).all(axis=1)
        named = assets if plain.all() else list(compress(assets, plain.tolist()))
        known = self._codes
        new = [asset for asset in dict.fromkeys(named) if asset not in known]
        if "".join(new).isprintable() and all(new) and max(map(len, new), default=0) <= MAX_NAME:
            known.update(zip(new, range(len(known), len(known) + len(new)), strict=True))
        else:
            for asset in new:
                with suppress(DecodeError):
                    self._code(asset)
        codes = np.fromiter(map(known.get, assets, repeat(-1)), np.int32, len(assets))
        plain &= codes >= 0
        if bad:
            row = self._own + np.cumsum(plain) - 1
            self._bad_rows += [
                (int(row[place]), self._column[signal])
                for place, signal in bad
                if plain[place] and signal in self._column
            ]
        if plain.all():
            self._blocks.append((self._own, codes, records, at_ms, layout, matrix))
        else:
            self._blocks.append((self._own, codes[plain], records[plain], at_ms[plain], layout, matrix[plain]))
        self._in_blocks += int(np.count_nonzero(plain))
        return plain

    def add_plain(self, readings: Readings, unknown: int) -> None:
        """Readings of the batch that are beyond doubt, before any others; ``unknown`` values were of other signals."""
        self._plain = readings
        self.unknown_signals += unknown

    def _check_times(self, at_ms: Int64) -> None:
        for at in (int(at_ms.min()), int(at_ms.max())):
            if not self.bounds.earliest_ms <= at <= self.bounds.latest_ms:
                raise self._absurd(at)

    def _absurd(self, at_ms: int) -> DecodeError:
        detail = f"ts is {at_ms} ms since 1970, outside of what the plan's input allows"
        number = at_ms / UNITS[self.bounds.unit]
        for unit, each_ms in _LIKELY.items():
            if unit != self.bounds.unit and self.bounds.earliest_ms <= number * each_ms <= self.bounds.latest_ms:
                detail += f"; as a number it looks like {_NAMES[unit]}, and input.time is {self.bounds.unit!r}"
        return DecodeError("absurd_time", detail)

    def _check(self, layout: tuple[str, ...]) -> None:
        if self._column.keys().isdisjoint(layout):
            raise DecodeError("unknown_signals", f"none of its {len(layout)} signals is watched by the plan")

    def _code(self, asset: str) -> int:
        code = self._codes.get(asset)
        if code is None:
            if not asset or len(asset) > MAX_NAME or not asset.isprintable():
                raise DecodeError("bad_asset", f"asset must be 1 to {MAX_NAME} printable characters")
            code = self._codes[asset] = len(self._codes)
        return code

    def readings(self) -> Readings:
        """All rows as columns; what is missing or not finite is NaN."""
        if self._plain is None:
            return self._others()
        return _in_order(self._plain, self._others()) if self._own else self._plain

    def _others(self) -> Readings:
        """The rows that were not given as columns."""
        if len(self._blocks) == 1 and not self._times:
            _, code, of, at_ms, layout, matrix = self._blocks[0]
            if layout == self.signals:  # as it came
                matrix[~np.isfinite(matrix)] = np.nan
                codes = np.full(len(at_ms), code, dtype=np.int32)
                records = np.full(len(at_ms), of, np.int32)
                return Readings(tuple(self._codes), codes, at_ms, layout, matrix, records, self._bad(len(at_ms), None))
        asset, record = np.empty(self._own, dtype=np.int32), np.empty(self._own, dtype=np.int32)
        at_ms = np.empty(self._own, dtype=np.int64)
        values = np.full((self._own, len(self.signals)), np.nan)
        single = np.ones(self._own, dtype=bool)
        for start, code, of, times, layout, matrix in self._blocks:
            rows = slice(start, start + len(times))
            single[rows] = False
            asset[rows], record[rows], at_ms[rows] = code, of, times
            self._fill(values[rows], layout, matrix)
        asset[single], record[single], at_ms[single] = self._assets, self._records, self._times
        row_of = np.flatnonzero(single)
        for layout, (singles, numbers) in self._layouts.items():
            block = np.array(numbers, dtype=np.float64).reshape(len(singles), len(layout))
            wide = np.full((len(singles), len(self.signals)), np.nan)
            self._fill(wide, layout, block)
            values[row_of[singles]] = wide
        values[~np.isfinite(values)] = np.nan
        bad = self._bad(self._own, row_of)
        if (np.diff(record) < 0).any():  # some were taken together, and others of the batch one by one after them
            order = np.argsort(record, kind="stable")
            asset, at_ms, values, record = asset[order], at_ms[order], values[order], record[order]
            bad = None if bad is None else bad[order]
        names, asset = _by_sight(tuple(self._codes), asset)
        return Readings(names, asset, at_ms, self.signals, values, record, bad)

    def _bad(self, rows: int, row_of: Int64 | None) -> Bool | None:
        """Where the values of bad quality are, (row, signal); ``row_of`` those that were added one by one."""
        if not self._bad_rows and not self._bad_singles:
            return None
        bad = np.zeros((rows, len(self.signals)), dtype=bool)
        for row, column in self._bad_rows:
            bad[row, column] = True
        for place, column in self._bad_singles:
            bad[place if row_of is None else row_of[place], column] = True
        return bad

    def _fill(self, wide: Float64, layout: tuple[str, ...], block: Float64) -> None:
        """Put each signal of ``block`` into its column of ``wide``, and count the values that have none."""
        if layout == self.signals:
            wide[:] = block
            return
        for index, signal in enumerate(layout):
            column = self._column.get(signal)
            if column is None:
                self.unknown_signals += int(np.count_nonzero(~np.isnan(block[:, index])))
            else:
                wide[:, column] = block[:, index]


def _by_sight(names: tuple[str, ...], asset: Int32) -> tuple[tuple[str, ...], Int32]:
    """Those of ``names`` that occur, in the order of first sight, and ``asset`` as an index into them."""
    occurring, first = np.unique(asset, return_index=True)
    if len(occurring) == len(names) and not (np.diff(first) < 0).any():
        return names, asset
    by_sight = occurring[np.argsort(first)]
    place = np.empty(len(names), dtype=np.int32)
    place[by_sight] = np.arange(len(by_sight))
    return tuple(names[code] for code in by_sight.tolist()), place[asset]


def _in_order(some: Readings, others: Readings) -> Readings:
    """The readings of one batch in the order of their records, each of which is in one of the two."""
    code = {name: number for number, name in enumerate(dict.fromkeys((*some.names, *others.names)))}
    asset = np.concatenate([some.asset, np.array([code[name] for name in others.names], np.int32).take(others.asset)])
    record = np.concatenate([some.record, others.record])
    order = np.argsort(record, kind="stable")
    names, asset = _by_sight(tuple(code), asset[order])
    bad = None
    if some.bad is not None or others.bad is not None:
        held = [np.zeros(part.values.shape, bool) if part.bad is None else part.bad for part in (some, others)]
        bad = np.concatenate(held)[order]
    return Readings(
        names,
        asset,
        np.concatenate([some.at_ms, others.at_ms])[order],
        some.signals,
        np.concatenate([some.values, others.values])[order],
        record[order],
        bad,
    )
