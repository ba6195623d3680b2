"""For long: nothing grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder, wait_committed
from growth import slope
from worker_process import Worker

from models.datasets import Recording
from stream.page.board import ALERTS_KEPT
from stream.plan import load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(5400)]

RATE, FASTER = 1000, 5000
#: At a thousand readings a second this is nine bytes a reading. A leak of an object a reading is two hundred and more.
MOST_MB_AN_HOUR = 30.0
SETTLES_S = 45


@pytest.mark.begin_first
@pytest.mark.slow  # a leak that is worth finding shows over minutes, not seconds
@pytest.mark.fault(20, "a soak")
def test_nothing_grows(
    fault: Fault,
    soak_minutes: float,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    end = time.monotonic() + 60 * soak_minutes
    # What may grow up to a bound is brought to it first: the page's rows (few here), and the alerts that it remembers.
    worker = start_worker(own_plan, HEADRACE_WORKER_SNAPSHOT_EVERY_S="1", HEADRACE_PAGE_MEMORY_MB="4")
    rows = (60 * soak_minutes * RATE + 500 * ALERTS_KEPT) / 8  # an alert comes of one to two hundred readings
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=int(rows)), rate=FASTER).start()
    worker.wait(
        lambda: worker.metric("headrace_alert_transitions_total", state="open") > 1.1 * ALERTS_KEPT,
        60 * 6,
        "through as many alerts as the page remembers",
    )
    feeder.rate = RATE
    worker.wait(lambda: worker.metric("headrace_consumer_lag_records") < 2 * FASTER, 100, "at pace with the plant")
    time.sleep(SETTLES_S)
    at_s: list[float] = []
    samples: list[tuple[float, int, int, float]] = []
    while time.monotonic() < end or len(samples) < 120:  # four minutes: see test_growth
        tasks = worker.metric("headrace_event_loop_tasks")
        at_s.append(time.monotonic())
        samples.append((worker.memory_mb(), worker.threads(), worker.files(), tasks))
        time.sleep(2)
    worker.must_live()
    assert feeder.busy, "the plant has nothing more to send: the end of the soak was none"
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    memory_mb, *others = zip(*samples, strict=True)
    hours = [(now - at_s[0]) / 3600 for now in at_s]
    grown = slope(hours, memory_mb)
    half_minutes = [round(mb, 1) for mb in memory_mb[::15]]
    assert grown < MOST_MB_AN_HOUR, f"{grown:+.1f} MB an hour: {half_minutes}"
    for name, held in zip(("threads", "files", "tasks"), others, strict=True):
        more = slope(hours, held) * hours[-1]  # over all of it: tasks come and go by a handful at any moment
        assert more < 2, f"{more:.1f} more {name}: {held}"
    fault.tried()
    fault.note = f"{memory_mb[-1]:.0f} MB at the end, {grown:+.0f} MB an hour over {60 * hours[-1]:.0f} min"
