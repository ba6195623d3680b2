"""Clocks that are wrong, readings out of order and twice, dirty values, silent assets: through real workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fault_record import Fault
from feeder import Feeder, in_order, wait_committed
from oracle import judge
from worker_process import Worker, read_all

from models.datasets import Recording
from stream.plan import load_plan
from stream.records import Alert
from stream.settings import KafkaSettings
from stream.sources.json import timestamp

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

Pieces = list[tuple[bytes, bytes]]
_ALERTS = msgspec.json.Decoder(Alert)


class Line:
    """A worker on the test's own topics, and the plant before it."""

    def __init__(self, kafka: KafkaSettings, plan: Path, start_worker: Callable[..., Worker]) -> None:
        self.kafka, self.plan, self._start = kafka, plan, start_worker
        self.worker: Worker | None = None

    def ask(self, sections: str) -> None:
        """Add to the plan."""
        self.plan.write_text(f"{self.plan.read_text()}\n{sections}\n")

    def send(self, pieces: Pieces, *, killed: bool = False, rate: float | None = None) -> None:
        """Send, and wait until all is committed; ``killed``: end the worker with -9 in the midst of it."""
        self.worker = self.worker or self._start(self.plan, HEADRACE_WORKER_SNAPSHOT_EVERY_S="0.5")
        topic = load_plan(self.plan).topics.readings
        feeder = Feeder(self.kafka, topic, pieces=pieces, rate=rate).start()
        if killed:
            half = len(pieces) // 2
            self.worker.wait(lambda: self.metric("records") >= half, 90.0, f"through {half} records")
            self.worker.kill()
            self.worker.start_again()
        feeder.finish()
        wait_committed(self.kafka, feeder, topic, self.worker)

    def metric(self, name: str) -> float:
        assert self.worker is not None
        return self.worker.metric(f"headrace_{name}_total")

    def alerts(self, detector: str) -> list[Alert]:
        """What was published, without copies."""
        found = [_ALERTS.decode(record.value) for record in read_all(self.kafka, load_plan(self.plan).topics.alerts)]
        return sorted({alert for alert in found if alert.detector == detector}, key=lambda a: (a.id, a.sequence))


@pytest.fixture
def line(kafka: KafkaSettings, own_plan: Path, start_worker: Callable[..., Worker]) -> Line:
    return Line(kafka, own_plan, start_worker)


def clock_set(pieces: Pieces, asset: str, by_s: float, first: int) -> Pieces:
    """The asset's clock is wrong by so much from its reading number ``first`` on; they are sent when they were."""
    seen: Counter[bytes] = Counter()
    changed = []
    for key, value in pieces:
        seen[key] += 1
        if key == asset.encode() and seen[key] > first:
            said = msgspec.json.decode(value)
            at = np.datetime64(said["ts"].removesuffix("Z")).astype("datetime64[ms]").astype(np.int64)
            value = msgspec.json.encode({**said, "ts": timestamp(int(at) + round(by_s * 1000))})  # noqa: PLW2901
        changed.append((key, value))
    return changed


def delayed(recordings: Sequence[Recording], most_s: float) -> Pieces:
    """Each reading comes up to ``most_s`` late."""
    random = np.random.default_rng(4)
    sent = [
        replace(held, at_ms=held.at_ms + random.integers(0, int(most_s * 1000), len(held.at_ms))) for held in recordings
    ]
    due = np.concatenate([held.at_ms for held in sent])
    pieces = [piece for held in recordings for piece in in_order([held])]
    return [pieces[place] for place in np.argsort(due, kind="stable").tolist()]


@pytest.mark.fault(7, "one producer's clock an hour ahead, another's an hour behind")
def test_wrong_clocks_disturb_nobody_else(fault: Fault, line: Line, plant: Callable[..., list[Recording]]) -> None:
    line.ask("[input]\nahead_s = 60\n[quality]\nstale_after_periods = 30")
    recordings = plant(assets=24, rows=160)
    pieces = clock_set(in_order(recordings), "pump-3", 3600, first=60)
    line.send(clock_set(pieces, "pump-5", -3600, first=60))
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold())
    dead = read_all(line.kafka, load_plan(line.plan).topics.dead_letters)
    assert {record.key for record in dead} == {b"pump-3"}
    assert [dict(record.headers)["headrace.reason"] for record in dead] == [b"future"] * 100
    assert {record.key for record in read_all(line.kafka, load_plan(line.plan).topics.late)} == {b"pump-5"}
    assert line.metric("late") == 100
    assert {alert.asset for alert in line.alerts("stale")} == {"pump-3"}, "nothing of it can be used, and that is told"
    assert {alert.asset for alert in line.alerts("quick")} == {"pump-0", "pump-2", "pump-4"}


@pytest.mark.fault(8, "readings out of order, and a worker killed while it holds some back")
def test_a_shuffle_within_the_lateness_gives_what_order_gives(
    fault: Fault, line: Line, plant: Callable[..., list[Recording]]
) -> None:
    line.ask("[input]\nlateness_s = 10")
    recordings = plant(assets=8, rows=300)
    line.send(delayed(recordings, 10), killed=True, rate=600)
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold())
    assert line.metric("late") == 0
    beyond = in_order([replace(held, at_ms=held.at_ms[:50], values=held.values[:50]) for held in recordings[:2]])
    line.send(beyond)
    assert len(read_all(line.kafka, load_plan(line.plan).topics.late)) == line.metric("late") == len(beyond) == 100
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold())


@pytest.mark.fault(9, "every reading sent twice")
def test_what_comes_twice_counts_once(fault: Fault, line: Line, plant: Callable[..., list[Recording]]) -> None:
    once = in_order(plant(assets=8, rows=200))
    line.send([piece for piece in once for _ in range(2)])
    assert (line.metric("duplicates"), line.metric("late")) == (len(once), 0)
    line.send(once)
    assert line.metric("duplicates") + line.metric("late") == 2 * len(once)
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold(), tries=2)


@pytest.mark.fault(10, "NaN, infinity, bad quality, signals missing, all but one missing")
def test_dirty_values_silence_nobody(fault: Fault, line: Line, plant: Callable[..., list[Recording]]) -> None:
    line.ask("[quality]\nbad_values = true\n[signals.heat]\nlow = 0\nhigh = 200")
    recordings = plant(assets=8, rows=200)
    ways: list[Callable[[dict[str, object]], dict[str, object]]] = [
        lambda values: {"values": {**values, "flow": None}},
        lambda values: {"values": {name: value for name, value in values.items() if name != "flow"}},
        lambda values: {"values": {"heat": values["heat"]}},
        lambda values: {"values": values, "quality": {"flow": "bad"}},
        lambda values: {"values": {**values, "heat": 1e9}},
        lambda values: {"values": {**values, "flow": 1e308}},
    ]
    pieces: Pieces = []
    for nth, (key, value) in enumerate(in_order(recordings)):
        said = msgspec.json.decode(value)
        way = ways[int(key[-1:])] if int(key[-1:]) < len(ways) and nth > 400 else dict
        pieces.append((key, msgspec.json.encode({**said, **(way(said["values"]) if way is not dict else {})})))
    not_json = [
        (b"pump-6", b'{"asset":"pump-6","ts":1764000000000,"values":{"flow":%s}}' % text)
        for text in (b"NaN", b"Infinity")
    ]
    line.send([*pieces[:800], *not_json, *pieces[800:]])
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold(), tries=len(ways) + len(not_json))
    assert line.metric("dead_letters") == len(not_json)
    assert line.metric("scores") == len(recordings) * (200 - 31 + len(range(15, 200, 3))), "no asset is silenced"
    found = {(alert.asset, alert.verdict): alert.causes[0].signal for alert in line.alerts("signals")}
    assert found == {("pump-3", "bad_quality"): "flow", ("pump-4", "out_of_range"): "heat"}
    assert {alert.asset for alert in line.alerts("quick")} >= {"pump-0", "pump-2"}, "faults show beside a dead signal"


@pytest.mark.fault(11, "an asset that falls silent, and one that comes back after it was forgotten")
def test_a_silent_asset_is_told_of_and_can_come_back(
    fault: Fault, line: Line, plant: Callable[..., list[Recording]]
) -> None:
    line.ask("[quality]\nstale_after_periods = 20\n[state]\nevict_after_s = 120")
    recordings = plant(assets=24, rows=300)
    rows = np.r_[0:50, 270:300]
    quiet = [replace(held, at_ms=held.at_ms[rows], values=held.values[rows]) for held in recordings[1:3]]
    brief = np.r_[0:50, 100:300]
    paused = replace(recordings[3], at_ms=recordings[3].at_ms[brief], values=recordings[3].values[brief])
    line.send(in_order([recordings[0], *quiet, paused, *recordings[4:]]), killed=True, rate=1500)
    fault.tried(judge(line.kafka, load_plan(line.plan)).must_hold(), tries=3)
    story = [(alert.asset, alert.state, alert.onset, alert.resolved) for alert in line.alerts("stale")]
    start = int(recordings[0].at_ms[0])
    onset = timestamp(start + 69_000)
    forgotten, back = timestamp(start + 189_000), timestamp(start + 100_000)
    assert sorted(story) == [
        ("pump-1", "open", onset, None),
        ("pump-1", "resolved", onset, forgotten),
        ("pump-2", "open", onset, None),
        ("pump-2", "resolved", onset, forgotten),
        ("pump-3", "open", onset, None),
        ("pump-3", "resolved", onset, back),
    ]
