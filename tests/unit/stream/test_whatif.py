"""What other budgets would have raised, and what is kept of a backtest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.datasets import Recording
from stream.backtest import backtest
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.records import Alert
from stream.report.gather import Gathered
from stream.report.outcome import Incident, incidents_of, labelled
from stream.report.whatif import FACTORS, WhatIf
from stream.shelf import Shelf

MakeRecording = Callable[..., Recording]


@pytest.fixture
def recordings(make_recording: MakeRecording) -> list[Recording]:
    """Two pumps: the first has a fault and is known to have had it."""
    first = make_recording("pump-1", rows=900, seed=1, fault=(400, 440))
    labels = (np.arange(900) >= 400) & (np.arange(900) < 440)
    return [
        Recording(first.asset, first.at_ms, first.signals, first.values, labels),
        make_recording("pump-2", rows=900, seed=2),
    ]


def tried(plan: Plan, recordings: list[Recording], batch: int) -> tuple[WhatIf, list[Incident]]:
    shelf = Shelf(plan)
    whatif = WhatIf(plan, shelf)
    alerts: list[Alert] = []
    for output in backtest(Pipeline(plan, shelf), recordings, batch=batch):
        alerts += output.alerts
        for scores in output.scores:
            whatif.take(scores)
    return whatif, incidents_of(alerts)


def told(incidents: list[Incident]) -> list[tuple[str, str, int, int, float]]:
    return [(held.id, held.severity, held.start_ms, held.end_ms, held.peak) for held in incidents]


def test_the_plans_own_budget_gives_the_plans_own_alerts(plan: Plan, recordings: list[Recording]) -> None:
    whatif, raised = tried(plan, recordings, batch=100)
    assert raised
    trials = whatif.trials()
    assert set(trials) == {"quick", "slow"}
    for detector, tries in trials.items():
        (planned,) = [trial for trial in tries if trial.factor == 1.0]
        assert planned.budget == plan.detectors[detector].false_alarms_per_day
        assert told(list(planned.incidents)) == told([held for held in raised if held.detector == detector])


def test_a_larger_budget_has_a_lower_threshold_and_how_it_is_cut_changes_nothing(
    plan: Plan, recordings: list[Recording]
) -> None:
    trials = tried(plan, recordings, batch=4096)[0].trials()["quick"]
    assert [trial.factor for trial in trials] == list(FACTORS)
    thresholds = [trial.thresholds[0] for trial in trials]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]
    assert len(trials[0].incidents) <= len(trials[-1].incidents)
    again = tried(plan, recordings, batch=37)[0].trials()["quick"]
    assert [told(list(trial.incidents)) for trial in again] == [told(list(trial.incidents)) for trial in trials]


def test_a_threshold_in_the_plan_leaves_nothing_to_try(plan: Plan, recordings: list[Recording]) -> None:
    detectors = {**plan.detectors, "quick": plan.detectors["quick"].model_copy(update={"threshold": 5.0})}
    assert set(tried(plan.model_copy(update={"detectors": detectors}), recordings, 100)[0].trials()) == {"slow"}


def test_what_is_kept_is_what_is_drawn(plan: Plan, recordings: list[Recording]) -> None:
    gathered = Gathered(recordings, labelled(recordings), every_row=True, drawn=True)
    for output in backtest(Pipeline(plan, Shelf(plan)), recordings, batch=50):
        gathered.take(output)
    gathered.finish()
    assert gathered.readings == 1800
    assert sum(len(scores) for scores in gathered.rows) == sum(gathered.scored.values())
    assert all(scores.expected is None for scores in gathered.rows)
    kept = {
        asset: np.concatenate(
            [scores.at_ms for scores in gathered.around if scores.names == (asset,) and scores.detector == "quick"]
        )
        for asset in ("pump-1", "pump-2")
    }
    fault = labelled(recordings)[0]
    rows = {asset: set(((at_ms - recordings[0].at_ms[0]) // 1000).tolist()) for asset, at_ms in kept.items()}
    assert set(range(360, 480)) <= rows["pump-1"]
    assert 300 not in rows["pump-1"]
    assert set(range(700, 900)) <= rows["pump-2"]
    assert fault.asset == "pump-1"
    assert {alert.asset for alert in gathered.alerts} >= {"pump-1"}


def test_the_report_says_what_each_rule_did_and_would_have_done(
    plan: Plan, recordings: list[Recording], write_csv: Callable[[Recording, Path], Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="drawing comes with headrace[demo]")
    from stream.commands.backtest import run_backtest

    files = [write_csv(recording, tmp_path) for recording in recordings]
    run_backtest(plan.folder / "headrace.toml", files, report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Backtest of north" in page
    assert "<h2>Rules</h2>" in page
    assert "<h2>What if other budgets of false alarms were accepted</h2>" in page
    assert page.count('aria-label="other budgets of ') == 2
    assert page.count(">as planned<") == 1
    assert 'aria-label="alert ' in page
