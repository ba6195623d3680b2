"""What operators do to alerts: the state machine, labels and thresholds, windows, rules and modes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from stream.actions import Action
from stream.decide import DecisionState, decide
from stream.desk import Desk
from stream.episode import Identity, Rules
from stream.labels import HIGHEST, LOWEST, Label, factor
from stream.operate import apply, heed
from stream.plan import parse_plan
from stream.records import Alert, Scores

WHO = Identity(site="north", detector="pumps", kind="ewma", model_version="v1")

NOW = "2026-11-25T08:00:00.000Z"


def deed(action: str, **fields: Any) -> Action:
    made = {
        "id": f"{action}-0001".replace("_", "-"),
        "action": action,
        "asset": "pump-1",
        "alert": "a1",
        "by": "anna",
        "at": NOW,
    }
    return msgspec.convert({**made, **fields}, Action)


def label(verdict: str = "false_alarm", ratio: float | None = 2.0, minute: int = 0, **fields: Any) -> Label:
    at = f"2026-11-25T08:{minute:02}:00Z"
    made = {"verdict": verdict, "asset": "pump-1", "since": at, "until": at, "by": "anna", "at": at, "ratio": ratio}
    made |= {"alert": f"alert-{minute}", "detector": "pumps", "model_version": "v1"}
    return msgspec.convert({**made, **fields}, Label)


def evidence(scores: list[float], start_s: int) -> Scores:
    count = len(scores)
    return Scores(
        detector="pumps",
        kind="ewma",
        model_version="v1",
        names=("pump-1",),
        asset=np.zeros(count, dtype=np.int32),
        at_ms=(np.arange(count, dtype=np.int64) + start_s) * 1000,
        score=np.array(scores),
        threshold=np.full(count, 1.0),
        anomalous=np.zeros(count, dtype=bool),
        signals=("heat",),
        values=np.full((count, 1), 70.0),
        contributions=np.ones((count, 1)),
        expected=None,
        spread=None,
        verdict=np.zeros(count, dtype=np.uint8),
    )


class Run:
    """Scores of one asset, one a second, and an operator beside."""

    def __init__(self, **rules: Any) -> None:
        self.rules = Rules(**{"threshold": 1.0, "update_every_ms": 3_600_000, **rules})
        self.state, self.second = DecisionState(), 0

    def feed(self, *scores: float, factors: Any = None) -> list[Alert]:
        rows = evidence(list(scores), self.second)
        self.second += len(scores)
        return decide(self.state, self.rules, WHO, rows.asset, ["pump-1"], rows, factors=factors).alerts

    def do(self, action: Action) -> Alert | None:
        return apply(self.state.episodes[0], action, self.rules, WHO, "pump-1")


def test_acknowledging_says_who_and_when_and_twice_does_nothing() -> None:
    run = Run()
    (opened,) = run.feed(2.0)
    told = run.do(deed("ack", comment="on my way"))
    assert told is not None
    assert (told.id, told.state, told.sequence, told.action) == (opened.id, "updated", 1, "ack-0001")
    assert told.acknowledged is not None
    assert (told.acknowledged.by, told.acknowledged.at, told.acknowledged.comment) == ("anna", NOW, "on my way")
    assert run.do(deed("ack", comment="on my way")) is None
    (over,) = run.feed(0.1)
    assert over.acknowledged == told.acknowledged
    assert [(event.what, event.by) for event in over.life] == [("open", ""), ("ack", "anna"), ("resolved", "")]


def test_a_shelved_alert_is_scored_and_told_again_when_its_time_is_over() -> None:
    run = Run()
    run.feed(2.0)
    shelved = run.do(deed("shelve", for_s=3.0))
    assert shelved is not None
    assert shelved.shelved is not None
    assert shelved.shelved.until == "1970-01-01T00:00:03.000Z"
    assert not shelved.told
    assert run.feed(2.0, 4.0)[0].severity == "critical"  # it becomes worse, and is recorded, on the shelf
    (back,) = run.feed(2.0)
    assert back.shelved is None
    assert back.told
    assert [event.what for event in back.life] == ["open", "shelve", "critical", "shelf_over"]


def test_unshelving_tells_at_once() -> None:
    run = Run()
    run.feed(2.0)
    run.do(deed("shelve", for_s=300.0))
    back = run.do(deed("unshelve"))
    assert back is not None
    assert back.told


def test_a_resolved_alert_stays_closed_until_the_score_has_been_below_the_lower_bound() -> None:
    run = Run(deadband=0.2)
    (opened,) = run.feed(2.0)
    over = run.do(deed("resolve", comment="filter changed"))
    assert over is not None
    assert (over.state, over.resolved) == ("resolved", "1970-01-01T00:00:00.000Z")
    assert over.life[-1].by == "anna"
    assert run.feed(2.0, 3.0, 0.9, 2.0) == []  # 0.9 is over the lower bound
    assert run.do(deed("ack", id="ack-0002")) is None
    again = run.feed(0.7, 2.0)
    assert [alert.state for alert in again] == ["open"]
    assert again[0].id != opened.id


def test_what_nobody_acknowledges_alarms_again_and_again() -> None:
    run = Run(re_alarm_after_ms=2000)
    alerts = run.feed(1.2, 1.2, 1.2, 1.2, 1.2)
    assert [alert.state for alert in alerts] == ["open", "updated", "updated"]
    assert [alert.re_alarm for alert in alerts] == [False, True, True]
    acknowledged = run.do(deed("ack"))
    assert acknowledged is not None
    assert not acknowledged.re_alarm
    assert run.feed(1.2, 1.2, 1.2, 1.2) == []


def test_a_moved_threshold_decides_and_is_told() -> None:
    run = Run()
    assert run.feed(1.5, 1.9, factors=np.full(2, 2.0)) == []
    (alert,) = run.feed(2.5, factors=np.full(1, 2.0))
    assert (alert.threshold, alert.factor) == (2.0, 2.0)
    assert run.feed(0.0, 0.0, factors=np.full(2, np.nan)) == []  # no evidence: what is open stays open
    assert [alert.state for alert in run.feed(1.7, factors=np.full(1, 2.0))] == ["resolved"]


def test_labels_move_the_threshold_by_their_peaks_within_bounds() -> None:
    assert factor([]) == 1.0
    assert factor([label(ratio=2.0)]) > 2.0  # this peak would not have alarmed
    assert factor([label(ratio=100.0)]) == HIGHEST
    assert factor([label(ratio=2.0), label("true", 1.5, 1)]) < 1.5  # this one still does
    assert factor([label("true", 1.5, 1), label(ratio=2.0)]) == factor([label(ratio=2.0), label("true", 1.5, 1)])
    assert factor([label("true", 0.01)]) == LOWEST
    assert factor([label(ratio=2.0), label(ratio=1.2, minute=1)]) == factor([label(ratio=2.0)])


def test_a_label_is_told_once_in_the_life_of_its_alert() -> None:
    run = Run()
    run.feed(2.0)
    said = label(comment="cleaning")
    told = heed(run.state.episodes[0], said, run.rules.moved(2.1), WHO, "pump-1")
    assert told is not None
    assert (told.life[-1].what, told.life[-1].comment, told.threshold) == ("false_alarm", "cleaning", 2.1)
    assert heed(run.state.episodes[0], said, run.rules, WHO, "pump-1") is None


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({"action": "ack", "alert": ""}, "needs `alert`"),
        ({"action": "shelve"}, "for_s"),
        ({"action": "ack", "for_s": 5.0}, "for_s"),
        ({"action": "shelve", "for_s": 1e9}, "for_s"),
        ({"action": "explode"}, "action"),
        ({"action": "ack", "by": ""}, "by"),
        ({"action": "ack", "at": "yesterday"}, "at"),
    ],
)
def test_an_action_that_is_none_is_refused(record: dict[str, Any], wrong: str) -> None:
    made = {"id": "12345678", "asset": "pump-1", "alert": "a1", "by": "anna", "at": NOW}
    with pytest.raises(msgspec.ValidationError, match=wrong):
        msgspec.json.decode(msgspec.json.encode({**made, **record}), type=Action)


def plan(**tables: Any) -> Any:
    return parse_plan({"detectors": {"pumps": {"kind": "ewma", "artifact": "a"}}, **tables})


def test_maintenance_windows_and_rules_say_why_nobody_is_told(make_alert: Any) -> None:
    desk = Desk(
        plan(
            maintenance={
                "spring": {"assets": ["pump-*"], "since": "2026-11-23T00:00:00Z", "until": "2026-11-23T08:00:01Z"}
            },
            suppress={"fouling": {"assets": ["hx-*"], "signals": ["heat"], "until": "2026-12-01T00:00:00Z"}},
        )
    )
    assert desk.muted(make_alert(last_seen="2026-11-23T08:00:00.000Z")) == "maintenance: spring"
    assert desk.muted(make_alert(last_seen="2026-11-23T08:00:01.000Z")) == ""
    assert desk.muted(make_alert(asset="hx-1")) == "known: fouling"
    assert desk.muted(make_alert(asset="hx-1", last_seen="2026-12-01T00:00:00Z")) == ""
    assert desk.muted(make_alert(asset="hx-1", causes=())) == ""
    desk.take(deed("maintenance_start", asset="fan-*", alert="", comment="bearing"))
    assert desk.muted(make_alert(asset="fan-3")) == "maintenance: bearing (anna)"
    desk.take(deed("maintenance_stop", asset="fan-*", alert=""))
    assert desk.muted(make_alert(asset="fan-3")) == ""


def test_labels_count_for_the_version_of_the_model_that_they_were_given_to() -> None:
    desk = Desk(plan())
    assert desk.label("alert-0", label(ratio=2.0)) == ("pumps", "pump-1")
    assert desk.factor("pumps", "pump-1", "v1") == pytest.approx(2.1)
    assert desk.factor("pumps", "pump-1", "v2") == 1.0
    assert desk.factor("pumps", "pump-2", "v1") == 1.0
    assert desk.label("alert-0", None) == ("pumps", "pump-1")
    assert desk.factor("pumps", "pump-1", "v1") == 1.0
    stretch = label(alert="", detector="", ratio=None)
    assert desk.label(stretch.key, stretch) is None
    assert list(desk.labels()) == [stretch]


def test_the_newest_word_on_a_mode_holds_until_it_is_taken_back() -> None:
    desk = Desk(plan(modes={"startup": {"judge": False}, "cleaning": {"factor": 2.0, "assets": ["pump-*"]}}))
    assert desk.spoken("pump-1") == ""
    desk.take(deed("mode", asset="*", alert="", mode="startup"))
    desk.take(deed("mode", asset="pump-1", alert="", mode="cleaning", id="mode-0002"))
    assert (desk.spoken("pump-1"), desk.spoken("fan-1")) == ("cleaning", "startup")
    desk.take(deed("mode", asset="pump-1", alert="", mode="", id="mode-0003"))
    assert desk.spoken("pump-1") == "startup"
