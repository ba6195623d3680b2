"""Alerts of a line become incidents: what belongs together, what comes first, and the same ids for everybody."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from stream.errors import ConfigError
from stream.incidents import group
from stream.operating import LineSettings
from stream.records import Alert
from stream.settings import parse_plan

LINE = LineSettings(assets=("mixer-*", "pump-1", "filter-1"), within_s=60, tie_s=5)


@pytest.fixture
def made(make_alert: Callable[..., Alert]) -> Callable[..., Alert]:
    def make(asset: str, onset: int, end: int | None = None, **fields: Any) -> Alert:
        def at(second: int) -> str:
            return f"2026-11-23T08:{second // 60:02}:{second % 60:02}.000Z"

        over = {} if end is None else {"resolved": at(end), "state": "resolved"}
        last = at(onset + 5 if end is None else end)
        return make_alert(id=f"{asset}@{onset}", asset=asset, onset=at(onset), last_seen=last, **over, **fields)

    return make


def test_what_overlaps_or_follows_soon_belongs_together(made: Callable[..., Alert]) -> None:
    alerts = [
        made("pump-1", 0, 100),
        made("filter-1", 50, 200),
        made("mixer-2", 255, 300),  # 55 s after the last has ended
        made("pump-1", 361, 400),  # 61 s after
        made("fan-9", 10, 20),  # of no line
    ]
    first, second = group(alerts, {"north": LINE})
    assert first.alerts == ("pump-1@0", "filter-1@50", "mixer-2@255")
    assert first.assets == ("pump-1", "filter-1", "mixer-2")
    assert (first.first_asset, first.state) == ("pump-1", "over")
    assert (first.since, first.until) == ("2026-11-23T08:00:00.000Z", "2026-11-23T08:05:00.000Z")
    assert second.alerts == ("pump-1@361",)


def test_an_open_alert_keeps_its_incident_open(made: Callable[..., Alert]) -> None:
    (incident,) = group([made("pump-1", 0), made("filter-1", 1800, severity="critical")], {"north": LINE})
    assert (incident.state, incident.severity) == ("open", "critical")


def test_of_those_that_began_together_the_process_says_which_was_first(made: Callable[..., Alert]) -> None:
    (incident,) = group([made("filter-1", 10), made("pump-1", 14), made("mixer-1", 16)], {"north": LINE})
    assert incident.first_asset == "pump-1"  # mixer-1 stands before it, but began six seconds after the first
    assert incident.first_signal == "heat"


def test_the_order_of_arrival_changes_nothing_and_neither_does_an_update(made: Callable[..., Alert]) -> None:
    alerts = [made("pump-1", 5, 100), made("filter-1", 50, 200), made("mixer-2", 500, 600)]
    wanted = group(alerts, {"north": LINE, "all": LineSettings(assets=("*",))})
    assert len({incident.id for incident in wanted}) == len(wanted) == 3
    for seed in range(5):
        shuffled = random.Random(seed).sample(alerts, len(alerts))
        assert group(shuffled, {"north": LINE, "all": LineSettings(assets=("*",))}) == wanted
    before = group([made("pump-1", 5)], {"north": LINE})
    assert before[0].id == wanted[0].id


def test_a_line_has_assets() -> None:
    table = {"detectors": {"d": {"kind": "ewma", "artifact": "a"}}, "lines": {"north": {"assets": []}}}
    with pytest.raises(ConfigError, match=r"lines\.north\.assets"):
        parse_plan(table)
