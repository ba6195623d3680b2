"""One model at work on the assets of one partition: what it remembers of each, and by which rules it is judged."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stream.agreement import Agreement
from stream.arrive import milliseconds
from stream.decide import DecisionState
from stream.episode import Identity, Rules
from stream.grid import Filler, Grid
from stream.plan import DetectorSettings
from stream.records import Float64, Int32, Int64
from stream.state import BESIDE, Array, LaneRows
from stream.window import WindowState, room_for

if TYPE_CHECKING:
    from models.artifact import Artifact

LaneKey = tuple[str, int]
#: What a lane's threshold follows; stored beside, so that releases without it still read their own.
_LEVEL: Final = f"{BESIDE}level"
#: An array beside an heir's own: which assets it has taken over.
TAKEN: Final = f"{BESIDE}taken"


@dataclass(slots=True)
class Lane:
    """One model at work on the assets of one partition.

    columns  the readings' columns of its signals; all_columns: these are all of them, in their order
    slots    index of an asset within the lane, by its index in the partition; -1 where the lane does not watch it
    longest_ms   after a longer pause an asset's window begins anew
    windows  what it remembers of readings, or None where it carries a state
    carried  that state
    factors  by slot, what labels multiply the threshold by, where that is not 1
    grid, filler   what puts readings on the detector's period, where the plan says so
    heir     another version that looks at the same readings, by the same slots: a candidate, or what takes over
    taken    slots that the heir has taken over; None: it is a candidate only (``stream.heirs``)
    agreement   how the candidate compares
    """

    detector: str
    settings: DetectorSettings
    artifact: Artifact
    columns: Int64
    all_columns: bool
    rules: Rules
    identity: Identity
    longest_ms: int
    windows: WindowState | None
    carried: Any = None
    grid: Grid | None = None
    filler: Filler | None = None
    decisions: DecisionState = field(default_factory=DecisionState)
    factors: dict[int, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    slots: Int32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    heir: Lane | None = None
    taken: set[int] | None = None
    agreement: Agreement | None = None

    def admit(self, index: int, name: str) -> None:
        """Watch the asset that the partition knows by ``index``."""
        if index >= len(self.slots):
            slots = np.full(room_for(index + 1, len(self.slots)), -1, dtype=np.int32)
            slots[: len(self.slots)] = self.slots
            self.slots = slots
        if self.free:
            slot = heapq.heappop(self.free)
            self.names[slot] = name
        else:
            slot = len(self.names)
            self.names.append(name)
        self.slots[index] = slot

    def dismiss(self, index: int) -> None:
        """Forget an asset; its slot goes to another."""
        slot = int(self.slots[index])
        self.slots[index] = -1
        self.names[slot] = ""
        heapq.heappush(self.free, slot)
        self.decisions.episodes.pop(slot, None)
        gone = np.array([slot], dtype=np.int64)
        for lane in (self, self.heir):
            if lane is not None:
                lane.grow(slot + 1)
                lane.factors.pop(slot, None)
                lane.decisions.levels[slot] = np.nan
                for memory in lane.memories():
                    memory.reset(gone)
        if self.taken is not None:
            self.taken.discard(slot)
        if self.agreement is not None:
            self.agreement.forget(slot)

    def move(self, index: int, factor: float) -> None:
        """Multiply the threshold of an asset, which the partition knows by ``index``."""
        self.move_slot(int(self.slots[index]), factor)

    def move_slot(self, slot: int, factor: float) -> None:
        """The same, of an asset that the lane knows by ``slot``."""
        if factor == 1.0:
            self.factors.pop(slot, None)
        else:
            self.factors[slot] = factor

    def moved_at(self, slots: Int32) -> Float64 | None:
        """(row,) what each row's threshold is multiplied by; None where it is 1 everywhere."""
        if not self.factors:
            return None
        factors: Float64 = np.ones(len(slots))
        for slot, factor in self.factors.items():
            factors[slots == slot] = factor
        return factors

    def slots_of(self, assets: Int32) -> Int32:
        """The lane's slot of each asset; -1 where it does not watch it."""
        if len(assets) and int(assets.max()) < len(self.slots):
            return self.slots.take(assets)
        known = assets < len(self.slots)
        return np.where(known, self.slots[np.where(known, assets, 0)], -1).astype(np.int32)

    def take(self, start: int, stop: int) -> list[LaneRows]:
        """Copies of what is remembered of the assets with these indices: the lane's own, and its heir's."""
        held = self.slots[start:stop]
        places = np.flatnonzero(held >= 0).astype(np.int32)
        if not len(places):
            return []
        slots = held[places].astype(np.int64)
        episodes = self.decisions.episodes
        open_ones = {
            place: replace(episodes[slot])
            for place, slot in zip(places.tolist(), slots.tolist(), strict=True)
            if slot in episodes
        }
        found = [LaneRows(self.detector, self.artifact.version, places, self.copied(slots), open_ones)]
        if self.heir is not None:
            arrays = self.heir.copied(slots)
            if self.taken is not None:
                arrays[TAKEN] = np.array([slot in self.taken for slot in slots.tolist()], dtype=bool)
            found.append(LaneRows(self.detector, self.heir.artifact.version, places, arrays))
        return found

    def put(self, indices: Int64, held: LaneRows, rows: Int64) -> bool:
        """Take over what ``held`` has in ``rows`` of the assets ``indices``. False if it is of another shape."""
        return self.put_slots(self.slots[indices].astype(np.int64), held, rows)

    def put_heir(self, indices: Int64, held: LaneRows, rows: Int64) -> bool:
        """The same, for the lane's heir."""
        assert self.heir is not None  # noqa: S101 (asked only where there is one)
        slots = self.slots[indices].astype(np.int64)
        if self.taken is not None and TAKEN in held.arrays:
            self.taken |= set(slots[held.arrays[TAKEN][rows].astype(bool)].tolist())
        return self.heir.put_slots(slots, held, rows)

    def put_slots(self, slots: Int64, held: LaneRows, rows: Int64) -> bool:
        """As ``put``, by the lane's slots."""
        self.grow(int(slots.max()) + 1)
        mine = self._arrays()
        if mine.keys() != {name for name in held.arrays if not name.startswith(BESIDE)} or any(
            array.shape[1:] != held.arrays[name].shape[1:] or array.dtype != held.arrays[name].dtype
            for name, array in mine.items()
        ):
            return False
        if (held.arrays["rows"][rows] < 0).any():
            return False
        for name, array in mine.items():
            array[slots] = held.arrays[name][rows]
        level = held.arrays.get(_LEVEL)
        if level is not None and level.dtype.str == "<f8" and level.ndim == 1:
            self.decisions.levels[slots] = level[rows]
        return True

    def memories(self) -> list[Any]:
        """What is remembered by slot."""
        return [held for held in (self.windows or self.carried, self.grid, self.filler) if held is not None]

    def grow(self, slots: int) -> None:
        """Make room for so many assets."""
        for memory in (*self.memories(), self.decisions):
            memory.grow(slots)

    def copied(self, slots: Int64) -> dict[str, Array]:
        """Copies of the arrays, of these slots."""
        self.grow(int(slots.max()) + 1)
        arrays = {name: array[slots] for name, array in self._arrays().items()}
        if self.rules.drift is not None:
            arrays[_LEVEL] = self.decisions.levels[slots]
        return arrays

    def _arrays(self) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        if self.windows is not None:
            arrays |= {"history": self.windows.history, "rows": self.windows.rows}
        else:
            arrays |= {"rows": self.carried.rows}
            arrays |= {f"carried.{name}": array for name, array in self.carried.arrays.items()}
        for beside in (self.grid, self.filler):
            arrays |= {} if beside is None else beside.arrays()
        return arrays


def open_lane(
    detector: str,
    settings: DetectorSettings,
    artifact: Artifact,
    *,
    site: str,
    column: Mapping[str, int],
    evict_after_ms: int,
) -> Lane:
    """A lane that watches nothing yet.

    column          of each signal in the readings
    evict_after_ms  the longest pause there may be: what is silent for longer is forgotten
    """
    stepper = artifact.stepper
    columns = np.array([column[signal] for signal in artifact.signals], dtype=np.int64)
    gap_ms = longest_gap_ms(settings, artifact)
    longest_ms = evict_after_ms if gap_ms is None else gap_ms
    period_ms, gaps, signals = artifact.period_s * 1000, settings.gaps, len(artifact.signals)
    return Lane(
        detector=detector,
        settings=settings,
        artifact=artifact,
        columns=columns,
        all_columns=np.array_equal(columns, np.arange(len(column))),
        rules=rules_of(settings, artifact),
        identity=Identity(site, detector, artifact.manifest.detector, artifact.version, artifact.class_names),
        longest_ms=longest_ms,
        windows=None if stepper else WindowState(artifact.window, signals),
        carried=stepper.begin() if stepper else None,
        grid=Grid(period_ms, longest_ms, signals) if gaps.grid else None,
        filler=Filler(period_ms, longest_ms, gaps.policy == "interpolate", signals) if gaps.fills else None,
    )


def rules_of(settings: DetectorSettings, artifact: Artifact) -> Rules:
    """The rules of a detector in the plan, with the threshold of its artifact unless the plan says one.

    What the detector begins as says once that something is new, not for how long: nothing waits for it to last.
    """
    waits = not settings.is_young(artifact.manifest.detector)
    threshold = settings.threshold
    if threshold is None:
        threshold = artifact.threshold(settings.false_alarms_per_day)
    return Rules(
        threshold=threshold,
        on_delay_ms=milliseconds(settings.on_delay_s) if waits else 0,
        off_delay_ms=milliseconds(settings.off_delay_s),
        deadband=settings.deadband,
        update_every_ms=milliseconds(settings.update_every_s),
        major_at=settings.major_at,
        critical_at=settings.critical_at,
        escalate_after_ms=milliseconds(settings.escalate_after_s),
        re_alarm_after_ms=milliseconds(settings.re_alarm_after_s),
        drift=settings.drift.rule if follows(settings, artifact) else None,
    )


def follows(settings: DetectorSettings, artifact: Artifact) -> bool:
    """Whether a detector's threshold follows drift: only one that came from a calibration on history does."""
    calibrated = settings.threshold is None and artifact.calibration.natural is None and not artifact.inspects
    return calibrated and settings.drift.most > 1


def longest_gap_ms(settings: DetectorSettings, artifact: Artifact) -> int | None:
    """The longest pause that leaves a window in one piece; None if any does. Default: five periods of the model."""
    if settings.gaps.policy == "keep" or getattr(artifact.detector, "outlives_gaps", False):
        return None
    seconds = settings.gaps.longer_than_s
    longest_ms = milliseconds(5 * artifact.period_s if seconds is None else seconds)
    # nothing real would be left in a window that is filled for longer than it is
    return min(longest_ms, milliseconds(artifact.window * artifact.period_s)) if settings.gaps.fills else longest_ms
