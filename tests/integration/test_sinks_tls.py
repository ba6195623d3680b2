"""Sinks over TLS, to real servers whose certificate an authority of the plant's own has signed."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import authority, certificate
from pydantic import SecretStr
from receiver import Receiver
from servers import InfluxDB, alertmanager_server, need

from stream.errors import ConfigError, SinkUnavailable
from stream.records import Alert, Event, Output, Scores
from stream.settings import from_environment
from stream.sinks.alertmanager import AlertmanagerSettings, AlertmanagerSink
from stream.sinks.influxclient import InfluxClient, InfluxSettings
from stream.sinks.influxdb import InfluxSink
from stream.sinks.webhook import WebhookSettings, WebhookSink

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

_LINE = "headrace_score,asset=pump-1,detector=quick score=1 1764000000000000000"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """``ca`` has signed ``server`` for localhost; ``other`` has signed nothing."""
    authority(tmp_path, "ca")
    authority(tmp_path, "other")
    certificate(tmp_path, "server", "localhost")
    return tmp_path


@pytest.fixture
def influxdb(keys: Path) -> Iterator[InfluxDB]:
    need("influxd", "nginx", package="influxdb nginx-light")
    database = InfluxDB(keys, keys / "server.pem")
    try:
        database.server.start()
        database.proxy.start()
        database.create("plant")
        yield database
    finally:
        database.proxy.stop()
        database.server.stop()


async def test_influxdb_takes_lines_over_tls_from_who_trusts_it_and_gets_none_from_who_does_not(
    influxdb: InfluxDB, keys: Path, make_scores: Callable[..., Scores]
) -> None:
    settings = InfluxSettings(url=influxdb.url, bucket="plant", ca_file=keys / "ca.pem", linger_s=0.0)
    sink = InfluxSink(settings, site="north")
    await sink.start()
    await sink.write(Output(scores=(make_scores(rows=6),)))
    await sink.stop()
    assert (sink.written_lines, sink.refused_lines, sink.held_lines) == (6, 0, 0)
    wrong_name = influxdb.url.replace("localhost", "127.0.0.1")
    for wrong in ({"ca_file": keys / "other.pem"}, {"ca_file": None}, {"url": wrong_name}):
        client = InfluxClient(settings.model_copy(update=wrong))
        with pytest.raises(SinkUnavailable, match=r"(?i)certificate"):
            await asyncio.to_thread(client.post, _LINE.encode())
        client.close()
    assert influxdb.query("plant", "SELECT COUNT(score) FROM headrace_score")[0]["count"] == 6


async def test_alertmanager_is_told_over_tls_by_who_trusts_it_and_not_by_who_does_not(
    keys: Path, make_alert: Callable[..., Alert]
) -> None:
    (keys / "web.yaml").write_text(
        json.dumps({"tls_server_config": {"cert_file": f"{keys}/server.pem", "key_file": f"{keys}/server.key"}})
    )
    (keys / "alertmanager.yaml").write_text(json.dumps({"route": {"receiver": "all"}, "receivers": [{"name": "all"}]}))
    server, url = alertmanager_server(keys, keys / "alertmanager.yaml", keys / "web.yaml")
    context = ssl.create_default_context(cafile=keys / "ca.pem")

    def told() -> list[str]:
        with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10, context=context) as answer:
            return [alert["labels"]["asset"] for alert in json.load(answer)]

    try:
        await asyncio.to_thread(server.start)
        for number, (ca_file, wanted) in enumerate(((keys / "other.pem", []), (keys / "ca.pem", ["pump-1"]))):
            sink = AlertmanagerSink(AlertmanagerSettings(urls=url, ca_file=ca_file), stop_s=1.0)
            await sink.start()
            await sink.write(Output(alerts=(make_alert(asset=f"pump-{number}"),)))
            deadline = time.monotonic() + 30
            while not (sink.written_lines or sink.failed_writes):
                assert time.monotonic() < deadline, "neither told nor failed"
                await asyncio.sleep(0.05)
            await sink.stop()
            assert await asyncio.to_thread(told) == wanted
            assert bool(sink.failed_writes) == (not wanted)
    finally:
        server.stop()


async def test_a_webhook_is_told_over_tls_by_who_trusts_it_and_not_by_who_does_not(
    keys: Path, make_alert: Callable[..., Alert]
) -> None:
    receiver = Receiver(keys).start()
    life = (Event(what="open", at="2026-11-23T08:00:00.000Z"),)
    wrong_name = receiver.url.replace("localhost", "127.0.0.1")
    try:
        for number, (url, ca_file, wanted) in enumerate(
            (
                (receiver.url, keys / "other.pem", False),
                (receiver.url, None, False),
                (wrong_name, keys / "ca.pem", False),
                (receiver.url, keys / "ca.pem", True),
            )
        ):
            settings = WebhookSettings(urls=url, secret=SecretStr("x" * 32), ca_file=ca_file)
            sink = WebhookSink(settings, stop_s=1.0)
            await sink.start()
            await sink.write(Output(alerts=(make_alert(id=f"a{number}", life=life),)))
            async with asyncio.timeout(30):
                while not (sink.written_lines or sink.failed_writes):  # noqa: ASYNC110 (the sink tells nobody)
                    await asyncio.sleep(0.01)
            await sink.stop()
            assert (sink.written_lines, bool(sink.failed_writes)) == (int(wanted), not wanted)
        assert receiver.ids == ["a3:0"]
    finally:
        receiver.stop()


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        (InfluxSettings, "HEADRACE_INFLUX_CA_FILE"),
        (AlertmanagerSettings, "HEADRACE_ALERTMANAGER_CA_FILE"),
        (WebhookSettings, "HEADRACE_WEBHOOK_CA_FILE"),
    ],
)
def test_a_file_without_a_certificate_stops_the_start(
    kind: type, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_WEBHOOK_SECRET", "x" * 32)
    for content in (None, "no certificate"):
        if content:
            (tmp_path / "ca.pem").write_text(content)
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        with pytest.raises(ConfigError, match=r"ca_file: .*ca\.pem"):
            from_environment(kind)
