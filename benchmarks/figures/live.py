"""The worker on a real broker over sockets, against itself with parts left out and against what others would write.

Every variant is a process of its own on a topic of its own (four partitions, 1,000 assets, eight signals), started once
and brought to the point where all windows are full. Then they take turns: a round's records are put on a variant's
topic while it stands still, and what it takes from the first fetch to the last output published is its cost. Records,
readings and scores are counted; a missing one fails the figure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from figures import latency
from figures.broker import Payloads
from figures.figure import Budget, Cost, Figure, Measured, interleave, middle, ratio
from figures.plant import Fleet, frames_are_built, write_artifact
from figures.process import Topic, Variant

FIGURES: Final = (
    Figure("frames_vs_unscored", "worker, LSTM 32, frames of 100 / the same without scoring", "ratio", 0.80, 0.90),
    Figure("single_vs_unscored", "worker, one reading a message / the same without scoring", "ratio"),
    Figure(
        "single_vs_agent", "worker, one reading a message / our agent without decode and scoring", "ratio", 0.4, 0.6
    ),
    Figure("single_vs_faust", "worker, JSON readings, scored / bare Faust agent with JSON Records", "times", 8.0, 20.0),
    Figure("single_per_core", "JSON readings, end to end, a core", "readings/s", 100_000, 200_000),
    Figure("single_vs_getmany", "JSON readings, end to end / bare aiokafka getmany", "ratio", 0.3, 0.6),
    Figure("frames_per_core", "frames of 100, end to end, a core", "readings/s", 500_000, 1_000_000),
    Figure("packed_per_core", "packed frames of 100, end to end, a core", "readings/s"),
    *latency.FIGURES,
    Figure("loop_tick_p99", "event loop tick p99 at full load", "ms", 10.0, 5.0, lower=True),
    Figure("two_workers", "two workers / one, by the CPU time of the busier", "times", 1.7),
)

_ASSETS: Final = 1000
_FRAME: Final = 100


@dataclass(slots=True)
class Contestant:
    """A variant and what a round of it is. ``rows`` readings of each asset a round; ``warm`` before the first.

    Of several processes the CPU time of a round is that of the one that had the most to do.
    """

    kind: str
    rows: int
    warm: int = 0
    frames: bool = False
    packed: bool = False
    scored: bool = False
    ticker: bool = False
    cores: tuple[int | None, ...] = (None,)
    fleet: Fleet = field(default_factory=lambda: Fleet(_ASSETS))

    def payloads(self, rows: int) -> Payloads:
        """The next ``rows`` readings of each asset as records."""
        return self.fleet.frames(rows, _FRAME, packed=self.packed) if self.frames else self.fleet.payloads(rows)

    def turn(self, variant: Variant) -> Cost:
        """A round: the cost of one reading."""
        readings = self.rows * _ASSETS
        cost = variant.round(self.payloads(self.rows), readings=readings, scores=readings if self.scored else None)
        if len(self.cores) > 1:
            cost = Cost(max(variant.each_cpu_s), cost.wall_s)
        return cost.per(readings)


_WINDOW: Final = 32
_CONTESTANTS: Final[dict[str, Callable[[], Contestant]]] = {
    "worker": lambda: Contestant("worker", 40, warm=_WINDOW, scored=True),
    "unscored": lambda: Contestant("unscored", 40, warm=_WINDOW, scored=True),
    "agent": lambda: Contestant("agent", 40, warm=10),
    "faust": lambda: Contestant("faust", 10, warm=2),
    "getmany": lambda: Contestant("getmany", 40, warm=10),
    "frames": lambda: Contestant("worker", _FRAME, warm=_FRAME, frames=True, scored=True),
    "frames unscored": lambda: Contestant("unscored", _FRAME, warm=_FRAME, frames=True, scored=True),
    "packed": lambda: Contestant("worker", _FRAME, warm=_FRAME, frames=True, packed=True, scored=True),
    "ticking": lambda: Contestant("worker", 40, warm=_WINDOW, scored=True, ticker=True),
    "one": lambda: Contestant("worker", 100, warm=_WINDOW, scored=True, cores=(0,)),
    "two": lambda: Contestant("worker", 100, warm=_WINDOW, scored=True, cores=(0, 1)),
}
#: What each figure compares: the figure is (cost of the second) / (cost of the first).
_NEEDS: Final = {
    "frames_vs_unscored": ("frames", "frames unscored"),
    "single_vs_unscored": ("worker", "unscored"),
    "single_vs_agent": ("worker", "agent"),
    "single_vs_faust": ("worker", "faust"),
    "single_per_core": ("worker",),
    "single_vs_getmany": ("worker", "getmany"),
    "frames_per_core": ("frames",),
    "packed_per_core": ("packed",),
    "loop_tick_p99": ("ticking",),
    "two_workers": ("two", "one"),
}


def measure(wanted: Collection[str], budget: Budget, folder: Path, bootstrap: str) -> dict[str, Measured]:
    """Start what ``wanted`` needs, let it take turns, compare."""
    results: dict[str, Measured] = {}
    artifact = write_artifact(folder / "lstm32", units=32)
    if not frames_are_built():
        results = {name: Measured(None, "not built") for name in wanted if "frames" in name}
    asked = [name for name in wanted if name in _NEEDS and name not in results]
    plain = [name for name in asked if name != "two_workers"]
    for names in (plain, [name for name in asked if name == "two_workers"]):
        if names:
            results |= _compare(names, budget, folder, artifact, bootstrap)
    if any(name.startswith("latency") for name in wanted):
        results |= latency.measure(folder, artifact, bootstrap, budget)
    return {name: results[name] for name in wanted}


def _compare(names: list[str], budget: Budget, folder: Path, artifact: Path, bootstrap: str) -> dict[str, Measured]:
    ticks: list[float] = []
    with contextlib.ExitStack() as stack:
        jobs: dict[str, Callable[[], Cost]] = {}
        started: dict[str, tuple[Contestant, Variant]] = {}
        for key in dict.fromkeys(key for name in names for key in _NEEDS[name]):
            held = _CONTESTANTS[key]()
            topic = Topic(bootstrap, folder, artifact)
            variant = stack.enter_context(Variant(held.kind, topic, ticker=held.ticker, cores=held.cores))
            started[key] = held, variant
        for key, (held, variant) in started.items():
            variant.ready()
            variant.round(held.payloads(held.warm), readings=held.warm * _ASSETS, scores=None)
            jobs[key] = _turn(held, variant, ticks)
        for job in jobs.values():  # once more for what the first full load compiles and allocates
            job()
        ticks.clear()
        costs, rounds = interleave(jobs, budget)
    results = {}
    for name in names:
        first, *others = _NEEDS[name]
        own = middle(costs[first])
        if name == "loop_tick_p99":
            results[name] = Measured(median(ticks), f"worst round {max(ticks):.1f} ms; {rounds} rounds")
        elif name == "two_workers":
            by = ratio(costs, "one", "two")
            # Three processes would need three cores: by the clock the workers wait for the broker, which has none of
            # its own. Where it has one, the time is over when the busier worker is through what its partitions hold.
            alone, busier = (1e6 * middle(costs[key]).cpu_s for key in ("one", "two"))
            note = f"CPU a reading of all: {alone:.2f} us alone, {busier:.2f} the busier of two; by the clock "
            note += f"{by.wall_s:.2f}, each worker pinned to a core, the broker free on both; {rounds} rounds"
            results[name] = Measured(by.cpu_s, note)
        elif not others:
            note = f"{own.cpu_s * 1e6:.2f} us CPU a reading; wall {1 / own.wall_s:,.0f}/s; {rounds} rounds"
            results[name] = Measured(1 / own.cpu_s, note)
        else:
            by, other = ratio(costs, others[0], first), middle(costs[others[0]])
            us = f"{others[0]} {other.cpu_s * 1e6:.2f} / worker {own.cpu_s * 1e6:.2f} us CPU a reading"
            results[name] = Measured(by.cpu_s, f"wall {by.wall_s:.3g}; {us}; {rounds} rounds")
    return results


def _turn(held: Contestant, variant: Variant, ticks: list[float]) -> Callable[[], Cost]:
    def turn() -> Cost:
        cost = held.turn(variant)
        if held.ticker:
            # The tick that stood still with the process ends within its first milliseconds: it is not of the load.
            noted = variant.board.ticks(variant.started_at + 0.01, variant.ended_at)
            ticks.append(float(np.percentile(noted, 99)) * 1000.0)
        return cost

    return turn
