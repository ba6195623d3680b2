"""Labelled incidents as lessons for a classifier: whether they are enough, and whether who learnt from them may serve.

An incident is learnt from whole or judged on whole: its rows are much alike, and half of them would give the other half
away. Of each fault the newest incidents are kept back, so that what is asked is later than what was learnt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from models.base import NORMAL
from models.evaluate import events_of
from stream.comparing import Measured
from stream.hindsight import Stretch

if TYPE_CHECKING:
    from models.datasets import Recording

#: Incidents of one fault that are enough: three to learn from, for a fault that was seen once is known only as it went
#: that once; and two to be asked, for of two faults whoever guesses has all four right once in sixteen times, and
#: with one of each once in four.
LEAST: Final = 5
_LEAST_ASKED: Final = 2
_ASKED: Final = 0.25  # of the incidents of a fault, the newest
#: Faults that are enough: with one there is nothing to tell it from but normal, which any other detector does.
LEAST_FAULTS: Final = 2


@dataclass(frozen=True, slots=True)
class Lesson:
    """One incident of one asset whose fault is known, from ``start_ms`` to ``end_ms``."""

    asset: str
    start_ms: int
    end_ms: int
    fault: str


@dataclass(frozen=True, slots=True)
class Marks:
    """How a version did, or whoever always names the commonest fault.

    right, asked  held-back incidents whose first alert named the fault first, and all of them
    by_fault      fault -> (right, asked)
    false_alarms  alarms in the held-back time where nobody has said that anything was wrong
    """

    version: str
    right: int
    asked: int
    by_fault: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    false_alarms: int = 0


def lessons_of(recordings: Sequence[Recording]) -> list[Lesson]:
    """Each run of one named fault, in the order of time. Of ``marked`` recordings labels of one incident are one."""
    found = []
    for held in recordings:
        if held.faults is None:
            continue
        for fault in sorted({str(name) for name in held.faults} - {NORMAL}):
            found += [
                Lesson(held.asset, event.start_ms, event.end_ms, fault)
                for event in events_of(held.asset, held.at_ms, np.asarray(held.faults == fault))
            ]
    return sorted(found, key=lambda lesson: (lesson.start_ms, lesson.asset, lesson.fault))


def counts(lessons: Sequence[Lesson]) -> dict[str, int]:
    """How many there are of each fault."""
    return dict(sorted(Counter(lesson.fault for lesson in lessons).items()))


def missing(lessons: Sequence[Lesson]) -> dict[str, int]:
    """How many more are needed of each fault that has too few."""
    return {fault: LEAST - count for fault, count in counts(lessons).items() if count < LEAST}


def digest(lessons: Sequence[Lesson]) -> str:
    """Tells whether they are the same as another time."""
    told = "\n".join(f"{held.asset}|{held.start_ms}|{held.end_ms}|{held.fault}" for held in lessons)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def split(lessons: Sequence[Lesson]) -> tuple[list[Lesson], list[Lesson]]:
    """(to learn from, to ask): of each fault that has enough of them; the newest quarter, and two at least, are asked.

    >>> learn, asked = split([Lesson("p", 10 * k, 10 * k + 5, "leak") for k in range(5)])
    >>> len(learn), [lesson.start_ms for lesson in asked]
    (3, [30, 40])
    """
    learn: list[Lesson] = []
    asked: list[Lesson] = []
    for fault, count in counts(lessons).items():
        if count >= LEAST:
            own = sorted((held for held in lessons if held.fault == fault), key=lambda held: held.start_ms)
            back = max(_LEAST_ASKED, int(_ASKED * count))
            learn += own[:-back]
            asked += own[-back:]
    return learn, asked


def to_learn(recording: Recording, learn: Sequence[Lesson], *, until_ms: int, lead_ms: int) -> Recording:
    """A ``marked`` recording of which only these lessons, each with ``lead_ms`` before it, and what was normal before
    ``until_ms`` is left: all else is labelled and has no name.
    """
    wrong = np.zeros(len(recording.at_ms), bool) if recording.labels is None else recording.labels
    known = ~wrong & (recording.at_ms < until_ms)
    faults = np.full(len(wrong), NORMAL, dtype=object)
    for lesson in learn:
        if lesson.asset == recording.asset:
            own = (recording.at_ms >= lesson.start_ms) & (recording.at_ms < lesson.end_ms)
            lead = (recording.at_ms >= lesson.start_ms - lead_ms) & (recording.at_ms < lesson.start_ms)
            faults[own] = lesson.fault
            known |= own | (lead & ~wrong)
    return replace(recording, labels=~known, faults=faults.astype(str))


def marks(
    held: Measured, asked: Sequence[Lesson], past: Sequence[Stretch], *, held_back_from_ms: int, grace_ms: int
) -> Marks:
    """Judge by the alerts that a version raised: those that operators would have seen.

    past  all that is known: an alarm in none of it, in the held-back time, is a false one
    """
    by_fault = dict.fromkeys(sorted({lesson.fault for lesson in asked}), (0, 0))
    for lesson in asked:
        named = [
            alarm.fault for alarm in held.incidents
            if alarm.asset == lesson.asset
            and alarm.start_ms <= lesson.end_ms + grace_ms and alarm.end_ms >= lesson.start_ms
        ]  # fmt: skip
        right, of = by_fault[lesson.fault]
        by_fault[lesson.fault] = right + (named[:1] == [lesson.fault]), of + 1
    known = [*past, *(Stretch(held.asset, held.start_ms, held.end_ms, "fault", held.fault) for held in asked)]
    stray = [
        alarm for alarm in held.incidents
        if alarm.start_ms >= held_back_from_ms
        and not any(
            stretch.asset == alarm.asset
            and alarm.start_ms <= stretch.end_ms + grace_ms and alarm.end_ms >= stretch.start_ms
            for stretch in known
        )
    ]  # fmt: skip
    return Marks(held.version, sum(right for right, _ in by_fault.values()), len(asked), by_fault, len(stray))


def guess(learn: Sequence[Lesson], asked: Sequence[Lesson]) -> Marks:
    """Whoever always names the fault that was commonest among what was learnt from."""
    (commonest, _), *_ = Counter(lesson.fault for lesson in learn).most_common(1)
    of = counts(asked)
    by_fault = {fault: (count if fault == commonest else 0, count) for fault, count in of.items()}
    return Marks(f"always {commonest}", of.get(commonest, 0), len(asked), by_fault)


def may_serve(
    serving: Marks, candidate: Marks, *, accepted: float, knew: Sequence[str], knows: Sequence[str]
) -> tuple[bool, str]:
    """Whether the candidate may serve, and why, or why not.

    serving      the version that serves, or the guess
    accepted     false alarms in the held-back time
    knew, knows  the faults that each can name
    """
    if forgotten := sorted(set(knew) - set(knows)):
        return False, f"would no longer know {', '.join(forgotten)}"
    said = f"names {candidate.right} of {candidate.asked} held-back faults, {serving.version} {serving.right}"
    if candidate.false_alarms > max(serving.false_alarms, accepted):
        return False, f"{candidate.false_alarms} false alarms on held-back readings; {said}"
    return candidate.right > serving.right, said
