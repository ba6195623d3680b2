"""A worker that cannot drain, because its broker is gone, ends within its grace all the same."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from worker_process import Worker

from stream.plan import Plan
from stream.settings import KafkaSettings


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_sigterm_without_a_broker_ends_within_the_grace(
    killable_kafka: tuple[Any, str], plan: Plan, tmp_path: Path
) -> None:
    server, address = killable_kafka
    worker = Worker(
        plan.folder / "headrace.toml",
        KafkaSettings(bootstrap=address),
        tmp_path / "worker.log",
        HEADRACE_WORKER_GRACE_S="3",
    )
    try:
        worker.start(free_port())
        server.stop()
        time.sleep(1)
        started = time.monotonic()
        worker.stop()
        assert time.monotonic() - started < 25
    finally:
        worker.kill()
