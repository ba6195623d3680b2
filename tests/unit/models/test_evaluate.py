from __future__ import annotations

import math

import numpy as np
import pytest

from models.evaluate import DAY_MS, Event, events_of, match, merge


def test_counts_faults_and_alarms_not_rows() -> None:
    faults = [Event("a", 1_000, 5_000), Event("a", 50_000, 60_000), Event("b", 1_000, 5_000)]
    alarms = [Event("a", 3_000, 4_000), Event("a", 4_500, 9_000), Event("a", 70_000, 71_000), Event("b", 4_000, 4_000)]
    result = match(faults, alarms, watched_ms=DAY_MS // 2)
    assert [(item.fault, item.alarms, item.delay_ms) for item in result.found] == [(0, (0, 1), 2_000), (2, (3,), 3_000)]
    assert result.missed == (1,)
    assert result.false_alarms == (2,)
    assert result.recall == pytest.approx(2 / 3)
    assert result.precision == pytest.approx(3 / 4)
    assert result.f1 == pytest.approx(2 * (2 / 3) * (3 / 4) / (2 / 3 + 3 / 4))
    assert result.false_alarms_per_day == pytest.approx(2.0)
    assert result.median_delay_s == 2.5


def test_an_alarm_of_another_asset_finds_nothing() -> None:
    result = match([Event("a", 0, 10)], [Event("b", 0, 10)])
    assert result.missed == (0,)
    assert result.false_alarms == (0,)
    assert result.f1 == 0.0


def test_the_tail_of_one_faults_alarm_does_not_find_the_next_fault() -> None:
    result = match([Event("a", 0, 10_000), Event("a", 20_000, 30_000)], [Event("a", 1_000, 25_000)])
    assert [item.fault for item in result.found] == [0]
    assert result.missed == (1,)


@pytest.mark.parametrize(("early_s", "found"), [(0.0, 0), (5.0, 1)])
def test_an_alarm_before_the_fault_is_false_unless_labels_are_inexact(early_s: float, found: int) -> None:
    result = match([Event("a", 10_000, 20_000)], [Event("a", 5_000, 15_000)], early_s=early_s)
    assert len(result.found) == found
    assert len(result.false_alarms) == 1 - found
    assert all(item.delay_ms == 0 for item in result.found)


@pytest.mark.parametrize(("grace_s", "found"), [(0.0, 0), (5.0, 1)])
def test_grace_after_the_end(grace_s: float, found: int) -> None:
    assert len(match([Event("a", 0, 1_000)], [Event("a", 4_000, 9_000)], grace_s=grace_s).found) == found


def test_without_faults_or_alarms_shares_are_unknown() -> None:
    empty = match([], [])
    assert math.isnan(empty.recall)
    assert math.isnan(empty.precision)
    assert math.isnan(empty.f1)
    assert math.isnan(empty.median_delay_s)
    assert math.isnan(empty.false_alarms_per_day)


def test_one_alarm_over_everything_finds_nothing() -> None:
    """What point adjustment would reward."""
    faults = [Event("a", k * 10_000, k * 10_000 + 1_000) for k in range(1, 6)]
    assert not match(faults, [Event("a", 0, 100_000)]).found


def test_events_of_labelled_rows() -> None:
    at_ms = np.arange(10, dtype=np.int64) * 1_000
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1, 1], dtype=bool)
    assert events_of("a", at_ms, labels) == [
        Event("a", 1_000, 3_000),
        Event("a", 4_000, 5_000),
        Event("a", 8_000, 9_000),
    ]
    assert events_of("a", at_ms, labels, join_s=1.0) == [Event("a", 1_000, 5_000), Event("a", 8_000, 9_000)]
    assert events_of("a", at_ms, np.zeros(10, dtype=bool)) == []


def test_merge_joins_alarms_of_one_asset() -> None:
    alarms = [Event("a", 5, 9), Event("a", 0, 6), Event("b", 8, 9), Event("a", 2_000, 3_000)]
    assert merge(alarms) == [Event("a", 0, 9), Event("b", 8, 9), Event("a", 2_000, 3_000)]
    assert merge(alarms, within_s=2.0) == [Event("a", 0, 3_000), Event("b", 8, 9)]


def test_an_event_cannot_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="before its start"):
        Event("a", 10, 5)
