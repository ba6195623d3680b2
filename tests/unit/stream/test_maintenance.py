"""Maintenance windows, by what they mean now and by what they meant when they were open."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from stream.actions import Action
from stream.maintenance import Maintenance
from stream.operating import MaintenanceSettings, epoch_ms

HOUR_MS = 3_600_000
START_MS = 1_764_000_000_000
NAMES = ["pump-1", "pump-2", "fan-1"]


def at(hour: float) -> str:
    stamp = np.datetime64(START_MS + round(hour * HOUR_MS), "ms")
    return f"{stamp}Z"


@pytest.fixture
def deed() -> Callable[..., Action]:
    def make(action: str, asset: str, hour: float, **more: str) -> Action:
        word = {"action": f"maintenance_{action}", "asset": asset, "at": at(hour), "by": "anna", **more}
        return msgspec.convert({**word, "id": f"{action}-{round(1000 * hour):08}"}, Action)

    return make


def still(held: Maintenance, asset: str, *hours: float) -> list[bool]:
    slots = np.full(len(hours), NAMES.index(asset), dtype=np.int32)
    at_ms = np.array([START_MS + round(hour * HOUR_MS) for hour in hours], dtype=np.int64)
    found = held.still(NAMES, slots, at_ms)
    return [False] * len(hours) if found is None else found.tolist()


def test_a_window_of_the_plan_is_over_its_assets_and_between_its_times() -> None:
    window = MaintenanceSettings(assets=("pump-*",), since=at(1), until=at(3), reason="seal")  # type: ignore[arg-type]
    held = Maintenance({"spring": window})
    assert still(held, "pump-2", 0, 1, 2.999, 3) == [False, True, True, False]
    assert still(held, "fan-1", 0, 1, 2) == [False] * 3
    assert held.reason("pump-1", START_MS + 2 * HOUR_MS) == "seal"
    assert held.reason("pump-1", epoch_ms(window.until)) == ""


def test_begun_without_a_time_it_holds_for_all_readings_until_it_is_stopped_and_later_from_its_beginning(
    deed: Callable[..., Action],
) -> None:
    held = Maintenance({})
    held.take(deed("start", "pump-1", 5))
    assert still(held, "pump-1", 1, 6, 90) == [True, True, True]
    assert held.reason("pump-1", START_MS)
    held.take(deed("stop", "pump-1", 7))
    assert still(held, "pump-1", 1, 5, 6, 7, 90) == [False, True, True, False, False]
    assert held.reason("pump-1", START_MS + 6 * HOUR_MS) == ""  # people are told again at once
    assert held.open() == ()


def test_what_is_begun_anew_or_stopped_early_or_before_it_began_ends_there(deed: Callable[..., Action]) -> None:
    held = Maintenance({})
    held.take(deed("start", "pump-*", 1, since=at(2), until=at(9)))
    held.take(deed("start", "pump-*", 4, since=at(6), until=at(8)))  # in its place
    assert still(held, "pump-2", 1.5, 3, 5, 7, 8.5) == [False, True, False, True, False]
    held.take(deed("stop", "pump-*", 5))  # before it began: there was none
    assert still(held, "pump-2", 1.5, 3, 5, 7, 8.5) == [False, True, False, False, False]
    held.take(deed("stop", "pump-*", 5.5))  # nothing to stop
    assert still(held, "pump-2", 3, 5) == [True, False]


def test_only_the_rows_of_its_assets_stand_still(deed: Callable[..., Action]) -> None:
    held = Maintenance({})
    assert held.still(NAMES, np.arange(3, dtype=np.int32), np.full(3, START_MS)) is None
    held.take(deed("start", "pump-2", 0))
    rows = held.still(NAMES, np.array([0, 1, 1, 2], dtype=np.int32), np.full(4, START_MS + HOUR_MS))
    assert rows is not None
    assert rows.tolist() == [False, True, True, False]
    assert held.still(NAMES, np.array([0, 2], dtype=np.int32), np.full(2, START_MS)) is None


def test_the_memory_is_bounded(deed: Callable[..., Action], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.maintenance.MOST_STOPPED", 3)
    monkeypatch.setattr("stream.maintenance.MOST_ASKED", 2)
    held = Maintenance({})
    for hour in range(10):
        for pattern in ("pump-1", "pump-*"):
            held.take(deed("start", pattern, 2 * hour))
            held.take(deed("stop", pattern, 2 * hour + 1))
    assert len(held.of("pump-1")) == 6
    assert still(held, "pump-1", 0.5, 18.5) == [False, True]
    for number in range(9):
        held.of(f"pump-{number}")
    assert len(held._of) <= 2
