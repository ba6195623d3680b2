"""From an empty store: useful at once, a model grown while readings come, in its place without a gap, and kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeder import Feeder, wait_committed
from server_fixtures import one_broker
from worker_process import Worker, read_all, run, write_plan

from models.datasets import Recording
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(600),
    pytest.mark.slow,  # a model is trained and examined, twice with what is ended half-way
]

PLAN = """
[topics]
scores = "plant.scores.v1"
[models]
store = "versions"
[detectors.pumps]
kind = "innovations"
begins_as = "novelty"
period_s = 1
assets = ["pump-*"]
signals = ["flow", "heat", "pressure"]
artifact = "store:"
false_alarms_per_day = 24
on_delay_s = 2
off_delay_s = 10
"""
PUMP = "pump-1"
#: Rows of the pump's life, a second each.
YOUNG_FAULT, GROWN_FAULT, LAST_FAULT = slice(600, 640), slice(2300, 2340), slice(2600, 2640)
FED, MEANWHILE, GROWN, ROWS = 2000, 2200, 2400, 2700
#: More than the first part holds, less than the second.
GROWS_AFTER_S = 1500
#: Rows before the first score.
WARM_UP = 49


# two minutes: what a broker does for it (orders read, versions exchanged) test_learning and the faults try on each
@one_broker
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the growing process in /proc")
def test_a_stream_without_history_is_watched_at_once_and_grows_a_model(
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    path = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path)
    plan, pump = load_plan(path), make_recording(PUMP, rows=ROWS, seed=2)
    for fault in (YOUNG_FAULT, GROWN_FAULT, LAST_FAULT):
        pump.values[fault, 1] += 12.0
    store = plan.open_store()
    worker = start_worker(path, HEADRACE_WORKER_GROW_AFTER_S=str(GROWS_AFTER_S))

    def play(rows: slice) -> None:
        feeder = Feeder(kafka, topics.readings, [part(pump, rows)]).start()
        feeder.finish()
        wait_committed(kafka, feeder, topics.readings, worker)

    # useful while young
    play(slice(0, 1000))
    found = {onset(alert) for alert in alerts(worker, path) if alert["kind"] == "novelty"}
    assert found & set(range(YOUNG_FAULT.start, YOUNG_FAULT.stop))
    assert store.now("pumps").serving == ""

    # a worker that is killed while it grows leaves no process behind
    play(slice(1000, FED))
    worker.wait(lambda: worker.metric("headrace_growing", detector="pumps") == 1, 90, "growing")
    assert worker.process is not None
    (child,) = growing(worker.process.pid)
    worker.kill()
    worker.start_again().wait(lambda: not is_there(child), 30, "rid of the process")

    # the next attempt is brought to its end, and the grown model takes over while readings come
    def promoted() -> bool:
        return worker.metric("headrace_grown_models_total", detector="pumps", outcome="promoted") == 1

    worker.wait(promoted, 300, "through with growing")
    feeder = Feeder(kafka, topics.readings, [part(pump, slice(FED, MEANWHILE))], rate=20).start()
    feeder.finish()
    wait_committed(kafka, feeder, topics.readings, worker)
    version = store.now("pumps").serving
    worker.wait(
        lambda: worker.metric("headrace_model_info", detector="pumps", kind="innovations", version=version) == 1,
        60, "serving the grown version",
    )  # fmt: skip
    exam = json.loads(run(worker, "models", "show", "pumps", "--plan", str(path), "--json"))["origin"]["exam"]
    assert exam["passed"]
    assert exam["grown"]["version"] == version
    assert exam["grown"]["made_found"] >= exam["young"]["made_found"]
    assert exam["left_out"] >= YOUNG_FAULT.stop - YOUNG_FAULT.start

    # it finds a fault, also after a restart
    play(slice(MEANWHILE, GROWN))
    assert worker.stop() == 0
    worker.start_again()
    play(slice(GROWN, ROWS))
    told = [alert for alert in alerts(worker, path) if alert["model_version"] == version]
    for fault in (GROWN_FAULT, LAST_FAULT):
        assert {onset(alert) for alert in told} & set(range(fault.start, fault.stop)), fault
    assert {alert["kind"] for alert in told} == {"innovations"}
    assert worker.metric("headrace_model_info", detector="pumps", kind="innovations", version=version) == 1
    assert worker.stop() == 0

    # every reading was judged, by one of the two
    rows = [json.loads(record.value) for record in read_all(kafka, plan.topics.scores)]
    judged = {row["ts"]: row["model_version"] for row in rows}  # after the kill some came again, the same
    assert len(judged) == ROWS - WARM_UP
    versions = [judged[at] for at in sorted(judged)]
    assert set(versions) == {exam["young"]["version"], version}
    assert versions == sorted(versions, key=lambda held: held == version)


def part(held: Recording, rows: slice) -> Recording:
    return Recording(held.asset, held.at_ms[rows], held.signals, held.values[rows], None)


def alerts(worker: Worker, path: Path) -> list[dict[str, Any]]:
    lines = run(worker, "alerts", "--plan", str(path), "--until-end", "--json").splitlines()
    return [alert for alert in map(json.loads, lines) if alert["state"] == "open"]


def onset(alert: dict[str, Any]) -> int:
    """The row at which an alert began."""
    at = np.datetime64(alert["onset"].removesuffix("Z"), "ms").astype(np.int64)
    return int(at - 1_764_000_000_000) // 1000


def growing(parent: int) -> list[int]:
    """Processes that a worker grows a model in."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == parent and b"grow" in command.split(b"\0"):
            found.append(int(status.parent.name))
    return found


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
