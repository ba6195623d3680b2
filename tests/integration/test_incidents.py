"""What people are told, by real workers: incidents whose assets are on two of them, and over a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver
from server_fixtures import one_broker
from worker_process import Worker, run

from models.datasets import Recording

SECRET = "a secret of some length"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


@one_broker  # test_control tells every reader of a topic all, on both
def test_both_workers_show_the_whole_incident(
    own_plan: Path,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    own_plan.write_text(own_plan.read_text() + '\n[lines.north]\nassets = ["pump-*"]\n')
    taken = receiver.start().taken
    hooks = {"HEADRACE_WEBHOOK_URLS": receiver.url, "HEADRACE_WEBHOOK_SECRET": SECRET}
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


@one_broker  # it is about webhooks
def test_what_was_to_be_told_when_a_worker_was_killed_is_told_by_the_next(
    own_plan: Path,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    worker = start_worker(
        own_plan,
        HEADRACE_WEBHOOK_URLS=receiver.url,  # it is away
        HEADRACE_WEBHOOK_SECRET=SECRET,
        HEADRACE_WEBHOOK_SPOOL_DIR=str(tmp_path / "spool"),
    )
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording("pump-1", rows=300, seed=1, fault=(100, 140)), data)
    write_csv(make_recording("pump-2", rows=300, seed=2, fault=(288, 300)), data)
    run(worker, "replay", str(data), "--plan", str(own_plan))
    worker.has_read(600)  # and committed: nobody will read them again
    held = worker.metric("headrace_sink_held_lines", sink="webhook")
    assert held >= 6  # two detectors: two that have opened and are over, two that are open
    assert worker.metric("headrace_sink_spooled_bytes", sink="webhook") > 0
    worker.kill()
    receiver.start()
    worker.start_again()
    worker.wait(lambda: len(receiver.taken) >= held, 60, "telling what was left")
    told = {(post["data"]["asset"], post["data"]["detector"], post["type"]) for post in receiver.taken}
    opened = {(f"pump-{number}", detector, "alert.open") for number in (1, 2) for detector in ("quick", "slow")}
    over = {("pump-1", detector, "alert.resolved") for detector in ("quick", "slow")}
    assert opened | over <= told
    assert len(set(receiver.ids)) == held
    worker.wait(lambda: worker.metric("headrace_sink_held_lines", sink="webhook") == 0, 60, "through")
    assert worker.stop() == 0


def shares(worker: Worker) -> bool:
    """Whether it has some of the four partitions."""
    held: dict[str, Any] = json.loads(worker.get("/health/ready") or "{}")
    return 0 < (held.get("partitions") or 0) < 4
