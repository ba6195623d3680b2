"""What Alertmanager is told, by a stand-in that keeps every post; the real one is in tests/integration."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stream.errors import ConfigError
from stream.incidentbook import IncidentBook
from stream.operating import LineSettings
from stream.records import Alert, Cause, Output, Shelved
from stream.settings import from_environment
from stream.sinks.alertmanager import AlertmanagerSettings, AlertmanagerSink, body

NOW = datetime.fromisoformat("2026-11-23T08:00:10Z").timestamp()


class Stub:
    """An Alertmanager that says ``statuses`` in turn, then 200; ``refuses`` names an asset it never takes."""

    def __init__(self) -> None:
        self.posts: list[list[dict[str, Any]]] = []
        self.headers: list[Any] = []
        self.statuses: list[int] = []
        self.refuses = ""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        alerts = await request.json()
        self.headers.append(request.headers)
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), text="not now")
        if self.refuses in {alert["labels"]["asset"] for alert in alerts}:
            return web.Response(status=400, text="bad label")
        self.posts.append(alerts)
        return web.Response(text="")

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [alert for post in self.posts for alert in post]


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    held = Stub()
    app = web.Application()
    app.router.add_post("/prefix/api/v2/alerts", held.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    held.url = f"http://127.0.0.1:{runner.addresses[0][1]}/prefix/"
    yield held
    await runner.cleanup()


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (what is waited for is another program's)
            await asyncio.sleep(0.005)


def test_labels_are_who_it_is_and_annotations_what_is_known(make_alert: Callable[..., Alert]) -> None:
    link = "https://grafana.example/d/headrace-asset?var-asset={asset}&var-detector={detector}"
    made = body(make_alert(site="north", asset="pump 1/ä"), "major", ended=False, now=NOW, lives_s=180, link=link)
    assert made["labels"] == {
        "alertname": "HeadraceAlert",
        "site": "north",
        "asset": "pump 1/ä",
        "detector": "pumps",
        "kind": "lstm_forecaster",
        "severity": "major",
    }
    assert made["annotations"]["summary"] == "pump 1/ä: heat 75%, flow 25%"
    assert (made["annotations"]["score"], made["annotations"]["threshold"]) == ("4.5", "3")
    assert made["annotations"]["alert_id"] == "a1"
    assert made["startsAt"] == "2026-11-23T08:00:00.250Z"
    assert made["endsAt"] == "2026-11-23T08:03:10.000Z"
    assert made["generatorURL"].endswith("var-asset=pump%201%2F%C3%A4&var-detector=pumps")
    again = body(make_alert(site="north", asset="pump 1/ä", score=9.0), "major", ended=False, now=NOW + 60, lives_s=180)
    assert again["labels"] == made["labels"]


async def test_an_alert_of_a_line_is_labelled_so_and_says_where_to_look_first(
    stub: Stub, make_alert: Callable[..., Alert]
) -> None:
    book = IncidentBook({"north": LineSettings(assets=("mixer-1", "pump-1"))})
    made = AlertmanagerSink(AlertmanagerSettings(urls=stub.url, resend_every_s=1.0), incidents=book, clock=lambda: NOW)
    await made.start()
    await made.write(Output(alerts=(make_alert(), make_alert(id="b2", asset="fan-9"))))
    await until(lambda: len(stub.alerts) == 2)
    mine, other = stub.alerts
    assert mine["labels"]["line"] == "north"
    assert (mine["annotations"]["look_first"], mine["annotations"]["incident_alerts"]) == ("pump-1 (heat)", "1")
    assert "line" not in other["labels"]
    assert "incident" not in other["annotations"]

    book.take([make_alert(id="c3", asset="mixer-1", onset="2026-11-23T07:59:00.000Z", causes=())])  # another worker's

    def again() -> list[dict[str, Any]]:
        return [alert for alert in stub.alerts[2:] if alert["labels"]["asset"] == "pump-1"]

    await until(lambda: bool(again()), 30)
    newest = again()[0]
    assert newest["labels"] == mine["labels"]
    assert (newest["annotations"]["look_first"], newest["annotations"]["incident_alerts"]) == ("mixer-1", "2")
    assert newest["annotations"]["incident"] != mine["annotations"]["incident"]
    await made.stop()


@pytest.mark.parametrize(
    ("now", "starts", "ends"),
    [
        ("2026-11-23T08:00:10Z", "2026-11-23T08:00:00.250Z", "2026-11-23T08:00:09.000Z"),  # live
        ("2027-11-23T08:00:10Z", "2026-11-23T08:00:00.250Z", "2026-11-23T08:00:09.000Z"),  # a recording
        ("2026-11-23T08:00:05Z", "2026-11-23T08:00:00.250Z", "2026-11-23T08:00:05.000Z"),  # its clock runs ahead
        ("2026-11-23T07:00:00Z", "2026-11-23T07:00:00.000Z", "2026-11-23T07:00:00.000Z"),  # far ahead
    ],
)
def test_no_time_lies_ahead(make_alert: Callable[..., Alert], now: str, starts: str, ends: str) -> None:
    alert = make_alert(state="resolved", resolved="2026-11-23T08:00:09.000Z")
    made = body(alert, "major", ended=True, now=datetime.fromisoformat(now).timestamp(), lives_s=180)
    assert (made["startsAt"], made["endsAt"]) == (starts, ends)


async def test_what_is_shelved_or_suppressed_ends_there_and_comes_back(
    stub: Stub, make_alert: Callable[..., Alert]
) -> None:
    made = AlertmanagerSink(AlertmanagerSettings(urls=stub.url), clock=lambda: NOW)
    await made.start()
    shelf = Shelved(until="2026-11-23T09:00:00.000Z", by="anna", at="2026-11-23T08:00:05.000Z")
    ways: list[dict[str, Any]] = [{}, {"shelved": shelf}, {}, {"suppressed": "maintenance: spring"}]
    for sequence, how in enumerate(ways):
        state = "updated" if sequence else "open"
        await made.write(Output(alerts=(make_alert(sequence=sequence, state=state, **how),)))
        async with asyncio.timeout(30):
            while len(stub.alerts) <= sequence:  # noqa: ASYNC110 (the stub tells nobody)
                await asyncio.sleep(0.005)
    ended = [datetime.fromisoformat(alert["endsAt"]).timestamp() <= NOW for alert in stub.alerts]
    assert ended == [False, True, False, True]
    made.reopen([make_alert(shelved=shelf)])
    assert made.held_lines == 0  # nobody is told of it after a rebalance either
    await made.stop()


async def test_tells_of_what_opens_becomes_worse_and_resolves(stub: Stub, make_alert: Callable[..., Alert]) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls=stub.url), clock=lambda: NOW)
    await sink.start()
    story = [
        make_alert(),
        make_alert(state="updated", severity="critical", sequence=1),
        make_alert(state="resolved", severity="critical", sequence=2, resolved="2026-11-23T08:00:08.000Z"),
    ]
    told = []
    for count, alert in enumerate(story, 1):
        await sink.write(Output(alerts=(alert,)))
        await until(lambda count=count: len(stub.posts) == count)  # type: ignore[misc]
        told.append([(a["labels"]["severity"], a["endsAt"] > "2026-11-23T08:00:10.000Z") for a in stub.posts[-1]])
    assert told == [[("major", True)], [("major", False), ("critical", True)], [("critical", False)]]
    assert stub.alerts[-1]["endsAt"] == "2026-11-23T08:00:08.000Z"
    assert (sink.written_lines, sink.held_lines) == (4, 0)
    await sink.stop()


async def test_what_is_open_is_sent_again_and_what_is_resolved_is_not(
    stub: Stub, make_alert: Callable[..., Alert]
) -> None:
    settings = AlertmanagerSettings(urls=stub.url).model_copy(update={"resend_every_s": 0.05})
    sink = AlertmanagerSink(settings, clock=lambda: NOW)
    await sink.start()
    await sink.write(Output(alerts=(make_alert(), make_alert(id="b", asset="pump-2"))))
    await until(lambda: len(stub.posts) >= 4)
    await sink.write(Output(alerts=(make_alert(id="b", asset="pump-2", state="resolved"),)))
    await until(lambda: sink.held_lines == 0)
    seen = len(stub.posts)
    await until(lambda: len(stub.posts) >= seen + 3)
    assert {alert["labels"]["asset"] for post in stub.posts[:4] for alert in post} == {"pump-1", "pump-2"}
    assert {alert["labels"]["asset"] for post in stub.posts[seen + 1 :] for alert in post} == {"pump-1"}
    await sink.stop()


async def test_a_worker_stops_telling_of_alerts_that_another_has_now(
    stub: Stub, make_alert: Callable[..., Alert]
) -> None:
    settings = AlertmanagerSettings(urls=stub.url).model_copy(update={"resend_every_s": 0.05})
    sink = AlertmanagerSink(settings)
    await sink.start()
    await sink.write(Output(alerts=(make_alert(), make_alert(id="b", asset="pump-2"))))
    await until(lambda: len(stub.posts) >= 2)
    sink.reopen([make_alert(id="b", asset="pump-2"), make_alert(id="c", asset="pump-3")])
    await until(lambda: "pump-3" in {alert["labels"]["asset"] for alert in stub.alerts})
    seen = len(stub.posts)
    await until(lambda: len(stub.posts) >= seen + 2)
    later = [alert for post in stub.posts[seen:] for alert in post]
    assert {alert["labels"]["asset"] for alert in later} == {"pump-2", "pump-3"}
    await sink.stop()


async def test_one_that_is_away_is_told_the_newest_when_it_is_back_and_costs_the_other_nothing(
    stub: Stub, make_alert: Callable[..., Alert]
) -> None:
    stub.statuses = [503, 429, 401]
    urls = f"{stub.url},{stub.url.replace('/prefix/', '/prefix')}"
    sink = AlertmanagerSink(AlertmanagerSettings(urls=urls))
    await sink.start()
    await sink.write(Output(alerts=(make_alert(),)))
    await sink.write(Output(alerts=(make_alert(state="updated", score=7.0),)))
    await until(lambda: sink.written_lines == 2)  # a post is there before its sender knows
    assert [alert["annotations"]["score"] for alert in stub.alerts] == ["7", "7"]
    assert (sink.failed_writes, sink.written_lines, sink.held_lines) == (3, 2, 0)
    await sink.stop()


async def test_one_alert_that_is_refused_takes_no_other_with_it(stub: Stub, make_alert: Callable[..., Alert]) -> None:
    stub.refuses = "pump-2"
    sink = AlertmanagerSink(AlertmanagerSettings(urls=stub.url))
    await sink.start()
    await sink.write(Output(alerts=tuple(make_alert(id=str(n), asset=f"pump-{n}") for n in range(5))))
    await until(lambda: sink.held_lines == 0)
    assert {alert["labels"]["asset"] for alert in stub.alerts} == {"pump-0", "pump-1", "pump-3", "pump-4"}
    assert (sink.refused_lines, sink.written_lines) == (1, 4)
    await sink.stop()


async def test_a_fault_of_ours_ends_one_post_and_not_the_telling(stub: Stub, make_alert: Callable[..., Alert]) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls=stub.url))
    await sink.start()
    await sink.write(Output(alerts=(make_alert(onset="no time"),)))
    await until(lambda: sink.refused_lines == 1)
    await sink.write(Output(alerts=(make_alert(id="b", asset="pump-2"),)))
    await until(lambda: sink.held_lines == 0)
    assert [alert["labels"]["asset"] for alert in stub.alerts] == ["pump-2"]
    await sink.stop()


async def test_what_is_held_is_bounded(make_alert: Callable[..., Alert]) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls="http://127.0.0.1:9", held_alerts=100), stop_s=0.1)
    await sink.start()
    await sink.write(Output(alerts=tuple(make_alert(id=str(number)) for number in range(150))))
    assert (sink.held_lines, sink.dropped_lines) == (100, 50)
    await sink.stop()


async def test_stop_tells_what_has_changed(stub: Stub, make_alert: Callable[..., Alert]) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls=stub.url))
    await sink.start()
    await sink.write(Output(alerts=tuple(make_alert(id=str(number), asset=f"p{number}") for number in range(600))))
    await sink.stop()
    assert len(stub.alerts) == 600
    assert [len(post) for post in stub.posts] == [250, 250, 100]


async def test_says_who_we_are(stub: Stub, make_alert: Callable[..., Alert], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    for settings in ({"token_file": tmp_path / "token"}, {"username": "u", "password": "p"}, {}):
        sink = AlertmanagerSink(AlertmanagerSettings.model_validate({"urls": stub.url, **settings}))
        await sink.start()
        await sink.write(Output(alerts=(make_alert(),)))
        await sink.stop()
    basic = "Basic " + base64.b64encode(b"u:p").decode()
    assert [headers.get("Authorization") for headers in stub.headers] == ["Bearer t0ken", basic, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [("URLS", "alertmanager:9093"), ("URLS", "http://a b"), ("RESEND_EVERY_S", "0"), ("LINK", "https://x/{id}")],
)
def test_impossible_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HEADRACE_ALERTMANAGER_{name}", value)
    with pytest.raises(ConfigError, match=f"(?i){name}"):
        from_environment(AlertmanagerSettings)


def test_a_signal_with_next_to_no_part_in_it_is_not_named(make_alert: Callable[..., Alert]) -> None:
    causes = (Cause(signal="heat", share=0.996), Cause(signal="flow", share=0.004))
    made = body(make_alert(causes=causes), "major", ended=False, now=NOW, lives_s=180)
    assert made["annotations"]["causes"] == "heat 100%"


def test_json_is_what_the_api_takes(make_alert: Callable[..., Alert]) -> None:
    made = body(make_alert(causes=()), "warning", ended=False, now=NOW, lives_s=180)
    assert made["annotations"]["summary"] == "pump-1: model"
    assert set(json.loads(json.dumps(made))) == {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
    assert all(made["labels"].values())
