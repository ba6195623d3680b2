"""Times of observation as payloads give them, numbers or RFC 3339 texts, as epoch milliseconds; one or many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

import numpy as np

from stream.errors import DecodeError
from stream.records import Int64

#: Milliseconds in one unit of a time that is a number.
UNITS: Final = {"s": 1000, "ms": 1}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def times(ts: Sequence[str | float], unit_ms: int) -> Int64 | None:
    """Many times at once, (row,) int64 epoch milliseconds; each as ``milliseconds`` would read it.

    None if they are not all numbers of everyday size, or all texts of one form, ``2026-11-23T08:00:00Z`` with or
    without milliseconds: then they must be read one by one.
    """
    kinds = set(map(type, ts))
    if kinds == {str}:
        return _texts("".join(ts), len(ts))  # type: ignore[arg-type]  # they are all texts
    if not kinds <= {int, float}:
        return None
    if kinds == {int}:
        return _whole(ts, unit_ms)
    try:
        with np.errstate(over="ignore"):
            microseconds = np.array(ts, dtype=np.float64) * (unit_ms * 1000)
    except OverflowError:
        return None
    if not np.abs(microseconds).max() < _EXACT:
        return None
    return np.asarray(np.rint(microseconds).astype(np.int64) // 1000)


def _whole(ts: Sequence[str | float], unit_ms: int) -> Int64 | None:
    """Whole numbers of everyday size, or None."""
    try:
        at = np.array(ts, dtype=np.int64)
    except OverflowError:
        return None
    most = int(_EXACT) // (unit_ms * 1000)
    return at * unit_ms if -most < int(at.min()) and int(at.max()) < most else None


#: Up to here whole numbers are exact in float64.
_EXACT: Final = float(1 << 53)
_FORMS: Final = {20: b"0000-00-00T00:00:00Z", 24: b"0000-00-00T00:00:00.000Z"}
#: Milliseconds that a digit of hhmmssfff is worth, and the largest that it may be.
_WORTH: Final = np.array([36_000_000, 3_600_000, 600_000, 60_000, 10_000, 1000, 100, 10, 1], dtype=np.int64)
_LARGEST: Final = np.array([2, 9, 5, 9, 5, 9, 9, 9, 9], dtype=np.uint8)


def _texts(text: str, count: int) -> Int64 | None:
    """Times of one form, end to end. Their dates are mostly one and the same, so each that occurs is read once."""
    width = len(text) // count
    form = _FORMS.get(width)
    if form is None or len(text) != width * count or not text.isascii():
        return None
    letters = np.frombuffer(text.encode(), np.uint8).reshape(count, width)
    clock, marks = letters[:, 10:], np.frombuffer(form, np.uint8)[10:]
    digit = marks == ord("0")
    digits = clock[:, digit] - np.uint8(ord("0"))
    most = digits.max(axis=0)
    if (most > _LARGEST[: len(most)]).any() or (clock[:, ~digit] != marks[~digit]).any():
        return None
    if most[0] == 2 and (digits[digits[:, 0] == 2, 1] > 3).any():
        return None
    at_ms = digits.astype(np.int64) @ _WORTH[: len(most)]
    try:
        if (letters[:, :10] == letters[0, :10]).all():
            return np.asarray(at_ms + _day_ms(text[:10]))
        days, which = np.unique(np.ascontiguousarray(letters[:, :10]).view("S10").ravel(), return_inverse=True)
        return np.asarray(at_ms + np.array([_day_ms(day.decode()) for day in days])[which])
    except ValueError:
        return None


def _day_ms(text: str) -> int:
    if text[7] != "-":  # 2026-W48-2 is a date for Python
        raise ValueError(text)
    return (date.fromisoformat(text) - EPOCH.date()).days * 86_400_000


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
