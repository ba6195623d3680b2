"""InfluxDB down, failing, slow, refusing: alerts flow, history waits on disk, over a kill too, and is written after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from influx_stub import InfluxStub
from oracle import judge
from worker_process import Worker, live_scores, run

from models.datasets import Recording
from stream.plan import load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture
def stub() -> Iterator[InfluxStub]:
    held = InfluxStub().start()
    yield held
    held.stop()


def points(lines: list[str]) -> set[tuple[str, str, int]]:
    """(asset, detector, milliseconds) of the lines of scores."""
    found = set()
    for line in lines:
        if line.startswith("headrace_score,"):
            tags, _, at_ns = line.split(" ")
            named = dict(pair.split("=") for pair in tags.split(",")[1:])
            found.add((named["asset"], named["detector"], int(at_ns) // 1_000_000))
    return found


def expected(kafka: KafkaSettings, topic: str) -> set[tuple[str, str, int]]:
    """The same of the scores topic."""
    return {
        (asset, detector, round(time_of(ts) * 1000)) for asset, detector, ts in live_scores(kafka, f"{topic}.scores")
    }


def time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.fault(6, "InfluxDB down, 503, 429, slow, and the worker killed meanwhile")
def test_history_waits_on_disk_and_alerts_do_not_wait(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    stub: InfluxStub,
    tmp_path: Path,
) -> None:
    plan = load_plan(own_plan)
    spool = tmp_path / "spool"
    environment = {
        "HEADRACE_INFLUX_URL": stub.url,
        "HEADRACE_INFLUX_TIMEOUT_S": "2",
        "HEADRACE_INFLUX_LINGER_S": "0.1",
        "HEADRACE_INFLUX_BATCH_LINES": "200",
        "HEADRACE_INFLUX_SPOOL_DIR": str(spool),
    }
    worker = start_worker(own_plan, **environment)
    recordings = plant(assets=4, rows=1000)
    done = 0

    def feed(rows: int) -> None:
        """So many readings of each asset, scored, published and committed while InfluxDB is as it is."""
        nonlocal done
        parts = [cut(recording, done, done + rows) for recording in recordings]
        done += rows
        feeder = Feeder(kafka, plan.topics.readings, parts).start()
        feeder.finish()
        wait_committed(kafka, feeder, plan.topics.readings, worker)

    feed(100)
    worker.wait(lambda: worker.metric("headrace_sink_held_lines") == 0, 20, "all written")
    stub.stop()
    feed(200)
    stub.start()
    for status, headers in ((503, {}), (429, {"Retry-After": "1"})):
        stub.status, stub.headers = status, headers
        asked = len(stub.asked)
        feed(100)
        worker.wait(lambda asked=asked: len(stub.asked) > asked + 1, 60, "asking")  # type: ignore[misc]
    since = [later - earlier for earlier, later in zip(stub.asked[asked + 1 :], stub.asked[asked + 2 :], strict=False)]
    assert all(gap > 0.9 for gap in since), since
    worker.wait(lambda: on_disk(spool) > 0 and settled(spool), 20, "spooled")
    fault.tried(judge(kafka, plan).must_hold(), tries=4)
    worker.kill()
    assert on_disk(spool) > 0

    worker = start_worker(own_plan, **environment)
    feed(100)
    stub.status, stub.headers, stub.delay_s = 204, {}, 0.2
    feed(200)
    stub.delay_s = 0.0
    began = time.monotonic()
    worker.wait(lambda: worker.metric("headrace_sink_held_lines") == 0, 60, "all written")
    recovery_s = time.monotonic() - began
    assert worker.metric("headrace_sink_lines_total") > 0
    assert worker.stop() == 0
    wanted = expected(kafka, plan.topics.readings)
    written = points(stub.lines)
    assert written == wanted, (len(written), len(wanted))
    assert on_disk(spool) == 0
    fault.repeated = 0  # of the whole run, which is judged again
    fault.tried(judge(kafka, plan).must_hold(), recovery_s=recovery_s)


@pytest.mark.fault(6, "InfluxDB refuses some lines with 400")
def test_refused_lines_become_dead_letters_and_the_others_are_written(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    stub: InfluxStub,
) -> None:
    plan = load_plan(own_plan)
    stub.bad = "asset=pump-1,"
    worker = start_worker(own_plan, HEADRACE_INFLUX_URL=stub.url, HEADRACE_INFLUX_BATCH_LINES="50")
    feeder = Feeder(kafka, plan.topics.readings, plant(assets=4, rows=100)).start()
    feeder.finish()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    worker.wait(lambda: worker.metric("headrace_sink_held_lines") == 0, 60, "all judged")
    listed = run(
        worker, "dlq", "list", "--plan", str(own_plan), "--reason", "influxdb_refused", "--limit", "0", "--json"
    )
    letters = [json.loads(line) for line in listed.splitlines()]
    left = "would send 0 letters"
    assert left in run(worker, "dlq", "replay", "--plan", str(own_plan), "--reason", "influxdb_refused", "--dry-run")
    assert worker.stop() == 0
    refused = [line for letter in letters for line in letter["value"].splitlines()]
    assert {letter["error"].split(":")[0] for letter in letters} == {"influxdb_refused"}
    wanted = expected(kafka, plan.topics.readings)
    assert points(refused) >= {point for point in wanted if point[0] == "pump-1"}
    assert points(stub.lines) | points(refused) == wanted
    assert not points(stub.lines) & points(refused)
    fault.tried(lost=len(wanted) - len(points(stub.lines) | points(refused)))


def cut(recording: Recording, first: int, last: int) -> Recording:
    return Recording(
        recording.asset, recording.at_ms[first:last], recording.signals, recording.values[first:last], None
    )


def on_disk(spool: Path) -> int:
    return sum(path.stat().st_size for path in spool.glob("*/*.lines"))


def settled(spool: Path) -> bool:
    """Whether nothing was added in a second."""
    before = on_disk(spool)
    time.sleep(1.0)
    return on_disk(spool) == before
