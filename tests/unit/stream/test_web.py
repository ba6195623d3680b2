"""Metrics and health over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from stream.page.board import Board
from stream.records import Alert, Output, Scores
from stream.sinks.prometheus import Metrics
from stream.web import Health, WebServer


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def served() -> AsyncIterator[tuple[WebServer, Health, Clock]]:
    clock = Clock()
    health = Health(clock=clock)
    server = WebServer(Metrics(version="0.1").registry, health, port=0)
    await server.start()
    yield server, health, clock
    await server.stop()
    await server.stop()


async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.text()


async def test_serves_metrics_as_prometheus_reads_them(served: tuple[WebServer, Health, Clock]) -> None:
    url = f"{served[0].url}/metrics"
    status, headers, text = await get(url)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4; charset=utf-8")
    assert "headrace_build_info{" in text
    _, headers, text = await get(url, Accept="application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


async def test_ready_says_why_not(served: tuple[WebServer, Health, Clock]) -> None:
    server, health, _ = served
    status, _, text = await get(f"{server.url}/health/ready")
    assert status == 503
    for reason in ("the broker does not answer", "no partitions are assigned yet", "the models are not loaded"):
        assert reason in text
    health.connected, health.partitions, health.models_loaded = True, 0, True
    status, headers, text = await get(f"{server.url}/health/ready")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert '"status":"ok","reasons":[],"partitions":0' in text
    health.stopping = True
    assert (await get(f"{server.url}/health/ready"))[0] == 503
    assert (await get(f"{server.url}/health/live"))[0] == 200


async def test_live_fails_only_when_records_wait_and_nothing_moves(served: tuple[WebServer, Health, Clock]) -> None:
    server, health, clock = served
    health.connected = True
    clock.now_s += 1000.0
    health.beat()
    assert (await get(f"{server.url}/health/live"))[0] == 200  # nothing waits
    health.partitions, health.lag = 2, 50
    status, _, text = await get(f"{server.url}/health/live")
    assert status == 503
    assert "50 records wait and no offset was committed for 1000 s" in text
    health.connected = False
    assert (await get(f"{server.url}/health/live"))[0] == 200, "starting again would not bring the broker back"
    health.connected = True
    health.progressed()
    assert (await get(f"{server.url}/health/live"))[0] == 200


async def test_a_loop_that_does_not_turn_and_a_state_that_is_being_read_are_told(
    served: tuple[WebServer, Health, Clock],
) -> None:
    server, health, clock = served
    health.connected, health.partitions, health.models_loaded = True, 2, True
    assert health.unready() == []
    health.recovering[3] = "12 of 40 records of its state are read"
    assert health.unready() == ["partition 3: 12 of 40 records of its state are read"]
    assert health.stalled() == []
    clock.now_s += 301.0
    assert health.stalled() == ["the event loop has not turned for 301 s"]
    health.stopping = True
    assert health.stalled() == [], "a stop has a grace of its own"
    assert server.port


async def test_only_get_and_head_no_banner_and_nothing_else(served: tuple[WebServer, Health, Clock]) -> None:
    url = served[0].url
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await get(f"{url}/metrics", method))[0] == 405
    for path in ("/", "/metrics", "/health/live", "/nowhere"):
        status, headers, _ = await get(url + path, "HEAD")
        assert status == (404 if path == "/nowhere" else 200)
        assert "Server" not in headers
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await get(url + "/"))[2].splitlines()[0] == "Headrace"
    assert (await get(f"{url}/metrics", X=("a" * 20_000)))[0] == 400


async def test_an_address_in_use_is_told(served: tuple[WebServer, Health, Clock]) -> None:
    second = WebServer(Metrics().registry, Health(), port=served[0].port)
    with pytest.raises(OSError, match=str(served[0].port)):
        await second.start()
    await second.stop()


async def test_stops_although_a_client_stays() -> None:
    server = WebServer(Metrics().registry, Health())
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await asyncio.wait_for(server.stop(), 5.0)
    writer.close()


@pytest.fixture
async def page(make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]) -> AsyncIterator[str]:
    """The address of a worker that has judged two pumps, one of which has an alert."""
    board = Board(site="north")
    board.take(Output(scores=(make_scores(),), alerts=(make_alert(),), counts={"readings": 3}))
    server = WebServer(Metrics().registry, Health(), board)
    await server.start()
    yield server.url
    await server.stop()


async def test_the_page_comes_from_the_worker_alone(page: str) -> None:
    status, headers, text = await get(f"{page}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    files = re.findall(r'(?:href|src)="(/[^"#]+)"', text)
    assert {"/page/page.css", "/page/page.js", "/page/icon.svg"} <= set(files)
    for file in {
        *files,
        "/page/asset.js",
        "/page/chart.js",
        "/page/dom.js",
        "/page/format.js",
        "/page/overview.js",
        "/page/alert.js",
        "/page/incidents.js",
    }:
        status, headers, text = await get(page + file)
        assert status == 200, file
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), f"{file} names another address"
    status, headers, _ = await get(f"{page}/page/page.js")
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert (await get(f"{page}/page/page.js", **{"If-None-Match": headers["Etag"]}))[0] == 304
    for path in ("/page/nothing.js", "/page/../board.py", "/page/%2e%2e%2fboard.py", "/page/"):
        assert (await get(page + path))[0] == 404


async def test_the_page_asks_and_is_answered(page: str) -> None:
    status, headers, text = await get(f"{page}/api/overview")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    said = json.loads(text)
    assert [alert["asset"] for alert in said["alerts"]] == ["pump-1"]
    assert {asset["name"]: asset["state"] for asset in said["assets"]} == {"pump-1": "major", "pump-0": "normal"}
    assert "the broker does not answer" in said["worker"]["reasons"]
    status, _, text = await get(f"{page}/api/asset?name=pump-1")
    said = json.loads(text)
    assert [part["name"] for part in said["detectors"]] == ["pumps"]
    since = said["detectors"][0]["at_ms"][-1]
    assert json.loads((await get(f"{page}/api/asset?name=pump-1&since_ms={since}"))[2])["detectors"][0]["at_ms"] == []


async def test_odd_questions_are_refused_and_nothing_can_be_changed(page: str) -> None:
    assert (await get(f"{page}/api/asset?name=nobody"))[0] == 404
    for since in ("-1", "yesterday", "9" * 40, "%00"):
        assert (await get(f"{page}/api/asset?name=pump-1&since_ms={since}"))[0] == 400
    assert (await get(f"{page}/api/asset?name={'x' * 300}"))[0] == 400
    for path in ("/", "/page/page.js", "/api/overview", "/api/asset?name=pump-1"):
        for method in ("POST", "PUT", "DELETE"):
            assert (await get(page + path, method))[0] == 405
