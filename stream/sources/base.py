"""The contract of a payload format: one record's bytes in, rows of readings out.

A new format is one file beside this one: a class ``Source`` with a ``parse`` as below. What a row may hold, what a time
means, and how rows become columns, is settled here once for all formats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np

from stream.errors import DecodeError
from stream.records import Float64, Int64, Readings

#: A value of a signal in a row: None where it is missing.
Values = Mapping[str, float | None]

MAX_NAME: Final = 200
#: Milliseconds in one unit of a time that is a number.
UNITS: Final = {"s": 1000, "ms": 1}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Source(Protocol):
    """Turns the bytes of a record into rows."""

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the readings in ``value`` to ``rows``. Raises ``DecodeError``, having added nothing."""
        ...


class Rows:
    """Rows of readings on their way to columns, in the order in which they are added.

    signals              the columns: what any detector of the plan watches
    earliest, latest     bounds of the time of observation, epoch milliseconds
    max_block            the most rows that one block may have
    """

    def __init__(self, signals: Sequence[str], earliest_ms: int, latest_ms: int, max_block: int = 10_000) -> None:
        self.signals = tuple(signals)
        self.unknown_signals = 0
        self._earliest_ms = earliest_ms
        self._latest_ms = latest_ms
        self._max_block = max_block
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
        # What came as blocks: (first row, asset, record, times, layout, matrix).
        self._blocks: list[tuple[int, int, int, Int64, tuple[str, ...], Float64]] = []
        self._in_blocks = 0
        self.record = 0

    def __len__(self) -> int:
        return len(self._times) + self._in_blocks

    def add(self, asset: str, at_ms: int, values: Values, bad: Collection[str] = ()) -> None:
        """One reading of ``asset`` at ``at_ms``; the signals in ``bad`` count as missing. Raises ``DecodeError``."""
        if not self._earliest_ms <= at_ms <= self._latest_ms:
            raise _absurd(at_ms)
        layout = tuple(values)
        held = self._held.get(asset)
        if held is None or held[1] != layout:
            held = self._admit(asset, layout)
        code, _, singles, numbers = held
        numbers += [None if signal in bad else values[signal] for signal in layout] if bad else values.values()
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

    def add_block(self, asset: str, at_ms: Int64, layout: Sequence[str], matrix: Float64) -> None:
        """Many readings of one asset, all or none. Raises ``DecodeError``.

        at_ms   (row,) int64, epoch milliseconds, in the order of arrival
        layout  names of the columns of ``matrix``
        matrix  (row, len(layout)) float64, NaN where missing
        """
        count = len(at_ms)
        if count > self._max_block:
            detail = f"{count} readings in one record, input.max_readings_per_record is {self._max_block}"
            raise DecodeError("too_many_readings", detail)
        if not count:
            return
        for at in (int(at_ms.min()), int(at_ms.max())):
            if not self._earliest_ms <= at <= self._latest_ms:
                raise _absurd(at)
        layout = tuple(layout)
        self._check(layout)
        self._blocks.append((len(self), self._code(asset), self.record, at_ms, layout, matrix))
        self._in_blocks += count

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
        asset, record = np.empty(len(self), dtype=np.int32), np.empty(len(self), dtype=np.int32)
        at_ms = np.empty(len(self), dtype=np.int64)
        values = np.full((len(self), len(self.signals)), np.nan)
        single = np.ones(len(self), dtype=bool)
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
        return Readings(
            names=tuple(self._codes),
            asset=asset,
            at_ms=at_ms,
            signals=self.signals,
            values=values,
            record=record,
        )

    def _fill(self, wide: Float64, layout: tuple[str, ...], block: Float64) -> None:
        """Put each signal of ``block`` into its column of ``wide``, and count those that have none."""
        for index, signal in enumerate(layout):
            column = self._column.get(signal)
            if column is None:
                self.unknown_signals += len(block)
            else:
                wide[:, column] = block[:, index]


def _absurd(at_ms: int) -> DecodeError:
    return DecodeError("absurd_time", f"ts is {at_ms} ms since 1970, outside of what the plan's input allows")


def milliseconds(ts: datetime | float, unit_ms: int) -> int:
    """A time as a payload gives it, in epoch milliseconds, rounded down; ``unit_ms`` as in ``UNITS``.

    Raises ``DecodeError``.
    """
    if isinstance(ts, datetime):
        if ts.tzinfo is None:
            raise DecodeError("bad_time", "ts has no offset from UTC: end it with Z or +hh:mm")
        since = ts - EPOCH
        return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    if isinstance(ts, int):
        return ts * unit_ms
    try:
        # To microseconds first: 1795420800.001 s is a little less than that in binary, and must not become .000.
        return round(ts * (unit_ms * 1000)) // 1000
    except (OverflowError, ValueError):
        raise DecodeError("absurd_time", "ts is not a finite number") from None
