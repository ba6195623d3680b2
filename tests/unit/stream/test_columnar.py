"""The compiled reader against the decoder of objects: what it takes is to the bit what that makes of it."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models import compiled
from models.compiled import NotBuilt
from stream import columnar
from stream.columnar import Kind, Reader
from stream.decode import Decoder
from stream.errors import DecodeError
from stream.plan import InputSettings
from stream.records import Readings, Record
from stream.sources.base import Bounds, Rows
from stream.sources.json import Source, encode
from stream.sources.packed import encode_packed

SIGNALS = ("flow", "heat", "pressure at outlet 3", "Öltemperatur")
BOUNDS = Bounds(SIGNALS, 0, 10**13)
AT_MS = 1_795_420_800_250
PLAIN = b'{"asset":"pump-1","ts":1795420800250,"values":{"flow":40.5,"heat":-1e-3}}'


def one_by_one(values: Sequence[bytes], bounds: Bounds = BOUNDS) -> tuple[list[Any], int, set[int]]:
    """What the decoder of objects makes of each record: rows, values of other signals, records that it refuses."""
    rows, refused = Rows(bounds), set()
    source = Source(bounds.unit)
    for place, value in enumerate(values):
        rows.record = place
        try:
            source.parse(value, rows)
        except DecodeError:
            refused.add(place)
    return listed(rows.readings()), rows.unknown_signals, refused


def listed(readings: Readings) -> list[Any]:
    return [
        (readings.names[code], at_ms, struct.pack(f"{len(row)}d", *(row + 0.0)), record)
        for code, at_ms, row, record in zip(
            readings.asset.tolist(), readings.at_ms.tolist(), readings.values, readings.record.tolist(), strict=True
        )
    ]


def agree(values: Sequence[bytes], bounds: Bounds = BOUNDS, reader: Reader | None = None) -> list[int]:
    """Fails unless what is taken of ``values`` is what the other decoder makes of it; the places of what is left."""
    found = (reader or Reader(bounds)).read(values)
    taken = sorted(set(range(len(values))) - set(found.left))
    rows, unknown, refused = one_by_one(values, bounds)
    assert not refused & set(taken)
    assert listed(found.readings) == [row for row in rows if row[-1] in set(taken)]
    assert found.unknown == one_by_one([values[place] for place in taken], bounds)[1]
    assert unknown >= found.unknown
    names = found.readings.names
    assert list(names) == list(dict.fromkeys(names[code] for code in found.readings.asset.tolist()))
    return found.left


def test_it_is_built() -> None:
    """pip builds it wherever there is a C compiler, and brings one where there is none."""
    assert compiled.missing() == {}


def test_a_plain_reading_and_a_plain_frame_are_taken() -> None:
    frame = b'{"asset":"pump-2","ts":[1795420800250, 1795420801250],"values":{"heat":[1,null],"other":[2.5,3]}}'
    reader = Reader(BOUNDS)
    assert agree([PLAIN, frame, PLAIN], reader=reader) == []
    found = reader.read([PLAIN, frame])
    assert found.readings.names == ("pump-1", "pump-2")
    assert found.readings.record.tolist() == [0, 1, 1]
    assert found.readings.at_ms.tolist() == [AT_MS, AT_MS, AT_MS + 1000]
    assert found.unknown == 2
    assert np.isnan(found.readings.values[1:, 0]).all()


@pytest.mark.parametrize(
    "value",
    [
        b'{"ts":"2026-11-23T08:00:00.250Z","values":{"flow":1},"asset":"a"}',
        b' { "asset" : "a b" , "ts" : 1 , "values" : { "flow" : 1 , "heat" : null } } \n',
        b'{"asset":"a","ts":1,"values":{"flow":1},"quality":{"flow":"good","heat":"uncertain"},"site":"north","n":-1.5e3}',
        b'{"asset":"a","ts":1,"values":{"flow":1},"quality":{},"x":true,"y":false,"z":null}',
        b'{"asset":"a","ts":["2026-11-23T08:00:00+01:00","2024-02-29T23:59:59.5Z"],"values":{"flow":[1,2]}}',
        '{"asset":"a","ts":1,"values":{"Öltemperatur":80.25}}'.encode(),
        b'{"asset":"a","ts":1,"values":{"pressure at outlet 3":1,"pressure at outlet 33":2}}',
        b'{"asset":"a","ts":1,"values":{"heat":2,"flow":1,"heat":3}}',
        b'{"asset":"a","ts":1.5,"values":{"flow":1}}',
        b'{"asset":"a","ts":1,"values":{"flow":0.000012345678901234567}}',
    ],
)  # fmt: skip
def test_what_is_plain_in_every_order_and_spacing_is_taken(value: bytes) -> None:
    assert agree([PLAIN, value, PLAIN]) == []


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"{}", b"null", b"[]", b"7", b"\xff", b"{" * 3000, b" " * 50,
        b'{"asset":"a","ts":1,"values":{}}',
        b'{"asset":"a","ts":1,"values":{"other":1}}',
        b'{"asset":"a","ts":1,"values":{"flow":null}}',
        b'{"asset":"a","ts":1,"values":{"flow":1},"quality":{"flow":"bad"}}',
        b'{"asset":"a","ts":1,"values":{"flow":"1"}}',
        b'{"asset":"a","ts":1,"values":{"flow":1}',
        b'{"asset":"a","ts":1,"values":{"flow":1}}}',
        b'{"asset":"a","ts":1,"values":{"flow":1}} x',
        b'{"asset":"a","ts":1,"values":{"flow":01}}',
        b'{"asset":"a","ts":1,"values":{"flow":1.}}',
        b'{"asset":"a","ts":1,"values":{"flow":.5}}',
        b'{"asset":"a","ts":1,"values":{"flow":+1}}',
        b'{"asset":"a","ts":1,"values":{"flow":1e}}',
        b'{"asset":"a","ts":1,"values":{"flow":NaN}}',
        b'{"asset":"a","ts":1,"values":{"flow":1e999}}',
        b'{"asset":"a","ts":1,"values":{"flow":nul}}',
        b'{"asset":"a","ts":1,"values":{"flow":1,}}',
        b'{"asset":"","ts":1,"values":{"flow":1}}',
        b'{"asset":"\\u0061","ts":1,"values":{"flow":1}}',
        b'{"asset":"a\x00","ts":1,"values":{"flow":1}}',
        b'{"asset":"' + b"a" * 201 + b'","ts":1,"values":{"flow":1}}',
        '{"asset":"Pumpe-Ü","ts":1,"values":{"flow":1}}'.encode(),
        b'{"asset":"a","asset":"b","ts":1,"values":{"flow":1}}',
        b'{"asset":"a","ts":true,"values":{"flow":1}}',
        b'{"asset":"a","ts":-5,"values":{"flow":1}}',
        b'{"asset":"a","ts":99999999999999999999,"values":{"flow":1}}',
        b'{"asset":"a","ts":"2026-02-29T08:00:00Z","values":{"flow":1}}',
        b'{"asset":"a","ts":"2026-11-23T08:00:60Z","values":{"flow":1}}',
        b'{"asset":"a","ts":"2026-11-23T08:00:00","values":{"flow":1}}',
        b'{"asset":"a","ts":"soon","values":{"flow":1}}',
        b'{"asset":"a","ts":[],"values":{"flow":[]}}',
        b'{"asset":"a","ts":[1,2],"values":{"flow":[1]}}',
        b'{"asset":"a","ts":[1],"values":{"flow":[1,2]}}',
        b'{"asset":"a","ts":[1],"values":{"flow":1}}',
        b'{"asset":"a","ts":1,"values":{"flow":[1]}}',
        b'{"asset":"a","values":{"flow":[1]},"ts":[1]}',
        b'{"asset":"a","ts":[1],"values":{"other":[1]}}',
        b'{"asset":"a","ts":[1],"values":{"flow":[1]},"quality":{"flow":["good"]}}',
        b'{"asset":"a","quality":{"flow":"good"},"ts":[1],"values":{"flow":[1]}}',
        b'{"asset":"a","ts":1,"values":{"flow":1},"nested":{"x":1}}',
        b'{"asset":"a","ts":1,"values":{"flow":1},"other":1',
        b"HRF1" + bytes(40),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_and_costs_its_neighbours_nothing(value: bytes) -> None:
    assert agree([PLAIN, value, PLAIN]) == [1]


@pytest.mark.parametrize("held", [PLAIN, b'{"asset":"p","ts":["2026-11-23T08:00:00Z"],"values":{"flow":[12345678.5]}}'])
def test_a_record_that_is_cut_off_is_never_read_on_into_the_next(held: bytes) -> None:
    for cut in range(1, len(held)):
        assert agree([held[:cut], held[cut:], PLAIN]) == [0, 1]
        assert agree([held, held[:cut]]) == [1]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
@example([5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -0.0])
@example([9007199254740993.0, 1e22, 1e23, 4.35])
def test_every_float_comes_back_to_the_last_bit(floats: list[float]) -> None:
    values = dict(zip(SIGNALS, floats, strict=False))
    found = Reader(BOUNDS).read([json.dumps({"asset": "a", "ts": 1, "values": values}, ensure_ascii=False).encode()])
    subnormal = any(0 < abs(held) < 2.2250738585072014e-308 for held in floats)
    assert bool(found.left) == subnormal
    if not found.left:
        assert found.readings.values[0, : len(floats)].tolist() == floats


def test_decimals_are_rounded_as_python_rounds_them() -> None:
    draw = random.Random(7)
    texts = [
        f"{draw.choice(['', '-'])}{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}{power}"
        for _ in range(20_000)
        for digits in [str(draw.randrange(10 ** draw.randint(1, 19)))]
        for power in [draw.choice(["", "", f"e{draw.randint(-290, 280)}", f"E+{draw.randint(0, 30)}", "e-7"])]
    ]
    # halfway between two floats, and beside it
    for _ in range(2000):
        low = draw.randrange(1 << 52, 1 << 53)
        shift = draw.randint(1, 9)
        texts += [str(((2 * low + 1) << shift) // 2 + beside) for beside in (-1, 0, 1)]
    records = [b'{"asset":"a","ts":1,"values":{"flow":%s}}' % text.encode() for text in texts]
    found = Reader(BOUNDS).read(records)
    assert found.left == []
    expected = np.array([float(text) for text in texts])
    assert (found.readings.values[:, 0] == expected).all()


@given(
    st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30)),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.one_of(st.none(), st.integers(-23 * 60 - 59, 23 * 60 + 59)),
)
def test_times_as_text_are_read_as_the_other_decoder_reads_them(at: datetime, spec: str, offset: int | None) -> None:
    zone = timezone(timedelta(minutes=offset or 0))
    text = at.replace(tzinfo=zone).isoformat(timespec=spec)
    text = text.removesuffix("+00:00") + "Z" if offset is None else text
    record = json.dumps({"asset": "a", "ts": text, "values": {"flow": 1}}).encode()
    assert agree([record], BOUNDS._replace(earliest_ms=-(10**15), latest_ms=10**15)) == []


@given(st.sampled_from(["s", "ms"]), st.one_of(st.integers(0, 10**13), st.floats(0, 1e13), st.floats(0, 4e9)))
def test_times_as_numbers_are_read_as_the_other_decoder_reads_them(unit: str, ts: float) -> None:
    agree([json.dumps({"asset": "a", "ts": ts, "values": {"flow": 1}}).encode()], BOUNDS._replace(unit=unit))


_NOISE = st.sampled_from([bytes([byte]) for byte in b'"\\,}]1e.- \x00\xc3n:[{'])


@given(
    st.sampled_from(
        [
            PLAIN,
            encode("pump-3", AT_MS, {"flow": 1.25, "heat": None, "Öltemperatur": 3e-7}, {"heat": "uncertain"}),
            b'{"asset":"a","ts":[1,2.5,"1970-01-02T00:00:00Z"],"values":{"flow":[1,2,null],"x":[1,null,3]}}',
        ]
    ),
    st.lists(st.tuples(st.integers(0, 120), st.booleans(), _NOISE), max_size=3),
)
def test_a_record_with_any_bytes_changed_is_taken_rightly_or_left(
    record: bytes, changes: list[tuple[int, bool, bytes]]
) -> None:
    for at, instead, noise in changes:
        record = record[:at] + noise + record[at + instead :]
    agree([PLAIN, record, PLAIN])


def test_more_rows_and_names_than_there_was_room_for_make_room() -> None:
    reader = Reader(BOUNDS)
    ts = list(range(1, 9001))
    frame = json.dumps({"asset": "long", "ts": ts, "values": {"flow": [float(at) for at in ts]}}).encode()
    many = [PLAIN.replace(b"pump-1", b"pump-%d" % number) for number in range(5000)]
    long_names = [PLAIN.replace(b"pump-1", b"%0200d" % number) for number in range(3000)]
    for _ in range(2):
        found = reader.read([*many, frame, *long_names, PLAIN])
        assert found.left == []
        assert len(found.readings) == 5000 + 9000 + 3000 + 1
        assert found.readings.values[5000:14000, 0].tolist() == ts
        assert found.readings.names[:2] == ("pump-0", "pump-1")
        assert found.readings.names[-1] == f"{2999:0200d}"
        assert found.readings.asset[-1] == 1
    assert agree([*many[:10], frame, PLAIN], reader=reader) == []
    assert agree([frame], BOUNDS._replace(max_rows=8999)) == [0]


def test_a_few_rows_do_not_hold_the_room_that_there_was_for_many() -> None:
    reader = Reader(BOUNDS)
    for count in (1, 100, 5000):
        readings = reader.read([PLAIN] * count).readings
        for array in (readings.values, readings.at_ms, readings.asset, readings.record):
            held = array if array.base is None else array.base
            assert held.nbytes <= 2 * array.nbytes


def test_a_producer_that_invents_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "_MOST_NAMES", 100)
    reader = Reader(BOUNDS)
    for begin in range(0, 1000, 50):
        batch = [PLAIN.replace(b"pump-1", b"pump-%d" % number) for number in range(begin, begin + 50)]
        assert agree(batch, reader=reader) == []
        assert reader._work.known <= 150


def test_where_no_signal_is_watched_all_is_left() -> None:
    assert Reader(BOUNDS._replace(signals=())).read([PLAIN, PACKED]).left == [0, 1]


def test_where_only_frames_are_readings_a_single_one_is_left() -> None:
    frame = PLAIN.replace(b"1795420800250", b"[1795420800250]").replace(b"40.5", b"[40.5]").replace(b"-1e-3", b"[null]")
    assert Reader(BOUNDS, Kind.FRAME).read([PLAIN, frame]).left == [0]
    readings, dead, _ = Decoder(InputSettings(format="frame"), SIGNALS).decode(
        [Record("readings", 0, offset, value) for offset, value in enumerate([PLAIN, frame] * 10)]
    )
    assert readings.record.tolist() == list(range(1, 20, 2))
    assert [letter.record.offset for letter in dead] == list(range(0, 20, 2))


PACKED = encode_packed(
    "pump-2", np.array([AT_MS, 7]), ("heat", "other", "flow"), np.array([[1, 2, np.nan], [4, np.nan, np.inf]])
)


def test_a_packed_frame_is_taken_in_the_order_in_which_it_is_written() -> None:
    found = Reader(BOUNDS).read([PLAIN, PACKED])
    assert agree([PLAIN, PACKED, PLAIN]) == []
    assert found.unknown == 1
    assert Reader(BOUNDS, Kind.SINGLE | Kind.FRAME).read([PACKED]).left == [0]
    assert Reader(BOUNDS, Kind.PACKED).read([PLAIN, PACKED]).left == [0]
    for cut in range(len(PACKED)):
        assert agree([PACKED[:cut], PACKED[cut:], PLAIN])[0] == 0
    long = encode_packed("pump-3", np.arange(1, 9001), ("flow",), np.arange(9000.0)[:, None])
    assert agree([PLAIN, long, PACKED]) == []
    assert agree([long], BOUNDS._replace(max_rows=8999)) == [0]
    assert agree([encode_packed("a", np.array([-1]), ("flow",), np.ones((1, 1)))]) == [0]
    assert agree([encode_packed("a", np.array([1]), ("flow", "flow"), np.ones((1, 2)))]) == [0]
    assert agree([encode_packed("a", np.array([1]), ("other",), np.ones((1, 1)))]) == [0]
    assert agree([encode_packed("Öl", np.array([1]), ("flow",), np.ones((1, 1)))]) == [0]


@given(st.lists(st.tuples(st.integers(0, len(PACKED)), st.integers(0, 255), st.booleans()), min_size=1, max_size=3))
def test_a_packed_frame_with_any_bytes_changed_is_taken_rightly_or_left(changes: list[tuple[int, int, bool]]) -> None:
    held = PACKED
    for at, byte, instead in changes:
        held = held[:at] + bytes([byte]) + held[at + instead :]
    agree([PLAIN, held, PLAIN])


def test_signals_that_json_would_write_otherwise_are_for_the_other_decoder() -> None:
    for name in ('a"b', "a\\b", "a\nb"):
        with pytest.raises(NotBuilt):
            Reader(BOUNDS._replace(signals=("flow", name)))
    readings, dead, _ = Decoder(InputSettings(), ('a"b',)).decode(
        [Record("readings", 0, 0, encode("a", AT_MS, {'a"b': 2.0}))]
    )
    assert (readings.values.tolist(), dead) == ([[2.0]], [])


@pytest.mark.parametrize("reason", ["off", "no file", "another release"])
def test_without_the_library_all_is_read_as_before(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [Record("readings", 0, offset, PLAIN) for offset in range(20)]
    with_it, _, _ = Decoder(InputSettings(), SIGNALS).decode(records)
    if reason == "off":
        monkeypatch.setenv(compiled.SWITCH, "false")
    elif reason == "no file":
        monkeypatch.setattr(compiled, "_ROOT", compiled._ROOT / "nowhere")
    else:
        monkeypatch.setitem(compiled.VERSIONS, "stream._readings", 0)
    compiled.library.cache_clear()
    columnar._functions.cache_clear()
    try:
        assert set(compiled.missing()) >= {"stream._readings"}
        without, dead, _ = Decoder(InputSettings(), SIGNALS).decode(records)
    finally:
        compiled.library.cache_clear()
        columnar._functions.cache_clear()
    assert dead == []
    assert listed(without) == listed(with_it)
