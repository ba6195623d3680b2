import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import InvalidArtifact, TrainingError
from models.scaling import CLIP, RobustScaler


def test_normal_signals_become_standard_ones():
    rng = np.random.default_rng(0)
    rows = rng.normal([5.0, -300.0], [0.1, 40.0], (5_000, 2))
    scaled = RobustScaler.fit([rows]).transform(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=0.05)


def test_a_few_spikes_do_not_widen_the_scale():
    rows = np.random.default_rng(0).normal(size=(1_000, 1))
    rows[::100] = 1e3
    spiky = RobustScaler.fit([rows])
    assert 0.5 < spiky.scale[0] < 50 or spiky.scale[0] == pytest.approx(rows.std())
    rows = np.random.default_rng(0).normal(size=(1_000, 1))
    rows[::100] = 20.0
    assert RobustScaler.fit([rows]).scale[0] < 1.2


def test_a_signal_at_rest_most_of_the_time_is_scaled_by_its_standard_deviation():
    rows = np.zeros((100, 1))
    rows[:5] = 10.0
    assert RobustScaler.fit([rows]).scale[0] == pytest.approx(rows.std())


@pytest.mark.parametrize("value", [0.0, 7.5, -1e12, 1e-300])
def test_a_constant_signal_is_not_divided_by_nothing(value):
    rows = np.full((50, 1), value)
    scaler = RobustScaler.fit([rows])
    assert scaler.scale[0] >= 1.0
    assert (scaler.transform(rows) == 0).all()


def test_rounding_of_a_large_constant_is_not_movement():
    rows = 1e9 + 1e-7 * np.random.default_rng(0).normal(size=(50, 1))
    assert abs(RobustScaler.fit([rows]).transform(rows)).max() < 1e-3


def test_missing_stays_missing_and_infinity_becomes_missing():
    scaler = RobustScaler.fit([np.arange(10.0)[:, None]])
    scaled = scaler.transform(np.array([[np.nan], [np.inf], [-np.inf], [1e308], [-1e308]]))
    assert np.isnan(scaled[:3]).all()
    assert scaled[3:, 0].tolist() == [CLIP, -CLIP]


def test_a_signal_never_seen_does_not_break_the_others():
    rows = np.column_stack([np.arange(10.0), np.full(10, np.nan)])
    scaler = RobustScaler.fit([rows])
    assert np.isfinite([scaler.centre, scaler.scale]).all()


@given(arrays.arrays(np.float64, (20, 3), elements=st.floats(-1e6, 1e6)))
def test_what_is_scaled_is_within_bounds_and_comes_back(rows):
    scaler = RobustScaler.fit([rows])
    scaled = scaler.transform(rows)
    assert (np.abs(scaled) <= CLIP).all()
    near = np.abs(scaled) < CLIP
    back = scaler.inverse(scaled)
    np.testing.assert_allclose(back[near], rows[near], rtol=1e-4, atol=float(scaler.scale.max()) * 1e-4)


def test_json_brings_it_back_to_the_bit():
    scaler = RobustScaler.fit([np.random.default_rng(0).normal(size=(50, 4))])
    back = RobustScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert back.centre.tobytes() == scaler.centre.tobytes()
    assert back.scale.tobytes() == scaler.scale.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"centre": [0.0]},
        {"centre": [0.0], "scale": [0.0]},
        {"centre": [0.0], "scale": [1.0, 1.0]},
        {"centre": ["x"], "scale": [1]},
    ],
    ids=str,
)
def test_a_scaler_that_cannot_be_is_refused(data):
    with pytest.raises(InvalidArtifact, match="scaler"):
        RobustScaler.from_dict(data)


def test_other_signals_than_it_knows_are_refused():
    scaler = RobustScaler.fit([np.zeros((5, 2))])
    with pytest.raises(ValueError, match="2 signals"):
        scaler.transform(np.zeros((5, 3)))


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(TrainingError, match="no row"):
        RobustScaler.fit([])
