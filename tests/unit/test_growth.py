"""The measure that the soak is judged by: it finds leaks, and takes neither bursts nor sawteeth for one."""

from __future__ import annotations

import numpy as np
import pytest
from growth import slope

HOURS = np.arange(240) * 2 / 3600  # a sample every two seconds for eight minutes


def test_a_leak_is_found_beneath_noise_and_bursts():
    random = np.random.default_rng(3)
    memory_mb = 117 + 40 * HOURS + random.normal(0, 0.3, len(HOURS))
    memory_mb[60:90] += 30
    assert slope(HOURS, memory_mb) == pytest.approx(40, rel=0.2)


def test_a_level_with_bursts_has_none():
    random = np.random.default_rng(4)
    memory_mb = 117 + random.normal(0, 0.3, len(HOURS))
    memory_mb[150:200] += 20
    assert abs(slope(HOURS, memory_mb)) < 4


def test_a_sawtooth_of_the_collector_has_none():
    memory_mb = 117 + 3.0 * ((HOURS * 60) % 1.5) / 1.5  # three megabytes of garbage, collected every 90 s
    assert abs(slope(HOURS, memory_mb)) < 4


def test_four_minutes_which_a_soak_has_at_the_least_tell_a_leak_from_none():
    hours, random = HOURS[:120], np.random.default_rng(5)
    noise_mb = random.normal(0, 0.3, len(hours))
    garbage_mb = 3.0 * ((hours * 60) % 1.5) / 1.5
    assert slope(hours, 117 + 40 * hours + noise_mb) > 30
    assert abs(slope(hours, 117 + noise_mb)) < 10
    assert abs(slope(hours, 117 + garbage_mb)) < 15


def test_too_few_samples_have_no_slope():
    with pytest.raises(ValueError, match="47 samples"):
        slope(HOURS[:47], HOURS[:47])
