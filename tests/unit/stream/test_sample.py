from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from through import records_of

from models.datasets import Recording
from stream.commands.sample import inspect
from stream.plan import Plan
from stream.shelf import Shelf

MINUTE_MS = 60_000
#: Sundays on which daylight saving begins and ends in Europe, at two and at three in the morning, local time.
BEGIN_MS, END_MS = 1_774_749_600_000, 1_792_897_200_000


@pytest.fixture
def said(plan: Plan, make_recording: Callable[..., Recording]) -> Callable[..., list[str]]:
    """What is said of readings at these times."""
    recording = make_recording("pump-1", rows=200)

    def say(at_ms: Sequence[int], now_ms: int = 1 << 60) -> list[str]:
        rows = replace(recording, at_ms=np.sort(at_ms), values=recording.values[: len(at_ms)])
        by_time = {record.timestamp: record.value or b"" for record in records_of([rows])}
        return list(inspect([by_time[at] for at in at_ms], plan, Shelf(plan), now_ms))

    return say


def test_nothing_is_said_where_all_is_well(said: Callable[..., list[str]]) -> None:
    assert said(range(END_MS, END_MS + 100_000, 1000), END_MS + 100_000) == []


def test_local_times_are_noticed(said: Callable[..., list[str]]) -> None:
    before, step = END_MS - 20 * MINUTE_MS, MINUTE_MS
    back = [*range(before, END_MS, step), *range(END_MS - 3_600_000, before - 30 * MINUTE_MS, step)]
    assert any("goes back by an hour at 2026-10-25T02:59" in each and "daylight" in each for each in said(back))
    begin = [
        *range(BEGIN_MS - 20 * MINUTE_MS, BEGIN_MS, step),
        *range(BEGIN_MS + 3_600_000, BEGIN_MS + 5_000_000, step),
    ]
    assert any("an hour is missing after 2026-03-29T01:59" in each for each in said(begin))
    elsewhere = [at + 86_400_000 for at in begin]
    assert not any("missing" in each for each in said(elsewhere)), "on a Monday it is an outage"
    assert any("is 2 h from now: a local time" in each for each in said([END_MS], END_MS - 7_200_000))


def test_readings_out_of_order_are_noticed_with_the_remedy(said: Callable[..., list[str]]) -> None:
    findings = said([END_MS, END_MS + 4000, END_MS + 1000, END_MS + 2000, END_MS + 3000, END_MS + 5000])
    said_of_it = "3 readings come after newer ones, by up to 3 s, and would be late"
    assert findings == [f"pump-1: {said_of_it}: input.lateness_s = 3 puts them in order"]


def test_another_sampling_than_the_models_is_noticed(said: Callable[..., list[str]]) -> None:
    assert said(range(END_MS, END_MS + 50_000, 5000)) == [
        "pump-1: a reading every 5 s, and a model has learnt rows 1 s apart: gaps.grid = true puts them there"
    ]


def test_what_would_be_refused_is_named(plan: Plan) -> None:
    seconds = b'{"asset": "pump-1", "ts": 1792890000, "values": {"heat": 1}}'
    (finding,) = inspect([seconds, seconds], plan, Shelf(plan), 1 << 60)
    assert finding.startswith("2 of 2 records are refused, absurd_time: line 1: ")
    assert "looks like seconds" in finding
