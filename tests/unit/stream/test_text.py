"""The compiled weaver against numpy's and msgspec's: numbers are read back the same, all else is the same bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from stream.records import Scores
from stream.sinks import columns, text
from stream.sinks.columns import Chosen, Numbers, Part, Times, Whole, seven_digits
from stream.sinks.lineprotocol import score_lines
from stream.sinks.messages import score_rows
from stream.sinks.text import weave

ANY = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SENSED = st.decimals(min_value=-9999, max_value=9999, places=3).map(float)
LEAST_NORMAL = 2.0**-1022


@contextmanager
def uncompiled() -> Iterator[None]:
    with patch.object(text, "_function", lambda: None):
        yield


def written(values: Any, exact: bool) -> list[str]:
    """Each number of a column as text."""
    column = np.array(values, dtype=np.float64).reshape(-1, 1)
    return [line[3:] for line in weave(len(column), [Numbers(("k=",), column, exact)]).decode().split("\n")]


def bits(value: float) -> bytes:
    return struct.pack("d", value)


@example_settings(max_examples=500)
@given(st.lists(st.one_of(FINITE, SENSED), min_size=1, max_size=20))
def test_what_must_be_exact_is_read_back_to_the_bit(values: list[float]) -> None:
    for value, found in zip(values, written(values, True), strict=True):
        assert bits(float(found)) == bits(value)
        assert bits(json.loads(found)) == bits(value)


@example_settings(max_examples=500)
@given(st.lists(st.one_of(FINITE, SENSED), min_size=1, max_size=20))
def test_seven_digits_are_the_nearest(values: list[float]) -> None:
    for value, found in zip(values, written(values, False), strict=True):
        digits = found.split("e")[0].replace(".", "").strip("-0")
        assert len(digits) <= 7
        assert float(found) == float(f"{value:.6e}") or len(f"{value:.20e}".split("e")[0].strip("-0")) > 8
        assert float(found) == pytest.approx(value, rel=5.1e-7 if abs(value) >= LEAST_NORMAL else 1e-3, abs=5e-324)


def test_every_power_of_two_and_of_ten_and_what_is_beside_them() -> None:
    powers = np.concatenate([2.0 ** np.arange(-1074, 1024), [float(f"1e{power}") for power in range(-323, 309)]])
    with np.errstate(over="ignore"):
        values = np.concatenate([powers, np.nextafter(powers, 0.0), np.nextafter(powers, np.inf), -powers])
    assert np.array([float(found) for found in written(values, True)]).tobytes() == values.tobytes()
    normal = values[np.abs(values) >= LEAST_NORMAL]
    seven = np.array([float(found) for found in written(normal, False)])
    assert np.max(np.abs(seven / normal - 1.0)) < 5.1e-7


def test_any_bits() -> None:
    values = np.random.default_rng(7).integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    values = values[np.isfinite(values)]
    assert np.array([float(found) for found in written(values, True)]).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("value", "exact", "found"),
    [
        (71.25, True, "71.25"), (-3.1, True, "-3.1"), (0.0, True, "0.0"), (-0.0, True, "-0.0"), (100.0, True, "100.0"),
        (0.1 + 0.2, True, "0.30000000000000004"), (1e15, True, "1000000000000000.0"), (1e16, True, "1.0e16"),
        (1.5e-5, True, "0.000015"), (1.5e-6, True, "1.5e-6"), (5e-324, True, "4.9406564584124654e-324"),
        (1.7976931348623157e308, True, "1.7976931348623157e308"), (123456789.5, True, "123456789.5"),
        (50.721171234, False, "50.72117"), (9_999_999.7, False, "10000000.0"), (999.99999, False, "1000.0"),
        (1 / 3, False, "0.3333333"), (-2e-9 / 3, False, "-6.666667e-10"), (0.0, False, "0.0"),
    ],
)  # fmt: skip
def test_the_form_of_a_number(value: float, exact: bool, found: str) -> None:
    assert written([value], exact) == [found]


@given(st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=1, max_size=10), st.booleans(), st.data())
def test_what_is_present_and_no_others(rows: list[list[float]], separated: bool, data: st.DataObject) -> None:
    table = np.array(rows)
    shown = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=len(rows), max_size=len(rows)))
    )
    part = Numbers(('"a":', '"b":', '"c":'), table, True, shown, separated)
    parts: list[Part] = ['{"first":0' if separated else "{", part, "}"]
    expected = [
        {name: value for name, value, on in zip("abc", row, there, strict=True) if on and math.isfinite(value)}
        for row, there in zip(rows, shown.tolist(), strict=True)
    ]
    for woven in (weave(len(rows), parts), columns.weave(len(rows), parts)):
        found = [json.loads(line) for line in woven.split(b"\n")]
        for line in found:
            line.pop("first", None)
        assert found == expected


TEXTS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=70)


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2)), max_size=8),
    st.tuples(TEXTS, TEXTS, TEXTS),
    TEXTS,
    st.booleans(),
)
def test_all_but_numbers_is_the_same_to_the_byte(
    rows: list[tuple[int, int]], choices: tuple[str, str, str], constant: str, remembered: bool
) -> None:
    whole = np.array([row[0] for row in rows], dtype=np.int64)
    codes = np.array([row[1] for row in rows], dtype=np.uint8)
    parts: list[Part] = [constant, Chosen(choices if remembered else list(choices), codes), "|", Whole(whole), constant]
    assert weave(len(rows), parts) == columns.weave(len(rows), parts)
    assert weave(len(rows), []) == columns.weave(len(rows), [])


@given(st.lists(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), min_size=1, max_size=20))
def test_times_are_those_of_the_calendar(times: list[datetime]) -> None:
    at_ms = np.array(times, dtype="datetime64[ms]").astype(np.int64)
    found = weave(len(times), [Times(at_ms)])
    assert found == columns.weave(len(times), [Times(at_ms)])
    for line, time in zip(found.decode().split("\n"), times, strict=True):
        assert datetime.fromisoformat(line) == time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=UTC)


def test_times_before_1970_and_after_9999_are_written_too() -> None:
    at_ms = np.array([-1, 0, 253_402_300_800_000])
    assert weave(3, [Times(at_ms)]) == columns.weave(3, [Times(at_ms)])
    assert weave(2, [Times(at_ms[:2])]).startswith(b"1969-12-31T23:59:59.999Z\n")


def test_tables_may_lie_in_any_way() -> None:
    table = np.arange(24.0).reshape(4, 6)
    for seen in (
        table[:, ::2],
        table[::-1, 3:0:-1],
        np.asfortranarray(table)[:, :3],
        np.broadcast_to(table[:1, :3], (4, 3)),
    ):
        parts: list[Part] = [Numbers(("a=", "b=", "c="), seen, True)]
        assert weave(4, parts) == columns.weave(4, parts)


@pytest.mark.parametrize(
    "part",
    [
        Numbers(("a=",), np.zeros((2, 2)), True),
        Numbers(("a=", "b="), np.zeros((3, 2)), True),
        Numbers(("a=",), np.zeros((2, 1), np.float32), True),
        Numbers(("a=",), np.zeros((2, 1)), True, np.ones((1, 1), np.bool_)),
        Chosen(["a", "b"], np.zeros(3, np.int32)),
        Chosen(["a", "b"], np.array([0, 2])),
        Chosen(("a", "b"), np.array([-1, 0])),
        Chosen([], np.array([0, 0])),
        Whole(np.zeros(1, np.int64)),
        Times(np.zeros(3, np.int64)),
    ],
)
def test_what_does_not_fit_is_refused(part: Part) -> None:
    with pytest.raises(ValueError, match=r"asked for|stands for no text"):
        weave(2, [part])


@given(st.lists(ANY, min_size=1, max_size=20))
def test_rounding_leaves_what_is_not_finite_and_seven_digits_of_the_rest(values: list[float]) -> None:
    for value, rounded in zip(values, seven_digits(np.array(values)).tolist(), strict=True):
        if math.isfinite(value) and 1e-290 < abs(value) < 1e300:
            assert rounded == pytest.approx(value, rel=1e-6)
        elif not math.isfinite(value):
            assert repr(rounded) == repr(value)


def many(make_scores: Callable[..., Scores], seed: int) -> Scores:
    """Scores with something of everything: gaps, alerts, verdicts, values of any size."""
    rng = np.random.default_rng(seed)
    table = rng.normal(50.0, 20.0, (4, 300, 2)) * 10.0 ** rng.integers(-8, 9, (4, 300, 2))
    table[rng.random(table.shape) < 0.1] = np.nan
    values, expected, spread, contributions = table
    return make_scores(
        rows=300,
        assets=7,
        names=('pump "1"', "pump,2", "pump=3", "pump 4", "pümp", "p" * 90, "unseen", "7"),
        score=np.where(rng.random(300) < 0.1, np.nan, rng.gamma(2.0, 1.0, 300)),
        anomalous=rng.random(300) < 0.3,
        verdict=rng.integers(0, 3, 300).astype(np.uint8),
        values=np.round(values, 4),
        expected=expected,
        spread=np.abs(spread),
        contributions=contributions,
    )


def near(found: Any, expected: Any) -> bool:
    return bool(found == pytest.approx(expected, rel=2e-6))


@pytest.mark.parametrize("seed", range(5))
def test_lines_say_the_same_either_way(make_scores: Callable[..., Scores], seed: int) -> None:
    scores = many(make_scores, seed)
    with uncompiled():
        expected = score_lines(scores, "mill").split(b"\n")
    for line, other in zip(score_lines(scores, "mill").split(b"\n"), expected, strict=True):
        pairs = [[pair.rpartition(b"=") for pair in one.replace(b" ", b",").split(b",")] for one in (line, other)]
        for (key, _, value), (other_key, _, other_value) in zip(*pairs, strict=True):
            assert key == other_key
            if key.startswith((b"score", b"threshold", b"value_")):
                assert bits(float(value)) == bits(float(other_value))
            elif key.startswith((b"expected_", b"low_", b"high_", b"share_")):
                assert near(float(value), float(other_value))
            else:
                assert value == other_value


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_the_scores_topic_say_the_same_either_way(make_scores: Callable[..., Scores], seed: int) -> None:
    scores = many(make_scores, seed)
    with uncompiled():
        expected = [(key, json.loads(value)) for key, value in score_rows(scores, "mill")]
    found = [(key, json.loads(value)) for key, value in score_rows(scores, "mill")]
    for (key, row), (other_key, other) in zip(found, expected, strict=True):
        assert key == other_key
        assert list(row) == list(other)
        for name in row:
            if name in {"expected", "low", "high", "shares"}:
                assert row[name].keys() == other[name].keys()
                assert all(near(row[name][signal], value) for signal, value in other[name].items())
            else:
                assert row[name] == other[name]
