"""The exam of a grown model: beside what its detector began as, on readings that it was not trained on.

Both go through the newest readings as in a backtest, with the plan's delays. Three things count:

    false alarms     in the held-back stretch, where nobody has said that anything was wrong: an alert that nobody has
                     judged counts, for whoever raises it
    labels           faults that people have labelled, and false alarms that they have, where there are some
    made-up faults   laid over copies of what is clean in the held-back stretch (``models.contest``): a step, a drift,
                     noise, an oscillation, a sensor that rests, another time's values, each on one signal, large and
                     small

A made-up fault is found by an alert that opens in it and not on the untouched copy. The grown model passes if it is
worse in none of these and better in one; as many false alarms as the plan accepts are no worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from models.artifact import Artifact
from models.contest import SORTS, with_fault
from models.datasets import Recording
from models.errors import TrainingError
from stream.commands.train import cut
from stream.comparing import Measured, measure
from stream.hindsight import Stretch
from stream.plan import DetectorSettings, Plan
from stream.retraining import tally

_MOST_ASSETS: Final = 4
#: Rows of an asset that are gone through for alarms, and of the copies: before the held-back stretch, and of it.
_ALARM_ROWS: Final = 20_000
_LEAD_ROWS, _HELD_ROWS, _LEAST_HELD_ROWS = 4000, 2000, 80
#: Faults of each sort on each asset, against the size that ``models.contest`` gives them: the small ones tell more.
_SIZES: Final = (1.0, 0.5, 0.25)
_LEAST_FAULT_ROWS: Final = 20
_UNTOUCHED: Final = "untouched"


@dataclass(frozen=True, slots=True)
class Marks:
    """How one of the two did: made-up faults found, labelled faults found, labelled false alarms raised again, and
    alarms in the held-back stretch.
    """

    kind: str
    version: str
    made_found: int
    found: int
    repeated: int
    false_alarms: int


@dataclass(frozen=True, slots=True)
class Exam:
    """What was asked, and what came of it.

    from_ms, to_ms   of the readings there were, epoch milliseconds
    rows, left_out   readings, and those of them that were alarmed or labelled
    held_back_s      of the assets' time that was judged
    made, faults, excused   how many faults were made up, are labelled, and how many labelled false alarms there are
    accepted         false alarms that the plan accepts in the held-back time
    """

    from_ms: int
    to_ms: int
    rows: int
    left_out: int
    held_back_s: float
    made: int
    faults: int
    excused: int
    accepted: float
    young: Marks
    grown: Marks
    passed: bool
    why: str


def sit(
    plan: Plan,
    detector: str,
    young: Artifact,
    grown: Artifact,
    clean: Sequence[Recording],
    past: Sequence[Stretch],
    *,
    held_back_from_ms: int,
    seed: int = 0,
) -> Exam:
    """Examine both. ``clean``: recordings whose ``labels`` are what must not be learnt (``stream.hindsight.marked``).

    Raises ``TrainingError`` if too little is clean in the held-back stretch, or no signal moves.
    """
    settings = plan.detectors[detector]
    grace_ms = round(1000 * (max(held.window * held.period_s for held in (young, grown)) + settings.on_delay_s))
    chosen = sorted(clean, key=lambda held: -_held_rows(held, held_back_from_ms))[:_MOST_ASSETS]
    newest = [cut(held, skip=max(len(held.at_ms) - _ALARM_ROWS, 0)) for held in chosen]
    trials = [trial for held in chosen for trial in _trials(held, settings, grown, held_back_from_ms, seed)]
    if not trials:
        raise TrainingError(
            f"fewer than {_LEAST_HELD_ROWS} readings in a row of the newest quarter are free of alerts, on any asset"
        )
    everywhere = settings.model_copy(update={"assets": ("*",)})  # copies have names of their own
    alone = plan.model_copy(update={"detectors": {detector: everywhere}})
    said = [stretch for stretch in past if stretch.what != "alert"]
    marks, tallies = [], []
    for held in (young, grown):
        told = tally(
            measure(plan, detector, held, newest), said, held_back_from_ms=held_back_from_ms, grace_ms=grace_ms
        )
        made = _found(measure(alone, detector, held, [copy for copy, _ in trials], together=True), trials, grace_ms)
        tallies.append(told)
        marks.append(Marks(held.manifest.detector, held.version, made, told.found, told.repeated, told.false_alarms))
    to_ms = max(int(held.at_ms[-1]) for held in clean)
    held_back_ms = sum(max(int(held.at_ms[-1]) - max(held_back_from_ms, int(held.at_ms[0])), 0) for held in newest)
    accepted = held_back_ms / 86_400_000 * settings.false_alarms_per_day
    passed, why = verdict(marks[0], marks[1], accepted)
    return Exam(
        from_ms=min(int(held.at_ms[0]) for held in clean),
        to_ms=to_ms,
        rows=sum(len(held.at_ms) for held in clean),
        left_out=sum(int(held.labels.sum()) for held in clean if held.labels is not None),
        held_back_s=held_back_ms / 1000,
        made=sum(fault is not None for _, fault in trials),
        faults=tallies[0].faults,
        excused=tallies[0].excused,
        accepted=accepted,
        young=marks[0],
        grown=marks[1],
        passed=passed,
        why=why,
    )


def verdict(young: Marks, grown: Marks, accepted: float) -> tuple[bool, str]:
    """Whether the grown model passes, and why, or why not. ``accepted``: false alarms in the held-back stretch."""
    if grown.found < young.found:
        return False, f"finds {grown.found} labelled faults, {young.kind} {young.found}"
    if grown.repeated > young.repeated:
        return False, f"raises {grown.repeated} labelled false alarms again, {young.kind} {young.repeated}"
    if grown.false_alarms > max(young.false_alarms, accepted):
        return False, f"{grown.false_alarms} false alarms on held-back readings, {young.kind} {young.false_alarms}"
    if grown.made_found < young.made_found:
        return False, f"finds {grown.made_found} made-up faults, {young.kind} {young.made_found}"
    gains = []
    if grown.made_found > young.made_found:
        gains.append(f"finds {grown.made_found} made-up faults, {young.kind} {young.made_found}")
    if grown.found > young.found:
        gains.append(f"finds {grown.found - young.found} labelled faults more")
    if grown.repeated < young.repeated:
        gains.append(f"raises {young.repeated - grown.repeated} labelled false alarms no more")
    if grown.false_alarms < young.false_alarms:
        gains.append(f"{young.false_alarms - grown.false_alarms} false alarms fewer on held-back readings")
    return bool(gains), ", ".join(gains) or f"no better than {young.kind}"


_Trial = tuple[Recording, tuple[int, int] | None]


def _held_rows(held: Recording, from_ms: int) -> int:
    good = held.at_ms >= from_ms
    return int((good if held.labels is None else good & ~held.labels).sum())


def _trials(held: Recording, settings: DetectorSettings, grown: Artifact, from_ms: int, seed: int) -> list[_Trial]:
    """Copies of an asset's clean rows: one untouched, the others with a fault from .. to (milliseconds) each."""
    good = np.ones(len(held.at_ms), bool) if held.labels is None else ~held.labels
    columns = [held.signals.index(signal) for signal in grown.signals if signal in held.signals]
    at_ms, values = held.at_ms[good], held.values[good][:, columns]
    signals = tuple(held.signals[column] for column in columns)
    first = int((at_ms < from_ms).sum())
    at_ms, values = at_ms[: first + _HELD_ROWS], values[: first + _HELD_ROWS]
    skip = max(first - _LEAD_ROWS, 0)
    at_ms, values, first = at_ms[skip:], values[skip:], first - skip
    rows = len(at_ms) - first
    if rows < _LEAST_HELD_ROWS or not first:
        return []
    # long enough for an alert to open, and short enough to leave clean rows on both sides
    least = min(max(_LEAST_FAULT_ROWS, round(3 * settings.on_delay_s / grown.period_s)), rows // 2)
    trials: list[_Trial] = [(Recording(f"{held.asset} {_UNTOUCHED}", at_ms, signals, values), None)]
    for number, size in enumerate(_SIZES):
        for place, sort in enumerate(SORTS):
            rng = np.random.default_rng([seed, number, place])
            faulty, labels = with_fault(values[:first], values[first:], sort, rng, least=least, size=size)
            within = at_ms[first:][labels]
            copy = np.concatenate([values[:first], faulty])
            trials.append(
                (
                    Recording(f"{held.asset} {sort} {number}", at_ms, signals, copy),
                    (int(within[0]), int(within[-1])),
                )
            )
    return trials


def _found(held: Measured, trials: Sequence[_Trial], grace_ms: int) -> int:
    """How many of the faults were found."""
    opened: dict[str, list[int]] = {}
    for incident in held.incidents:
        opened.setdefault(incident.asset, []).append(incident.start_ms)
    count, untouched = 0, ""
    for copy, fault in trials:
        if fault is None:
            untouched = copy.asset  # what follows are copies of the same asset
            continue
        usual = set(opened.get(untouched, ()))
        count += any(fault[0] <= at <= fault[1] + grace_ms and at not in usual for at in opened.get(copy.asset, ()))
    return count


def limited(recordings: Sequence[Recording], most_rows: int, least_each: int) -> list[Recording]:
    """The newest rows of each, ``most_rows`` in all; of many assets those with most rows, ``least_each`` of them."""
    most_assets = max(most_rows // least_each, 1)
    chosen = sorted(recordings, key=lambda held: -len(held.at_ms))[:most_assets]
    each = max(most_rows // max(len(chosen), 1), least_each)
    return [replace(held) if len(held.at_ms) <= each else cut(held, skip=len(held.at_ms) - each) for held in chosen]
