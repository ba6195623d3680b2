"""Metrics and health over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

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
    clock.now_s += 1000.0
    assert (await get(f"{server.url}/health/live"))[0] == 200  # nothing waits
    health.partitions, health.lag = 2, 50
    status, _, text = await get(f"{server.url}/health/live")
    assert status == 503
    assert "50 records wait and no offset was committed for 1000 s" in text
    health.progressed()
    assert (await get(f"{server.url}/health/live"))[0] == 200


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
