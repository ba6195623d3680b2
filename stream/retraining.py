"""Whether a retrained model may take the place of what serves: judged on what neither was trained on, and on labels.

It may if it is no worse in any of three things and better in one:

    labelled faults        how many of them it finds
    labelled false alarms  how many of them it raises again
    held-back readings     how many alarms it raises where nobody has said that anything was wrong; as many as the
                           operator accepts are no worse, whatever the other raised

Both are judged without what labels have made of thresholds: that belongs to one version. So a labelled false alarm that
the label keeps quiet for what serves must not be raised by the candidate, which would ring again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.stationarity import Shift, shifts
from stream.comparing import Measured
from stream.hindsight import Stretch, left_out

if TYPE_CHECKING:
    from models.datasets import Recording


@dataclass(frozen=True, slots=True)
class Tally:
    """What a version did.

    found, faults      of the labelled faults
    repeated, excused  of the labelled false alarms
    false_alarms       in the held-back part
    rung               of the labelled false alarms, those that labels keep quiet for what serves
    """

    version: str
    found: int
    faults: int
    repeated: int
    excused: int
    false_alarms: int
    rung: int = 0


def tally(
    held: Measured,
    past: Sequence[Stretch],
    *,
    held_back_from_ms: int,
    grace_ms: int,
    quiet: tuple[str, str] | None = None,
) -> Tally:
    """Count. An alarm belongs to a stretch of its asset if it opened in it, or at most ``grace_ms`` after it.

    Alarms in stretches that nobody has judged count neither way. ``quiet``: detector and version that serve.
    """

    def raised(stretch: Stretch) -> bool:
        return any(_belongs(alarm.asset, alarm.start_ms, stretch, grace_ms) for alarm in held.incidents)

    faults = [stretch for stretch in past if stretch.what == "fault"]
    excused = [stretch for stretch in past if stretch.what == "false_alarm"]
    stray = [
        alarm
        for alarm in held.incidents
        if alarm.start_ms >= held_back_from_ms
        and not any(_belongs(alarm.asset, alarm.start_ms, stretch, grace_ms) for stretch in past)
    ]
    return Tally(
        version=held.version,
        found=sum(map(raised, faults)),
        faults=len(faults),
        repeated=sum(map(raised, excused)),
        excused=len(excused),
        false_alarms=len(stray),
        rung=sum(map(raised, [stretch for stretch in excused if quiet and stretch.quiet == quiet])),
    )


def is_better(serving: Tally, candidate: Tally, accepted: float) -> tuple[bool, str]:
    """Whether the candidate may serve, and why, or why not. ``accepted``: false alarms in the held-back part."""
    if candidate.found < serving.found:
        return False, f"finds {candidate.found} of {candidate.faults} labelled faults, what serves {serving.found}"
    if candidate.repeated > serving.repeated:
        return False, f"raises {candidate.repeated} labelled false alarms again, what serves {serving.repeated}"
    if candidate.rung:
        return False, f"raises {candidate.rung} false alarms again that labels have silenced for what serves"
    if candidate.false_alarms > max(serving.false_alarms, accepted):
        return False, f"{candidate.false_alarms} false alarms where what serves raises {serving.false_alarms}"
    gains = []
    if candidate.found > serving.found:
        gains.append(f"finds {candidate.found - serving.found} labelled faults more")
    if candidate.repeated < serving.repeated:
        gains.append(f"raises {serving.repeated - candidate.repeated} labelled false alarms no more")
    if candidate.false_alarms < serving.false_alarms:
        gains.append(f"{serving.false_alarms - candidate.false_alarms} false alarms fewer on held-back readings")
    return bool(gains), ", ".join(gains) or "no better than what serves"


def drift(held: Measured, clean: Sequence[Recording], *, recent_from_ms: int) -> list[Shift]:
    """Whether the scores of what serves, or what it looks at, have changed since ``recent_from_ms``.

    clean   recordings whose ``labels`` are the rows not to count, neither their values nor their scores: a fault is no
            drift. Each signal is compared within its asset; an asset's change is not hidden by others.
    """
    counts = ~left_out(held.keys, clean)
    scores, at_ms = held.ratios[counts, None], np.array([at for _, at in held.keys], dtype=np.int64)[counts]
    found = shifts(["score"], scores[at_ms < recent_from_ms], scores[at_ms >= recent_from_ms])
    for recording in clean:
        good = np.ones(len(recording.at_ms), bool) if recording.labels is None else ~recording.labels
        recent = recording.at_ms >= recent_from_ms
        names = [f"{recording.asset} {signal}" for signal in recording.signals]
        found += shifts(names, recording.values[good & ~recent], recording.values[good & recent])
    return found


def _belongs(asset: str, at_ms: int, stretch: Stretch, grace_ms: int) -> bool:
    return stretch.asset == asset and stretch.start_ms <= at_ms <= stretch.end_ms + grace_ms
