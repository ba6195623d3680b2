"""Records that nobody can use, among good ones: each ends as a dead letter, none stops or disturbs the worker."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_record import Fault
from feeder import Feeder
from kafka import KafkaProducer
from oracle import judge
from worker_process import Worker, read_all, run

from models.datasets import Recording
from stream.plan import load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

GOOD = {"asset": "pump-1", "ts": 1764000000000, "values": {"flow": 40.0, "heat": 70.0, "pressure": 3.0}}


def garbage(count: int, seed: int) -> list[tuple[bytes | None, bytes | None]]:
    """(key, value) of records of every sort that is wrong, and of good ones with a bit turned."""
    chosen = random.Random(seed)
    good = json.dumps(GOOD).encode()
    frame = json.dumps({**GOOD, "ts": [1764000000000] * 3, "values": {"flow": [1.0, None, 2.0]}}).encode()
    packed = b"\x84\xa5asset\xa1p\xa2ts\xc4\x08" + bytes(8) + b"\xa7signals\x91\xa4flow\xa6values\xc4\x08" + bytes(8)
    fixed: list[bytes | None] = [
        None, b"", b"null", b"[]", b"{}", b"[" * 50_000, b"{" * 50_000, b'{"a":' * 20_000, b"\xff\xfe", b"\x00" * 1000,
        json.dumps({**GOOD, "asset": "../../etc/passwd\n"}).encode(), json.dumps({**GOOD, "asset": "x" * 300}).encode(),
        json.dumps({**GOOD, "ts": 10**30}).encode(), json.dumps({**GOOD, "ts": "yesterday"}).encode(),
        json.dumps({**GOOD, "ts": -1}).encode(), json.dumps({**GOOD, "values": {"flow": "NaN"}}).encode(),
        json.dumps({**GOOD, "values": {"flow": 10**400}}).encode(), b'{"asset":"p","ts":1,"values":{"flow":1e999}}',
        json.dumps({**GOOD, "values": {}}).encode(), json.dumps({**GOOD, "values": {"'; DROP TABLE--": 1}}).encode(),
        json.dumps({**GOOD, "ts": [], "values": {"flow": []}}).encode(),
        json.dumps({**GOOD, "ts": [1764000000000], "values": {"flow": [1, 2]}}).encode(),
        json.dumps({**GOOD, "ts": [1764000000000] * 20_000, "values": {"flow": [1] * 20_000}}).encode(),
        packed[:-3], packed.replace(b"\xc4\x08", b"\xc6\xff\xff\xff\xff"), b"\xdf\xff\xff\xff\xff", b"\xc1" * 100,
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    ]  # fmt: skip
    values = list(fixed)
    while len(values) < count:
        source = bytearray(chosen.choice((good, frame, packed)))
        for _ in range(chosen.randint(1, 4)):
            source[chosen.randrange(len(source))] ^= 1 << chosen.randrange(8)
        values.append(bytes(source[: chosen.randint(1, len(source))]) if chosen.random() < 0.3 else bytes(source))
    keys = (b"pump-1", b"pump-3", None, b"\xff\x00")
    # a record that is neither key nor value is none for the client
    return [(chosen.choice(keys[:2] if value is None else keys), value) for value in values]


def send(kafka: KafkaSettings, topic: str, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.servers, acks="all", max_request_size=32 << 20)
    for future in [producer.send(topic, key=key, value=value) for key, value in records]:
        future.get(timeout=60)
    producer.close()


@pytest.mark.fault(12, "garbage of every sort among good readings")
def test_garbage_becomes_dead_letters_and_disturbs_nothing(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    worker = start_worker(own_plan)
    feeder = Feeder(kafka, plan.topics.readings, plant(assets=4, rows=300), rate=600).start()
    bad = garbage(600, seed=12)
    send(kafka, plan.topics.readings, bad)
    feeder.finish()
    worker.has_read(1200 + len(bad))
    assert worker.stop() == 0
    letters = read_all(kafka, plan.topics.dead_letters)
    assert len(letters) >= 200
    assert b"decoder_failed" not in {dict(letter.headers)["headrace.reason"] for letter in letters}
    fault.tried(judge(kafka, plan).must_hold(), tries=len(bad))
    send(kafka, plan.topics.alerts, [(b"no alert", b"{"), (b"no alert", b"[" * 50_000), (b"no alert", b'{"id": 7}')])
    assert "pump-0" in run(worker, "alerts", "--until-end", "--plan", str(own_plan))


@pytest.mark.fault(13, "oversized records: beyond the plan's limit, and beyond what a topic takes")
def test_an_oversized_record_is_a_dead_letter_whole_or_cut(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
) -> None:
    plan = load_plan(own_plan)
    # what it writes is limited to 4 MiB: the larger of the two cannot be passed on as it is
    worker = start_worker(own_plan, HEADRACE_KAFKA_MAX_RECORD_BYTES=str(4 << 20))
    noise = [os.urandom(size) for size in (2 << 20, 6 << 20)]
    feeder = Feeder(kafka, plan.topics.readings, plant(assets=2, rows=200), rate=400).start()
    send(kafka, plan.topics.readings, [(b"pump-0", value) for value in noise])
    feeder.finish()
    worker.has_read(402)
    assert worker.stop() == 0
    letters = sorted(
        read_all(kafka, plan.topics.dead_letters), key=lambda record: int(dict(record.headers)["headrace.offset"])
    )
    assert [dict(letter.headers)["headrace.reason"] for letter in letters] == [b"too_large"] * 2
    assert letters[0].value == noise[0]
    assert noise[1].startswith(letters[1].value)
    assert dict(letters[1].headers)["headrace.truncated"] == str(6 << 20).encode()
    fault.tried(judge(kafka, plan).must_hold(), tries=2)
