"""What suites are made of: a case to judge, the scores it got, and figures with their bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Float64, Progress

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One recording to learn from and one to judge.

    train      (row, signal); rows that a detector with no need of training is not shown where ``cold``
    test       (row, signal)
    labels     (row,) of ``test``: whether something was wrong
    at_ms      (row,) of ``test``, epoch milliseconds
    continues  ``test`` follows ``train`` in time: its last rows are the test's past
    cold       the benchmark gives no training: what can begin without does
    about      what a suite has to know of it besides
    """

    key: str
    train: Float64
    test: Float64
    labels: Bool
    at_ms: npt.NDArray[np.int64]
    continues: bool = False
    cold: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A case with its scores over the detector's own threshold: a row alarms from 1 on; 0 where nothing was said."""

    case: Case
    scores: Float64

    @property
    def alarms(self) -> Bool:
        """(row,) whether it alarms."""
        return np.asarray(self.scores >= 1.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a suite; ``bar`` is what it has to reach (or stay under, where lower is better)."""

    name: str
    value: float
    unit: str = ""
    bar: float | None = None
    lower_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        if math.isnan(self.value):
            return False
        return bool(self.value <= self.bar if self.lower_is_better else self.value >= self.bar)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        value = None if math.isnan(self.value) else round(float(self.value), 6)
        return {"name": self.name, "value": value, "unit": self.unit, "bar": self.bar, "met": self.met}


#: More figures of a folder as a whole: (folder, seed, where per-item answers go or None, progress) -> figures.
Study = Callable[[Path, int, Path | None, Progress], Sequence[Figure]]


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark.

    detector, config  what judges it unless another is asked for
    cases             reads a folder; raises ``DataError`` if it is not laid out like the benchmark
    figures           of all judged cases
    published         (who, figure) in the unit of the first figure
    lines             extra columns of a case's score file, by name: (row,) each
    study             what is measured besides, with a training of its own: a classifier's figures
    folder            which of the benchmarks' folders it is about, where that is not its own name
    """

    name: str
    about: str
    detector: str
    cases: Callable[[Path], Sequence[Case]]
    figures: Callable[[Sequence[Judged]], Sequence[Figure]]
    published: Sequence[tuple[str, float]]
    config: Mapping[str, Any] = field(default_factory=dict)
    lines: Callable[[Judged], Mapping[str, Sequence[Any]]] = lambda judged: {"score": judged.scores.tolist()}
    study: Study | None = None
    folder: str = ""

    def where(self, data: Path) -> Path:
        """Its folder in ``data``, which holds one for each benchmark or is it."""
        own = data / (self.folder or self.name)
        return own if own.is_dir() else data
