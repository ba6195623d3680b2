from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from through import flat, records_of, run

from models.artifact import assemble
from models.base import Float32, Scored
from models.calibrate import calibrate
from models.datasets import Recording
from models.innovation import Yardstick
from models.registry import create
from models.scaling import RobustScaler
from stream.backtest import backtest
from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.records import Alert, Record
from stream.shelf import Shelf


@pytest.fixture
def recordings(make_recording: Callable[..., Recording]) -> list[Recording]:
    return [
        make_recording("pump-1", rows=300, seed=1, fault=(150, 180)),
        make_recording("pump-2", rows=280, seed=2),
        make_recording("fan-1", rows=50, seed=3),
    ]


def test_the_open_alerts_are_those_published_and_not_resolved(plan: Plan, recordings: list[Recording]) -> None:
    records, pipeline = records_of(recordings), Pipeline(plan, Shelf(plan))
    published: dict[str, Alert] = {}
    most = 0
    for start in range(0, len(records), 37):
        for alert in pipeline.process(0, records[start : start + 37]).alerts:
            if alert.state == "resolved":
                del published[alert.id]
            else:
                published[alert.id] = alert
        standing = {alert.id: alert for alert in pipeline.open_alerts()}
        assert standing.keys() == published.keys()
        for key, alert in standing.items():
            assert _lasting(alert) == _lasting(published[key])
        most = max(most, len(standing))
    assert most == 2
    assert not pipeline.open_alerts()


def _lasting(alert: Alert) -> dict[str, Any]:
    """All of an alert but what goes on between two publications."""
    changing = {"state", "sequence", "score", "peak", "peak_at", "causes", "confidence", "verdict"}
    return {name: value for name, value in msgspec.structs.asdict(alert).items() if name not in changing}


def test_a_fault_opens_and_resolves_an_alert_that_names_its_signal(plan: Plan, recordings: list[Recording]) -> None:
    _, alerts = flat(run(plan, records_of(recordings), []))
    assert {(alert.asset, alert.detector) for alert in alerts} == {("pump-1", "quick"), ("pump-1", "slow")}
    for detector in ("quick", "slow"):
        first = next(alert for alert in alerts if alert.detector == detector and alert.state == "open")
        assert first.causes[0].signal == "heat"
        assert sum(cause.share for cause in first.causes) == pytest.approx(1)
        assert any(alert.id == first.id and alert.state == "resolved" for alert in alerts)


def test_live_equals_backtest_however_batches_are_cut(plan: Plan, recordings: list[Recording]) -> None:
    records = records_of(recordings)
    whole = flat(run(plan, records, []))
    assert flat(run(plan, records, [1, 2, 17, 200, 201, 400])) == whole
    assert flat(list(backtest(Pipeline(plan, Shelf(plan)), recordings, batch=37))) == whole


def test_a_score_depends_only_on_what_came_before(plan: Plan, recordings: list[Recording]) -> None:
    records = records_of(recordings)
    rows, alerts = flat(run(plan, records, []))
    cut = 333
    early_rows, early_alerts = flat(run(plan, records[:cut], []))
    assert early_rows == {key: rows[key] for key in early_rows}
    assert early_alerts == [alert for alert in alerts if alert in early_alerts]


def test_every_record_is_accounted_for(plan: Plan, recordings: list[Recording]) -> None:
    records = records_of(recordings)
    late = replace(records[0], offset=len(records))
    again = replace(records[-1], offset=len(records) + 1)
    bad = Record("readings", 0, len(records) + 2, b"?")
    output = Pipeline(plan, Shelf(plan)).process(0, [*records, late, again, bad])
    assert output.counts["records"] == len(records) + 3
    assert output.counts["readings"] == len(records) + 2
    assert (output.counts["late"], output.counts["duplicates"]) == (1, 1)
    assert output.counts["unwatched"] == 50
    assert [letter.record for letter in output.dead] == [bad]
    assert [held.record for held in output.late] == [late]


def test_records_that_are_read_again_change_nothing(plan: Plan, recordings: list[Recording]) -> None:
    records = records_of(recordings)
    pipeline = Pipeline(plan, Shelf(plan))
    outputs = [pipeline.process(0, records[a:b]) for a, b in [(0, 200), (100, 300), (0, 300), (300, len(records))]]
    assert flat(outputs) == flat(run(plan, records, []))
    assert sum(output.counts["repeated"] for output in outputs) == 400
    assert sum(output.counts["late"] for output in outputs) == 0


def test_a_partition_that_went_away_is_forgotten(plan: Plan, recordings: list[Recording]) -> None:
    pipeline = Pipeline(plan, Shelf(plan))
    records = records_of(recordings)
    first = pipeline.process(3, records)
    pipeline.keep_only({0, 1})
    assert flat([pipeline.process(3, records)]) == flat([first])


def test_a_detector_that_fails_costs_only_itself(
    plan: Plan, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(plan)
    broken = shelf.find("slow", "pump-1")
    assert broken is not None
    sound = broken.detector

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(sound, name)

        def score(self, windows: Float32) -> Scored:
            raise RuntimeError("no memory")

    monkeypatch.setitem(shelf._fleet, "slow", replace(broken, detector=Broken()))
    records = records_of(recordings)
    output = Pipeline(plan, shelf).process(0, records)
    assert {scores.detector for scores in output.scores} == {"quick"}
    assert {letter.reason for letter in output.dead} == {"detector_failed"}
    assert len(output.dead) == len(recordings[0].at_ms) + len(recordings[1].at_ms)
    assert "no memory" in output.dead[0].detail


def test_one_dead_signal_neither_silences_the_asset_nor_raises_its_score(
    plan: Plan, make_recording: Callable[..., Recording]
) -> None:
    sound = make_recording("pump-1", rows=300, seed=5, fault=(200, 240))
    values = sound.values.copy()
    values[100:, 0] = np.nan
    rows, alerts = flat(run(plan, records_of([replace(sound, values=values)]), []))
    quick = [alert for alert in alerts if alert.detector == "quick"]
    assert quick[0].causes[0].signal == "heat"
    assert quick[0].confidence == pytest.approx(2 / 3)
    assert all(cause.signal != "flow" for cause in quick[0].causes)
    before = [score for (detector, _, at), (score, _) in rows.items() if detector == "quick" and at < sound.at_ms[200]]
    assert np.isfinite(before).all()


@pytest.fixture(scope="module")
def carrying_plan(make_recording: Callable[..., Recording], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan whose forecaster carries its state; its weights are drawn, for what is tested is not what it learnt."""

    folder = tmp_path_factory.mktemp("carrying")
    history = make_recording("pump-0", rows=400, seed=9)
    detector = create("gru_forecaster", signals=3, config={"units": 4, "window": 8, "carried": True})
    random = np.random.default_rng(0)
    network = cast("Any", detector)._network
    drawn = [random.normal(0, 0.3, shape).astype(np.float32) for shape in network._shapes.values()]
    rows = random.normal(size=(4, 7, 3)).astype(np.float32)
    network._weights = drawn
    network.adopt(drawn, rows, network.predict(rows))
    cast("Any", detector)._yardstick = Yardstick(np.ones(3, np.float32), np.eye(3), np.ones((2, 3)))
    artifact = assemble(
        detector,
        RobustScaler.fit([history.values]),
        calibrate([random.exponential(size=200)], period_s=1.0),
        signals=history.signals,
        period_s=1.0,
        assets=("pump-0",),
        rows={"fit": 1},
        from_ms=0,
        to_ms=1,
        seed=0,
        figures={},
        curves={},
    )
    artifact.save(folder / "artifacts")
    rules = {"kind": "gru_forecaster", "artifact": "artifacts", "hop": 2, "gaps": {"longer_than_s": 30}}
    return parse_plan({"detectors": {"carrier": rules}}, folder=folder)


def test_a_carried_state_gives_the_same_however_batches_are_cut_and_starts_anew_after_a_gap(
    carrying_plan: Plan, recordings: list[Recording]
) -> None:
    later = recordings[1]
    at_ms = later.at_ms.copy()
    at_ms[140:] += 60_000
    recordings = [recordings[0], replace(later, at_ms=at_ms)]
    records = records_of(recordings)
    whole = flat(run(carrying_plan, records, []))
    assert flat(run(carrying_plan, records, [1, 2, 17, 200, 201, 400])) == whole
    assert flat(list(backtest(Pipeline(carrying_plan, Shelf(carrying_plan)), recordings, batch=37))) == whole
    mine = sorted(at for _, asset, at in whole[0] if asset == "pump-2")
    assert mine[0] == at_ms[7], "the first window is a warm-up"
    assert not [at for at in mine if at_ms[139] < at < at_ms[147]], "and again after the gap"
    alone = replace(later, at_ms=at_ms[140:], values=later.values[140:])
    rows, _ = flat(run(carrying_plan, records_of([alone]), []))
    assert rows == {key: value for key, value in whole[0].items() if key in rows}
