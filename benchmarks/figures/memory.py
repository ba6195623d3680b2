"""What an asset costs in memory and whether the cost of a reading depends on how many assets there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from figures.figure import Budget, Cost, Figure, Lost, Measured, interleave, middle, timed
from figures.plant import Fleet, as_records, plan_for, write_artifact
from stream.pipeline import Pipeline
from stream.shelf import Shelf
from stream.worker import calm_collector, keep_memory

FIGURES: Final = (
    Figure("asset_bytes_lstm_32", "arrays an asset, LSTM 32, 10,000 assets", "B", 512, lower=True),
    Figure("asset_bytes_ring_64x8", "arrays an asset, windows of 64 x 8, 10,000 assets", "B", 2300, lower=True),
    Figure("cost_flat", "dearest / cheapest reading at 10, 1,000, 100,000 assets", "times", 1.5, 1.2, lower=True),
)

_ASSETS: Final = 10_000
_PARTITIONS: Final = 4
_SIZES: Final = (10, 1000, 100_000)
_BATCH: Final = 2000


def measure(wanted: Collection[str], budget: Budget, folder: Path) -> dict[str, Measured]:
    """Time and weigh what ``wanted`` asks for."""
    results = {}
    if "asset_bytes_lstm_32" in wanted:
        results["asset_bytes_lstm_32"] = _bytes_per_asset(folder, window=32)
    if "asset_bytes_ring_64x8" in wanted:
        results["asset_bytes_ring_64x8"] = _bytes_per_asset(folder, window=64, carried=False)
    if "cost_flat" in wanted:
        results["cost_flat"] = _flatness(folder, budget)
    return results


def _bytes_per_asset(folder: Path, window: int, carried: bool | None = None) -> Measured:
    """All numpy arrays that a pipeline holds for its partitions, after two readings of 10,000 assets on four.

    The assets appear 100 at a time. Nothing is assumed of how the state is laid out: every array that can be reached
    from it counts, with the room that growth has left over.
    """
    plan = plan_for(folder, write_artifact(folder / f"w{window}", units=32, window=window, carried=carried))
    pipeline = Pipeline(plan, Shelf(plan))
    for partition in range(_PARTITIONS):
        for part in range(_ASSETS // _PARTITIONS // 100):
            pipeline.run(partition, Fleet(100, prefix=f"p{partition}-{part}").readings(2))
    states: Any = vars(pipeline)["_partitions"]
    found = {id(array): (path, array.nbytes) for path, array in _arrays(states, "")}
    sizes: dict[str, int] = {}
    for path, size in found.values():
        sizes[path] = sizes.get(path, 0) + size
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{path.rsplit('.', 1)[-1]} {size / _ASSETS:,.0f}" for path, size in largest)
    return Measured(sum(sizes.values()) / _ASSETS, f"with the room left by growth: {parts}")


def _arrays(held: Any, path: str, *, deep: int = 0) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every array in dataclasses, mappings and sequences; not in artifacts, which all assets share."""
    if isinstance(held, np.ndarray):
        yield path, held
    elif deep > 8 or isinstance(held, (str, bytes)):
        return
    elif dataclasses.is_dataclass(held):
        for field in dataclasses.fields(held):
            if field.name not in {"artifact", "rules", "identity", "settings"}:
                yield from _arrays(getattr(held, field.name, None), f"{path}.{field.name}", deep=deep + 1)
    elif isinstance(held, Mapping):
        for value in held.values():
            yield from _arrays(value, path, deep=deep + 1)
    elif isinstance(held, (list, tuple, set)):
        for value in held:
            yield from _arrays(value, path, deep=deep + 1)
    elif hasattr(held, "__dict__") and type(held).__module__.startswith(("stream.", "models.")):
        yield from _arrays(vars(held), path, deep=deep + 1)


def _flatness(folder: Path, budget: Budget) -> Measured:
    """CPU time a reading, bytes to verdicts with LSTM 32, where 10, 1,000 or 100,000 assets have full windows.

    Batches have the same number of records: 200 readings of each of 10 assets, 2 of 1,000, or 1 of 2,000 different
    assets out of 100,000, drawn anew each round.
    """
    plan = plan_for(folder, write_artifact(folder / "flat", units=32))
    shelf = Shelf(plan)
    shelf.warm()
    jobs: dict[str, Callable[[], Cost]] = {}
    for size in _SIZES:
        fleet, pipeline = Fleet(size), Pipeline(plan, shelf)
        for _ in range(30):  # nothing of this is scored
            pipeline.run(0, fleet.readings(1))
        records = as_records(fleet.payloads(1), 0)  # full but for the newest row, and every name was read once
        for start in range(0, size, _BATCH):
            pipeline.process(0, records[start : start + _BATCH])
        jobs[f"{size:,}"] = _turn(fleet, pipeline, size)
    for job in jobs.values():
        job()
    calm_collector()  # as the worker does
    keep_memory()
    costs, rounds = interleave(jobs, budget)
    each = {size: middle(held) for size, held in costs.items()}
    note = ", ".join(f"{size}: {1e6 * cost.cpu_s:.1f}" for size, cost in each.items())
    cpu = [cost.cpu_s for cost in each.values()]
    wall = [cost.wall_s for cost in each.values()]
    return Measured(max(cpu) / min(cpu), f"{note} us CPU a reading; wall {max(wall) / min(wall):.2f}; {rounds} rounds")


def _turn(fleet: Fleet, pipeline: Pipeline, offset: int) -> Callable[[], Cost]:
    random = np.random.default_rng(1)

    def turn() -> Cost:
        nonlocal offset
        chosen = np.sort(random.choice(len(fleet.names), min(len(fleet.names), _BATCH), replace=False))
        records = as_records(fleet.payloads(_BATCH // len(chosen), chosen), offset)
        offset += len(records)
        scored = 0

        def work() -> None:
            nonlocal scored
            scored = sum(len(scores) for scores in pipeline.process(0, records).scores)

        cost = timed(work)
        if scored != len(records):
            raise Lost(f"{scored} scores of {len(records)} readings at {len(fleet.names)} assets")
        return cost.per(len(records))

    return turn
