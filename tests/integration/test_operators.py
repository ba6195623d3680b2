"""Operators at the command line, a worker and its topics: an alert's whole life, over a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka.partitioner.default import murmur2
from server_fixtures import one_broker
from worker_process import Worker, run

from models.datasets import Recording

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def part(recording: Recording, start: int, stop: int) -> Recording:
    rows = slice(start, stop)
    return Recording(recording.asset, recording.at_ms[rows], recording.signals, recording.values[rows], None)


def partition(asset: str) -> int:
    """Which of the four partitions an asset's readings go to."""
    return int(murmur2(asset.encode()) & 0x7FFFFFFF) % 4


@one_broker  # test_control reads topics of orders on both, and the faults crash workers on both
def test_an_alert_is_acknowledged_labelled_shelved_and_resolved_over_a_crash(
    own_plan: Path,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    own_plan.write_text(own_plan.read_text() + "\n[quality]\nstale_after_periods = 30\n")
    beside = next(name for number in range(2, 99) if partition(name := f"pump-{number}") == partition("pump-1"))
    whole = make_recording("pump-1", rows=400, seed=1)
    whole.values[100:, 1] += np.where(np.arange(300) % 2, 12.0, -12.0)  # to and fro: nothing gets used to it
    worker = start_worker(own_plan)
    plan = ("--plan", str(own_plan))

    def play(start: int, stop: int) -> None:
        folder = tmp_path / f"{start}"
        folder.mkdir(exist_ok=True)
        write_csv(part(whole, start, stop), folder)
        run(worker, "replay", str(folder), *plan)

    def alerts() -> list[dict[str, Any]]:
        lines = run(worker, "alerts", "list", *plan, "--json").splitlines()
        return [json.loads(line) for line in lines]

    def slow_one() -> dict[str, Any]:
        return next(alert for alert in alerts() if alert["detector"] == "slow")

    (tmp_path / "0").mkdir()
    write_csv(make_recording(beside, rows=60, seed=2), tmp_path / "0")  # after a minute it says nothing more
    play(0, 160)
    worker.has_read(220)
    silent = next(alert for alert in alerts() if alert["detector"] == "stale")
    assert (silent["asset"], [event["what"] for event in silent["life"]]) == (beside, ["open"])
    said = run(worker, "alerts", "ack", silent["id"], *plan, "--by", "anna", "--comment", "gateway is off")
    assert "acknowledged by anna" in said
    alert = slow_one()
    short = alert["id"][:8]
    said = run(worker, "alerts", "ack", short, *plan, "--by", "anna", "--comment", "on my way")
    assert "acknowledged by anna" in said

    worker.kill()
    worker.start_again()
    play(160, 200)
    worker.has_read(40)
    after = slow_one()
    assert after["acknowledged"]["by"] == "anna"
    assert after["sequence"] > alert["sequence"] + 1  # it went on
    assert [event["what"] for event in after["life"] if event.get("by")] == ["ack"]  # and was done once
    silent = next(held for held in alerts() if held["detector"] == "stale")
    assert (silent["acknowledged"]["comment"], silent["state"]) == ("gateway is off", "updated")

    assert "shelved until" in run(worker, "alerts", "shelve", short, *plan, "--for", "1h", "--by", "ben")
    said = run(worker, "alerts", "label", short, "false_alarm", *plan, "--by", "anna", "--comment", "cleaning")
    assert "threshold of slow there" in said
    assert worker.metric("headrace_moved_thresholds", detector="slow") == 1
    moved = slow_one()
    assert moved["factor"] > 1
    assert moved["threshold"] == pytest.approx(alert["threshold"] * moved["factor"])
    assert run(worker, "alerts", "resolve", short, *plan, "--by", "ben")
    assert all(held["id"] != alert["id"] for held in alerts())

    story = run(worker, "alerts", "history", short, *plan)
    told = [line.split()[1] for line in story.splitlines() if line.startswith("  ")]
    assert [what for what in told if what not in {"major", "critical"}] == [
        "open", "ack", "shelve", "false_alarm", "resolve",
    ]  # fmt: skip
    assert "by anna: on my way" in story

    assert "until it is stopped" in run(worker, "maintenance", "start", "pump-*", *plan, "--by", "anna")
    assert "pump-*" in run(worker, "maintenance", "list", *plan)
    worker.wait(
        lambda: worker.metric("headrace_operator_actions_total", action="maintenance_start") == 1, 60, "in maintenance"
    )
    assert all("maintenance" in held["suppressed"] for held in alerts())
    run(worker, "maintenance", "stop", "pump-*", *plan)
    assert run(worker, "alerts", "resolve", silent["id"], *plan, "--by", "anna")
    assert all(held["detector"] != "stale" for held in alerts())
    assert worker.stop() == 0
