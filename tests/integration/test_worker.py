"""The main job over real sockets: train, worker, replay; alerts, scores and dead letters on their topics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from worker_process import Worker, backtest_scores, live_scores, read_all, run, write_plan

from models.datasets import Recording
from stream.plan import TopicSettings
from stream.settings import KafkaSettings
from stream.sources.json import encode, timestamp

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.mark.parametrize("events", ["batches", "messages"])
def test_live_equals_backtest_and_a_restart_goes_on_where_it_stopped(
    events: str,
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
    recordings = [
        make_recording("pump-1", rows=400, seed=1, fault=(200, 240)),
        *[make_recording(f"pump-{number}", rows=400, seed=number) for number in range(2, 8)],
    ]
    for recording in recordings:
        write_csv(recording, data)
    worker = start_worker(own_plan, HEADRACE_WORKER_EVENTS=events)
    sent = run(worker, "replay", str(data), "--plan", str(own_plan))
    assert f"{7 * 400} readings of 7 assets" in sent
    worker.has_read(7 * 400)
    alerts = [
        json.loads(line)
        for line in run(worker, "alerts", "--plan", str(own_plan), "--until-end", "--json").splitlines()
    ]
    assert {alert["state"] for alert in alerts if alert["asset"] == "pump-1"} >= {"open", "resolved"}
    assert worker.stop() == 0

    out = tmp_path / "scores.csv"
    run(worker, "backtest", str(data), "--plan", str(own_plan), "--scores", str(out), "--alerts", f"{tmp_path}/a.jsonl")
    assert live_scores(kafka, f"{topics.readings}.scores") == backtest_scores(out)
    expected = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    by_id: Callable[[dict[str, Any]], tuple[str, int]] = lambda alert: (alert["id"], alert["sequence"])  # noqa: E731
    assert sorted(alerts, key=by_id) == sorted(expected, key=by_id)

    again = start_worker(own_plan, HEADRACE_WORKER_EVENTS=events)
    time.sleep(1)
    assert again.metric("headrace_records_total") == 0
    assert again.stop() == 0


def garbage(number: int) -> bytes | None:
    """Ten sorts of records that no plant should send."""
    good = {"asset": "pump-1", "ts": "2026-11-23T08:00:00Z", "values": {"flow": 40.0, "heat": 70.0}}
    sorts: list[bytes | None] = [
        b"flow=40.0;heat=70.1",
        json.dumps({**good, "values": {"flow": "forty"}}).encode(),
        json.dumps({key: good[key] for key in ("ts", "values")}).encode(),
        json.dumps({**good, "values": {"flow": float("nan")}}).encode(),
        json.dumps({**good, "ts": 10**17}).encode(),
        json.dumps({**good, "values": {"humidity": 3.0}}).encode(),
        b"",
        json.dumps({**good, "padding": "x" * 2_000_000}).encode(),
        json.dumps({**good, "asset": "pümp"}, ensure_ascii=False).encode("latin-1"),
        None,
    ]
    return sorts[number % len(sorts)]


@pytest.mark.parametrize("events", ["batches", "messages"])
def test_ten_thousand_readings_with_one_in_a_hundred_garbage(
    events: str,
    own_plan: Path,
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
) -> None:
    worker = start_worker(own_plan, HEADRACE_WORKER_EVENTS=events)
    recordings = [make_recording(f"pump-{number}", rows=990, seed=number) for number in range(10)]
    producer = KafkaProducer(bootstrap_servers=kafka.servers, acks="all", linger_ms=5, max_request_size=4 << 20)
    sent: list[tuple[bytes, bytes | None]] = []
    futures = []
    for row in range(990):
        for number, recording in enumerate(recordings):
            values = dict(zip(recording.signals, recording.values[row].tolist(), strict=True))
            value = encode(recording.asset, int(recording.at_ms[row]), values)
            futures.append(producer.send(topics.readings, key=recording.asset.encode(), value=value))
            if (row * 10 + number) % 99 == 0:
                sent.append((recording.asset.encode(), garbage(len(sent))))
                headers = [("source", b"gateway-7")]
                futures.append(producer.send(topics.readings, key=sent[-1][0], value=sent[-1][1], headers=headers))
    for future in futures:
        future.get(timeout=60)
    producer.close()
    assert len(sent) == 100
    worker.has_read(10_000)
    assert worker.metric("headrace_readings_total") == 9_900
    assert worker.metric("headrace_late_total") == worker.metric("headrace_duplicates_total") == 0
    assert worker.metric("headrace_dead_letters_total") == 100

    letters = read_all(kafka, topics.dead_letters)
    assert Counter((letter.key, letter.value) for letter in letters) == Counter(sent)
    reasons: Counter[str] = Counter()
    for letter in letters:
        about = dict(letter.headers)
        reasons[about["headrace.reason"].decode()] += 1
        assert about["source"] == b"gateway-7"
        assert about["headrace.error"]
        assert about["headrace.topic"].decode() == topics.readings
        assert about["headrace.stage"] == b"decode"
        assert int(about["headrace.offset"]) >= 0
    assert sum(reasons.values()) == 100
    assert set(reasons) == {"not_json", "wrong_type", "absurd_time", "unknown_signals", "empty", "too_large"}
    scored = live_scores(kafka, f"{topics.readings}.scores")
    quick = [key for key in scored if key[1] == "quick"]
    assert len(quick) == 10 * (990 - 31), "all but the 31 that fill each asset's first window are scored"
    assert worker.stop() == 0


def published(worker: Worker, plan: Path) -> list[dict[str, Any]]:
    """The alerts on the topic, as ``headrace alerts`` gives them."""
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.tensorflow
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # it is about detectors; offsets are other tests'
def test_deep_detectors_from_training_to_alerts(
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    history, live = tmp_path / "history", tmp_path / "live"
    history.mkdir()
    live.mkdir()
    write_csv(make_recording("pump-1", rows=2500, seed=1), history)
    later = make_recording("pump-1", rows=500, seed=2, fault=(300, 340))
    write_csv(replace(later, at_ms=later.at_ms + 10_000_000), live)
    (tmp_path / "source.toml").write_text(
        """
[topics]
scores = "plant.scores.v1"
[detectors.forecast]
kind = "gru_forecaster"
artifact = "artifacts/{asset}/forecast"
[detectors.rebuild]
kind = "conv_autoencoder"
artifact = "artifacts/rebuild"
"""
    )
    plan = write_plan(tmp_path / "source.toml", topics, tmp_path, artifacts=tmp_path / "artifacts")
    command = [sys.executable, "-m", "stream.cli", "train", str(history), "--plan", str(plan)]
    trained = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    worker = start_worker(plan)
    run(worker, "replay", str(live), "--plan", str(plan), "--speed", "400")
    worker.has_read(500)
    lines = run(worker, "alerts", "--plan", str(plan), "--until-end", "--json").splitlines()
    opened = [json.loads(line) for line in lines if '"state":"open"' in line]
    during = [
        alert
        for alert in opened
        if timestamp(int(later.at_ms[300]) + 10_000_000)
        <= alert["opened"]
        <= timestamp(int(later.at_ms[340]) + 10_000_000)
    ]
    assert {alert["detector"] for alert in during} == {"forecast", "rebuild"}
    assert all(alert["causes"][0]["signal"] == "heat" for alert in during)
    out = tmp_path / "scores.csv"
    run(worker, "backtest", str(live), "--plan", str(plan), "--scores", str(out))
    assert live_scores(kafka, f"{topics.readings}.scores") == backtest_scores(out)
    assert worker.stop() == 0


def test_training_on_a_stretch_of_the_topic_gives_the_artifact_of_the_files(
    own_plan: Path,
    kafka: KafkaSettings,
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    recording = make_recording("pump-1", rows=1500, seed=1)
    file = write_csv(replace(recording, at_ms=recording.at_ms[200:1200], values=recording.values[200:1200]), tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    write_csv(recording, whole)
    plan = tmp_path / "train.toml"
    plan.write_text(
        own_plan.read_text().split("[detectors")[0]
        + '[detectors.quick]\nkind = "ewma"\nsignals = ["flow", "heat"]\nartifact = "trained"\n'
    )
    worker = Worker(plan, kafka, tmp_path / "none.log")
    run(worker, "train", str(file), "--plan", str(plan))
    from_file = json.loads((tmp_path / "trained" / "manifest.json").read_text())
    run(worker, "replay", str(whole), "--plan", str(plan))
    bounds = ["--since", timestamp(int(recording.at_ms[200])), "--until", timestamp(int(recording.at_ms[1200]))]
    run(worker, "train", "--from-topic", *bounds, "--plan", str(plan))
    from_topic = json.loads((tmp_path / "trained" / "manifest.json").read_text())
    assert from_topic["weights"] == from_file["weights"]
    assert from_topic["calibration"] == from_file["calibration"]
    assert from_topic["version"] == from_file["version"]

    wrong = ["--since", timestamp(int(recording.at_ms[700])), "--until", timestamp(int(recording.at_ms[799]))]
    run(worker, "alerts", "label", "pump-1", "true", *wrong, "--plan", str(plan))
    run(worker, "train", "--from-topic", *bounds, "--plan", str(plan))
    without = json.loads((tmp_path / "trained" / "manifest.json").read_text())
    rows = [sum(manifest["rows"].values()) for manifest in (from_topic, without)]
    assert rows[0] - rows[1] >= 100  # nothing that people called wrong is learnt


def test_a_broken_start_is_told_in_one_line(own_plan: Path, kafka: KafkaSettings, tmp_path: Path) -> None:
    def start(plan: Path, bootstrap: str) -> str:
        environment = {**os.environ, "HEADRACE_KAFKA_BOOTSTRAP": bootstrap}
        command = [sys.executable, "-m", "stream.cli", "worker", "--plan", str(plan), "--web-port", "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "127.0.0.1:9" in start(own_plan, "127.0.0.1:9")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(own_plan.read_text().replace("hop = 3", "hopp = 3"))
    assert "detectors.slow.hopp: unknown key" in start(wrong, kafka.bootstrap)
    untrained = tmp_path / "untrained.toml"
    untrained.write_text(own_plan.read_text().replace("artifacts/slow", "artifacts/none"))
    assert "detectors.slow.artifact" in start(untrained, kafka.bootstrap)
