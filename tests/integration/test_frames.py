"""Frames over real sockets: a plant that batches is watched as one that does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer
from server_fixtures import one_broker
from worker_process import Worker, backtest_scores, live_scores, read_all, run, write_plan

from models.datasets import Recording
from stream.decode import Decoder
from stream.plan import InputSettings, Plan, TopicSettings
from stream.settings import KafkaSettings
from stream.sources.frame import encode_frame
from stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

Scored = dict[tuple[str, str, str], tuple[float, bool]]


def published(worker: Worker, plan: Path) -> list[dict[str, Any]]:
    """The alerts on the plan's topic, in an order of their own."""
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda alert: (alert["id"], alert["sequence"]))


@one_broker  # it is about how records are read
def test_replayed_as_frames_gives_the_same_scores_and_alerts(
    plan: Plan,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_csv(make_recording("pump-1", rows=430, seed=1, fault=(200, 240)), data)
    for number in range(2, 6):
        write_csv(make_recording(f"pump-{number}", rows=400, seed=number), data)
    rows = 430 + 4 * 400

    def watched(frames: int | None) -> tuple[Scored, list[dict[str, Any]]]:
        """Scores and alerts of a worker with topics and a group of its own."""
        mine = f"{topics.readings}.{frames or 0}"
        names = TopicSettings(
            readings=mine, alerts=f"{mine}.alerts", dead_letters=f"{mine}.dlq", late=f"{mine}.late"
        )  # the broker may not make them by itself
        ensure_topics(kafka, names)
        folder = tmp_path / f"frames-{frames or 0}"
        folder.mkdir()
        file = write_plan(plan.folder / "headrace.toml", names, folder, artifacts=plan.folder / "artifacts")
        worker = start_worker(file, HEADRACE_KAFKA_GROUP=f"{kafka.group}-{frames or 0}")
        option = ["--frames", str(frames)] if frames else []
        sent = run(worker, "replay", str(data), "--plan", str(file), *option)
        assert f"{rows} readings of 5 assets" in sent
        worker.has_read(9 + 4 * 8 if frames else rows)
        assert worker.metric("headrace_readings_total") == rows
        assert worker.metric("headrace_late_total") == worker.metric("headrace_dead_letters_total") == 0
        alerts = published(worker, file)
        assert worker.stop() == 0
        if frames:
            records = read_all(kafka, mine)
            assert {json.loads(record.value)["asset"].encode() == record.key for record in records} == {True}
            assert max(len(json.loads(record.value)["ts"]) for record in records) == frames
        return live_scores(kafka, f"{mine}.scores"), alerts

    scores, alerts = watched(50)
    assert {alert["state"] for alert in alerts if alert["asset"] == "pump-1"} >= {"open", "resolved"}
    assert (scores, alerts) == watched(None)
    out = tmp_path / "scores.csv"
    worker = Worker(tmp_path / "frames-50" / "headrace.toml", kafka, tmp_path / "none.log")
    run(worker, "backtest", str(data), "--plan", str(tmp_path / "frames-50" / "headrace.toml"), "--scores", str(out))
    assert scores == backtest_scores(out)


@one_broker  # likewise
def test_a_refused_frame_is_one_dead_letter_and_costs_its_neighbours_nothing(
    own_plan: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
) -> None:
    recording = make_recording("pump-1", rows=200, seed=1)
    good = [
        encode_frame("pump-1", recording.at_ms[at : at + 40], recording.signals, recording.values[at : at + 40])
        for at in range(0, 200, 40)
    ]
    ragged = json.loads(good[2])
    ragged["values"]["flow"].pop()
    absurd = json.loads(good[3])
    absurd["ts"][17] = 7
    bad = [json.dumps(held).encode() for held in (ragged, absurd)]
    worker = start_worker(own_plan)
    producer = KafkaProducer(bootstrap_servers=kafka.servers, acks="all")
    for value in [*good[:2], bad[0], bad[1], *good[2:]]:
        producer.send(topics.readings, key=b"pump-1", value=value)
    producer.close()
    worker.has_read(7)
    assert worker.metric("headrace_readings_total") == 200
    assert worker.metric("headrace_dead_letters_total") == 2
    letters = read_all(kafka, topics.dead_letters)
    assert [letter.value for letter in letters] == bad
    assert [dict(letter.headers)["headrace.reason"] for letter in letters] == [b"ragged_frame", b"absurd_time"]
    scored = live_scores(kafka, f"{topics.readings}.scores")
    assert len([key for key in scored if key[1] == "quick"]) == 200 - 31
    assert worker.stop() == 0


def test_the_documented_producer_is_understood_and_keeps_to_the_partitions_of_ours(
    kafka: KafkaSettings, topics: TopicSettings
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "payloads.md").read_text(encoding="utf-8")
    plain, with_headrace = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    for example in (plain, with_headrace):
        code = example.replace("127.0.0.1:9092", kafka.bootstrap).replace("plant.readings.v1", topics.readings)
        exec(compile(code, "docs/payloads.md", "exec"), {})
    with closing(KafkaProducer(bootstrap_servers=kafka.servers)) as ours:
        ours.send(topics.readings, key=b"pump-17", value=b"").get(timeout=30)
    *records, last = read_all(kafka, topics.readings)
    assert {record.partition for record in records} == {last.partition} == {murmur2_partition(b"pump-17", 4)}
    readings, dead, unknown = Decoder(InputSettings(), ("flow", "heat", "pressure")).decode(records)
    assert dead == []
    assert unknown == 0
    assert readings.names == ("pump-17",)
    assert np.diff(readings.at_ms).tolist() == [1000, 1000, 1000, 1000]
    assert np.isnan(readings.values).tolist() == [
        [False, False, True], [False, False, False], [False, True, False], [False, False, True],
        [False, False, True],
    ]  # fmt: skip


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Where the Java client puts a key: murmur2 (Austin Appleby) with Kafka's seed, without its sign."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return ((h ^ (h >> 15)) & 0x7FFFFFFF) % partitions
