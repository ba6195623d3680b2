"""Which lanes an asset gets, and which versions of models are at work in them; how they are exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from stream.arrive import Arrivals
from stream.desk import Desk
from stream.heirs import begin_heir, seed, succeed
from stream.lane import Lane, open_lane
from stream.partition import Partition
from stream.plan import Plan
from stream.state import BLOCK_BYTES, MOST_ASSETS, Served

if TYPE_CHECKING:
    from models.artifact import Artifact


class Shelf(Protocol):
    """Where the pipeline finds its models."""

    def find(self, detector: str, asset: str) -> Artifact | None:
        """The artifact that serves ``detector`` for ``asset``; None if there is none."""
        ...

    def signals(self) -> tuple[str, ...]:
        """All signals that any artifact looks at, sorted."""
        ...

    def serving(self) -> Iterator[tuple[str, Artifact]]:
        """Every artifact with its detector's name in the plan."""
        ...

    def version(self, detector: str, version: str) -> Artifact | None:
        """A version of a detector's model in the store, if it has been loaded."""
        ...


class Fitting:
    """Fits lanes to assets.

    desk            what labels say of thresholds
    arrivals        what each new asset is told of how long it may be silent
    signals         the columns of readings
    evict_after_ms  after so long an asset is forgotten
    """

    def __init__(
        self, plan: Plan, shelf: Shelf, desk: Desk, arrivals: Arrivals, signals: Sequence[str], evict_after_ms: int
    ) -> None:
        self._plan = plan
        self._shelf = shelf
        self._desk = desk
        self._arrivals = arrivals
        self._column = {signal: place for place, signal in enumerate(signals)}
        self._evict_after_ms = evict_after_ms

    def open_lanes(self, state: Partition, index: int) -> None:
        """Admit an asset to the lane of every detector that watches it."""
        name = state.names[index]
        for detector, settings in self._plan.detectors.items():
            if not settings.watches(name):
                continue
            served = state.served.get(detector)
            artifact = self._shelf.version(detector, served.version) if served else None
            artifact = artifact or self._shelf.find(detector, name)
            if artifact is None:
                continue
            # versions of the store come and go in one lane; folders of assets' own have a lane each
            key = (detector, 0 if settings.is_stored else id(artifact))
            lane = state.lanes.get(key)
            if lane is None:
                lane = self._lane(detector, artifact)
                heir = self._shelf.version(detector, served.heir) if served and served.heir else None
                if served is not None and heir is not None:
                    begin_heir(lane, self._lane(detector, heir), succeeding=served.succeeding)
            state.watch(index, key, lane)
            self.move_slots(lane, [int(lane.slots[index])])
        self._arrivals.admit(state, index)

    def move_slots(self, lane: Lane, slots: Iterable[int]) -> None:
        """Let what labels say of these assets' thresholds hold in a lane and its heir."""
        for slot in slots:
            for held in (lane, lane.heir):
                if held is not None and lane.names[slot]:
                    factor = self._desk.factor(lane.detector, lane.names[slot], held.artifact.version)
                    held.move_slot(slot, factor)

    def switch(self, state: Partition, detector: str, serving: str, candidate: str) -> bool:
        """Let other versions, which the shelf has, be at work from the next record on. Whether anything changed.

        What takes over does so asset by asset, as soon as its windows are full; what served judges until then. So no
        reading is judged twice or not at all. Where that is still going on, it is brought to its end at once.
        """
        held = state.served.get(detector)
        if held is not None and held.wanted == (serving, candidate):
            return False
        if held is not None and held.succeeding and serving == held.heir:
            return False  # the candidate has to wait until the succession is over
        lanes = [lane for key, lane in state.lanes.items() if key[0] == detector]
        if held is None or not lanes:
            state.served[detector] = Served(serving, candidate)
            if lanes and lanes[0].artifact.version != serving:
                state.served[detector] = Served(lanes[0].artifact.version)
                return self.switch(state, detector, serving, candidate)
            for lane in lanes:
                self._set_heir(lane, candidate, succeeding=False)
            self.touch_all(state, detector)
            return True
        for lane in lanes:
            if lane.taken is not None:
                succeed(lane)
            succeeding = serving != lane.artifact.version
            self._set_heir(lane, serving if succeeding else candidate, succeeding=succeeding)
            heir = lane.heir.artifact.version if lane.heir is not None else ""
            state.served[detector] = Served(lane.artifact.version, heir, succeeding)
        self.touch_all(state, detector)
        return True

    def _set_heir(self, lane: Lane, version: str, *, succeeding: bool) -> None:
        if lane.heir is not None and lane.heir.artifact.version == version:
            begin_heir(lane, lane.heir, succeeding=succeeding)
            return
        held = self._shelf.version(lane.detector, version) if version else None
        if held is None:
            lane.heir, lane.taken, lane.agreement = None, None, None
            return
        heir = self._lane(lane.detector, held)
        seed(lane, heir)
        begin_heir(lane, heir, succeeding=succeeding)
        self.move_slots(lane, range(len(lane.names)))

    def touch_all(self, state: Partition, detector: str) -> None:
        """Say that all blocks with a detector's lanes differ from what was last taken."""
        state.touched.update(
            number for number, keys in state.lanes_in.items() if any(key[0] == detector for key in keys)
        )

    def _lane(self, detector: str, artifact: Artifact) -> Lane:
        return open_lane(
            detector,
            self._plan.detectors[detector],
            artifact,
            site=self._plan.site,
            column=self._column,
            evict_after_ms=self._evict_after_ms,
        )


def block_size(shelf: Shelf, lateness_s: float = 0.0) -> int:
    """How many assets of this plan make a block of about ``BLOCK_BYTES``."""
    largest: dict[str, int] = {}
    held_bytes = 0
    for detector, artifact in shelf.serving():
        if artifact.stepper:
            size = sum(array.nbytes for array in artifact.stepper.begin(1).arrays.values())
        else:
            size = 4 * (artifact.window - 1) * len(artifact.signals)
        largest[detector] = max(largest.get(detector, 0), size)
        held_bytes = max(held_bytes, round(lateness_s / artifact.period_s * (12 + 9 * len(shelf.signals()))))
    each = 300 + held_bytes + sum(largest.values())
    size = MOST_ASSETS
    while size > 1 and size * each > BLOCK_BYTES:
        size //= 2
    return size
