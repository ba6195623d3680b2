import json
import math
from datetime import datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decode import Decoder, formats
from stream.errors import ConfigError
from stream.plan import InputSettings
from stream.records import Record
from stream.sources.json import encode, timestamp
from stream.times import milliseconds, times

SIGNALS = ("pressure", "temperature")
GOOD = {"asset": "pump-1", "ts": "2026-11-23T08:00:00.250Z", "values": {"temperature": 71.25, "pressure": 3}}
AT_MS = 1795420800250


def decode(*values: bytes | None, **settings: Any) -> tuple[Any, list[str], int]:
    records = [Record("readings", 0, offset, value) for offset, value in enumerate(values)]
    readings, dead, unknown = Decoder(InputSettings(**settings), SIGNALS).decode(records)
    return readings, [letter.reason for letter in dead], unknown


def changed(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_reading_becomes_a_row_of_the_plans_columns() -> None:
    readings, dead, _ = decode(changed())
    assert dead == []
    assert readings.names == ("pump-1",)
    assert readings.at_ms.tolist() == [AT_MS]
    assert readings.signals == SIGNALS
    assert readings.values.tolist() == [[3.0, 71.25]]


@pytest.mark.parametrize(
    ("ts", "settings", "expected"),
    [
        ("2026-11-23T09:00:00.250+01:00", {}, AT_MS),
        (AT_MS, {"time": "ms"}, AT_MS),
        (AT_MS / 1000, {"time": "s"}, AT_MS),
        (AT_MS // 1000, {"time": "s"}, AT_MS - 250),
        (1795420800.001, {"time": "s"}, AT_MS - 249),
        ("2026-11-23T08:00:00.250999Z", {}, AT_MS),
        (AT_MS + 0.999, {"time": "ms"}, AT_MS),
    ],
)
def test_time_is_read_in_the_unit_the_plan_says(ts: object, settings: dict[str, Any], expected: int) -> None:
    readings, dead, _ = decode(changed(ts=ts), **settings)
    assert dead == []
    assert readings.at_ms.tolist() == [expected]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"pump-1;71.2;3.0", "not_json"),
        (b'{"asset": "pump-1", "ts"', "not_json"),
        ("{“asset”}".encode("utf-16"), "not_json"),
        (b'{"asset": "pump-1", "ts": 1795420800250, "values": {"pressure": NaN}}', "not_json"),
        (b"\xff\xfe\x00", "not_json"),
        (changed(values={"pressure": "NaN"}), "wrong_type"),
        (changed(values=[1, 2]), "wrong_type"),
        (changed(values={}), "wrong_type"),
        (changed(asset=17), "wrong_type"),
        (changed(asset=""), "wrong_type"),
        (changed(asset="pump\n1"), "bad_asset"),
        (json.dumps({"ts": AT_MS, "values": {"pressure": 1}}).encode(), "wrong_type"),
        (changed(ts="yesterday"), "wrong_type"),
        (changed(ts="2026-11-23T08:00:00"), "bad_time"),
        (changed(ts=99999999999999), "absurd_time"),
        (changed(ts=1e308), "absurd_time"),
        (changed(ts=-5), "absurd_time"),
        (changed(values={"humidity": 4.0}), "unknown_signals"),
        (b"", "empty"),
        (None, "empty"),
        (b"null", "wrong_type"),
        (b" " * 2_000_000, "too_large"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_what_cannot_be_used_is_a_dead_letter_with_a_reason(value: bytes | None, reason: str) -> None:
    readings, dead, _ = decode(changed(), value, changed(asset="pump-2"))
    assert dead == [reason] or (value == b"[" * 100_000 and len(dead) == 1)
    assert readings.names == ("pump-1", "pump-2")
    assert readings.record.tolist() == [0, 2]


def test_missing_null_bad_and_infinite_values_are_nan_never_zero() -> None:
    readings, dead, unknown = decode(
        changed(values={"temperature": None, "pressure": 1.0}),
        changed(values={"pressure": 2.0}),
        changed(quality={"temperature": "bad", "pressure": "uncertain"}),
        changed(values={"pressure": 4.0, "humidity": 50}),
    )
    assert dead == []
    assert [[math.isnan(value) for value in row] for row in readings.values.tolist()] == [[False, True]] * 4
    assert readings.values[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert unknown == 1


def test_an_unknown_format_and_a_naive_bound_name_their_key() -> None:
    with pytest.raises(ConfigError, match=r"input\.format.*json"):
        Decoder(InputSettings(format="xml"), SIGNALS)
    with pytest.raises(ConfigError, match=r"input\.latest.*Z"):
        Decoder(InputSettings(latest="2026-01-01T00:00:00"), SIGNALS)
    assert "json" in formats()


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(946684800000, 4102444800000))
def test_what_is_encoded_is_decoded_to_the_last_bit(value: float, at_ms: int) -> None:
    readings, dead, _ = decode(encode("a", at_ms, {"pressure": value, "temperature": float("nan")}))
    assert dead == []
    assert readings.values[0, 0] == value
    assert math.isnan(readings.values[0, 1])
    assert readings.at_ms.tolist() == [at_ms]


@given(st.binary(max_size=200))
def test_no_bytes_whatever_break_the_decoder(value: bytes) -> None:
    readings, dead, _ = decode(value)
    assert len(readings) + len(dead) == 1


def test_timestamps_are_rfc_3339_in_utc() -> None:
    assert timestamp(AT_MS) == "2026-11-23T08:00:00.250Z"


RECORDS = st.one_of(
    st.builds(
        lambda asset, ts, values, extra: json.dumps({"asset": asset, "ts": ts, "values": values, **extra}).encode(),
        st.sampled_from(["pump-1", "pump-2", "", "bad\n", 7]),
        st.sampled_from(
            ["2026-11-23T08:00:00Z", "2026-11-23T08:00:00.250Z", "2026-02-29T08:00:00Z", "2024-02-29T23:59:59Z",
             "2026-11-23T09:00:00+01:00", "2026-11-23T08:00:60Z", "2026-11-23T08:00:00", "soon", AT_MS, AT_MS + 0.5,
             5, 10**30, 1e300, True, None, [AT_MS]]
        ),
        st.dictionaries(
            st.sampled_from(["pressure", "temperature", "humidity"]),
            st.sampled_from([1, 2.5, None, "NaN", 10**400, -0.0]),
        ),
        st.sampled_from([{}, {"quality": {"pressure": "bad"}}, {"quality": {"flow": "bad"}}, {"quality": 1}, {"x": 1}]),
    ),
    st.builds(
        lambda asset, ts, values, extra: json.dumps({"asset": asset, "ts": ts, "values": values, **extra}).encode(),
        st.sampled_from(["pump-1", "pump-3", ""]),
        st.sampled_from(
            [[AT_MS], ["2026-11-23T08:00:00Z"] * 3, ["2026-11-23T08:00:00+01:00"], [AT_MS, "soon"], [1], []]
        ),
        st.dictionaries(
            st.sampled_from(["pressure", "temperature", "humidity"]),
            st.sampled_from([[1.0], [1, None, 3], [], ["x"], 5]),
        ),
        st.sampled_from([{}, {"quality": {"pressure": ["bad"]}}, {"quality": {"pressure": ["good", "bad", "bad"]}}]),
    ),
    st.sampled_from([b"", None, b"{", b"null", b" " * 300, b"\xff", b"[" * 2000]),
)  # fmt: skip


@pytest.mark.parametrize("compiled", [True, False])
@given(values=st.lists(RECORDS, max_size=40))
def test_many_together_are_read_as_each_alone(compiled: bool, values: list[bytes | None]) -> None:
    records = [Record("readings", 0, offset, value) for offset, value in enumerate(values)]
    together, alone = (Decoder(InputSettings(max_record_bytes=2000), SIGNALS) for _ in range(2))
    alone._parse_many = lambda values, rows: range(len(values))  # type: ignore[method-assign]
    if not compiled:
        together._source._reader.take = lambda values, rows: range(len(values))  # type: ignore[attr-defined]
    for _ in range(2):  # it learns the signals at the first
        readings, dead, unknown = together.decode(records)
    rows, letters, unknowns = [], [], 0
    for record in records:
        row, letter, count = alone.decode([record])
        rows += [
            (row.names[code], at_ms, repr(values), record.offset)
            for code, at_ms, values in zip(row.asset.tolist(), row.at_ms.tolist(), row.values.tolist(), strict=True)
        ]
        letters += [(held.record.offset, held.reason, held.detail) for held in letter]
        unknowns += count
    found = zip(
        readings.asset.tolist(),
        readings.at_ms.tolist(),
        readings.values.tolist(),
        readings.record.tolist(),
        strict=True,
    )
    assert [(readings.names[code], at_ms, repr(values), record) for code, at_ms, values, record in found] == rows
    assert [(held.record.offset, held.reason, held.detail) for held in dead] == letters
    assert unknown == unknowns


def test_a_signal_with_an_odd_name_costs_later_batches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Decoder(InputSettings(), SIGNALS)
    odd = changed(values={"pressure": 1, "he\t": 2}, quality={"he\t": "bad"})
    for values in ([odd], [odd] * 9, [changed(quality={"pressure": "bad"})] * 9):
        readings, dead, _ = decoder.decode([Record("readings", 0, at, value) for at, value in enumerate(values)])
        assert (len(readings), dead) == (len(values), [])
    assert not caplog.records


def test_a_time_beyond_all_numbers_is_one_dead_letter_and_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    readings, dead, unknown = decode(*[changed(values={"pressure": 1, "humidity": 2})] * 9, changed(ts=10**30))
    assert (len(readings), dead, unknown) == (9, ["absurd_time"], 9)
    assert not caplog.records


@pytest.mark.parametrize("compiled", [True, False])
def test_a_plain_batch_needs_no_second_look(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(InputSettings(), SIGNALS)
    if not compiled:
        monkeypatch.setattr(decoder._source._reader, "take", lambda values, rows: range(len(values)))  # type: ignore[attr-defined]
    records = [Record("readings", 0, offset, changed(asset=f"pump-{offset}")) for offset in range(100)]
    decoder.decode(records)
    monkeypatch.setattr(decoder._source, "parse", None)
    readings, dead, _ = decoder.decode(records)
    assert (len(readings), dead) == (100, [])


@given(
    st.lists(
        st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(
            lambda at: at.isoformat(timespec="milliseconds") + "Z"
        ),
        min_size=1,
    )
)
def test_times_together_are_read_as_each_alone(texts: list[str]) -> None:
    assert times(texts, 1).tolist() == [milliseconds(datetime.fromisoformat(text), 1) for text in texts]  # type: ignore[union-attr]


@given(st.lists(st.one_of(st.integers(0, 2**45), st.floats(0, 2**42)), min_size=1), st.sampled_from([1, 1000]))
def test_numbers_together_are_read_as_each_alone(numbers: list[float], unit_ms: int) -> None:
    found = times(numbers, unit_ms)
    assert found is None or found.tolist() == [milliseconds(number, unit_ms) for number in numbers]


@pytest.mark.parametrize(
    ("unit", "ts", "looks_like"),
    [
        ("ms", 1795420800, "seconds"),
        ("s", 1795420800250, "milliseconds"),
        ("ms", 1795420800250000, "microseconds"),
        ("ms", 1795420800250000000, "nanoseconds"),
        ("ms", 7, None),
    ],
)
@pytest.mark.parametrize("frame", [False, True])
def test_a_time_in_the_wrong_unit_is_named(
    unit: Literal["s", "ms"], ts: int, looks_like: str | None, frame: bool
) -> None:
    said = {"asset": "a", "ts": [ts] if frame else ts, "values": {"heat": [1.0] if frame else 1.0}}
    record = Record("readings", 0, 0, json.dumps(said).encode())
    _, dead, _ = Decoder(InputSettings(time=unit), ("heat",)).decode([record])
    assert dead[0].reason == "absurd_time"
    expected = f"looks like {looks_like}, and input.time is {unit!r}"
    assert (expected in dead[0].detail) if looks_like else ("looks like" not in dead[0].detail)
