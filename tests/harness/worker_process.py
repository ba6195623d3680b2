"""``headrace worker`` as a process of its own, and what its tests ask of it and of its topics."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.plan import TopicSettings
from stream.reader import read_records
from stream.settings import KafkaSettings

NAMES = ("readings", "alerts", "scores", "dead_letters", "late", "state", "actions", "labels", "models")


class Worker:
    """``headrace worker`` as a process of its own."""

    def __init__(self, plan: Path, kafka: KafkaSettings, log: Path, **environment: str) -> None:
        self.environment = {
            **os.environ,
            "HEADRACE_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HEADRACE_KAFKA_GROUP": kafka.group,
            "HEADRACE_KAFKA_SESSION_TIMEOUT_S": "6",
            "HEADRACE_WORKER_COMMIT_EVERY_S": "0.2",
            "HEADRACE_WORKER_SNAPSHOT_EVERY_S": "1",
            **environment,
        }
        self._port_file = log.with_suffix(".port")
        self._module = ["-m", "stream.cli"]
        self._arguments = ["worker", "--plan", str(plan)]
        self._log = log
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int, within_s: float = 90.0) -> Worker:
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._module, *self._arguments, "--web-port", str(port)],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait(lambda: self.get("/health/ready") is not None, within_s, "ready")
        return self

    def run_module(self, script: Path | None) -> None:
        """From the next start on run a script in place of the command; None: the command again."""
        self._module = [str(script)] if script else ["-m", "stream.cli"]

    def memory_mb(self) -> float:
        """Its resident memory."""
        return int(self._status("VmRSS").split()[0]) / 1024

    def threads(self) -> int:
        """How many threads it has."""
        return int(self._status("Threads"))

    def files(self) -> int:
        """How many files and sockets it has open."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _status(self, key: str) -> str:
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))

    def start_again(self) -> Worker:
        """Start it anew on the same port."""
        return self.start(int(self.url.rsplit(":", 1)[1]))

    def must_live(self) -> None:
        """Fail the test, with the end of the log, if the worker has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"worker ended with {self.process.returncode}:\n{self._log.read_text()[-4000:]}")

    def wait(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"worker not {what} (exit {self.process.poll()}):\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def get(self, path: str, timeout_s: float = 5) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout_s) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; NaN if it does not answer, which is like no number."""
        answer = self.get("/metrics", timeout_s=20)
        if answer is None:
            return math.nan
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in answer.splitlines()
            if line.split("{")[0].split(" ")[0] == name and all(label in line for label in wanted)
        )

    def has_read(self, records: int, within_s: float = 60.0) -> None:
        """Wait until so many records were read, published, and committed."""
        self.wait(lambda: self.metric("headrace_records_total") >= records, within_s, f"through {records} records")
        self.wait(lambda: self.metric("headrace_consumer_lag_records") == 0, within_s, "committed")

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); also one that is frozen."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: it neither works nor answers, and its connections stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def write_plan(source: Path, topics: TopicSettings, folder: Path, artifacts: Path) -> Path:
    names = "\n".join(f'{name} = "{getattr(topics, name)}"' for name in NAMES if name != "scores")
    text = source.read_text().replace("[topics]\nscores =", f"[topics]\n{names}\nscores =")
    text = text.replace("plant.scores.v1", f"{topics.readings}.scores").replace('"artifacts/', f'"{artifacts}/')
    path = folder / "headrace.toml"
    path.write_text(text)
    return path


def run(worker: Worker, *arguments: str) -> str:
    """A command of ours in the worker's environment; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        env=worker.environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read_all(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Every record that a topic holds now."""
    return [record for batch in read_records(kafka, topic) for record in batch]


def live_scores(kafka: KafkaSettings, topic: str) -> dict[tuple[str, str, str], tuple[float, bool]]:
    rows = [json.loads(record.value) for record in read_all(kafka, topic)]
    scores = {(row["asset"], row["detector"], row["ts"]): (row["score"], row["anomalous"]) for row in rows}
    assert len(scores) == len(rows), "a reading was scored twice"
    return scores


def backtest_scores(path: Path) -> dict[tuple[str, str, str], tuple[float, bool]]:
    with path.open() as file:
        return {
            (row["asset"], row["detector"], row["time"]): (float(row["score"]), row["anomalous"] == "1")
            for row in csv.DictReader(file)
            if row["score"]
        }
