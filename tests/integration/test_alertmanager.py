"""Alerts in a real Alertmanager with the committed routes, whose receivers post to a webhook of the test's."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_fixtures import one_broker
from servers import Server, alertmanager_server, fetch, free_port
from worker_process import Worker, run

from dashboards import ROOT
from models.datasets import Recording
from stream.records import Alert, Output
from stream.sinks.alertmanager import AlertmanagerSettings, AlertmanagerSink

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


class Alertmanager:
    """The server, and what its receivers were told: (receiver, asset, severity, status) in order."""

    def __init__(self, url: str, told: list[tuple[str, str, str, str]]) -> None:
        self.url = url
        self.told = told

    def active(self) -> dict[tuple[str, str, str], Any]:
        """(asset, detector, severity) -> the alert, of those that have not ended."""
        answer = json.loads(fetch(f"{self.url}/api/v2/alerts", 5.0, active="true"))
        return {(a["labels"]["asset"], a["labels"]["detector"], a["labels"]["severity"]): a for a in answer}


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    told: list[tuple[str, str, str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in message["alerts"]:
                labels = alert["labels"]
                told.append((message["receiver"], labels["asset"], labels["severity"], alert["status"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    # the committed configuration, in a hurry, with a receiver that can be looked at
    text = (ROOT / "deploy" / "alertmanager" / "alertmanager.yaml").read_text()
    table = yaml.safe_load(re.sub(r"group_(wait|interval): \d+[ms]\n", r"group_\1: 1s\n", text))
    for receiver in table["receivers"]:
        receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{webhook.server_port}"}]
    (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(table))
    server: Server | None = None
    try:
        server, url = alertmanager_server(tmp_path, tmp_path / "alertmanager.yaml")
        server.start()
        yield Alertmanager(url, told)
    finally:
        if server:
            server.stop()
        webhook.shutdown()
        webhook.server_close()


async def until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not {what} within {within_s:g} s"
        await asyncio.sleep(0.1)


async def test_an_alert_opens_becomes_critical_and_resolves_with_those_told_that_the_routes_say(
    alertmanager: Alertmanager, make_alert: Callable[..., Alert]
) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls=alertmanager.url))
    await sink.start()
    await sink.write(Output(alerts=(make_alert(site="north"),)))
    await until(lambda: ("operators", "pump-1", "major", "firing") in alertmanager.told, "told")
    (alert,) = alertmanager.active().values()
    assert alert["startsAt"] == "2026-11-23T08:00:00.250Z"
    assert alert["annotations"]["score"] == "4.5"
    assert [receiver["name"] for receiver in alert["receivers"]] == ["operators"]

    worse = {"site": "north", "severity": "critical", "score": 12.0}
    await sink.write(Output(alerts=(make_alert(state="updated", sequence=1, **worse),)))
    await until(
        lambda: ("operators-urgent", "pump-1", "critical", "firing") in alertmanager.told, "told that it is worse"
    )
    await until(
        lambda: ("operators", "pump-1", "major", "resolved") in alertmanager.told, "told that it is major no more"
    )
    assert alertmanager.active().keys() == {("pump-1", "pumps", "critical")}

    resolved = make_alert(state="resolved", sequence=2, resolved="2026-11-23T08:10:00.000Z", **worse)
    await sink.write(Output(alerts=(resolved,)))
    await until(
        lambda: ("operators-urgent", "pump-1", "critical", "resolved") in alertmanager.told, "told that it is over"
    )
    await until(lambda: not alertmanager.active(), "over")
    assert (sink.refused_lines, sink.dropped_lines, sink.failed_writes) == (0, 0, 0)
    await sink.stop()


async def test_what_nobody_sends_again_ends_and_what_is_sent_again_does_not(
    alertmanager: Alertmanager, make_alert: Callable[..., Alert]
) -> None:
    sink = AlertmanagerSink(AlertmanagerSettings(urls=alertmanager.url, resend_every_s=1.0))
    await sink.start()
    await sink.write(Output(alerts=(make_alert(),)))
    await until(alertmanager.active, "there")
    began = time.monotonic()
    while time.monotonic() < began + 5.0:  # longer than one post keeps it: three seconds
        assert await asyncio.to_thread(alertmanager.active)
        await asyncio.sleep(0.2)
    await sink.stop()  # as a worker that goes, or dies
    await until(lambda: not alertmanager.active(), "ended by itself", 8.0)


@pytest.mark.broker
@one_broker  # it is about Alertmanager
def test_a_real_workers_fault_is_active_until_the_worker_is_killed_and_again_when_it_is_back(
    alertmanager: Alertmanager,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    worker = start_worker(
        own_plan,
        HEADRACE_ALERTMANAGER_URLS=f"http://127.0.0.1:9,{alertmanager.url}",  # the first is away
        HEADRACE_ALERTMANAGER_RESEND_EVERY_S="1",
    )
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording("pump-1", rows=300, seed=1, fault=(200, 240)), data)
    write_csv(make_recording("pump-2", rows=300, seed=2, fault=(288, 300)), data)
    run(worker, "replay", str(data), "--plan", str(own_plan))
    worker.has_read(600)
    both = {("pump-2", "quick"), ("pump-2", "slow")}
    worker.wait(lambda: {key[:2] for key in alertmanager.active()} == both, 20, "told")
    assert worker.metric("headrace_alert_transitions_total") > 4
    alert = next(iter(alertmanager.active().values()))
    assert datetime.fromisoformat(alert["startsAt"]).year == 2025  # the recording's own time
    assert alert["labels"]["site"] == "north"
    assert alert["annotations"]["causes"].startswith("heat")
    worker.kill()
    deadline = time.monotonic() + 10
    while alertmanager.active():
        assert time.monotonic() < deadline, "a dead worker's alerts stay"
        time.sleep(0.2)
    worker.start(free_port())  # it reads its state back: no reading is needed to know what is open
    worker.wait(lambda: {key[:2] for key in alertmanager.active()} == both, 40, "telling again")
