"""The names of a batch's scores are those of its assets, whichever way they are found."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.judge import Present
from stream.records import Numbered


class Watching:
    """What is asked of a lane: assets' slots by their index in the partition, and names by slot."""

    def __init__(self, slots: list[int]) -> None:
        self.slots = np.array(slots, dtype=np.int32)
        self.names = [""] * len(slots)
        for index, slot in enumerate(slots):
            self.names[slot] = f"pump-{index}"

    def slots_of(self, assets: Any) -> Any:
        return self.slots[assets]


@given(st.permutations(range(9)), st.lists(st.integers(0, 8), unique=True), st.lists(st.integers(0, 8), unique=True))
def test_names_are_those_that_the_lane_remembers(slots: list[int], came: list[int], judged: list[int]) -> None:
    lane: Any = Watching(slots)
    names = Numbered.of([f"pump-{index}" for index in came], object(), np.array(came, np.int32))
    present = Present(names, np.array(came, dtype=np.int32))
    for assets in (came, judged):  # as a rule those that came are judged; some were held back, or come later
        wanted = np.sort(lane.slots[np.array(assets, dtype=np.int32)])
        found = present.names_of(lane, wanted)
        assert found == tuple(lane.names[slot] for slot in wanted.tolist())
        if isinstance(found, Numbered):
            assert found == tuple(f"pump-{number}" for number in found.numbers.tolist())
        else:
            assert sorted(assets) != sorted(came)
