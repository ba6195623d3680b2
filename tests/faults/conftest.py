"""The faults: each test breaks something real, and ``fault`` keeps a record of what came of it.

    @pytest.mark.fault(1, "kill -9 in mid-batch")
    def test_...(fault: Fault, kafka: KafkaSettings, own_plan: Path, ...) -> None:
        ...
        fault.tried(judge(kafka, plan).must_hold(), recovery_s=2.3)

``make faults`` runs them all (``ARGS="--only 1"`` one of them) and prints the records as a table; a run of pytest that
finds ``HEADRACE_FAULTS_JSON`` in its environment adds a JSON line a test to that file. ``HEADRACE_FAULTS_LONG=1`` asks
for the long forms (the fixture ``long``), ``HEADRACE_FAULTS_SOAK_MINUTES`` for a soak of another length than seven
minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from fault_record import Fault
from server_fixtures import (  # noqa: F401  # asked for by name
    apache_broker,
    broker,
    embedded_broker,
    influxdb,
    kafka,
    killable_kafka,
    own_plan,
    start_worker,
    topics,
)

from models.datasets import Recording

_PASSED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the faults that ``HEADRACE_FAULTS_ONLY`` (numbers, with commas) does not name.

    Where Apache Kafka is at hand one broker is enough for most: the short forms run on the embedded one too only where
    a test is marked ``both_brokers``.
    """
    only = {int(number) for number in os.environ.get("HEADRACE_FAULTS_ONLY", "").split(",") if number}
    once = os.environ.get("KAFKA_JARS") and os.environ.get("HEADRACE_FAULTS_LONG", "") != "1"
    mine = [item for item in items if item.path.parent == Path(__file__).parent]
    left_out = [
        item
        for item in mine
        if (only and _number(item) not in only)
        or (once and _broker(item) == "embedded" and item.get_closest_marker("both_brokers") is None)
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _broker(item: pytest.Item) -> str:
    params = getattr(item, "callspec", None)
    return str(params.params.get("broker", "")) if params else ""


def _number(item: pytest.Item) -> int:
    mark = item.get_closest_marker("fault")
    return int(mark.args[0]) if mark else -1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep whether the test itself has passed, for its record."""
    report = yield
    if report.when == "call" and not report.skipped:
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """The record of this test's fault; written when the test is over, also if it failed."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "mark the test: @pytest.mark.fault(number, what)"
    number, what = mark.args
    record = Fault(number, what, _broker(request.node))
    yield record
    if _PASSED not in request.node.stash:
        return  # skipped
    record.passed = request.node.stash[_PASSED]
    assert not record.passed or record.tries, "the test has not said how often it tried: fault.tried(...)"
    if path := os.environ.get("HEADRACE_FAULTS_JSON"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(record)) + "\n")


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether the long forms are asked for."""
    return os.environ.get("HEADRACE_FAULTS_LONG", "") == "1"


@pytest.fixture(scope="session")
def soak_minutes(long: bool) -> float:
    """How long the soak is: seven minutes, an hour in its long form."""
    return float(os.environ.get("HEADRACE_FAULTS_SOAK_MINUTES") or (60 if long else 7))


@pytest.fixture(scope="session")
def plant(make_recording: Callable[..., Recording]) -> Callable[..., list[Recording]]:
    """``plant(assets=8, rows=600)``: pumps at a reading a second; every other one has a fault now and then."""

    def make(assets: int = 8, rows: int = 600) -> list[Recording]:
        made = []
        for number in range(assets):
            recording = make_recording(f"pump-{number}", rows=rows, seed=number)
            if number % 2 == 0:
                for begin in range(60 + 7 * number, rows - 60, 180):
                    recording.values[begin : begin + 25, 1] += 12.0
            made.append(recording)
        return made

    return make
