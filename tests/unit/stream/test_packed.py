"""A packed frame means what the frame of the same columns in JSON means, and nothing else is taken for one."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.decode import Decoder
from stream.plan import InputSettings
from stream.records import Readings, Record
from stream.sources.frame import encode_frame
from stream.sources.packed import encode_packed, is_packed

SIGNALS = ("flow", "heat")
AT_MS = 1795420800250


def decode(*values: bytes) -> tuple[Readings, list[str]]:
    records = [Record("readings", 0, offset, value) for offset, value in enumerate(values)]
    readings, dead, _ = Decoder(InputSettings(), SIGNALS).decode(records)
    return readings, [letter.reason for letter in dead]


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(allow_infinity=False)),
    st.booleans(),
)
def test_it_equals_the_frame_in_json(values: np.ndarray, first: bool) -> None:
    at_ms = AT_MS + np.arange(len(values))
    signals = ("heat", "unwatched", "flow")
    packed = encode_packed("pump-1", at_ms, signals, values)
    plain = encode_frame("pump-1", at_ms, signals, values)
    single = b'{"asset": "pump-2", "ts": 1795420800250, "values": {"flow": 1.0}}'
    ours, dead = decode(*((packed, single) if first else (single, packed)))
    theirs, _ = decode(*((plain, single) if first else (single, plain)))
    assert dead == []
    assert ours.names == theirs.names
    assert ours.asset.tolist() == theirs.asset.tolist()
    assert ours.at_ms.tolist() == theirs.at_ms.tolist()
    np.testing.assert_array_equal(ours.values, theirs.values)


GOOD = {"asset": "pump-1", "ts": np.array([AT_MS]).tobytes(), "signals": ["flow"], "values": np.ones(1).tobytes()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ts": b""}, "wrong_type"),
        ({"ts": b"12345678x"}, "ragged_frame"),
        ({"values": b""}, "ragged_frame"),
        ({"values": np.ones(2).tobytes()}, "ragged_frame"),
        ({"signals": []}, "wrong_type"),
        ({"signals": ["flow", "flow"], "values": np.ones(2).tobytes()}, "wrong_type"),
        ({"signals": ["level"]}, "unknown_signals"),
        ({"asset": ""}, "wrong_type"),
        ({"asset": "bad\n"}, "bad_asset"),
        ({"ts": np.array([-5]).tobytes()}, "absurd_time"),
        ({"ts": AT_MS}, "wrong_type"),
    ],
)
def test_what_is_wrong_with_one_is_said(change: dict[str, object], reason: str) -> None:
    readings, dead = decode(msgspec.msgpack.encode({**GOOD, **change}), msgspec.msgpack.encode(GOOD))
    assert dead == [reason]
    assert readings.record.tolist() == [1]


@given(st.binary(max_size=60))
def test_no_bytes_break_the_decoder(tail: bytes) -> None:
    for head in (b"\x84", b"\xde", b"\xdf", msgspec.msgpack.encode(GOOD)[:20]):
        _, dead = decode(head + tail)
        assert dead != ["decoder_failed"]


def test_no_json_is_taken_for_one() -> None:
    assert not any(is_packed(text.encode()) for text in ("", "{}", " {", "[1]", '"é"', "null", "-1", "\ufeff{}"))
    assert is_packed(encode_packed("pump-1", np.array([AT_MS]), ("flow",), np.ones((1, 1))))
