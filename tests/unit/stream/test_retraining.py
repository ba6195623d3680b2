"""What must not be learnt is left out, what was a false alarm is learnt, and only what is better takes the place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from models.datasets import Recording
from models.evaluate import Matching
from stream.actions import Action
from stream.commands.retrain import watch
from stream.comparing import Measured
from stream.errors import BrokerError, NoReadings, SinkUnavailable, StreamError
from stream.hindsight import Said, Stretch, marked, said_of, stretches, worked_on
from stream.labels import Label
from stream.maintenance import Maintenance
from stream.operating import MaintenanceSettings
from stream.records import Alert
from stream.report.outcome import Incident
from stream.retraining import Tally, drift, is_better, tally
from stream.sources.json import timestamp

START_MS = 1_764_000_000_000


def at(row: int) -> str:
    return timestamp(START_MS + 1000 * row)


def alert(asset: str, onset: int, resolved: int | None, **more: Any) -> Alert:
    made: dict[str, Any] = {
        "id": f"{asset}-{onset}", "sequence": 3, "state": "resolved" if resolved else "updated", "severity": "major",
        "detector": "d", "kind": "ewma", "verdict": "model", "model_version": "1", "onset": at(onset),
        "opened": at(onset), "last_seen": at(resolved or onset), "score": 2.0, "threshold": 1.0, "peak": 2.0,
        "peak_at": at(onset), "resolved": at(resolved) if resolved else None,
    }  # fmt: skip
    return Alert(asset=asset, **{**made, **more})


def label(asset: str, since: int, until: int, verdict: Any, **more: Any) -> Label:
    if "alert" in more:
        more = {"detector": "d", "ratio": 2.0, **more}
    return Label(verdict=verdict, asset=asset, since=at(since), until=at(until), by="a", at=at(0), **more)


def recording(asset: str = "p", rows: int = 100) -> Recording:
    at_ms = START_MS + 1000 * np.arange(rows)
    return Recording(asset, at_ms, ("x",), np.zeros((rows, 1)))


def left_out(held: Recording) -> list[int]:
    assert held.labels is not None
    return np.flatnonzero(held.labels).tolist()


def test_alerts_are_left_out_from_onset_to_end_with_a_margin() -> None:
    past = stretches([alert("p", 20, 30), alert("q", 50, 60)], [])
    assert left_out(marked(recording(), past, margin_ms=2000)) == list(range(18, 33))


def test_maintenance_is_left_out_whatever_else_was_said_of_it() -> None:
    planned = MaintenanceSettings(assets=("p",), since=at(70), until=at(80))  # type: ignore[arg-type]
    maintenance = Maintenance({"spring": planned})
    for action, asset, second in (
        ("maintenance_start", "*", 20), ("maintenance_stop", "*", 30), ("maintenance_start", "p", 95)
    ):  # fmt: skip
        word = {"action": action, "asset": asset, "id": f"{action}-{second}".replace("_", "-"), "by": "anna"}
        maintenance.take(msgspec.convert({**word, "at": at(second)}, Action))
    past = [*stretches([], [label("p", 25, 40, "false_alarm")]), *worked_on(maintenance, ["p", "q", "p"])]
    assert left_out(marked(recording(), past)) == [*range(20, 30), *range(70, 80), *range(95, 100)]
    assert left_out(marked(recording("q"), past)) == list(range(20, 30))


def test_what_is_still_open_is_left_out_to_the_end() -> None:
    assert left_out(marked(recording(), stretches([alert("p", 90, None)], []))) == list(range(90, 100))


def test_of_an_alerts_transitions_the_newest_counts_in_any_order() -> None:
    opened = alert("p", 20, None, sequence=0, state="open")
    past = stretches([alert("p", 20, 30), opened], [])
    assert [(held.start_ms, held.end_ms) for held in past] == [(START_MS + 20_000, START_MS + 30_000)]


def test_a_false_alarm_is_learnt_for_as_long_as_its_alert_lasted() -> None:
    said = label("p", 20, 22, "false_alarm", alert="p-20")  # labelled when it was two seconds old
    past = stretches([alert("p", 20, 30), alert("p", 60, 65)], [said])
    assert left_out(marked(recording(), past, margin_ms=1000)) == list(range(59, 67))


def test_alerts_within_a_stretch_that_was_said_to_be_normal_are_none() -> None:
    past = stretches([alert("p", 20, 30), alert("q", 20, 30)], [label("p", 10, 40, "false_alarm")])
    assert left_out(marked(recording(), past)) == []
    assert left_out(marked(recording("q"), past)) == list(range(20, 31))


def test_a_labelled_fault_is_left_out_though_nothing_alarmed_and_has_its_name() -> None:
    held = marked(recording(), stretches([], [label("p", 40, 44, "true", fault="leak")]))
    assert left_out(held) == list(range(40, 45))
    assert held.faults is not None
    assert held.faults[39:46].tolist() == ["normal", *["leak"] * 5, "normal"]


def test_who_learns_to_name_a_fault_sees_it_begin_and_nothing_of_what_nobody_judged() -> None:
    past = stretches([alert("p", 70, 75)], [label("p", 40, 44, "true", fault="leak"), label("p", 20, 22, "true")])
    held = marked(recording(), past, margin_ms=3000, keep_onsets=True)
    assert left_out(held) == [*range(17, 26), *range(40, 48), *range(67, 79)]


def test_a_classifiers_own_words_name_no_fault() -> None:
    past = stretches([], [label("p", 40, 44, "true", fault=word) for word in ("normal", "unknown")])
    assert [(held.what, held.fault) for held in past] == [("fault", "")] * 2


def test_a_true_alert_that_goes_on_after_its_label_is_left_out_to_its_end() -> None:
    past = stretches([alert("p", 20, 70)], [label("p", 20, 25, "true", alert="p-20", fault="leak")])
    assert left_out(marked(recording(), past)) == list(range(20, 71))


def test_what_a_recording_says_itself_stays_said() -> None:
    labels = np.zeros(100, bool)
    labels[5] = True
    held = replace(recording(), labels=labels)
    assert left_out(marked(held, stretches([alert("p", 20, 20)], []))) == [5, 20]


def incident(start: int, asset: str = "p") -> Incident:
    return Incident(asset=asset, start_ms=START_MS + 1000 * start, end_ms=START_MS + 1000 * start + 1, sort="m",
                    signals=(), id=f"{start}", detector="d", severity="major", verdict="model", peak=2.0, threshold=1.0,
                    causes=(), resolved=True)  # fmt: skip


def test_alarms_are_counted_by_what_people_said() -> None:
    past = [
        Stretch("p", START_MS + 10_000, START_MS + 20_000, "fault"),
        Stretch("p", START_MS + 30_000, START_MS + 40_000, "fault"),
        Stretch("p", START_MS + 50_000, START_MS + 55_000, "false_alarm"),
        Stretch("p", START_MS + 80_000, START_MS + 85_000, "alert"),
    ]
    alarms = (*map(incident, (12, 57, 65, 75, 82)), incident(76, "q"))
    none = Matching(faults=0, alarms=0, found=(), missed=(), false_alarms=(), watched_ms=0)
    held = Measured("v", 1.0, none, (), np.zeros(0), alarms)
    assert tally(held, past, held_back_from_ms=START_MS + 70_000, grace_ms=3000) == Tally("v", 1, 2, 1, 1, 2)


def test_what_a_label_keeps_quiet_must_not_ring_again() -> None:
    said = [
        label("p", 20, 22, "false_alarm", alert="p-20", model_version="1"),
        label("p", 40, 42, "false_alarm", alert="p-40", model_version="0"),  # of the version before
        label("p", 60, 62, "false_alarm", alert="p-60", model_version="1", ratio=9.0),  # too high to be silenced
        label("p", 80, 85, "false_alarm"),
    ]
    past = stretches([alert("p", row, row + 5) for row in (20, 40, 60)], said)
    none = Matching(faults=0, alarms=0, found=(), missed=(), false_alarms=(), watched_ms=0)
    held = Measured("v", 1.0, none, (), np.zeros(0), tuple(map(incident, (21, 41, 61, 81))))
    told = tally(held, past, held_back_from_ms=START_MS, grace_ms=0, quiet=("d", "1"))
    assert (told.repeated, told.rung) == (4, 1)
    assert is_better(Tally("s", 0, 0, 4, 4, 5), replace(told, false_alarms=0), 0.0) == (
        False,
        "raises 1 false alarms again that labels have silenced for what serves",
    )


def test_what_people_said_is_counted() -> None:
    past = stretches(
        [alert("p", 20, 30), alert("p", 60, 65), alert("p", 90, None)],
        [
            label("p", 20, 22, "true", alert="p-20", fault="leak"),
            label("q", 10, 20, "true", fault="leak"),
            label("q", 30, 40, "true"),
            label("p", 60, 65, "false_alarm", alert="p-60"),
        ],
    )
    assert said_of(past) == Said(true=3, false_alarms=1, unjudged=1, faults={"leak": 2})


def drifted(held: Recording, past: list[Stretch], scores: np.ndarray[Any, Any]) -> list[str]:
    none = Matching(faults=0, alarms=0, found=(), missed=(), false_alarms=(), watched_ms=0)
    keys = tuple(("p", at_ms) for at_ms in held.at_ms.tolist())
    found = drift(Measured("v", 1.0, none, keys, scores), [marked(held, past)], recent_from_ms=START_MS + 1_500_000)
    return [shift.name for shift in found if shift.drifted]


def test_a_fault_is_no_drift_and_what_stays_is() -> None:
    rng = np.random.default_rng(1)
    held = recording(rows=2000)
    held.values[:, 0] = rng.normal(size=2000)
    scores = rng.gamma(4.0, 0.1, 2000)
    fault = slice(1600, 1900)
    held.values[fault] += 5.0
    scores[fault] *= 3.0
    assert drifted(held, [], scores) == ["score", "p x"]
    assert drifted(held, stretches([alert("p", 1600, 1899)], []), scores) == []
    assert drifted(held, stretches([], [label("p", 1600, 1899, "true")]), scores) == []
    excused = stretches([alert("p", 1600, 1899)], [label("p", 1600, 1899, "false_alarm", alert="p-1600")])
    assert drifted(held, excused, scores) == ["score", "p x"]  # normal is not what it was


@pytest.mark.parametrize(
    ("candidate", "accepted", "better"),
    [
        (Tally("c", 3, 4, 1, 2, 5), 0.0, True),  # one labelled false alarm less
        (Tally("c", 4, 4, 2, 2, 5), 0.0, True),  # one fault more
        (Tally("c", 3, 4, 2, 2, 4), 0.0, True),  # one held-back alarm less
        (Tally("c", 3, 4, 2, 2, 5), 0.0, False),  # no better
        (Tally("c", 2, 4, 0, 2, 0), 0.0, False),  # misses what was found
        (Tally("c", 4, 4, 2, 2, 6), 0.0, False),  # alarms more
        (Tally("c", 4, 4, 2, 2, 6), 6.5, True),  # but no more than is accepted
        (Tally("c", 4, 4, 3, 2, 0), 0.0, False),  # raises a labelled false alarm again
    ],
)
def test_no_worse_in_any_and_better_in_one(candidate: Tally, accepted: float, better: bool) -> None:
    said, why = is_better(Tally("s", 3, 4, 2, 2, 5), candidate, accepted)
    assert said is better
    assert why


@pytest.mark.parametrize(
    "error", [BrokerError("away"), NoReadings("a quiet week"), SinkUnavailable("InfluxDB is away", 0.0)]
)
def test_a_round_that_fails_is_not_the_last(error: StreamError) -> None:
    rounds: list[int] = []
    waits: list[float] = []

    def once() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise error

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(once, 60.0, sleep)
    assert len(rounds) == 3
    assert all(59 < wait <= 60 for wait in waits)
