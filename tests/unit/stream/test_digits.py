"""Numbers in one width say what they should, and weaving keeps rows apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sinks.columns import fields, numbers, seven_digits, weave
from stream.sinks.digits import blocks, cells

ANY = st.floats(allow_nan=True, allow_infinity=True)
SENSED = st.decimals(min_value=-9999, max_value=9999, places=3).map(float)


def column(values: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


@given(st.lists(st.floats(-1e99, 1e99), min_size=1, max_size=20))
def test_seven_digits_are_right(values: list[float]) -> None:
    texts = blocks(["k="], cells(column(values), np.array([False])))
    for value, text in zip(values, texts, strict=True):
        assert len(text) == 14
        if abs(value) > 1e-92:
            assert float(text[2:]) == pytest.approx(value, rel=5.1e-7)
        else:
            assert float(text[2:]) == pytest.approx(0.0, abs=1e-92)


@given(st.lists(st.one_of(ANY, SENSED), min_size=1, max_size=8))
def test_what_must_be_exact_is_or_is_left_to_others(values: list[float]) -> None:
    held = cells(column(values), np.array([True]))
    if len(held.columns):
        assert [float(text[1:]) for text in blocks(["="], held)] == values
    if not all(math.isfinite(value) for value in values):
        assert not len(held.columns)


@given(st.lists(SENSED, min_size=1, max_size=20))
def test_what_sensors_say_is_written_exactly(values: list[float]) -> None:
    assert len(cells(column(values), np.array([True])).columns) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(50.72117, "05072117e-05"), (-3.1, "-3100000e-06"), (9_999_999.7, "01000000e+01"), (1e6, "01000000e+00")],
)
def test_the_form_of_a_number(value: float, text: str) -> None:
    assert blocks([""], cells(column([value]), np.array([False]))) == [text]


def test_columns_that_are_left_out_are_told() -> None:
    table = np.array([[1.0, math.nan, 1e101, 2.0], [1.5, 2.0, 1.0, 2.5]])
    held = cells(table, np.zeros(4, dtype=bool))
    assert held.columns.tolist() == [0, 3]
    assert blocks(["ä=", "b="], held) == ["ä=01000000e-06b=02000000e-06", "ä=01500000e-06b=02500000e-06"]
    assert blocks(["a="], cells(np.zeros((0, 1)), np.zeros(1, dtype=bool))) == []


@given(st.lists(ANY, min_size=1, max_size=20))
def test_rounding_leaves_what_is_not_finite_and_seven_digits_of_the_rest(values: list[float]) -> None:
    for value, rounded in zip(values, seven_digits(np.array(values)).tolist(), strict=True):
        if math.isfinite(value) and 1e-290 < abs(value) < 1e300:
            assert rounded == pytest.approx(value, rel=1e-6)
        elif not math.isfinite(value):
            assert repr(rounded) == repr(value)


@given(st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=1, max_size=10), st.booleans())
def test_fields_that_are_present_and_no_others(rows: list[list[float]], separated: bool) -> None:
    table = np.array(rows)
    keys = ['"a":', '"b":', '"c":']
    columns = fields(keys, numbers(table), np.isfinite(table), separated=separated)
    lead = '{"first":0' if separated else "{"
    for row, line in zip(rows, weave(len(rows), [lead, *columns, "}"]).split("\n"), strict=True):
        found = json.loads(line)
        found.pop("first", None)
        assert found == {name: value for name, value in zip("abc", row, strict=True) if math.isfinite(value)}


@given(st.lists(st.tuples(*[st.one_of(st.floats(-1e99, 1e99), SENSED)] * 3), min_size=1, max_size=20))
def test_a_number_is_written_as_it_would_be_alone(rows: list[tuple[float, ...]]) -> None:
    anything = np.zeros(3, dtype=bool)
    for texts, row in zip(cells(np.array(rows), anything).text, rows, strict=True):
        alone = [cells(column([value]), anything[:1]).text[0, 0] for value in row]
        assert [bytes(text) for text in texts] == [bytes(text) for text in alone]


@given(st.lists(st.one_of(st.floats(-1e99, 1e99), SENSED), min_size=1, max_size=8))
def test_a_column_that_is_left_to_others_has_a_number_of_more_digits(values: list[float]) -> None:
    short = [f"{value:.6e}" for value in values if value]
    kept = len(cells(column(values), np.array([True])).columns)
    if not kept:  # or one whose power of ten no float64 holds exactly
        assert any(
            float(text) != value or not 1e-16 <= abs(value) < 1e7
            for text, value in zip(short, filter(None, values), strict=True)
        )
