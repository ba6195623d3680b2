import doctest
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets import Recording
from stream.backtest import backtest
from stream.decode import Decoder
from stream.pipeline import Pipeline
from stream.plan import InputSettings, Plan
from stream.records import Alert, DeadLetter, Output, Readings, Record
from stream.replay import _in_order
from stream.shelf import Shelf
from stream.sources import frame
from stream.sources.frame import encode_frame
from stream.sources.json import encode, timestamp

SIGNALS = ("pressure", "temperature")
AT_MS = 1795420800250
GOOD = {
    "asset": "pump-1",
    "ts": [AT_MS, AT_MS + 1000, AT_MS + 2000],
    "values": {"temperature": [71.25, None, 71.5], "pressure": [3, 3.5, 4]},
}


def decode(*values: object, **settings: Any) -> tuple[Readings, list[DeadLetter], int]:
    """``values`` are bytes, or what is to be written as JSON."""
    records = [
        Record("readings", 0, offset, value if isinstance(value, bytes) else json.dumps(value).encode())
        for offset, value in enumerate(values)
    ]
    return Decoder(InputSettings(**settings), SIGNALS).decode(records)


def same(left: Readings, right: Readings) -> None:
    """All but which record a reading came in."""
    assert left.names == right.names
    assert left.asset.tolist() == right.asset.tolist()
    assert left.at_ms.tolist() == right.at_ms.tolist()
    np.testing.assert_array_equal(left.values, right.values)


def test_a_frame_becomes_a_row_for_each_of_its_times() -> None:
    readings, dead, unknown = decode({**GOOD, "quality": {"pressure": ["good", "uncertain", "bad"]}, "gateway": 7})
    assert dead == []
    assert unknown == 0
    assert readings.names == ("pump-1",)
    assert readings.at_ms.tolist() == GOOD["ts"]
    assert readings.record.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(readings.values, [[3.0, 71.25], [3.5, np.nan], [np.nan, 71.5]])


def test_readings_and_frames_may_be_mixed_and_keep_their_order() -> None:
    single = {"asset": "pump-2", "ts": AT_MS, "values": {"pressure": 9.0}}
    other = {"asset": "pump-3", "ts": [AT_MS, AT_MS + 1], "values": {"humidity": [1, 2], "temperature": [5.0, 6.0]}}
    readings, dead, unknown = decode(single, GOOD, b"?", single, other, single)
    assert [(letter.record.offset, letter.reason) for letter in dead] == [(2, "not_json")]
    assert unknown == 2
    assert [readings.names[code] for code in readings.asset] == [
        "pump-2", "pump-1", "pump-1", "pump-1", "pump-2", "pump-3", "pump-3", "pump-2",
    ]  # fmt: skip
    assert readings.record.tolist() == [0, 1, 1, 1, 3, 4, 4, 5]
    assert readings.values[:, 0].tolist()[:5] == [9.0, 3.0, 3.5, 4.0, 9.0]
    assert readings.values[5:7, 1].tolist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"values": {"temperature": [1.0, 2.0]}}, "ragged_frame", "'temperature' has 2 entries, ts has 3"),
        ({"quality": {"temperature": ["bad"]}}, "ragged_frame", "quality of 'temperature' has 1"),
        ({"ts": []}, "wrong_type", r"length >= 1.*\$\.ts"),
        ({"ts": [], "values": {"temperature": []}}, "wrong_type", r"\$\.ts"),
        ({"values": {}}, "wrong_type", r"\$\.values"),
        ({"values": {"temperature": 4.0}}, "wrong_type", "Expected `array`"),
        ({"values": {"temperature": [1.0, "2", 3.0]}}, "wrong_type", r"\$\.values"),
        ({"values": {"temperature": [1.0, True, 3.0]}}, "wrong_type", r"\$\.values"),
        ({"quality": {"temperature": "good"}}, "wrong_type", r"\$\.quality"),
        ({"quality": {"temperature": ["good", "fine", "bad"]}}, "wrong_type", r"\$\.quality"),
        ({"asset": 17}, "wrong_type", r"\$\.asset"),
        ({"asset": "pump\n1"}, "bad_asset", ""),
        ({"ts": [AT_MS, None, AT_MS]}, "wrong_type", r"\$\.ts"),
        ({"ts": [AT_MS, "yesterday", AT_MS]}, "wrong_type", r"\$\.ts"),
        ({"ts": [AT_MS, "2026-11-23T08:00:00", AT_MS]}, "bad_time", "offset"),
        ({"ts": [AT_MS, 99999999999999, AT_MS]}, "absurd_time", "99999999999999"),
        ({"ts": [AT_MS, -5, AT_MS]}, "absurd_time", "-5"),
        ({"ts": [AT_MS, 1e308, AT_MS]}, "absurd_time", ""),
        ({"ts": [AT_MS, 10**18, AT_MS]}, "absurd_time", ""),
        ({"ts": [AT_MS, 10**30, AT_MS]}, "absurd_time", ""),
        ({"ts": AT_MS}, "wrong_type", r"got `array` - at `\$\.values"),
        ({"values": {"humidity": [1.0, 2.0, 3.0]}}, "unknown_signals", ""),
    ],
)
def test_a_refused_frame_is_one_dead_letter_and_nothing_of_it_is_taken(
    changes: dict[str, Any], reason: str, detail: str
) -> None:
    readings, dead, unknown = decode({**GOOD, **changes}, {**GOOD, "asset": "pump-2"})
    assert [letter.reason for letter in dead] == [reason]
    assert re.search(detail, dead[0].detail), dead[0].detail
    assert readings.names == ("pump-2",)
    assert readings.record.tolist() == [1, 1, 1]
    assert unknown == 0


def test_the_number_of_readings_in_a_record_is_limited() -> None:
    readings, dead, _ = decode(GOOD, max_readings_per_record=3)
    assert (len(readings), dead) == (3, [])
    readings, dead, _ = decode(GOOD, max_readings_per_record=2)
    assert len(readings) == 0
    assert (dead[0].reason, dead[0].detail) == (
        "too_many_readings",
        "3 readings in one record, input.max_readings_per_record is 2",
    )


def test_a_topic_can_be_held_to_frames() -> None:
    readings, dead, _ = decode(GOOD, encode("pump-2", AT_MS, {"pressure": 1.0}), format="frame")
    assert readings.names == ("pump-1",)
    assert [letter.reason for letter in dead] == ["wrong_type"]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WHEN = st.integers(946684800000, 4102444799999)
TIMES = {
    "ms": st.one_of(WHEN, WHEN.map(float), WHEN.map(lambda at: at + 0.5), WHEN.map(timestamp)),
    "s": st.one_of(WHEN.map(lambda at: at // 1000), WHEN.map(lambda at: at / 1000), WHEN.map(timestamp)),
}


@st.composite
def frames(draw: st.DrawFn, unit: str) -> dict[str, Any]:
    rows = draw(st.integers(1, 6))
    column = st.lists(st.none() | FLOATS | st.integers(-(2**53), 2**53), min_size=rows, max_size=rows)
    said = st.lists(st.sampled_from(["good", "uncertain", "bad"]), min_size=rows, max_size=rows)
    names = st.sampled_from([*SIGNALS, "humidity"])
    held: dict[str, Any] = {
        "asset": draw(st.sampled_from(["pump-1", "pump-2", "fan"])),
        "ts": draw(st.lists(TIMES[unit], min_size=rows, max_size=rows)),
        "values": {draw(st.sampled_from(SIGNALS)): draw(column), **draw(st.dictionaries(names, column))},
    }
    if draw(st.booleans()):
        held["quality"] = draw(st.dictionaries(names, said))
    return held


def singly(held: dict[str, Any]) -> list[dict[str, Any]]:
    """The readings of a frame, each by itself."""
    return [
        {
            "asset": held["asset"],
            "ts": ts,
            "values": {signal: column[row] for signal, column in held["values"].items()},
            "quality": {signal: column[row] for signal, column in held.get("quality", {}).items()},
        }
        for row, ts in enumerate(held["ts"])
    ]


@pytest.mark.parametrize("unit", ["s", "ms"])
@given(data=st.data())
def test_a_frame_equals_its_readings_sent_singly(unit: str, data: st.DataObject) -> None:
    sent = data.draw(st.lists(frames(unit), min_size=1, max_size=4))
    together, dead, unknown = decode(*sent, time=unit)
    apart, dead_apart, unknown_apart = decode(*(reading for held in sent for reading in singly(held)), time=unit)
    assert dead == dead_apart == []
    assert unknown == unknown_apart
    same(together, apart)
    some = [part for index, held in enumerate(sent) for part in ([held] if index % 2 else singly(held))]
    same(decode(*some, time=unit)[0], apart)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {
            "asset": st.just("pump-1") | _ANY,
            "ts": st.lists(st.integers() | FLOATS | st.just(AT_MS) | st.text(max_size=5), max_size=3) | _ANY,
            "values": st.dictionaries(st.sampled_from(SIGNALS), st.lists(st.none() | FLOATS, max_size=3) | _ANY) | _ANY,
        },
        optional={"quality": st.dictionaries(st.sampled_from(SIGNALS), st.lists(st.just("bad"), max_size=3)) | _ANY},
    )
)
def test_whatever_is_sent_is_taken_whole_or_refused_for_a_reason(held: dict[str, Any]) -> None:
    readings, dead, _ = decode(held)
    assert "decoder_failed" not in {letter.reason for letter in dead}
    if dead:
        assert (len(dead), len(readings)) == (1, 0)
    else:
        assert len(readings) == (len(held["ts"]) if isinstance(held["ts"], list) else 1)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_damage_to_a_frame_breaks_the_decoder(noise: bytes, at: int) -> None:
    value = json.dumps(GOOD).encode()
    readings, dead, _ = decode(value[:at] + noise + value[at + len(noise) :])
    assert "decoder_failed" not in {letter.reason for letter in dead}
    assert bool(len(readings)) != bool(dead)


@pytest.mark.parametrize("unit", [None, "s", "ms"])
@given(data=st.data())
def test_what_is_encoded_is_decoded_to_the_last_bit(unit: Any, data: st.DataObject) -> None:
    at_ms = np.array(data.draw(st.lists(WHEN, min_size=1, max_size=5)))
    cells = st.floats(allow_infinity=False)
    values = np.array(data.draw(st.lists(st.tuples(cells, cells), min_size=len(at_ms), max_size=len(at_ms))))
    readings, dead, _ = decode(encode_frame("a", at_ms, SIGNALS, values, time=unit), time=unit or "ms")
    assert dead == []
    assert readings.at_ms.tolist() == at_ms.tolist()
    np.testing.assert_array_equal(readings.values, values)


def test_a_frame_that_does_not_fit_together_is_not_encoded() -> None:
    assert doctest.testmod(frame).failed == 0
    with pytest.raises(ValueError, match=r"not \(row, signal\)"):
        encode_frame("a", np.array([AT_MS]), SIGNALS, np.zeros((2, 2)))
    assert b"null,null" in encode_frame("a", np.array([AT_MS] * 2), ["x"], np.array([[math.nan], [math.inf]]))


def sent(recordings: Sequence[Recording], per_record: int | None) -> list[Record]:
    """What ``headrace replay`` sends, as the records of one partition."""
    return [
        Record("readings", 0, offset, payload, key)
        for offset, (_, key, payload, _) in enumerate(_in_order(recordings, per_record))
    ]


def outcome(outputs: Sequence[Output]) -> tuple[dict[tuple[str, str, int], tuple[float, bool]], list[Alert]]:
    rows = {
        (scores.detector, scores.names[scores.asset[row]], int(scores.at_ms[row])): (
            float(scores.score[row]),
            bool(scores.anomalous[row]),
        )
        for output in outputs
        for scores in output.scores
        for row in range(len(scores))
    }
    return rows, sorted((a for output in outputs for a in output.alerts), key=lambda a: (a.id, a.sequence))


@pytest.fixture
def recordings(make_recording: Callable[..., Recording]) -> list[Recording]:
    holed = make_recording("pump-2", rows=280, seed=2)
    holed.values[100:130, 0] = np.nan
    return [make_recording("pump-1", rows=300, seed=1, fault=(150, 180)), holed]


def test_live_with_frames_equals_live_with_readings_equals_backtest(plan: Plan, recordings: list[Recording]) -> None:
    def live(records: Sequence[Record], batch: int) -> list[Output]:
        pipeline = Pipeline(plan, Shelf(plan))
        bounds = [*range(0, len(records), batch), len(records)]
        return [pipeline.process(0, records[a:b]) for a, b in pairwise(bounds)]

    whole = outcome(live(sent(recordings, None), 97))
    assert {alert.asset for alert in whole[1]} >= {"pump-1"}
    for per_record, batch in [(1, 50), (7, 3), (50, 1), (50, 4096), (1000, 2)]:
        assert outcome(live(sent(recordings, per_record), batch)) == whole
    mixed = [*sent([recordings[0]], 13), *sent([recordings[1]], None)]
    mixed = [replace(record, offset=offset) for offset, record in enumerate(mixed)]
    assert outcome(live(mixed, 29)) == whole
    assert outcome(list(backtest(Pipeline(plan, Shelf(plan)), recordings))) == whole


def test_a_late_frame_is_handed_on_once(plan: Plan, recordings: list[Recording]) -> None:
    records = sent(recordings[:1], 50)
    late = replace(records[0], offset=len(records))
    output = Pipeline(plan, Shelf(plan)).process(0, [*records, late])
    assert [held.record for held in output.late] == [late]
    assert output.counts["late"] == 50
    assert output.counts["records"] == len(records) + 1
    assert output.counts["readings"] == 350


def test_a_recording_is_cut_into_frames_in_its_own_order(make_recording: Callable[..., Recording]) -> None:
    held = [make_recording("pump-1", rows=25, seed=1), make_recording("pump-2", rows=7, seed=2)]
    parts = list(_in_order(held, 10))
    assert [(key, readings) for _, key, _, readings in parts] == [
        (b"pump-2", 7), (b"pump-1", 10), (b"pump-1", 10), (b"pump-1", 5),
    ]  # fmt: skip
    since = [since_s for since_s, *_ in parts]
    assert since == sorted(since)
    assert since[-1] == (held[0].at_ms[-1] - held[0].at_ms[0]) / 1000
    assert list(_in_order([], 10)) == []


def test_a_frame_sent_twice_changes_nothing(plan: Plan, recordings: list[Recording]) -> None:
    records = sent(recordings, 20)
    twice = [replace(record, offset=offset) for offset, record in enumerate(r for r in records for _ in range(2))]
    once = Pipeline(plan, Shelf(plan)).process(0, records)
    again = Pipeline(plan, Shelf(plan)).process(0, twice)
    assert outcome([again]) == outcome([once])
    assert again.counts["duplicates"] == len(records)
    assert again.counts["late"] == 580 - len(records)
