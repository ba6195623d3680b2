"""How soon a worker scores after its start, and how much memory it holds with 10,000 assets."""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from figures.figure import Budget, Figure, Lost, Measured
from figures.plant import Fleet, write_artifact
from figures.process import Topic, Variant
from stream.guard import start_guarded, stop_guarded, tail

FIGURES: Final = (
    Figure("worker_memory", "resident memory of a worker with 10,000 assets", "MB", 250.0, lower=True),
    Figure("start_to_first_score", "worker's start to its first score, artifact in hand", "s", 2.0, 1.0, lower=True),
)

_ASSETS: Final = 10_000
_WINDOW: Final = 32
#: The embedded broker lets a new group wait for half of its session's time-out. Apache Kafka allows no less than 6 s.
_SESSION_S: Final = 2.0


def measure(
    wanted: Collection[str], budget: Budget, folder: Path, bootstrap: str, *, embedded: bool
) -> dict[str, Measured]:
    """Measure what ``wanted`` asks for."""
    artifact = write_artifact(folder / "lstm32", units=32)
    results = {}
    if "worker_memory" in wanted:
        results["worker_memory"] = _memory(folder, artifact, bootstrap)
    if "start_to_first_score" in wanted:
        results["start_to_first_score"] = _start(folder, artifact, bootstrap, budget, embedded)
    return results


def _memory(folder: Path, artifact: Path, bootstrap: str) -> Measured:
    """VmRSS of the worker's process after two readings of each of 10,000 assets and full windows of 400 of them."""
    fleet = Fleet(_ASSETS)
    topic = Topic(bootstrap, folder, artifact)
    chosen = np.arange(400)
    with Variant("worker", topic) as worker:
        worker.ready()
        worker.round(fleet.payloads(2), readings=2 * _ASSETS, scores=None)
        rows = _WINDOW + 18
        scores = len(chosen) * (rows + 2 - _WINDOW + 1)
        worker.round(fleet.payloads(rows, chosen), readings=rows * len(chosen), scores=scores)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if ":" in line
        )
    resident, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Measured(resident * 1.024**2, f"peak {peak * 1.024**2:.0f} MB (of 10^6 bytes)")


def _start(folder: Path, artifact: Path, bootstrap: str, budget: Budget, embedded: bool) -> Measured:
    """From the start of ``headrace worker`` until /metrics counts a score; a full window of one asset waits.

    Each time a new group on a new topic. The time a broker lets a new group wait for other members is part of it (the
    embedded one: half of the session's time-out, here of 2 s; Apache Kafka: group.initial.rebalance.delay.ms, 3 s by
    default); the note says what is left without: from partitions in hand to the score, and from the start until its
    server answers.
    """
    totals, served, assigned = [], [], []
    rounds = 0
    while budget.another(rounds):
        topic = Topic(bootstrap, folder, artifact)
        topic.fill(Fleet(1).payloads(_WINDOW))
        environment = topic.environment()
        if embedded:
            environment["HEADRACE_KAFKA_SESSION_TIMEOUT_S"] = str(_SESSION_S)
        total, up, ready = _first_score(topic, environment)
        totals.append(total)
        served.append(up)
        assigned.append(total - ready)
        rounds += 1
    note = f"session of {_SESSION_S:g} s, " if embedded else ""
    note += (
        f"until it serves /metrics {median(served):.2f} s, from its partitions to the score {median(assigned):.2f} s"
    )
    return Measured(median(totals), f"{note}; {rounds} rounds")


def _first_score(topic: Topic, environment: dict[str, str]) -> tuple[float, float, float]:
    """Seconds from the start to the first score, to the first answer, and to being ready."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    log = topic.folder / f"{topic.name}.log"
    command = [sys.executable, "-m", "stream.cli", "worker", "--plan", str(topic.plan), "--web-port", str(port)]
    begun = time.monotonic()
    process = start_guarded(command, log=log, folder=topic.folder, environment=environment)
    up = ready = None
    try:
        while True:
            if ready is None and _get(f"http://127.0.0.1:{port}/health/ready") is not None:
                ready = time.monotonic() - begun
            metrics = _get(f"http://127.0.0.1:{port}/metrics")
            now = time.monotonic() - begun
            if metrics is not None:
                up = up or now
                if _metric(metrics, "headrace_scores_total") > 0:
                    return now, up, ready or now
            if process.poll() is not None or now > 60:
                raise Lost(f"no score within {now:.0f} s:\n{tail(log)}")
            time.sleep(0.01)
    finally:
        stop_guarded(process)


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _metric(text: str, name: str) -> float:
    lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
