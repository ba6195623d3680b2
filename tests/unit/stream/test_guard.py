from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from stream.guard import start_guarded, stop_guarded, tail

OBEYS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
time.sleep(60)
"""
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in tail(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("status", [0, 3])
def test_the_commands_own_status_comes_through(tmp_path: Path, status: int) -> None:
    process = start_guarded([sys.executable, "-c", f"raise SystemExit({status})"], log=tmp_path / "log")
    assert process.wait(20) == status
    assert stop_guarded(process) == status


def test_a_command_that_obeys_ends_with_its_own_status(tmp_path: Path) -> None:
    process = start_guarded([sys.executable, "-c", OBEYS], log=tmp_path / "log")
    wait_for(tmp_path / "log", "up")
    assert stop_guarded(process, grace_s=20) == 7


def test_a_command_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    process = start_guarded([sys.executable, "-c", DEAF], log=tmp_path / "log")
    wait_for(tmp_path / "log", "up")
    assert stop_guarded(process, grace_s=0.2) != 0


def test_the_environment_is_handed_on_and_the_log_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['WORD'])"]
    assert start_guarded(command, log=tmp_path / "log", environment={"WORD": "hello"}).wait(20) == 0
    assert tail(tmp_path / "log") == "hello"
    assert tail(tmp_path / "missing") == ""
