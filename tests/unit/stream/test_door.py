"""What is said of a cluster that does not let us in; the real ones with TLS and passwords are in tests/faults."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from stream.door import knock
from stream.errors import BrokerError
from stream.settings import KafkaSettings


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held


def refusal(address: str, **settings: object) -> str:
    with pytest.raises(BrokerError) as error:
        knock(KafkaSettings.model_validate({"bootstrap": address, **settings}), timeout_s=0.6)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nobody_there_is_told_with_address_and_variable() -> None:
    assert "127.0.0.1:9 (" in refusal("127.0.0.1:9")
    assert "HEADRACE_KAFKA_BOOTSTRAP" in refusal("127.0.0.1:9")


def test_one_that_never_answers_does_not_hold_us(listener: socket.socket) -> None:
    began = time.monotonic()
    assert "TimeoutError" in refusal(f"127.0.0.1:{listener.getsockname()[1]}")
    assert time.monotonic() - began < 3.0


def test_one_that_closes_may_speak_another_protocol(listener: socket.socket) -> None:
    def close_all() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=close_all, daemon=True).start()
    said = refusal(f"127.0.0.1:{listener.getsockname()[1]}")
    assert "closes the connection" in said or "reset" in said
    assert "HEADRACE_KAFKA_SECURITY_PROTOCOL" in said


def test_an_address_without_a_port_number_is_told() -> None:
    assert "host:port is no host:port: see HEADRACE_KAFKA_BOOTSTRAP" in refusal("host:port")


async def test_it_may_be_asked_where_a_loop_runs() -> None:
    with pytest.raises(BrokerError):
        await asyncio.to_thread(knock, KafkaSettings(bootstrap="127.0.0.1:9"), timeout_s=0.2)
    with pytest.raises(BrokerError):
        knock(KafkaSettings(bootstrap="127.0.0.1:9"), timeout_s=0.2)
