"""A worker as a process of its own, watched from outside: the same command that production runs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from stream.errors import StreamError
from stream.guard import start_guarded, stop_guarded, tail

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([^ ]+)$", re.MULTILINE)


class WorkerProcess:
    """``headrace worker`` on ``plan``, from ``start`` (or ``with``) to ``stop``; it never outlives this process.

    environment   variables on top of ours, such as HEADRACE_KAFKA_BOOTSTRAP
    log           where its output goes
    """

    def __init__(self, plan: Path, environment: Mapping[str, str], log: Path) -> None:
        self._plan = plan
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log
        self.port = 0

    @property
    def url(self) -> str:
        """Where its metrics and health are."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it; returns at once."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        ours = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH", ""))))
        self._process = start_guarded(
            [sys.executable, "-m", "stream.cli", "worker", "--plan", str(self._plan), "--web-port", str(self.port)],
            log=self.log,
            environment={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self._environment},
        )
        return self

    def wait_until_ready(self, within_s: float = 120.0) -> None:
        """Return when it is ready for readings. Raises ``StreamError`` with the end of its log."""
        deadline = time.monotonic() + within_s
        reasons = "it does not answer"
        while time.monotonic() < deadline:
            self.check()
            try:
                with urlopen(f"{self.url}/health/ready", timeout=2):  # noqa: S310  # our own address
                    return
            except URLError as error:
                reasons = _reasons(error) or reasons
            except OSError:
                pass
            time.sleep(0.2)
        raise StreamError(f"the worker was not ready within {within_s:g} s ({reasons}); {self.log}:\n{tail(self.log)}")

    def check(self) -> None:
        """Raise ``StreamError`` with the end of its log if it has ended."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise StreamError(f"the worker ended with {status}; {self.log}:\n{tail(self.log)}")

    def metrics(self) -> dict[str, float]:
        """Sum of each of its metrics over all labels; empty while it does not answer."""
        try:
            with urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310  # our own address
                text = answer.read().decode()
        except OSError:
            return {}
        sums: dict[str, float] = {}
        for name, _, value in _SAMPLE.findall(text):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def stop(self, grace_s: float = 30.0) -> int:
        """Ask it to end (SIGTERM) and wait; its exit status, 0 if it never ran. Safe to call twice."""
        process, self._process = self._process, None
        return 0 if process is None else stop_guarded(process, grace_s=grace_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop(grace_s=5.0)


def _reasons(error: URLError) -> str:
    """Read why a worker says it is not ready; nothing if it does not answer at all."""
    read = getattr(error, "read", None)
    if read is None:
        return ""
    try:
        return ", ".join(json.loads(read())["reasons"])
    except (ValueError, KeyError, TypeError, OSError):
        return ""
