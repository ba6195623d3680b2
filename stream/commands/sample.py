"""``headrace check --sample``: records as producers send them, looked through for what goes wrong with times.

A worker takes what it is given; here is the time of day, and a person who can still change the producer. So this looks
for local times that call themselves UTC (an hour that comes twice or is missing, readings from the future), units that
are wrong, readings out of order, and a sampling that is not what the models have learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from stream.decode import Decoder
from stream.plan import Plan
from stream.records import Int64, Record
from stream.shelf import Shelf
from stream.sources.json import timestamp

_HOUR_MS: Final = 3_600_000
#: Daylight saving begins and ends between these hours of a Sunday, in Europe, America and elsewhere.
_SWITCH: Final = (1, 2, 3)
_FUTURE_MS: Final = 60_000


def inspect(lines: Sequence[bytes], plan: Plan, shelf: Shelf, now_ms: int) -> Iterator[str]:
    """What is to be said of records, one a line as on the topic, in the order they were sent.

    now_ms  the time of day, epoch milliseconds
    """
    signals = shelf.signals()
    records = [Record(plan.topics.readings, 0, offset, line) for offset, line in enumerate(lines)]
    readings, dead, _ = Decoder(plan.input, signals).decode(records)
    refused = Counter(letter.reason for letter in dead)
    for reason, count in refused.items():
        example = next(letter for letter in dead if letter.reason == reason)
        where = f"line {example.record.offset + 1}"
        yield f"{count} of {len(lines)} records are refused, {reason}: {where}: {example.detail}"
    for index, asset in enumerate(readings.names):
        at_ms = readings.at_ms[readings.asset == index]
        periods_s = [held.period_s for name, held in shelf.serving() if plan.detectors[name].watches(asset)]
        for finding in (*_order(plan, at_ms), *_hours(at_ms), *_sampling(at_ms, periods_s)):
            yield f"{asset}: {finding}"
        ahead_ms = int(at_ms.max()) - now_ms
        if ahead_ms > _FUTURE_MS:
            words = f"{ahead_ms / _HOUR_MS:.2g} h" if ahead_ms > _HOUR_MS // 2 else f"{ahead_ms / 1000:.0f} s"
            yield f"{asset}: {timestamp(int(at_ms.max()))} is {words} from now: a local time that is sent as UTC?"


def _order(plan: Plan, at_ms: Int64) -> Iterator[str]:
    behind_ms = np.maximum.accumulate(at_ms) - at_ms
    late_s = float(behind_ms.max(initial=0)) / 1000
    copies = len(at_ms) - len(np.unique(at_ms))
    if copies:
        yield f"{copies} of {len(at_ms)} readings have a time that came before: they will be passed over"
    if plan.input.lateness_s < late_s < _HOUR_MS / 2000:
        count = int(np.count_nonzero(behind_ms > plan.input.lateness_s * 1000))
        yield (
            f"{count} readings come after newer ones, by up to {late_s:g} s, and would be late: "
            f"input.lateness_s = {late_s:g} puts them in order"
        )


def _hours(at_ms: Int64) -> Iterator[str]:
    """Steps that look like the beginning and the end of daylight saving."""
    steps = np.diff(at_ms)
    period_ms = _period_ms(at_ms)
    if not 0 < period_ms <= _HOUR_MS // 4:
        return
    back = (steps > -_HOUR_MS - period_ms) & (steps <= -_HOUR_MS + 2 * period_ms)
    for row in np.flatnonzero(back).tolist():
        end = timestamp(int(at_ms[row]))
        yield f"the time goes back by an hour at {end}: a local time at the end of daylight saving?"
    missing = (steps >= _HOUR_MS) & (steps <= _HOUR_MS + 2 * period_ms)
    for row in np.flatnonzero(missing).tolist():
        after = datetime.fromtimestamp(at_ms[row + 1] / 1000, UTC)
        if after.isoweekday() == 7 and after.hour in _SWITCH:
            begin = timestamp(int(at_ms[row]))
            yield f"an hour is missing after {begin}: a local time at the beginning of daylight saving?"


def _sampling(at_ms: Int64, periods_s: Sequence[float]) -> Iterator[str]:
    period_s = _period_ms(at_ms) / 1000
    for learnt_s in sorted(set(periods_s)):
        if period_s and not 0.8 <= period_s / learnt_s <= 1.25:
            yield (
                f"a reading every {period_s:g} s, and a model has learnt rows {learnt_s:g} s apart: "
                "gaps.grid = true puts them there"
            )


def _period_ms(at_ms: Int64) -> int:
    """The median step forward; 0 where there is none."""
    forward = np.diff(np.unique(at_ms))
    return int(np.median(forward)) if len(forward) else 0
