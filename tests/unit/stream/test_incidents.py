"""Alerts of a line become incidents: what belongs together, what comes first, and the same ids for everybody."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from stream.errors import ConfigError
from stream.incidentbook import IncidentBook
from stream.incidents import Incident, group
from stream.operating import LineSettings
from stream.page.board import MEMBERS_SHOWN, Board
from stream.plan import parse_plan
from stream.records import Alert, Output

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


def test_the_book_says_what_whoever_reads_all_alerts_says(made: Callable[..., Alert]) -> None:
    lines = {"north": LINE, "all": LineSettings(assets=("*",))}
    alerts = [made("pump-1", 5, 100), made("filter-1", 50), made("mixer-2", 900), made("fan-9", 40)]
    book = IncidentBook(lines)
    for alert in reversed(alerts):
        book.take([alert])
        book.incidents()  # what is grouped between changes nothing
    assert book.incidents() == group(alerts, lines)
    assert (book.line("mixer-2"), book.line("fan-9"), IncidentBook({}).line("fan-9")) == ("north", "all", "")
    incident = book.of(alerts[1])
    assert incident is not None
    assert (incident.line, incident.first_asset) == ("north", "pump-1")
    assert [alert.id for alert in book.members(incident)] == ["pump-1@5", "filter-1@50", "mixer-2@900"]


def test_the_book_knows_the_newest_and_leaves_out_what_nobody_is_told_of(made: Callable[..., Alert]) -> None:
    book = IncidentBook({"north": LINE})
    late = made("filter-1", 50, severity="warning")
    book.take([late, made("pump-1", 5, sequence=4, severity="major"), made("pump-1", 5, sequence=3)])
    incident = book.of(late)
    assert incident is not None
    assert (incident.first_asset, incident.severity) == ("pump-1", "major")
    book.take([made("pump-1", 5, sequence=5, suppressed="maintenance: spring")])
    (incident,) = book.incidents()
    assert (incident.alerts, incident.severity) == (("filter-1@50",), "warning")
    assert book.of(made("pump-1", 5)) is None
    book.take([made("pump-1", 5, sequence=6)])
    assert book.of(late) is not incident


def test_the_book_is_bounded_and_those_that_are_over_go_first(made: Callable[..., Alert]) -> None:
    book = IncidentBook({"north": LINE}, most=3)
    book.take([made("pump-1", 0)])
    book.take([made("pump-1", at, at + 1) for at in range(1, 9)])
    assert [len(incident.alerts) for incident in book.incidents()] == [3]
    assert book.of(made("pump-1", 0)) is not None


def test_the_page_shows_alerts_that_came_together_beneath_their_likely_first_cause(made: Callable[..., Alert]) -> None:
    book = IncidentBook({"north": LINE})
    board = Board(incidents=book)
    board.take(Output(alerts=(made("pump-1", 10, 20), made("filter-1", 15, severity="critical"))))
    (told,) = board.overview()["incidents"]
    assert (told["line"], told["severity"], told["first_asset"], told["first_signal"], told["assets"]) == (
        "north", "critical", "pump-1", "heat", 2,
    )  # fmt: skip
    assert [alert.id for alert in told["alerts"]] == ["pump-1@10", "filter-1@15"]
    assert told["elsewhere"] == []

    book.take([made("mixer-1", 8)])  # as another worker has published it
    (told,) = board.overview()["incidents"]
    assert (told["first_asset"], told["elsewhere"]) == ("mixer-1", ["mixer-1"])
    assert [alert.id for alert in told["alerts"]] == ["mixer-1@8", "pump-1@10", "filter-1@15"]

    book.take([made("mixer-1", 8, 30, sequence=1), *(made(f"mixer-{n}", n) for n in range(20, 50))])
    (told,) = board.overview()["incidents"]
    assert (len(told["alerts"]), told["more_alerts"]) == (MEMBERS_SHOWN, 33 - MEMBERS_SHOWN)


def test_one_alert_alone_is_no_incident_on_the_page_and_neither_is_one_that_is_over(made: Callable[..., Alert]) -> None:
    board = Board(incidents=IncidentBook({"north": LINE}))
    board.take(Output(alerts=(made("pump-1", 10),)))
    assert board.overview()["incidents"] == []
    board.settle({"pump-1", "filter-1"}, [made("filter-1", 12)])  # another process had opened it
    told: list[Incident] = board.overview()["incidents"]
    assert len(told) == 1
    board.take(Output(alerts=(made("pump-1", 10, 30, sequence=1), made("filter-1", 12, 31, sequence=1))))
    assert board.overview()["incidents"] == []
