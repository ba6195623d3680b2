"""A variant as a process, and a round through it: hold it still, fill its topic, let it go, read its clocks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from figures.board import CPU, LOST, PARTITIONS, PID, READINGS, RECORDS, SCORES, WALL, Board, cpu_s
from figures.broker import PARTITIONS as ALL_PARTITIONS
from figures.broker import Payloads, produce
from figures.figure import Cost, Lost
from figures.plant import write_plan
from stream.guard import start_guarded, stop_guarded, tail
from stream.plan import load_plan
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

BENCHMARKS: Final = Path(__file__).parents[1]
#: Short, as the embedded broker lets a group wait for half of it.
SESSION_S: Final = 6.0


class Topic:
    """A readings topic of its own with the plan that names it."""

    def __init__(self, bootstrap: str, folder: Path, artifact: Path, *, scores: bool = False) -> None:
        self.bootstrap = bootstrap
        self.name = f"speed-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.plan = write_plan(folder, artifact, topic=self.name, scores=scores)
        ensure_topics(KafkaSettings(bootstrap=bootstrap, partitions=ALL_PARTITIONS), load_plan(self.plan).topics)

    def fill(self, payloads: Payloads) -> None:
        """Send all and wait until the broker has them."""
        produce(self.bootstrap, self.name, payloads)

    def environment(self) -> dict[str, str]:
        """What a worker on this topic is given; its group is the topic's."""
        return {
            **os.environ,
            "HEADRACE_KAFKA_BOOTSTRAP": self.bootstrap,
            "HEADRACE_KAFKA_GROUP": self.name,
            "HEADRACE_KAFKA_SESSION_TIMEOUT_S": str(SESSION_S),
            "HEADRACE_KAFKA_PARTITIONS": str(ALL_PARTITIONS),
            "HEADRACE_WORKER_LOG_LEVEL": "WARNING",
        }


class Variant:
    """One of ``benchmarks/variants.py`` on a topic. ``count`` processes share its group, each on a core of its own."""

    def __init__(
        self, kind: str, topic: Topic, *, ticker: bool = False, cores: tuple[int | None, ...] = (None,)
    ) -> None:
        self.kind = kind
        self.topic = topic
        self._boards: list[Board] = []
        self._logs: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sent = 0
        self.started_at = self.ended_at = 0.0  # of the last round, monotonic clock
        self.each_cpu_s: list[float] = []  # of the last round, by process, up to its own last output
        for number, core in enumerate(cores):
            stem = topic.folder / f"{topic.name}-{kind}-{number}"
            self._boards.append(Board(stem.with_suffix(".board"), create=True))
            self._logs.append(stem.with_suffix(".log"))
            command = [sys.executable, str(BENCHMARKS / "variants.py"), kind, "--plan", str(topic.plan)]
            command += ["--board", str(stem.with_suffix(".board"))]
            command += ["--ticker"] if ticker else []
            command += [] if core is None else ["--core", str(core)]
            self._processes.append(
                start_guarded(command, log=self._logs[-1], folder=topic.folder, environment=topic.environment())
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            stop_guarded(process, grace_s=5.0)

    @property
    def pid(self) -> int:
        """The (first) process itself, not its guard."""
        return int(self._boards[0][PID])

    @property
    def board(self) -> Board:
        """The (first) process's board."""
        return self._boards[0]

    def ready(self, within_s: float = 60.0) -> None:
        """Wait until every process has its share of the partitions."""
        share = ALL_PARTITIONS // len(self._boards)
        self.wait(lambda: all(board[PARTITIONS] == share for board in self._boards), within_s, "assigned")

    def total(self, slot: int) -> float:
        """The sum over its processes."""
        return sum(board[slot] for board in self._boards)

    def wait(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Until ``condition``. Raises ``Lost`` with the end of the log when it takes too long."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                said = "\n".join(tail(log) for log in self._logs)
                raise Lost(f"{self.kind} is not {what}: {self.total(RECORDS):,.0f} of {self._sent:,} records\n{said}")
            time.sleep(0.005)

    def round(self, payloads: Payloads, *, readings: int, scores: int | None, within_s: float = 120.0) -> Cost:
        """What ``payloads``, waiting on the topic, cost from the first fetch until the output of the last is out.

        The process stands still (SIGSTOP) while they are sent, so that neither the producer nor the broker's writing
        is in its way. Raises ``Lost`` unless it took every record, made ``readings`` of them and scored ``scores``.
        """
        before = {slot: self.total(slot) for slot in (READINGS, SCORES)}
        pids = [int(board[PID]) for board in self._boards]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            self.topic.fill(payloads)
            self._sent += len(payloads)
            each, wall = [cpu_s(pid) for pid in pids], time.monotonic()
            cpu = sum(each)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self.wait(lambda: self.total(RECORDS) >= self._sent, within_s, "through")
        end = max(board[WALL] for board in self._boards)
        self.started_at, self.ended_at = wall, end
        self.each_cpu_s = [board[CPU] - begun for board, begun in zip(self._boards, each, strict=True)]
        used = self.total(CPU) if len(pids) == 1 else sum(map(cpu_s, pids))
        made = {slot: self.total(slot) - held for slot, held in before.items()}
        if self.total(RECORDS) != self._sent or self.total(LOST) or made[READINGS] != readings:
            raise Lost(
                f"{self.kind}: {self.total(RECORDS):,.0f} of {self._sent:,} records, {made[READINGS]:,.0f} of "
                f"{readings:,} readings, {self.total(LOST):,.0f} dead or late"
            )
        if scores is not None and made[SCORES] != scores:
            raise Lost(f"{self.kind}: {made[SCORES]:,.0f} scores of {scores:,}")
        return Cost(used - cpu, end - wall)
