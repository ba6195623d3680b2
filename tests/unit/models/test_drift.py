import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.drift import Drift, followed

DRIFT = Drift(rows=50, usual=0.6, most=1.5)


def test_with_room_to_spare_the_threshold_stays() -> None:
    calm = np.abs(np.random.default_rng(0).normal(0.3, 0.1, 5000))
    assert (followed(calm, DRIFT) == 1.0).all()


def test_a_plant_that_drifts_a_little_is_followed() -> None:
    rising = np.linspace(0.4, 0.9, 5000)
    factors = followed(rising, DRIFT)
    assert 1.4 < factors[-1] <= 1.5
    assert (rising < factors).all()


def test_a_fault_that_grows_ever_so_slowly_crosses_the_bound_and_is_never_learnt() -> None:
    for rows in (1_000, 20_000, 200_000):
        growing = np.concatenate([np.full(500, 0.4), np.linspace(0.4, 3.0, rows), np.full(20_000, 3.0)])
        factors = followed(growing, DRIFT)
        alarmed = growing >= factors
        assert growing[alarmed.argmax()] <= 1.501  # at the bound at the latest
        assert alarmed[-20_000:].all()
        assert (factors[alarmed.argmax() :] == factors[alarmed.argmax()]).all()  # frozen


def test_after_an_alarm_it_goes_on_from_where_it_was() -> None:
    scores = np.concatenate([np.full(400, 0.9), np.full(400, 5.0), np.full(10, 0.9)])
    factors = followed(scores, DRIFT)
    assert factors[400] == factors[799] == factors[800]


def test_rows_without_a_score_change_nothing() -> None:
    scores = np.linspace(0.4, 0.9, 300)
    with_holes = np.insert(scores, [50, 120, 120], np.nan)
    assert np.array_equal(followed(with_holes, DRIFT)[~np.isnan(with_holes)], followed(scores, DRIFT))


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(0, 60))
def test_no_row_depends_on_a_later_one(scores: list[float], cut: int) -> None:
    whole = followed(np.array(scores), DRIFT)
    assert np.array_equal(followed(np.array(scores[:cut]), DRIFT), whole[:cut])


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"usual": 1.0}, {"usual": 0}, {"most": 0.9}, {"most": float("nan")}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="drift"):
        Drift(**wrong)
