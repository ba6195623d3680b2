"""The simulated plant as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.datasets import read
from models.errors import DataError
from models.simulate import Plant
from stream.demo.recordings import record
from stream.demo.scenario import HISTORY_ROWS, LIVE_ROWS


def test_files_are_read_back_as_the_plant_they_are_of(tmp_path: Path) -> None:
    assert record(tmp_path, kinds=["exchanger"], seed=3) == 6
    history, live = read(tmp_path / "history"), read(tmp_path / "live")
    assert [held.asset for held in live] == [f"exchanger-{number:02d}" for number in range(1, 7)]
    assert {len(held.at_ms) for held in history} == {HISTORY_ROWS}
    for held in history:
        assert held.labels is None
    truth = {held.asset: held for held in Plant(3).live(LIVE_ROWS)[0]}
    for held in live:
        assert held.signals == truth[held.asset].signals
        np.testing.assert_array_equal(held.at_ms, truth[held.asset].at_ms)
        np.testing.assert_allclose(held.values, truth[held.asset].values, rtol=1e-5)
        np.testing.assert_array_equal(held.labels, truth[held.asset].labels)
    assert any(held.labels is not None and held.labels.any() for held in live)


def test_a_kind_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no turbine: it has compressor, exchanger, pump"):
        record(tmp_path, kinds=["pump", "turbine"])
