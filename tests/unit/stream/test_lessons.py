"""Incidents are learnt from whole or judged on whole, and only who names more of them may serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.base import NORMAL
from models.datasets import Recording
from models.evaluate import Matching
from stream.comparing import Measured
from stream.hindsight import Stretch, marked
from stream.lessons import (
    LEAST,
    Lesson,
    Marks,
    counts,
    digest,
    guess,
    lessons_of,
    marks,
    may_serve,
    missing,
    split,
    to_learn,
)
from stream.report.outcome import Incident

NOTHING = Matching(faults=0, alarms=0, found=(), missed=(), false_alarms=(), watched_ms=0)


def recording(rows: int = 1000, asset: str = "p") -> Recording:
    return Recording(asset, 1000 * np.arange(rows), ("x",), np.zeros((rows, 1)))


def fault(row: int, name: str, rows: int = 10, asset: str = "p") -> Stretch:
    return Stretch(asset, 1000 * row, 1000 * (row + rows - 1), "fault", name)


def lesson(row: int, name: str, asset: str = "p") -> Lesson:
    return Lesson(asset, 1000 * row, 1000 * (row + 10), name)


def alarm(row: int, name: str, asset: str = "p") -> Incident:
    return Incident(asset=asset, start_ms=1000 * row, end_ms=1000 * row + 5000, sort="m", signals=(), id=f"{row}{name}",
                    detector="d", severity="major", verdict="model", peak=2.0, threshold=1.0, causes=(), resolved=True,
                    fault=name)  # fmt: skip


def test_labels_of_one_incident_are_one_lesson() -> None:
    past = [fault(100, "leak"), fault(105, "leak"), fault(300, "jam"), Stretch("p", 500_000, 600_000, "alert")]
    held = marked(recording(), past, margin_ms=5000, keep_onsets=True)
    assert lessons_of([held, recording(asset="q")]) == [
        Lesson("p", 100_000, 115_000, "leak"),
        Lesson("p", 300_000, 310_000, "jam"),
    ]


def test_of_each_fault_the_newest_are_asked_and_what_is_too_rare_is_neither() -> None:
    leaks, jams = [lesson(20 * k, "leak") for k in range(12)], [lesson(20 * k + 10, "jam") for k in range(LEAST)]
    rare = [lesson(900, "rust")]
    learn, asked = split([*rare, *jams, *leaks])
    assert counts(learn) == {"jam": LEAST - 2, "leak": 9}
    assert [held.start_ms for held in asked if held.fault == "leak"] == [180_000, 200_000, 220_000]
    assert counts(asked) == {"jam": 2, "leak": 3}
    assert missing([*rare, *jams]) == {"rust": LEAST - 1}
    assert digest(rare) != digest([replace(rare[0], fault="leak")])


def test_what_is_asked_what_is_later_and_what_nobody_judged_is_not_learnt() -> None:
    past = [fault(100, "leak"), fault(300, "leak"), fault(700, "jam"), Stretch("p", 400_000, 409_000, "alert")]
    held = marked(recording(), past, margin_ms=5000, keep_onsets=True)
    lessons = lessons_of([held])
    got = to_learn(held, [lessons[0], lessons[2]], until_ms=500_000, lead_ms=20_000)
    assert got.labels is not None
    assert got.faults is not None
    kept = [*range(110), *range(115, 300), *range(315, 395), *range(415, 500), *range(680, 710)]
    assert np.flatnonzero(~got.labels).tolist() == kept
    assert np.flatnonzero(got.faults == "leak").tolist() == list(range(100, 110))
    assert np.flatnonzero(got.faults == "jam").tolist() == list(range(700, 710))
    assert set(got.faults) == {NORMAL, "leak", "jam"}


def test_the_first_alert_of_an_incident_has_to_name_it() -> None:
    asked = [lesson(100, "leak"), lesson(200, "leak"), lesson(300, "jam"), lesson(400, "jam"), lesson(500, "jam", "q")]
    alarms = (
        alarm(97, "leak"),  # opened before people said that it began
        alarm(205, "unknown"), alarm(209, "leak"),
        alarm(302, "jam"),
        alarm(515, "jam", "q"),  # within the grace
        alarm(700, "leak"), alarm(800, "leak"), alarm(900, "jam"),
    )  # fmt: skip
    past = [Stretch("p", 795_000, 810_000, "alert")]
    held = Measured("v", 1.0, NOTHING, (), np.zeros(0), alarms)
    got = marks(held, asked, past, held_back_from_ms=750_000, grace_ms=6000)
    assert got == Marks("v", 3, 5, {"jam": (2, 3), "leak": (1, 2)}, false_alarms=1)


def test_who_always_says_the_same_is_right_where_that_is_common() -> None:
    learn, asked = split([*(lesson(20 * k, "leak") for k in range(8)), *(lesson(20 * k + 10, "jam") for k in range(5))])
    assert guess(learn, asked) == Marks("always leak", 2, 4, {"jam": (0, 2), "leak": (2, 2)})


@pytest.mark.parametrize(
    ("candidate", "more", "better"),
    [
        (Marks("c", 3, 4), {}, True),
        (Marks("c", 2, 4), {}, False),
        (Marks("c", 4, 4, false_alarms=2), {}, False),
        (Marks("c", 4, 4, false_alarms=2), {"accepted": 2.5}, True),
        (Marks("c", 4, 4), {"knew": ["leak", "rust"]}, False),
    ],
)
def test_better_is_more_faults_named_and_nothing_forgotten(
    candidate: Marks, more: dict[str, Any], better: bool
) -> None:
    asked: dict[str, Any] = {"accepted": 0.5, "knew": ["leak"], "knows": ["jam", "leak"], **more}
    said, why = may_serve(Marks("s", 2, 4), candidate, **asked)
    assert said is better
    assert why
