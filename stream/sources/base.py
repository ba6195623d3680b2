"""The contract of a payload format: one record's bytes in, rows of readings out.

A new format is one file beside this one: a class ``Source`` with a ``parse`` as below. What a row may hold, and how
rows become columns, is settled here once for all formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from stream.errors import DecodeError
from stream.records import Readings

#: A value of a signal in a row: None where it is missing.
Values = Mapping[str, float | None]

MAX_NAME: Final = 200


class Source(Protocol):
    """Turns the bytes of a record into rows."""

    def parse(self, value: bytes, rows: Rows) -> None:
        """Add the readings in ``value`` to ``rows``. Raises ``DecodeError``, having added nothing."""
        ...


class Rows:
    """Rows of readings on their way to columns.

    signals              the columns: what any detector of the plan watches
    earliest, latest     bounds of the time of observation, epoch milliseconds
    """

    def __init__(self, signals: Sequence[str], earliest_ms: int, latest_ms: int) -> None:
        self.signals = tuple(signals)
        self.unknown_signals = 0
        self._earliest_ms = earliest_ms
        self._latest_ms = latest_ms
        self._column = {signal: index for index, signal in enumerate(self.signals)}
        self._codes: dict[str, int] = {}
        self._assets: list[int] = []
        self._times: list[int] = []
        self._records: list[int] = []
        # Rows with the same signals in the same order share a layout, so that each becomes one array at the end.
        self._layouts: dict[tuple[str, ...], tuple[list[int], list[list[float | None]]]] = {}
        self.record = 0

    def __len__(self) -> int:
        return len(self._times)

    def add(self, asset: str, at_ms: int, values: Values, bad: Iterable[str] = ()) -> None:
        """One reading of ``asset`` at ``at_ms``; the signals in ``bad`` count as missing. Raises ``DecodeError``."""
        if not self._earliest_ms <= at_ms <= self._latest_ms:
            raise DecodeError("absurd_time", f"ts is {at_ms} ms since 1970, outside of what the plan's input allows")
        layout = tuple(values)
        held = self._layouts.get(layout)
        if held is None:
            if not any(signal in self._column for signal in layout):
                raise DecodeError("unknown_signals", f"none of its {len(layout)} signals is watched by the plan")
            held = self._layouts[layout] = ([], [])
        code = self._codes.get(asset)
        if code is None:
            code = self._new_asset(asset)
        numbers = list(values.values())
        for signal in bad:
            if signal in values:
                numbers[layout.index(signal)] = None
        held[0].append(len(self._times))
        held[1].append(numbers)
        self._assets.append(code)
        self._times.append(at_ms)
        self._records.append(self.record)

    def _new_asset(self, asset: str) -> int:
        if not asset or len(asset) > MAX_NAME or not asset.isprintable():
            raise DecodeError("bad_asset", f"asset must be 1 to {MAX_NAME} printable characters")
        return self._codes.setdefault(asset, len(self._codes))

    def readings(self) -> Readings:
        """All rows as columns; what is missing or not finite is NaN."""
        values = np.full((len(self), len(self.signals)), np.nan)
        for layout, (rows, numbers) in self._layouts.items():
            if not rows:
                continue
            block = np.array(numbers, dtype=np.float64).reshape(len(rows), len(layout))
            known = [index for index, signal in enumerate(layout) if signal in self._column]
            columns = [self._column[layout[index]] for index in known]
            self.unknown_signals += (len(layout) - len(known)) * len(rows)
            values[np.ix_(rows, columns)] = block[:, known]
        values[~np.isfinite(values)] = np.nan
        return Readings(
            names=tuple(self._codes),
            asset=np.array(self._assets, dtype=np.int32),
            at_ms=np.array(self._times, dtype=np.int64),
            signals=self.signals,
            values=values,
            record=np.array(self._records, dtype=np.int32),
        )
