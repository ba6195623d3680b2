"""The simulated plant without the rest of the demo: for a stack of containers, or a Kafka cluster of your own.

``prepare`` writes a plan and trains its models on the plant's clean history; ``run`` sends the plant's readings as they
come, with the time of day on them, for as long as it is let.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from models.datasets import Recording
from stream.commands.train import train_plan
from stream.demo.scenario import simulated
from stream.errors import StreamError
from stream.plan import load_plan, parse_plan
from stream.replay import replay
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

_log = logging.getLogger(__name__)

PLAN: Final = "headrace.toml"
#: Between two rounds nothing is sent for so many periods: longer than what a window survives, so that the leap from one
#: round's end to the next one's beginning is seen as a pause and not as a fault.
_PAUSE_PERIODS: Final = 6


def prepare(folder: Path, *, seed: int = 7, console: Console | None = None) -> list[str]:
    """Write the plan for the plant of ``seed`` into ``folder`` and train what is not there yet; the detectors trained.

    What is there is kept, so it can be called at every start. Raises ``StreamError`` if another plan is there.
    """
    scenario = simulated(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PLAN
    if path.exists() and path.read_text(encoding="utf-8") != scenario.plan():
        raise StreamError(f"{path} is not the plan of the simulated plant: name another folder")
    path.write_text(scenario.plan(), encoding="utf-8")
    plan = load_plan(path)
    missing = [name for name in plan.detectors if not plan.artifact_path(name).exists()]
    if missing:
        train_plan(plan, scenario.history, only=missing, seed=seed, console=console)
    return missing


def run(
    kafka: KafkaSettings,
    *,
    seed: int = 7,
    speed: float = 1.0,
    rounds: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send the plant's readings to its topic, stamped with the time at which they are sent; how many.

    seed     the plant that ``prepare`` was given
    speed    how many times as fast as a real plant this one lives: a machine is read every 10 s / speed
    rounds   how many times its eight hours, with their 14 faults, are lived through; None: until stopped

    Raises ``BrokerError``.
    """
    scenario = simulated(seed)
    topics = parse_plan(tomllib.loads(scenario.plan())).topics
    ensure_topics(kafka, topics)
    sent, done = 0, 0
    while rounds is None or done < rounds:
        if done:
            time.sleep(_PAUSE_PERIODS * scenario.period_s)
        _log.info("round %d: %d readings of %d machines", done + 1, scenario.readings, len(scenario.live))
        now = stamped(scenario.live, begin_ms=round(time.time() * 1000), speed=speed)
        sent += replay(kafka, topics.readings, now, speed=1.0, progress=progress)
        done += 1
    return sent


def stamped(recordings: Sequence[Recording], *, begin_ms: int, speed: float) -> list[Recording]:
    """``recordings`` as if they began at ``begin_ms`` and went ``speed`` times as fast; assets keep their order."""
    first_ms = min(int(held.at_ms[0]) for held in recordings)
    return [
        replace(held, at_ms=begin_ms + np.round((held.at_ms - first_ms) / speed).astype(np.int64))
        for held in recordings
    ]
