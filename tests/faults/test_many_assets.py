"""As many assets as a fleet has: what each costs, and that metrics do not grow with them."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from fault_record import Fault

from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.records import Readings
from stream.shelf import Shelf
from stream.sinks.prometheus import Metrics

_FEW, _MANY, _PARTITIONS = 12, 100_000, 4
_AT_MS = 1_764_000_000_000


def _readings(names: Sequence[str], at_ms: int, signals: Sequence[str]) -> Readings:
    values = np.random.default_rng(at_ms % 1000).normal([40.0, 70.0, 3.0], 0.1, (len(names), 3))
    count = np.arange(len(names), dtype=np.int32)
    return Readings(tuple(names), count, np.full(len(names), at_ms), tuple(signals), values, count)


def _run(pipeline: Pipeline, metrics: Metrics, assets: int, seconds: range) -> int:
    """Readings of so many assets through it; the number of series then."""
    for partition in range(_PARTITIONS):
        names = [f"pump-{partition}-{number}" for number in range(assets // _PARTITIONS)]
        for second in seconds:
            metrics.observe(pipeline.run(partition, _readings(names, _AT_MS + second * 1000, pipeline.signals)))
    return sum(len(family.samples) for family in metrics.registry.collect())


@pytest.mark.fault(18, "100,000 assets")
@pytest.mark.parametrize("asked", [False, True], ids=["as it is", "lateness, witnesses, silence"])
def test_an_asset_costs_little_and_no_metric(
    fault: Fault, plan: Plan, capsys: pytest.CaptureFixture[str], asked: bool
) -> None:
    if asked:
        table = plan.model_dump(exclude={"folder"}, exclude_none=True)
        table |= {"input": {"lateness_s": 2, "ahead_s": 60}, "quality": {"stale_after_periods": 20}}
        plan = parse_plan(table, folder=plan.folder)
    pipeline, metrics = Pipeline(plan, Shelf(plan)), Metrics()
    few = _run(pipeline, metrics, _FEW, range(40))
    gc.collect()
    tracemalloc.start()
    many = _run(pipeline, metrics, _MANY, range(40, 43))
    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / _MANY
    tracemalloc.stop()
    fault.tried()
    with capsys.disabled():
        sys.stdout.write(f"  100,000 assets, two detectors: {each:,.0f} bytes each  ")
    assert pipeline.assets() == _MANY
    assert many == few, "metrics grow with assets"
    assert each < 4000
