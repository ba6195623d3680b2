"""What a figure is, and how several things are timed in turns so that their ratio is fair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


class Lost(RuntimeError):
    """Records went in that did not come out: the figure would be wrong, so there is none."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: what is asked. ``lower``: a smaller value is better. ``bar`` None: reported only."""

    name: str
    text: str
    unit: str
    bar: float | None = None
    aim: float | None = None
    lower: bool = False

    def meets(self, value: float | None) -> bool | None:
        """Whether ``value`` meets the bar; False where there is none to judge; None where there is no bar."""
        if self.bar is None:
            return None
        if value is None:
            return False
        return value <= self.bar if self.lower else value >= self.bar


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure's value, None with the reason in ``note`` where it could not be had; ``note`` says what lies behind."""

    value: float | None
    note: str = ""


@dataclass(slots=True)
class Budget:
    """How many rounds: ``rounds``, or fewer when ``seconds`` are over, but never less than one."""

    rounds: int = 11
    seconds: float = float("inf")
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    def another(self, done: int) -> bool:
        """Whether there is another round after ``done`` of them."""
        return done < self.rounds and (done < 1 or time.monotonic() < self._end)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took: CPU seconds of all its threads, and wall seconds."""

    cpu_s: float
    wall_s: float

    def per(self, count: float) -> Cost:
        """The cost of one of ``count``."""
        return Cost(self.cpu_s / count, self.wall_s / count)


def timed(work: Callable[[], object]) -> Cost:
    """What ``work`` takes in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def interleave(jobs: Mapping[str, Callable[[], Cost]], budget: Budget) -> tuple[dict[str, list[Cost]], int]:
    """Each job once a round, the order turned each round; all costs, and how many rounds there were."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    names, done = list(jobs), 0
    while budget.another(done):
        for name in names:
            costs[name].append(jobs[name]())
        names = names[1:] + names[:1]
        done += 1
    return costs, done


def middle(costs: list[Cost]) -> Cost:
    """The median of each."""
    return Cost(median(cost.cpu_s for cost in costs), median(cost.wall_s for cost in costs))


def ratio(costs: Mapping[str, list[Cost]], over: str, under: str) -> Cost:
    """Median over the rounds of ``over`` by ``under`` within a round: what disturbs both cancels."""
    pairs = list(zip(costs[over], costs[under], strict=True))
    return Cost(median(a.cpu_s / b.cpu_s for a, b in pairs), median(a.wall_s / b.wall_s for a, b in pairs))
