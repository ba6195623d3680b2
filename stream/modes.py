"""What operating modes do to the judging: thresholds that they multiply, readings that are no evidence, detectors of
their own.

A detector with ``only_in`` judges in these modes alone. Together with ``judge = false`` for the one that judges
otherwise, a mode has another detector: both score every reading, so both have their windows when the mode changes, and
one of them is heard.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stream.desk import Desk
from stream.lane import Lane
from stream.operating import ModeSettings
from stream.records import Bool, Float64, Int32


def factors(modes: Mapping[str, ModeSettings], desk: Desk, lane: Lane, slots: Int32, values: Float64) -> Float64 | None:
    """What each row's threshold is multiplied by, for labels and modes; NaN: it is no evidence. None: nothing moves it.

    slots, values   (row,) the lane's assets; (row, signal) what was measured
    """
    moved = lane.moved_at(slots)
    if not modes:
        return moved
    found: Float64 = np.ones(len(slots)) if moved is None else moved
    only_in = lane.settings.only_in
    inside: Bool = np.zeros(len(slots), dtype=bool)
    present = np.unique(slots).tolist()
    for slot in present:
        name = desk.spoken(lane.names[slot])
        if name not in modes:
            continue
        mine = slots == slot
        inside |= mine & (name in only_in)
        if modes[name].concerns(lane.detector, lane.names[slot]):
            found[mine] *= modes[name].weight
    for name, mode in modes.items():
        if mode.signal not in lane.artifact.signals:
            continue
        shown = mode.shown_by(values[:, lane.artifact.signals.index(mode.signal)])
        if name in only_in:
            inside |= shown & np.isin(slots, [slot for slot in present if mode.may_be_of(lane.names[slot])])
        concerned = [slot for slot in present if mode.concerns(lane.detector, lane.names[slot])]
        found[shown & np.isin(slots, concerned)] *= mode.weight
    if only_in:
        found[~inside] = np.nan
    return found
