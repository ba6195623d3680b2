"""Acting on the live page: who may, what is written, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from stream.actions import Action
from stream.errors import BrokerError, ConfigError
from stream.labels import Label
from stream.page.acting import MOST_BYTES, TOKEN_HEADER, Acting
from stream.page.board import Board
from stream.plan import TopicSettings
from stream.records import Alert, Output
from stream.settings import from_environment
from stream.sinks.page import PageSettings
from stream.sinks.prometheus import Metrics
from stream.web import Health, WebServer

TOKEN = "0123456789abcdef"
ACK = {"action": "ack", "asset": "pump-1", "alert": "a1234567", "by": "anna", "comment": "on my way"}


class Topics:
    """What was written; ``away``: Kafka does not take it."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, bytes]] = []
        self.away = False

    async def write(self, topic: str, key: str, value: bytes) -> None:
        if self.away:
            raise BrokerError("nobody answers")
        self.written.append((topic, key, value))

    async def stop(self) -> None: ...


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    monkeypatch.setattr("stream.page.acting._WRONG_S", 0.0)
    return Topics()


@pytest.fixture
async def post(topics: Topics, make_alert: Callable[..., Alert]) -> AsyncIterator[Any]:
    board = Board()
    board.take(Output(alerts=(make_alert(id="a1234567", factor=2.0, peak=9.0, threshold=6.0),)))
    server = WebServer(Metrics().registry, Health(), board, Acting(TOKEN, TopicSettings(), topics))
    await server.start()
    async with aiohttp.ClientSession() as session:

        async def send(body: Any, token: str = TOKEN, **headers: str) -> tuple[int, str]:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            sent = {"Content-Type": "application/json", TOKEN_HEADER: token, **headers}
            async with session.post(f"{server.url}/api/act", data=data, headers=sent) as answer:
                return answer.status, await answer.text()

        yield send
    await server.stop()


async def test_what_is_done_is_written_with_who_when_and_why(post: Any, topics: Topics) -> None:
    assert (await post(ACK))[0] == 202
    assert (await post({**ACK, "action": "shelve", "for_s": 60.0, "alert": "elsewhere-1"}))[0] == 202
    (topic, key, value), (_, _, shelved) = topics.written
    assert (topic, key) == ("plant.actions.v1", "pump-1")
    action = msgspec.json.decode(value, type=Action)
    assert (action.action, action.alert, action.by, action.comment) == ("ack", "a1234567", "anna", "on my way")
    assert msgspec.json.decode(shelved, type=Action).for_s == 60.0


async def test_a_label_says_what_its_alert_was(post: Any, topics: Topics) -> None:
    assert (await post({**ACK, "action": "true", "fault": "bearing"}))[0] == 202
    ((topic, key, value),) = topics.written
    assert (topic, key) == ("plant.labels.v1", "a1234567")
    label = msgspec.json.decode(value, type=Label)
    assert (label.verdict, label.fault, label.detector, label.ratio) == ("true", "bearing", "pumps", 3.0)
    status, why = await post({**ACK, "action": "true", "alert": "elsewhere-1"})
    assert status == 404
    assert "does not know the alert" in why


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (ACK, {"token": "0123456789abcdeg"}, 401),
        (ACK, {"token": ""}, 401),
        (ACK, {"Content-Type": "text/plain"}, 415),
        (ACK, {"Sec-Fetch-Site": "cross-site"}, 403),
        (b"{", {}, 400),
        ({**ACK, "action": "explode"}, {}, 400),
        ({**ACK, "by": ""}, {}, 400),
        ({**ACK, "action": "shelve"}, {}, 400),
        ({**ACK, "surprise": 1}, {}, 400),
        ({**ACK, "comment": "x" * MOST_BYTES}, {}, 413),
    ],
)
async def test_what_is_refused_is_not_written(
    post: Any, topics: Topics, body: Any, options: dict[str, str], status: int
) -> None:
    assert (await post(body, **options))[0] == status
    assert topics.written == []


async def test_a_broker_that_is_away_is_told(post: Any, topics: Topics) -> None:
    topics.away = True
    status, why = await post(ACK)
    assert status == 503
    assert "nobody answers" in why


async def test_without_a_token_nobody_may() -> None:
    server = WebServer(Metrics().registry, Health(), Board())
    await server.start()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/api/act", json=ACK, headers={TOKEN_HEADER: ""}) as answer,
    ):
        assert answer.status == 403
        assert "HEADRACE_PAGE_TOKEN" in await answer.text()
    await server.stop()


def test_a_token_is_long_enough_and_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HEADRACE_PAGE_TOKEN", "short")
    with pytest.raises(ConfigError, match="at least 16 characters") as error:
        from_environment(PageSettings)
    assert "short" not in str(error.value)
    monkeypatch.delenv("HEADRACE_PAGE_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HEADRACE_PAGE_TOKEN_FILE", str(tmp_path / "token"))
    assert from_environment(PageSettings).token.get_secret_value() == TOKEN
