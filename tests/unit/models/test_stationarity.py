"""Drift: what differs by chance is not called so, what differs is, and neighbours that are alike count as one."""

from __future__ import annotations

import numpy as np
import pytest

from models.stationarity import discoveries, independent, kolmogorov_smirnov, shifts, stability_index


def walk(rows: int, seed: int, memory: float = 0.98) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=rows)
    held = np.zeros(rows)
    for row in range(1, rows):
        held[row] = memory * held[row - 1] + noise[row]
    return held


def test_kolmogorovs_distribution_is_that_of_the_tables() -> None:
    # of 100 and 100 values, 1.358 / sqrt(50) is the distance that chance exceeds once in twenty (Massey 1951, table 1)
    one = np.arange(100.0)
    rng = np.random.default_rng(0)
    statistic, p = kolmogorov_smirnov(rng.permutation(one), rng.permutation(one + 19.2))
    assert statistic == pytest.approx(0.2)
    assert 0.02 < p < 0.05  # with Stephens' correction; 0.0366 by R's exact computation


def test_of_a_hundred_series_that_do_not_drift_hardly_one_is_said_to() -> None:
    wrong = 0
    for seed in range(100):
        held = walk(2000, seed)
        _, p = kolmogorov_smirnov(held[:1500], held[1500:])
        wrong += p < 0.01
    assert wrong <= 5


def test_without_regard_to_neighbours_most_of_them_would_be() -> None:
    held = walk(2000, 3)
    shuffled = np.random.default_rng(0).permutation
    assert independent(held) < 60
    assert kolmogorov_smirnov(shuffled(held[:1500]), shuffled(held[1500:]))[1] < 1e-6


def test_a_level_that_has_moved_is_found_and_named() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(3000, 3)), rng.normal(size=(1000, 3))
    after[:, 1] += 1.0
    found = shifts(("flow", "heat", "speed"), before, after)
    assert [shift.name for shift in found if shift.drifted] == ["heat"]
    assert found[1].index > 0.25 > found[0].index


def test_a_difference_that_hardly_matters_is_no_drift() -> None:
    rng = np.random.default_rng(1)
    (found,) = shifts(("flow",), rng.normal(size=(60_000, 1)), rng.normal(0.1, size=(60_000, 1)))
    assert found.p < 1e-6
    assert not found.drifted


def test_the_stability_index_of_a_worked_example() -> None:
    # two halves of .5 and .5 become .7 and .3: (.2) ln(1.4) + (-.2) ln(.6)
    reference, recent = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [70, 30])
    assert stability_index(reference, recent) == pytest.approx(0.2 * np.log(1.4) - 0.2 * np.log(0.6))


@pytest.mark.parametrize("rows", [0, 5])
def test_of_nearly_nothing_nothing_is_said(rows: int) -> None:
    (found,) = shifts(("flow",), np.full((rows, 1), np.nan), np.ones((100, 1)))
    assert (found.p, found.index, found.drifted) == (1.0, 0.0, False)


def test_a_constant_signal_has_not_drifted() -> None:
    (found,) = shifts(("flow",), np.ones((100, 1)), np.ones((100, 1)))
    assert not found.drifted


def test_no_test_no_discovery() -> None:
    assert discoveries([]) == []
