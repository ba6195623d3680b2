"""What becomes of records whose readings are not, or not wholly, judged: dead letters and late ones."""

from __future__ import annotations

from collections.abc import Sequence

from stream.partition import Partition
from stream.records import DeadLetter, Int64, Late, RawRecord, Readings, Record
from stream.reorder import Rows
from stream.sources.json import encode, timestamp


def failed(state: Partition, rows: Rows, chosen: Int64, records: Sequence[RawRecord], reason: str) -> list[DeadLetter]:
    """The records of rows that a detector could not judge; a row of an earlier batch as a record of its own."""
    of = rows.record[chosen]
    letters = [
        DeadLetter(records[index], "score", "detector_failed", reason)
        for index in sorted(set(of.tolist()))
        if 0 <= index < len(records)
    ]
    for row in chosen[of < 0].tolist():
        asset, at_ms = state.names[rows.asset[row]], int(rows.at_ms[row])
        values = dict(zip(state.signals, rows.values[row].tolist(), strict=True))
        again = Record("", -1, -1, encode(asset, at_ms, values), asset.encode(), at_ms)
        letters.append(DeadLetter(again, "score", "detector_failed", f"{reason} (written anew: it was held back)"))
    return letters


def from_the_future(readings: Readings, rows: Int64, records: Sequence[RawRecord]) -> list[DeadLetter]:
    """The records of readings whose clocks run too far ahead."""
    return [
        DeadLetter(
            records[index],
            "window",
            "future",
            f"{readings.names[readings.asset[row]]} at {timestamp(int(readings.at_ms[row]))}: more than "
            f"input.ahead_s ahead of it and of its partition",
        )
        for index, row in _once(readings, rows, records)
    ]


def too_late(readings: Readings, rows: Int64, records: Sequence[RawRecord], why: str) -> list[Late]:
    """The records of readings that came when their assets had shown newer ones; ``why``: and by how much."""
    return [
        Late(records[index], f"{why} {readings.names[readings.asset[row]]}")
        for index, row in _once(readings, rows, records)
    ]


def _once(readings: Readings, rows: Int64, records: Sequence[RawRecord]) -> list[tuple[int, int]]:
    """The records that ``rows`` came in, each with its first of them: a frame is handed on once."""
    first: dict[int, int] = {}
    for row in rows.tolist() if len(records) else ():
        first.setdefault(int(readings.record[row]), row)
    return list(first.items())
