"""Operators and the pipeline: what was done survives a crash, whenever it came, and is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from through import records_of

from models.datasets import Recording
from stream.actions import Action
from stream.assembly import Image
from stream.desk import Desk
from stream.errors import ConfigError
from stream.hindsight import learnt_in
from stream.labels import Label
from stream.operating import ModeSettings
from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.records import Alert, Output, Record
from stream.shelf import Shelf

NOW = "2026-11-25T08:00:00.000Z"


@pytest.fixture
def records(make_recording: Callable[..., Recording]) -> list[Record]:
    """A pump that has the same fault twice."""
    recording = make_recording("pump-1", rows=400, seed=1, fault=(100, 140))
    values = recording.values.copy()
    values[300:340, 1] += 12.0
    return records_of([Recording("pump-1", recording.at_ms, recording.signals, values, None)])


def started(plan: Plan) -> Pipeline:
    return Pipeline(plan, Shelf(plan))


def deed(alert: Alert, action: str, **fields: Any) -> Action:
    made = {"id": f"{action}-0001", "action": action, "asset": alert.asset, "alert": alert.id, "by": "anna", "at": NOW}
    return msgspec.convert({**made, **fields}, Action)


def false_alarm(alert: Alert) -> Label:
    return Label(
        verdict="false_alarm",
        asset=alert.asset,
        since=alert.onset,
        until=alert.last_seen,
        by="anna",
        at=NOW,
        alert=alert.id,
        detector=alert.detector,
        model_version=alert.model_version,
        ratio=alert.peak / alert.threshold * alert.factor,
    )


def opened(output: Output, detector: str = "quick") -> Alert:
    return next(alert for alert in output.alerts if alert.detector == detector and alert.state == "open")


def image_of(pipeline: Pipeline) -> Image:
    found = pipeline.touched(0)
    assert found is not None
    applied, numbers = found
    blocks = {block.number: block for block in pipeline.take(0, numbers)}
    return Image(applied=applied, size=next(iter(blocks.values())).size, blocks=blocks)


def test_what_was_done_is_part_of_the_state_and_is_not_done_again(plan: Plan, records: list[Record]) -> None:
    first = started(plan)
    alert = opened(first.process(0, records[:120]))
    ack = deed(alert, "ack")
    (told,) = first.act(ack).alerts
    assert told.acknowledged is not None
    assert first.act(ack).alerts == ()
    assert first.touched(0) == (119, [0])

    second = started(plan)
    second.act(ack)  # the topic is read before anything is assigned
    second.restore(0, image_of(first))
    standing = next(held for held in second.open_alerts() if held.id == alert.id)
    assert standing.acknowledged == told.acknowledged
    later = second.process(0, records[120:]).alerts
    assert [held.action for held in later if held.action] == []
    assert next(held for held in later if held.id == alert.id).acknowledged == told.acknowledged


def test_what_was_done_after_the_snapshot_or_while_nobody_was_there_is_done_with_the_next_batch(
    plan: Plan, records: list[Record]
) -> None:
    first = started(plan)
    alert = opened(first.process(0, records[:120]))
    saved = image_of(first)
    second = started(plan)
    second.act(deed(alert, "ack"))
    second.act(deed(alert, "shelve", for_s=60.0))
    second.restore(0, saved)
    later = [held for held in second.process(0, records[120:125]).alerts if held.id == alert.id and held.action]
    assert [held.action for held in later] == ["ack-0001", "shelve-0001"]
    assert second.process(0, records[125:126]).alerts == ()


def test_a_run_from_the_beginning_comes_to_the_same_ends(plan: Plan, records: list[Record]) -> None:
    first = started(plan)
    alert = opened(first.process(0, records[:120]))
    resolve = deed(alert, "resolve")
    told = [*first.act(resolve).alerts, *first.process(0, records[120:]).alerts]
    again = started(plan)
    again.act(resolve)
    repeated = [held for at in range(0, 400, 20) for held in again.process(0, records[at : at + 20]).alerts]
    ends = {held.id: held.state for held in told}
    assert {held.id: held.state for held in repeated} == ends
    assert set(ends.values()) == {"resolved"}
    assert [held.action for held in repeated if held.action] == ["resolve-0001"]


def test_a_false_alarm_moves_the_threshold_at_once_and_the_same_again_does_not_alarm(
    plan: Plan, records: list[Record]
) -> None:
    pipeline = started(plan)
    before = pipeline.process(0, records[:200])
    alert = [held for held in before.alerts if held.detector == "quick"][-1]
    assert alert.state == "resolved"
    label = false_alarm(alert)
    ratio = label.ratio
    assert ratio is not None
    assert pipeline.label(label.key, label).alerts == ()  # it is over: there is nothing to tell
    assert pipeline.moved() == {"quick": 1, "slow": 0}
    after = pipeline.process(0, records[200:])
    scores = next(held for held in after.scores if held.detector == "quick")
    moved = scores.threshold / next(held for held in before.scores if held.detector == "quick").threshold[0]
    np.testing.assert_allclose(moved, min(ratio * 1.05, 4.0))
    if ratio * 1.05 < 4.0:
        assert [held for held in after.alerts if held.detector == "quick"] == []
    assert any(held.detector == "slow" for held in after.alerts)  # nobody said anything of that
    pipeline.label(label.key, None)
    assert pipeline.moved() == {"quick": 0, "slow": 0}


def test_an_open_alert_tells_of_its_label_and_of_the_threshold_that_moved(plan: Plan, records: list[Record]) -> None:
    pipeline = started(plan)
    alert = opened(pipeline.process(0, records[:102]))
    label = false_alarm(alert)
    (told,) = pipeline.label(label.key, label).alerts
    assert told.factor > 1.0
    assert told.threshold == pytest.approx(alert.threshold * told.factor)
    assert told.life[-1].what == "false_alarm"


def test_maintenance_marks_what_opens_and_tells_of_what_is_open_at_its_start_and_its_end(
    plan: Plan, records: list[Record]
) -> None:
    pipeline = started(plan)
    pipeline.process(0, records[:120])
    word = {"id": "start-001", "action": "maintenance_start", "asset": "pump-*", "by": "anna", "at": NOW}
    begun = pipeline.act(msgspec.convert(word, Action)).alerts
    assert {held.detector for held in begun} == {"quick", "slow"}
    assert all(held.suppressed == "maintenance: maintenance (anna)" and not held.told for held in begun)
    word |= {"id": "stop-0001", "action": "maintenance_stop"}
    over = pipeline.act(msgspec.convert(word, Action)).alerts
    assert all(held.told for held in over)
    assert len(over) == 2


def test_a_mode_by_a_signal_moves_the_threshold_of_its_rows(plan: Plan, records: list[Record]) -> None:
    hot = {"cleaning": {"signal": "heat", "low": 76.0, "judge": False}}
    table = plan.model_dump(exclude_unset=True) | {"modes": hot}
    calm = started(Plan.model_validate({**table, "folder": plan.folder}))
    assert calm.process(0, records[:138]).alerts == ()  # what is below 76 again is judged
    assert started(plan).process(0, records[:138]).alerts != ()


def test_a_mode_by_an_operators_word(plan: Plan, records: list[Record]) -> None:
    table = plan.model_dump(exclude_unset=True) | {"modes": {"startup": {"factor": 50.0, "detectors": ["quick"]}}}
    pipeline = started(Plan.model_validate({**table, "folder": plan.folder}))
    word = {"id": "mode-0001", "action": "mode", "asset": "pump-1", "mode": "startup", "by": "anna", "at": NOW}
    pipeline.act(msgspec.convert(word, Action))
    assert {held.detector for held in pipeline.process(0, records[:200]).alerts} == {"slow"}


def other_in(plan: Plan, mode: dict[str, Any]) -> Pipeline:
    """A pipeline with ``slow`` for a mode, and ``quick`` for all else."""
    table = plan.model_dump(exclude_unset=True)
    table["modes"] = {"startup": {"judge": False, "detectors": ["quick"], **mode}}
    table["detectors"]["slow"]["only_in"] = ["startup"]
    return started(Plan.model_validate({**table, "folder": plan.folder}))


def test_a_mode_has_another_detector_by_an_operators_word(plan: Plan, records: list[Record]) -> None:
    pipeline = other_in(plan, {})
    told = [held.detector for held in pipeline.process(0, records[:110]).alerts]
    word = {"id": "mode-0001", "action": "mode", "asset": "pump-1", "mode": "startup", "by": "anna", "at": NOW}
    pipeline.act(msgspec.convert(word, Action))
    told_in_it = [held.detector for held in pipeline.process(0, records[110:200]).alerts]
    assert set(told) <= {"quick"}
    assert "slow" in told_in_it


def test_a_mode_has_another_detector_where_its_signal_shows_it(plan: Plan, records: list[Record]) -> None:
    never, always = other_in(plan, {"signal": "heat", "low": 1e9}), other_in(plan, {"signal": "heat", "high": 1e9})
    assert {held.detector for held in never.process(0, records[:200]).alerts} == {"quick"}
    output = always.process(0, records[:200])
    assert {held.detector for held in output.alerts} == {"slow"}
    assert {scores.detector for scores in output.scores} == {"quick", "slow"}  # both have their windows all the time


def test_what_a_detector_does_not_judge_it_does_not_learn(make_recording: Callable[..., Recording]) -> None:
    modes = {"hot": ModeSettings(signal="heat", low=71.0), "cold": ModeSettings(signal="heat", high=69.0)}
    held = make_recording("pump-1", rows=300)
    heat = held.values[:, held.signals.index("heat")]
    learnt = learnt_in(held, modes, ("hot",))
    assert learnt.labels is not None
    assert learnt.labels.tolist() == (heat < 71.0).tolist()
    both = learnt_in(held, modes, ("hot", "cold"))
    assert both.labels is not None
    assert both.labels.tolist() == ((heat < 71.0) & (heat > 69.0)).tolist()
    assert learnt_in(held, modes, ()) is held


@pytest.mark.parametrize(
    ("modes", "only_in", "wrong"),
    [({"startup": {}}, [], "changes nothing"), ({}, ["startup"], r"only_in: there is no modes\.startup")],
)
def test_a_mode_that_makes_no_difference_or_is_not_there_is_refused(
    plan: Plan, modes: dict[str, Any], only_in: list[str], wrong: str
) -> None:
    table = plan.model_dump(exclude_unset=True) | {"modes": modes}
    table["detectors"]["slow"]["only_in"] = only_in
    with pytest.raises(ConfigError, match=wrong):
        parse_plan(table)


def test_the_desk_keeps_a_bounded_number_of_alerts(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.desk.MOST_ALERTS", 10)
    desk = Desk(plan)
    for number in range(30):
        desk.take(Action(id=f"ack-{number:04}", action="ack", asset="p", alert=f"a{number}", by="anna", at=NOW))
    assert [bool(desk.actions(f"a{number}")) for number in (0, 19, 20, 29)] == [False, False, True, True]
