"""Which messages people get of alerts that are parts of incidents, and what these say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stream.incidentbook import IncidentBook
from stream.incidents import group
from stream.operating import LineSettings
from stream.records import Acknowledged, Alert, Event, Shelved
from stream.sinks.news import TEMPLATE, News

LINES = {"north": LineSettings(assets=("mixer-1", "pump-*"), within_s=60)}
Made = Callable[..., Alert]


def at(second: int) -> str:
    return f"2026-11-23T08:{second // 60:02}:{second % 60:02}.000Z"


@pytest.fixture
def made(make_alert: Made) -> Made:
    """``made("pump-1", 10, "open", "critical", sequence=1)``: an alert since then, to which so much has happened."""

    def make(asset: str, since: int, *happened: str, **fields: Any) -> Alert:
        life = tuple(Event(what=what, at=at(since), by="anna" if what == "ack" else "") for what in happened)
        times = {"onset": at(since), "opened": at(since), "last_seen": at(since + 1)}
        if happened[-1] == "resolved":
            times |= {"state": "resolved", "resolved": at(fields.pop("end"))}
        return make_alert(id=f"{asset}-{since}", asset=asset, life=life, **{**times, **fields})

    return make


class Desk:
    """People's messages, of one worker or of several: what each knows comes to ``book``."""

    def __init__(self, per: Any = "incident") -> None:
        self.book = IncidentBook(LINES)
        self.news = News(TEMPLATE, "", per, self.book)

    def take(self, *alerts: Alert) -> list[dict[str, Any]]:
        self.book.take(alerts)
        posts = [self.news.post(alert) for alert in alerts]
        return [msgspec.json.decode(post.body) for post in posts if post is not None]


def test_each_message_says_which_incident_it_is_of_and_where_to_look_first(made: Made) -> None:
    desk = Desk("alert")
    (first,) = desk.take(made("pump-1", 10, "open"))
    assert first["incident"]["line"] == "north"
    assert "line north" not in first["text"]  # so far it is alone
    desk.book.take([made("mixer-1", 0, "open")])  # another worker has published it
    (second,) = desk.take(made("pump-2", 12, "open"))
    (incident,) = group([made("mixer-1", 0, "open"), made("pump-1", 10, "open"), made("pump-2", 12, "open")], LINES)
    assert second["incident"]["id"] == incident.id
    assert second["incident"]["first_asset"] == "mixer-1"
    assert (
        f"; one of 3 alerts of line north (incident {incident.id[:8]}): look first at mixer-1 (heat)" in second["text"]
    )
    (other,) = desk.take(made("fan-9", 14, "open"))
    assert "incident" not in other
    assert other["text"].endswith("its threshold at 2026-11-23T08:00:01.000Z")


def test_of_an_incident_the_first_is_told_then_what_is_worse_and_the_end(made: Made) -> None:
    desk = Desk()
    assert kinds(desk.take(made("pump-1", 10, "open"))) == ["alert.open"]
    assert kinds(desk.take(made("pump-2", 12, "open"))) == []
    assert kinds(desk.take(made("mixer-1", 20, "open", severity="critical"))) == ["alert.open"]
    assert kinds(desk.take(made("pump-2", 12, "open", "critical", severity="critical", sequence=1))) == []
    assert kinds(desk.take(made("pump-1", 10, "open", "ack", sequence=1))) == ["alert.acknowledged"]
    over = [made("mixer-1", 20, "open", "resolved", end=90, sequence=1, severity="critical")]
    over.append(made("pump-2", 12, "open", "critical", "resolved", end=95, sequence=2, severity="critical"))
    assert kinds(desk.take(*over)) == []
    (end,) = desk.take(made("pump-1", 10, "open", "ack", "resolved", end=99, sequence=2))
    assert end["type"] == "alert.resolved"
    assert "over now" in end["text"]
    assert end["incident"]["state"] == "over"
    # what begins soon after belongs to it, and people have been told that it is over: they are told anew
    assert kinds(desk.take(made("pump-3", 120, "open", severity="warning"))) == ["alert.open"]
    assert kinds(desk.take(made("fan-9", 120, "open"))) == ["alert.open"]  # of no line: by itself


def test_what_becomes_worse_than_all_that_is_open_is_told(made: Made) -> None:
    desk = Desk()
    desk.take(made("pump-1", 10, "open", severity="warning"), made("pump-2", 12, "open", severity="warning"))
    assert kinds(desk.take(made("pump-2", 12, "open", "major", sequence=1))) == ["alert.worse"]
    assert kinds(desk.take(made("pump-1", 10, "open", "major", sequence=1))) == []


def test_one_alarms_again_for_all_unless_somebody_sees_to_it(made: Made) -> None:
    desk = Desk()
    desk.take(made("pump-1", 10, "open"), made("pump-2", 12, "open"))
    again = {"re_alarm": True, "sequence": 1}
    assert kinds(desk.take(made("pump-2", 12, "open", "re_alarm", **again))) == []
    assert kinds(desk.take(made("pump-1", 10, "open", "re_alarm", **again))) == ["alert.again"]
    seen = Acknowledged(by="anna", at=at(30))
    desk.take(made("pump-1", 10, "open", "re_alarm", "ack", acknowledged=seen, sequence=2))
    assert kinds(desk.take(made("pump-2", 12, "open", "re_alarm", "re_alarm", re_alarm=True, sequence=2))) == [
        "alert.again"
    ]


def test_a_shelf_keeps_nothing_else_from_people(made: Made) -> None:
    desk = Desk()
    desk.take(made("pump-1", 10, "open"))
    shelf = Shelved(until=at(3000), by="anna", at=at(20))
    desk.take(made("pump-1", 10, "open", "shelve", shelved=shelf, sequence=1))
    assert kinds(desk.take(made("pump-2", 30, "open"))) == ["alert.open"]


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in told]
