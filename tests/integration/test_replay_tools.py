"""Dead letters are read back and sent again; a stretch of the topic scored once more gives the same results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer
from worker_process import Worker, live_scores, read_all, run

from models.datasets import Recording
from stream.plan import TopicSettings
from stream.settings import KafkaSettings
from stream.sources.json import encode
from stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def test_dead_letters_are_listed_and_sent_again_byte_for_byte(
    own_plan: Path, kafka: KafkaSettings, topics: TopicSettings, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(own_plan)
    late_clock = encode("pump-1", 4_200_000_000_000, {"flow": 40.0})  # the year 2103
    producer = KafkaProducer(bootstrap_servers=kafka.servers, acks="all")
    headers = [("source", b"gateway-7"), ("empty", b"")]
    for value in (late_clock, b"{", late_clock):
        producer.send(topics.readings, key=b"pump-1", value=value, headers=headers).get(timeout=30)
    producer.close()
    worker.has_read(3)

    shown = run(worker, "dlq", "list", "--plan", str(own_plan))
    assert "3 letters: 2 absurd_time, 1 not_json" in shown
    (letter,) = map(
        json.loads, run(worker, "dlq", "list", "--plan", str(own_plan), "--reason", "not_json", "--json").splitlines()
    )
    assert (letter["value"], letter["key"], letter["topic"]) == ("{", "pump-1", topics.readings)
    assert "would send 2 letters" in run(
        worker, "dlq", "replay", "--plan", str(own_plan), "--reason", "absurd_time", "--dry-run"
    )
    worker.stop()

    # the bound was too narrow: with a plan that allows it, the letters are readings
    own_plan.write_text(own_plan.read_text() + '\n[input]\nlatest = "2110-01-01T00:00:00Z"\n')
    mended = start_worker(own_plan)
    assert "2 letters sent" in run(mended, "dlq", "replay", "--plan", str(own_plan), "--reason", "absurd_time")
    mended.has_read(2)
    assert mended.metric("headrace_readings_total") == 2
    assert mended.metric("headrace_duplicates_total") == 1
    assert mended.metric("headrace_dead_letters_total") == 0
    again = read_all(kafka, topics.readings)[-2:]
    assert [(record.key, record.value, list(record.headers)) for record in again] == [
        (b"pump-1", late_clock, headers)
    ] * 2
    assert mended.stop() == 0


def test_a_stretch_scored_again_by_another_group_gives_the_same_scores_and_ids(
    own_plan: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(1, 4):
        write_csv(make_recording(f"pump-{number}", rows=300, seed=number, fault=(150, 190)), data)
    worker = start_worker(own_plan)
    run(worker, "replay", str(data), "--plan", str(own_plan))
    worker.has_read(900)
    assert worker.stop() == 0

    names = TopicSettings(
        **{field: f"{getattr(topics, field)}.again" for field in ("readings", "alerts", "dead_letters", "late")}
    )
    ensure_topics(kafka, names)
    told = run(worker, "replay", "--from-offset", "0:0,1:0,2:0,3:0", "--topic", names.readings, "--plan", str(own_plan))
    assert f"900 records of {topics.readings} copied to {names.readings}" in told

    folder = tmp_path / "again"
    folder.mkdir()
    plan = folder / "headrace.toml"
    text = own_plan.read_text()
    for field in ("readings", "alerts", "dead_letters", "late"):
        text = text.replace(f'"{getattr(topics, field)}"', f'"{getattr(names, field)}"')
    plan.write_text(text.replace(f"{topics.readings}.scores", f"{names.readings}.scores"))
    second = start_worker(plan, HEADRACE_KAFKA_GROUP=f"{kafka.group}-again")
    second.has_read(900)
    assert second.stop() == 0
    assert live_scores(kafka, f"{names.readings}.scores") == live_scores(kafka, f"{topics.readings}.scores")
    first, repeated = (
        sorted((record.key, record.value) for record in read_all(kafka, topic))
        for topic in (topics.alerts, names.alerts)
    )
    assert first
    assert repeated == first
