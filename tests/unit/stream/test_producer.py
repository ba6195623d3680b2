"""Readings become frames: full, waited for long enough, or with other signals; refusals are told."""

import time
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError

from stream.decode import Decoder
from stream.errors import BrokerError
from stream.plan import InputSettings
from stream.producer import ReadingProducer
from stream.records import Record
from stream.settings import KafkaSettings

AT_MS = 1795420800250


class Future:
    is_done = True

    def __init__(self, error: KafkaError | None) -> None:
        self.error = error

    def get(self, timeout: float) -> None:
        if self.error:
            raise self.error


class Client:
    """What was sent, decoded as the worker would."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.error: KafkaError | None = None
        self.closed = False

    def send(self, topic: str, key: bytes, value: bytes) -> Future:
        self.sent.append((topic, key, value))
        return Future(self.error)

    def flush(self) -> None:
        pass

    def close(self, timeout: float) -> None:
        self.closed = True

    def readings(self) -> Any:
        records = [Record(topic, 0, nth, value) for nth, (topic, _, value) in enumerate(self.sent)]
        readings, dead, _ = Decoder(InputSettings(), ("flow", "heat")).decode(records)
        assert not dead
        return readings


def made(**settings: Any) -> tuple[ReadingProducer, Client]:
    held: list[Client] = []

    def client(**options: Any) -> Client:
        held.append(Client(**options))
        return held[-1]

    return ReadingProducer(KafkaSettings(), "plant.readings.v1", producer=client, **settings), held[0]


def test_a_full_frame_goes_and_closing_sends_the_rest() -> None:
    producer, client = made(rows=3, linger_s=60.0)
    with producer:
        for nth in range(4):
            producer.send("pump-1", AT_MS + nth, {"flow": nth, "heat": None if nth == 1 else 70.0})
        assert [key for _, key, _ in client.sent] == [b"pump-1"]
    assert client.closed
    readings = client.readings()
    assert readings.at_ms.tolist() == [AT_MS + nth for nth in range(4)]
    assert readings.record.tolist() == [0, 0, 0, 1]
    assert readings.values[:, 0].tolist() == [0, 1, 2, 3]
    assert client.options["enable_idempotence"]


def test_other_signals_begin_another_frame_and_order_is_kept() -> None:
    producer, client = made(linger_s=60.0)
    with producer:
        producer.send("pump-1", AT_MS, {"flow": 1.0})
        producer.send("pump-1", AT_MS + 1, {"flow": 2.0, "heat": 3.0})
    assert client.readings().at_ms.tolist() == [AT_MS, AT_MS + 1]
    assert len(client.sent) == 2


def test_a_reading_waits_no_longer_than_it_may() -> None:
    producer, client = made(linger_s=0.05)
    with producer:
        producer.send("pump-1", AT_MS, {"flow": 1.0})
        end = time.monotonic() + 5
        while not client.sent and time.monotonic() < end:
            time.sleep(0.01)
        assert len(client.sent) == 1


def test_a_refusal_is_raised() -> None:
    producer, client = made(rows=1, linger_s=60.0)
    client.error = MessageSizeTooLargeError("too large")
    producer.send("pump-1", AT_MS, {"flow": 1.0})
    with pytest.raises(BrokerError, match=r"plant\.readings\.v1: a frame was refused: MessageSizeTooLarge"):
        producer.flush()
    client.error = None
    with pytest.raises(ValueError, match="pump-1: a reading without values"):
        producer.send("pump-1", AT_MS, {})
    producer.close()
