"""The pipeline without a broker, bytes to verdicts, against the bare model and against what others would use.

Batches are what a worker gets: 1,000 assets on four partitions, about a thousand JSON records of one partition at a
time. All jobs of a group take turns in one process; ratios are of CPU time, one round's numbers over each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from figures.figure import Budget, Cost, Figure, Lost, Measured, interleave, middle, ratio, timed
from figures.plant import Fleet, as_records, can_carry, frames_are_built, plan_for, write_artifact
from models.artifact import Artifact
from stream.pipeline import Pipeline
from stream.score import CHUNK
from stream.shelf import Shelf
from stream.worker import calm_collector, keep_memory

FIGURES: Final = (
    Figure("pipeline_vs_model_windowed_64", "pipeline / bare batched LSTM 2x64, windowed", "ratio", 0.90, 0.95),
    Figure("pipeline_vs_model_stateful_64", "pipeline / bare LSTM 2x64, state carried, frames", "ratio", 0.45, 0.80),
    Figure("pipeline_vs_river_64", "pipeline with LSTM 2x64 / river HalfSpaceTrees", "times", 5.0, 20.0),
    Figure("pipeline_vs_river_32", "pipeline with LSTM 32 / river HalfSpaceTrees", "times", 8.0, 20.0),
    Figure("pipeline_vs_predict", "pipeline with LSTM 2x64 / Keras predict per window", "times", 3000.0),
    Figure("pipeline_32_per_core", "pipeline with LSTM 32, JSON readings", "readings/s"),
    Figure("pipeline_32_frames_per_core", "pipeline with LSTM 32, frames of 100", "readings/s"),
    Figure("pipeline_64_per_core", "pipeline with LSTM 2x64, JSON readings", "readings/s"),
)

_LINES: Final[dict[str, dict[str, Any]]] = {
    "32": {"units": 32},
    "32 frames": {"units": 32, "frames": True},
    "64": {"units": 64, "layers": 2},
    "windowed 64": {"units": 64, "layers": 2, "carried": False},
    "stateful 64": {"units": 64, "layers": 2, "carried": True, "frames": True},
}
#: What a figure divides by its pipeline's cost.
_OVER: Final = {
    "pipeline_vs_model_windowed_64": "bare windowed",
    "pipeline_vs_model_stateful_64": "bare stateful",
    "pipeline_vs_river_64": "river",
    "pipeline_vs_river_32": "river",
    "pipeline_vs_predict": "predict",
}
_PARTITIONS: Final = 4
_ASSETS: Final = 1000
_ROWS: Final = 4  # readings of each asset in a batch
_FRAME: Final = 100
_RIVER: Final = 2000  # readings a round: it takes its time
_NAIVE: Final = 12  # windows a round


class Line:
    """A pipeline whose windows are full, and the bare model beside it on the same readings.

    carried  with its state carried, or windowed; None: whichever the run is about
    frames   frames of 100 instead of one reading a record
    """

    def __init__(
        self, folder: Path, units: int, *, layers: int = 1, carried: bool | None = None, frames: bool = False
    ) -> None:
        stem = folder / f"lstm{units}-{carried}-{frames}"
        artifact = write_artifact(stem, units=units, layers=layers, carried=carried)
        plan = plan_for(folder, artifact)
        shelf = Shelf(plan)
        self.pipeline = Pipeline(plan, shelf)
        found = shelf.find("lstm", "any")
        assert found is not None
        self.artifact: Artifact = found
        self.fleets = [Fleet(_ASSETS // _PARTITIONS, prefix=f"p{number}") for number in range(_PARTITIONS)]
        self.stage_s: dict[str, float] = defaultdict(float)
        self.readings = 0
        self.frames = frames
        self.rows = _FRAME if frames else _ROWS
        self._offset = 0
        self._states: list[Any] = []
        for partition, fleet in enumerate(self.fleets):
            self.pipeline.run(partition, fleet.readings(self.artifact.window - 1))
        self.through()  # the first call compiles
        self.stage_s.clear()
        self.readings = 0

    @property
    def batch(self) -> int:
        """Readings that one call of ``through`` or ``bare`` takes."""
        return _ASSETS * self.rows

    def through(self) -> Cost:
        """Bytes to verdicts: one batch of each partition. Raises ``Lost`` unless every reading was scored."""
        batches = [
            as_records(fleet.frames(_FRAME) if self.frames else fleet.payloads(_ROWS), self._offset)
            for fleet in self.fleets
        ]
        self._offset += len(batches[0])
        scored = 0

        def work() -> None:
            nonlocal scored
            for partition, records in enumerate(batches):
                output = self.pipeline.process(partition, records)
                scored += sum(len(scores) for scores in output.scores)
                for stage, seconds in output.stage_s.items():
                    self.stage_s[stage] += seconds

        cost = timed(work)
        if scored != self.batch:
            raise Lost(f"{scored} scores of {self.batch} readings")
        self.readings += scored
        return cost

    def bare(self) -> Cost:
        """Only ``detector.score``, as many windows in the same portions, laid out beforehand."""
        window = self.artifact.window
        scale = self.artifact.scaler.transform
        portions = []
        for fleet in self.fleets:
            asset = np.repeat(np.arange(len(fleet.names)), _ROWS)
            newest = np.tile(np.arange(fleet.row - _ROWS, fleet.row), len(fleet.names))
            rows = (newest[:, None] + np.arange(1 - window, 1)).reshape(-1)
            values = fleet.values(np.repeat(asset, window), rows)
            windows = scale(values).reshape(len(asset), window, -1)
            portions += [windows[start : start + CHUNK] for start in range(0, len(windows), CHUNK)]
        detector = self.artifact.detector
        return timed(lambda: [detector.score(portion) for portion in portions])

    def bare_steps(self) -> Cost:
        """Only ``stepper.run`` on as many readings in the same portions, one of each partition."""
        stepper: Any = getattr(self.artifact, "stepper", None)
        if not self._states:
            self._states = [stepper.begin(len(fleet.names)) for fleet in self.fleets]
        portions = []
        for fleet, state in zip(self.fleets, self._states, strict=True):
            slots = np.arange(len(fleet.names))
            row = np.tile(np.arange(fleet.row - self.rows, fleet.row), len(slots))
            values = fleet.values(np.repeat(slots, self.rows), row)
            counts = np.full(len(slots), self.rows)
            portions.append((state, slots, counts, self.artifact.scaler.transform(values)))
        return timed(lambda: [stepper.run(*portion) for portion in portions])

    def stages(self) -> str:
        """Microseconds of wall time a reading by stage."""
        each = {stage: 1e6 * seconds / self.readings for stage, seconds in self.stage_s.items()}
        return ", ".join(f"{stage} {us:.2f}" for stage, us in each.items()) + " us a reading"


class River:
    """River's HalfSpaceTrees as its documentation uses it: score, then learn, one reading after the other.

    It gets the same bytes, decoded by the same parser, and the limits of each signal. One forest for all assets, like
    the one LSTM.
    """

    def __init__(self) -> None:
        from river.anomaly import HalfSpaceTrees  # noqa: PLC0415  # of the extra `bench`

        fleet = Fleet(_ASSETS)
        limits = dict.fromkeys((f"signal_{number}" for number in range(8)), (40.0, 60.0))
        self._trees = HalfSpaceTrees(seed=1, limits=limits)
        self._fleet = fleet
        self.turn(500)

    def turn(self, readings: int = _RIVER) -> Cost:
        """``readings`` through it."""
        payloads = self._fleet.payloads(-(-readings // _ASSETS))[:readings]

        def work() -> None:
            for _, value in payloads:
                values = msgspec.json.decode(value)["values"]
                self._trees.score_one(values)
                self._trees.learn_one(values)

        return timed(work)


class Naive:
    """What demos do: Keras ``predict`` for every window, on the same architecture."""

    def __init__(self, artifact: Artifact) -> None:
        detector: Any = artifact.detector
        self._network = type(detector).build(detector.signals, detector.config)
        self._windows = np.random.default_rng(1).normal(size=(_NAIVE, 1, artifact.window - 1, 8)).astype("f4")
        self._network.predict(self._windows[0], verbose=0)

    def turn(self) -> Cost:
        """A few windows, one call each."""
        return timed(lambda: [self._network.predict(window, verbose=0) for window in self._windows])


def measure(wanted: Collection[str], budget: Budget, folder: Path) -> dict[str, Measured]:
    """Time what ``wanted`` needs. Cost is per reading on both sides of every ratio."""
    jobs: dict[str, Callable[[], Cost]] = {}
    lines: dict[str, Line] = {}
    results: dict[str, Measured] = {}
    if not (can_carry() and frames_are_built()):
        results["pipeline_vs_model_stateful_64"] = Measured(None, "not built")
    names = [name for name in wanted if name not in results]
    for name in names:
        key = _line_of(name)
        if key not in lines:
            line = lines[key] = Line(folder, **_LINES[key])
            jobs[key] = _each(line.through, line.batch)
    if "windowed 64" in lines:
        jobs["bare windowed"] = _each(lines["windowed 64"].bare, lines["windowed 64"].batch)
    if "stateful 64" in lines:
        jobs["bare stateful"] = _each(lines["stateful 64"].bare_steps, lines["stateful 64"].batch)
    if any("river" in name for name in names):
        try:
            jobs["river"] = _each(River().turn, _RIVER)
        except ImportError:
            missing = Measured(None, "river is not installed: pip install '.[bench]'")
            results |= {name: missing for name in names if "river" in name}
    if "pipeline_vs_predict" in names:
        jobs["predict"] = _each(Naive(lines["64"].artifact).turn, _NAIVE)
    calm_collector()  # as the worker does
    keep_memory()
    costs, rounds = interleave(jobs, budget)

    for name in names:
        if name in results:
            continue
        key, over = _line_of(name), _OVER.get(name)
        if over is None:
            cost = middle(costs[key])
            note = f"wall {1 / cost.wall_s:,.0f}/s; {lines[key].stages()}; {rounds} rounds"
            results[name] = Measured(1 / cost.cpu_s, note)
        else:
            by = ratio(costs, over, key)
            us = (
                f"{over} {middle(costs[over]).cpu_s * 1e6:,.2f} / pipeline {middle(costs[key]).cpu_s * 1e6:,.2f} us CPU"
            )
            note = f"wall {by.wall_s:,.3g}; {us} a reading ({lines[key].stages()}); {rounds} rounds"
            results[name] = Measured(by.cpu_s, note)
    return results


def _line_of(name: str) -> str:
    """The pipeline that a figure is about."""
    return next(
        (kind for kind in ("windowed 64", "stateful 64", "32 frames") if kind.replace(" ", "_") in name),
        "32" if "_32" in name else "64",
    )


def _each(turn: Callable[[], Cost], count: int) -> Callable[[], Cost]:
    return lambda: turn().per(count)
