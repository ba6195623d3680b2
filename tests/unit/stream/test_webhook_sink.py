"""What a receiver of webhooks is told, by a real HTTP server that checks signatures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from stream.errors import ConfigError
from stream.records import Acknowledged, Alert, Event, Output, Shelved
from stream.settings import from_environment
from stream.sinks.webhook import WebhookSettings, WebhookSink, _retry_after_s

KEY = b"a key of thirty-two bytes, or so"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
AT = "2026-11-23T08:00:00.000Z"


class Receiver:
    """Takes POSTs that are signed as they should be; says ``answers`` (status, headers) first, in turn."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        sent = request.headers
        signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + body
        right = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert sent["webhook-signature"] == f"v1,{right}"
        self.ids.append(sent["webhook-id"])
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers)
        self.taken.append(json.loads(body))
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    held = Receiver()
    app = web.Application()
    app.router.add_post("/hook/secret-part", held.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    held.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/secret-part"
    yield held
    await runner.cleanup()


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[WebhookSink]:
    made = WebhookSink(WebhookSettings(urls=receiver.url, secret=SecretStr(SECRET)))
    await made.start()
    yield made
    await made.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.005)


def life(*happened: str, by: str = "") -> tuple[Event, ...]:
    return tuple(Event(what=what, at=AT, by=by if what == "ack" else "") for what in happened)


async def send(sink: WebhookSink, *alerts: Alert) -> None:
    await sink.write(Output(alerts=alerts))


async def test_people_are_told_what_happens_and_not_of_plain_updates(
    sink: WebhookSink, receiver: Receiver, make_alert: Callable[..., Alert]
) -> None:
    seen = Acknowledged(by="anna", at=AT)
    await send(
        sink,
        make_alert(life=life("open")),
        make_alert(sequence=1, state="updated", life=life("open")),
        make_alert(sequence=2, state="updated", severity="critical", life=life("open", "critical")),
        make_alert(sequence=3, state="updated", acknowledged=seen, life=life("open", "critical", "ack", by="anna")),
        make_alert(sequence=4, state="resolved", resolved=AT, life=life("open", "critical", "ack", "resolved")),
    )
    await until(lambda: len(receiver.taken) == 4)
    assert [post["type"] for post in receiver.taken] == [
        "alert.open", "alert.worse", "alert.acknowledged", "alert.resolved",
    ]  # fmt: skip
    assert receiver.ids == ["a1:0", "a1:2", "a1:3", "a1:4"]
    assert receiver.taken[0]["text"] == (
        "major: pump-1 (pumps): heat 75%, flow 25%, 1.7 times its threshold at 2026-11-23T08:00:01.000Z"
    )
    assert receiver.taken[2]["text"].startswith("acknowledged by anna: pump-1")
    assert receiver.taken[0]["data"]["id"] == "a1"
    assert (sink.written_lines, sink.held_lines) == (4, 0)


async def test_what_is_shelved_or_suppressed_is_told_when_that_is_over(
    sink: WebhookSink, receiver: Receiver, make_alert: Callable[..., Alert]
) -> None:
    shelf = Shelved(until=AT, by="anna", at=AT)
    await send(
        sink,
        make_alert(suppressed="maintenance: spring", life=life("open")),
        make_alert(sequence=1, state="updated", life=life("open")),
        make_alert(sequence=2, state="updated", shelved=shelf, life=life("open", "shelve")),
        make_alert(sequence=3, state="updated", life=life("open", "shelve", "shelf_over")),
        make_alert(id="b2", suppressed="known: fouling", life=life("open")),
        make_alert(id="b2", sequence=1, state="resolved", life=life("open", "resolved")),
    )
    await until(lambda: len(receiver.taken) == 2)
    assert [(post["type"], post["data"]["sequence"]) for post in receiver.taken] == [
        ("alert.open", 1),
        ("alert.again", 3),
    ]


async def test_what_others_have_told_is_not_told_again(
    sink: WebhookSink, receiver: Receiver, make_alert: Callable[..., Alert]
) -> None:
    sink.reopen([make_alert(life=life("open"))])
    await send(sink, make_alert(sequence=5, state="updated", life=life("open")))
    await send(sink, make_alert(sequence=6, state="resolved", life=life("open", "resolved")))
    await until(lambda: receiver.taken)
    assert [post["type"] for post in receiver.taken] == ["alert.resolved"]


async def test_a_receiver_that_is_busy_is_asked_again_in_order_and_delays_nothing(
    sink: WebhookSink, receiver: Receiver, make_alert: Callable[..., Alert]
) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "1"}), (302, {"Location": "/elsewhere"})]
    loop = asyncio.get_running_loop()
    before = loop.time()
    for number in range(3):
        await send(sink, make_alert(id=f"a{number}", life=life("open")))
    assert loop.time() - before < 1.0
    await until(lambda: len(receiver.taken) == 3)
    assert loop.time() - before >= 1.0  # as it asked
    assert [post["data"]["id"] for post in receiver.taken] == ["a0", "a1", "a2"]
    assert receiver.ids == ["a0:0"] * 4 + ["a1:0", "a2:0"]
    assert sink.failed_writes == 3


async def test_what_is_refused_for_good_is_passed_over_and_the_address_is_not_told(
    sink: WebhookSink, receiver: Receiver, make_alert: Callable[..., Alert], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [(400, {})]
    await send(sink, make_alert(life=life("open")), make_alert(id="b2", life=life("open")))
    await until(lambda: receiver.taken)
    assert [post["data"]["id"] for post in receiver.taken] == ["b2"]
    assert sink.refused_lines == 1
    assert "HTTP 400" in caplog.text
    assert "secret-part" not in caplog.text


async def test_what_has_no_room_is_dropped_and_counted(make_alert: Callable[..., Alert]) -> None:
    away = WebhookSink(
        WebhookSettings(urls="http://127.0.0.1:9/", secret=SecretStr(SECRET), held_posts=100), stop_s=0.05
    )
    await away.start()
    for number in range(130):
        await send(away, make_alert(id=f"a{number}", life=life("open")))
    assert (away.held_lines, away.dropped_lines) == (100, 30)
    await away.stop()


async def test_a_stop_ends_although_the_cancellation_meets_the_end_of_a_pause(make_alert: Callable[..., Alert]) -> None:
    away = WebhookSink(WebhookSettings(urls="http://127.0.0.1:9/", secret=SecretStr(SECRET)), stop_s=0.0)
    await away.start()
    await send(away, make_alert(life=life("open")))
    await until(lambda: away.failed_writes)  # now it pauses
    await asyncio.wait_for(away.stop(), 30)
    assert away.held_lines == 1


@pytest.mark.parametrize(
    ("variable", "value", "wrong"),
    [
        ("SECRET", "", "secret"),
        ("SECRET", "short", "at least 16 bytes"),
        ("SECRET", "whsec_not base64", "no base64"),
        ("TEMPLATE", "{surprise}", "cannot be filled in"),
        ("TEMPLATE", "{asset", "template"),
        ("LINK", "https://x/{id}", "cannot be filled in"),
        ("URLS", "ftp://x", "URLS"),
    ],
)
def test_what_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, wrong: str) -> None:
    monkeypatch.setenv("HEADRACE_WEBHOOK_URLS", "https://chat.example/hook")
    monkeypatch.setenv("HEADRACE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv(f"HEADRACE_WEBHOOK_{variable}", value)
    with pytest.raises(ConfigError, match=wrong):
        from_environment(WebhookSettings)


def test_the_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("HEADRACE_WEBHOOK_SECRET_FILE", str(tmp_path / "secret"))
    assert from_environment(WebhookSettings).key() == KEY


def test_retry_after_is_a_number_or_a_date() -> None:
    now_s = datetime(2026, 11, 25, 8, 0, 0, tzinfo=UTC).timestamp()
    assert _retry_after_s("120", now_s) == 120
    assert _retry_after_s("Wed, 25 Nov 2026 08:00:30 GMT", now_s) == 30
    assert _retry_after_s("Wed, 25 Nov 2026 07:00:30 GMT", now_s) == 0
    assert _retry_after_s("99999999", now_s) == 3600
    assert _retry_after_s("soon", now_s) == _retry_after_s(None, now_s) == 0
