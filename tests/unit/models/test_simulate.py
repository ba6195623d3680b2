from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.simulate import START_MS, UNITS, Plant

ROWS = 1440


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant(seed=7)


def test_the_same_seed_gives_the_same_plant_and_another_does_not() -> None:
    one, faults = Plant(seed=3).live(ROWS)
    two, again = Plant(seed=3).live(ROWS)
    other, _ = Plant(seed=4).live(ROWS)
    assert faults == again
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    assert not np.allclose(one[0].values, other[0].values, equal_nan=True)


def test_has_machines_of_three_kinds_with_named_signals(plant: Plant) -> None:
    recordings = plant.history(ROWS)
    assert len(recordings) == len(plant.assets) >= 24
    assert set(plant.kinds.values()) == {"pump", "compressor", "exchanger"}
    for recording in recordings:
        assert 6 <= len(recording.signals) <= 8
        assert set(recording.signals) <= set(UNITS)
        assert recording.values.shape == (ROWS, len(recording.signals))
        assert recording.values.dtype == np.float64
        assert np.isfinite(recording.values).all()
        assert (np.diff(recording.at_ms) == 10_000).all()
        assert recording.labels is not None
        assert not recording.labels.any()


def test_the_live_part_follows_the_history(plant: Plant) -> None:
    history, live = plant.history(ROWS)[0], plant.live(ROWS)[0][0]
    assert history.at_ms[-1] + 10_000 == live.at_ms[0] == START_MS
    spread = history.values.std(axis=0)
    assert (abs(np.nanmedian(live.values, axis=0) - np.median(history.values, axis=0)) < 2 * spread).all()


@pytest.mark.parametrize("seed", [1, 7, 21])
def test_faults_change_their_signals_in_their_interval_and_nothing_else(seed: int) -> None:
    plant = Plant(seed=seed)
    faulty, faults = plant.live(ROWS)
    clean, none = plant.live(ROWS, faulty=False)
    assert none == ()
    for before, after in zip(clean, faulty, strict=True):
        expected = np.zeros(before.values.shape, dtype=bool)
        for fault in faults:
            if fault.asset == before.asset:
                rows = (before.at_ms >= fault.start_ms) & (before.at_ms < fault.end_ms)
                for name in fault.signals:
                    expected[rows, before.signals.index(name)] = True
                    assert (before.values != after.values)[rows, before.signals.index(name)].mean() > 0.2
        changed = (before.values != after.values) | np.isnan(after.values)
        assert not (changed & ~expected).any()
        assert after.labels is not None
        np.testing.assert_array_equal(after.labels, expected.any(axis=1))


@pytest.mark.parametrize("seed", [1, 7, 21])
def test_every_sort_occurs_twice_and_most_assets_are_healthy(seed: int) -> None:
    plant = Plant(seed=seed)
    _, faults = plant.live(ROWS)
    sorts = Counter(fault.sort for fault in faults)
    assert len(sorts) >= 6
    assert min(sorts.values()) >= 2
    assert len({fault.asset for fault in faults}) < len(plant.assets) / 2
    assert all(fault.sentence and fault.end_ms > fault.start_ms for fault in faults)


@pytest.mark.parametrize("seed", [1, 7, 21])
def test_faults_of_one_asset_keep_apart_and_end_before_the_recording(seed: int) -> None:
    recordings, faults = Plant(seed=seed).live(ROWS)
    for i, fault in enumerate(faults):
        assert fault.end_ms < recordings[0].at_ms[-1]
        for other in faults[i + 1 :]:
            assert fault.asset != other.asset or fault.end_ms + 300_000 <= other.start_ms


def test_faults_are_of_a_size_that_the_signal_could_reach(plant: Plant) -> None:
    faulty, faults = plant.live(ROWS)
    clean, _ = plant.live(ROWS, faulty=False)
    for fault in faults:
        index = plant.assets.index(fault.asset)
        for name in fault.signals:
            column = faulty[index].signals.index(name)
            before, after = clean[index].values[:, column], faulty[index].values[:, column]
            assert np.nanmax(abs(after - before)) <= 5 * before.std()


def test_signals_of_a_machine_belong_together(plant: Plant) -> None:
    pump = plant.history(ROWS)[0]
    together = np.atleast_2d(np.corrcoef(pump.values.T))
    speed, power = pump.signals.index("speed"), pump.signals.index("power")
    assert together[speed, power] > 0.9


def test_machines_of_a_kind_differ_a_little(plant: Plant) -> None:
    def per_speed(index: int) -> float:
        recording = plant.history(ROWS)[index]
        flow = recording.values[:, recording.signals.index("flow")]
        return float(np.median(flow / recording.values[:, recording.signals.index("speed")]))

    ratios = np.array([per_speed(index) for index in range(10)])
    assert 0.005 < ratios.std() / ratios.mean() < 0.1


def test_too_few_rows_for_faults_are_refused(plant: Plant) -> None:
    with pytest.raises(ValueError, match="at least 600"):
        plant.live(599)
