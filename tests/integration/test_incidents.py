"""An incident of a line whose assets are on two workers: both pages show all of it, and messages say what it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from worker_process import Worker, run

from models.datasets import Recording

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture
def messages() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, what came there)."""
    taken: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()


def test_both_workers_show_the_whole_incident(
    own_plan: Path,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    messages: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    own_plan.write_text(own_plan.read_text() + '\n[lines.north]\nassets = ["pump-*"]\n')
    address, taken = messages
    hooks = {"HEADRACE_WEBHOOK_URLS": address, "HEADRACE_WEBHOOK_SECRET": "a secret of some length"}
    first = start_worker(own_plan, **hooks)
    second = start_worker(own_plan, **hooks)
    both = (first, second)
    for worker in both:
        worker.wait(partial(shares, worker), 60, "sharing")
    data = tmp_path / "data"
    data.mkdir()
    pumps = {f"pump-{number}" for number in range(1, 7)}
    for number, pump in enumerate(sorted(pumps)):  # their faults are not over when the recordings are
        write_csv(make_recording(pump, rows=300, seed=number, fault=(285 + number, 300)), data)
    run(first, "replay", str(data), "--plan", str(own_plan))

    def shown(worker: Worker) -> Any:
        answer = json.loads(worker.get("/api/overview") or "{}")
        return next(iter(answer.get("incidents", ())), {})

    def whole(worker: Worker) -> bool:
        return {alert["asset"] for alert in shown(worker).get("alerts", ())} == pumps

    for worker in both:
        worker.wait(partial(whole, worker), 90, "showing all of the incident")
    told = [shown(worker) for worker in both]
    assert told[0]["id"] == told[1]["id"]
    assert {held["first_asset"] for held in told} == {"pump-1"}
    assert set(told[0]["elsewhere"]) | set(told[1]["elsewhere"]) == pumps
    assert not set(told[0]["elsewhere"]) & set(told[1]["elsewhere"])
    command = json.loads(run(first, "incidents", "--plan", str(own_plan), "--json").splitlines()[0])
    assert (command["id"], command["first_asset"]) == (told[0]["id"], "pump-1")
    opened = {"alert.open"}
    first.wait(lambda: {post["data"]["asset"] for post in taken if post["type"] in opened} == pumps, 60, "telling")
    assert {post["incident"]["line"] for post in taken} == {"north"}
    assert first.metric("headrace_control_records_total", control="alerts", outcome="applied") >= 6
    assert (first.stop(), second.stop()) == (0, 0)


def shares(worker: Worker) -> bool:
    """Whether it has some of the four partitions."""
    held: dict[str, Any] = json.loads(worker.get("/health/ready") or "{}")
    return 0 < (held.get("partitions") or 0) < 4
