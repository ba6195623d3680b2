from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from models.errors import DataError
from stream.demo.scenario import recorded, simulated
from stream.plan import parse_plan
from stream.sources.json import timestamp


def write(path: Path, rows: int, signals: int, *, label_from: int | None = None) -> None:
    rng = np.random.default_rng(0)
    names = [f"s{number}" for number in range(signals)]
    lines = [",".join(["timestamp", *names, *(["anomaly"] if label_from is not None else [])])]
    for row, values in enumerate(rng.standard_normal((rows, signals))):
        cells = [timestamp(1_700_000_000_000 + 1000 * row), *(f"{value:.4f}" for value in values)]
        lines.append(",".join([*cells, *([str(int(row >= label_from))] if label_from is not None else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_simulated_plan_is_valid_and_watches_every_asset() -> None:
    scenario = simulated(3, history_rows=300, live_rows=700)
    plan = parse_plan(tomllib.loads(scenario.plan()))
    assert plan.topics.scores
    assert len(scenario.live) >= 24
    for held in scenario.live:
        assert sum(settings.watches(held.asset) for settings in plan.detectors.values()) == 3
    assert scenario.readings == 700 * len(scenario.live)


def test_history_ends_before_the_live_part() -> None:
    scenario = simulated(3, history_rows=300, live_rows=700)
    for before, after in zip(scenario.history, scenario.live, strict=True):
        assert before.asset == after.asset
        assert before.at_ms[-1] < after.at_ms[0]


@pytest.mark.parametrize(("rows", "signals", "head"), [(2000, 3, 400), (600, 3, 210), (1000, 1, 150)])
def test_a_recording_learns_from_its_own_beginning(tmp_path: Path, rows: int, signals: int, head: int) -> None:
    write(tmp_path / "a.csv", rows, signals, label_from=rows - 50)
    scenario = recorded(tmp_path)
    assert [len(held.at_ms) for held in scenario.history] == [head]
    assert [len(held.at_ms) for held in scenario.live] == [rows - head]
    assert len(scenario.faults) == 1
    plan = parse_plan(tomllib.loads(scenario.plan()))
    assert all(settings.one_model_per_asset for settings in plan.detectors.values())


def test_recordings_without_labels_are_shown_without_faults(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 500, 2)
    assert not recorded(tmp_path / "a.csv").faults


def test_nothing_to_show_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 1, 2)
    with pytest.raises(DataError, match="no recording with more than one reading"):
        recorded(tmp_path)
