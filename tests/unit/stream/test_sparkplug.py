"""Sparkplug B: payloads as the official schema writes them, and what a host application makes of edge nodes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("google.protobuf", reason="Sparkplug B comes with headrace[mqtt]")

from hypothesis import given
from hypothesis import strategies as st

from stream.bridge import sparkplug
from stream.bridge.edges import Edges
from stream.bridge.plan import SparkplugMapping
from stream.bridge.sparkplug import Address
from stream.errors import DecodeError

#: Written with the class that protoc made of the official sparkplug_b.proto (as pysparkplug 0.6.1 carries it), with a
#: data set and a property in it.
OFFICIAL = bytes.fromhex(
    "0880d0dfb4ab3312280a12496e707574732f74656d706572617475726510071881d0dfb4ab33200a690000000000d0514012230a056c6576656c"
    "100820034a100a075175616c6974791205080318f40350fbffffff0f1208100920092801380112100a016e200458f9ffffffffffffffff011209"
    "0a0173200c7a026f6e12070a0162200b700112100a02647320108a01070801120178180312100a0175200858ffffffffffffffffff01120a0a01"
    "662009650000c03f18ff01"
)
OFFICIAL_DEATH = bytes.fromhex("0880d0dfb4ab33120b0a05626453657120085803")
NODE = ("north", "line-1")
NOW_MS = 1_764_000_100_000


def test_payloads_of_the_official_schema_are_read() -> None:
    payload = sparkplug.parse(OFFICIAL)
    assert payload.timestamp == 1_764_000_000_000
    assert payload.seq == 255
    by_name = {metric.name or metric.alias: metric for metric in payload.metrics}
    assert [by_name["Inputs/temperature"].alias, by_name["Inputs/temperature"].timestamp] == [7, 1_764_000_000_001]
    read = {name: sparkplug.number(held, held.datatype) for name, held in by_name.items() if held.datatype <= 11}
    assert read == {
        "Inputs/temperature": 71.25,
        "level": -5.0,
        9: None,
        "n": -7.0,
        "b": 1.0,
        "u": float(2**64 - 1),
        "f": 1.5,
    }
    assert by_name[9].is_historical
    assert sparkplug.quality(by_name["level"]) == "bad", "500 is stale"
    assert sparkplug.quality(by_name["n"]) == "good"
    assert sparkplug.whole(sparkplug.parse(OFFICIAL_DEATH), "bdSeq") == 3


@pytest.mark.parametrize(
    ("datatype", "field", "raw", "expected"),
    [
        (sparkplug.INT8, "int_value", 0xFF, -1.0),
        (sparkplug.INT8, "int_value", 0xFFFFFF80, -128.0),
        (sparkplug.INT16, "int_value", 0x8000, -32768.0),
        (sparkplug.INT16, "int_value", 0x7FFF, 32767.0),
        (sparkplug.INT32, "int_value", 0xFFFFFFFF, -1.0),
        (sparkplug.INT64, "long_value", 1 << 63, float(-(1 << 63))),
        (sparkplug.UINT8, "int_value", 255, 255.0),
        (sparkplug.UINT16, "int_value", 65535, 65535.0),
        (sparkplug.UINT32, "int_value", 0xFFFFFFFF, float(0xFFFFFFFF)),
        (sparkplug.UINT32, "long_value", 0xFFFFFFFF, float(0xFFFFFFFF)),
        (sparkplug.UINT64, "long_value", (1 << 64) - 1, float((1 << 64) - 1)),
        (sparkplug.FLOAT, "float_value", float("inf"), None),
        (sparkplug.DOUBLE, "double_value", float("nan"), None),
        (sparkplug.BOOLEAN, "boolean_value", False, 0.0),
    ],
)
def test_signed_values_travel_as_twos_complement(datatype: int, field: str, raw: Any, expected: float | None) -> None:
    metric = sparkplug.new_payload().metrics.add(datatype=datatype, **{field: raw})
    assert sparkplug.number(metric, datatype) == expected


@pytest.mark.parametrize(
    ("code", "expected"), [(192, "good"), (0, "bad"), (500, "bad"), (64, "uncertain"), (216, "good"), (28, "bad")]
)
def test_the_quality_property(code: int, expected: str) -> None:
    metric = sparkplug.new_payload().metrics.add(name="x")
    metric.properties.keys.append("Quality")
    metric.properties.values.add(type=3, int_value=code)
    assert sparkplug.quality(metric) == expected


def test_topics() -> None:
    assert sparkplug.address("spBv1.0/north/DDATA/line-1/pump-1") == Address("north", "line-1", "pump-1", "DDATA")
    assert sparkplug.address("spBv1.0/north/NBIRTH/line-1") == Address("north", "line-1", "", "NBIRTH")
    assert sparkplug.address("spBv1.0/north/NCMD/line-1") is None
    assert sparkplug.address("spBv1.0/STATE/host") is None
    for wrong in (
        "spBv1.0/north/DDATA/line-1",
        "spBv1.0/north/NDATA/line-1/x",
        "spBv1.0/north/XDATA/n",
        "spAv1.0/a/b/c",
    ):
        with pytest.raises(DecodeError) as refused:
            sparkplug.address(wrong)
        assert refused.value.reason == "bad_topic"


@given(st.binary(max_size=400))
def test_no_bytes_break_it(value: bytes) -> None:
    edges = Edges(SparkplugMapping(), {})
    for kind in sparkplug.KINDS:
        with suppress(DecodeError):
            edges.take(Address("g", "n", "d" if kind[0] == "D" else "", kind), value, NOW_MS)


class Plant:
    """An edge node's messages, taken by ``edges``."""

    def __init__(self, **mapping: Any) -> None:
        self.edges = Edges(SparkplugMapping(**mapping), {"Temp": "heat"})

    def take(self, kind: Any, device: str = "", *, seq: int | None = None, ts: int = 1000, kept: bool = True) -> Any:
        payload = sparkplug.new_payload()
        payload.timestamp = ts
        if seq is not None:
            payload.seq = seq
        address = Address(*NODE, device, kind)

        def send(*metrics: dict[str, Any]) -> Any:
            for metric in metrics:
                payload.metrics.add(**metric)
            return self.edges.take(address, payload.SerializeToString(), NOW_MS, kept=kept)

        return send

    def birth(self, bdseq: int = 1) -> None:
        self.take("NBIRTH", seq=0)({"name": "bdSeq", "datatype": 8, "long_value": bdseq})
        taken = self.take("DBIRTH", "pump-1", seq=1)(
            {"name": "Temp", "alias": 1, "datatype": sparkplug.DOUBLE, "double_value": 70.0},
            {"name": "flow", "alias": 2, "datatype": sparkplug.INT16, "is_null": True},
            {"name": "label", "alias": 3, "datatype": 12, "string_value": "P1"},
        )
        assert taken.birth
        assert not taken.rebirth
        (reading,) = taken.readings
        assert (reading.asset, reading.at_ms, reading.values) == ("pump-1", 1000, {"heat": 70.0, "flow": None})
        assert taken.skipped == {"not_a_number": 1}


def test_data_by_alias_are_grouped_by_their_times() -> None:
    plant = Plant()
    plant.birth()
    taken = plant.take("DDATA", "pump-1", seq=2, ts=5000)(
        {"alias": 1, "timestamp": 3000, "double_value": 71.0},
        {"alias": 2, "timestamp": 3000, "int_value": 0xFFFE},
        {"alias": 1, "timestamp": 2000, "double_value": 70.5, "is_historical": True},
        {"alias": 2, "is_null": True},
    )
    assert [(held.at_ms, held.values) for held in taken.readings] == [
        (2000, {"heat": 70.5}),
        (3000, {"heat": 71.0, "flow": -2.0}),
        (5000, {"flow": None}),
    ]
    assert not taken.rebirth


def test_a_missing_number_asks_for_the_births_and_loses_nothing() -> None:
    plant = Plant()
    plant.birth()
    taken = plant.take("DDATA", "pump-1", seq=4)({"alias": 1, "double_value": 71.0})
    assert taken.rebirth == "gap"
    assert taken.readings[0].values == {"heat": 71.0}
    assert not plant.take("DDATA", "pump-1", seq=5)({"alias": 1, "double_value": 71.0}).rebirth
    plant.edges.forget_order()
    assert not plant.take("DDATA", "pump-1", seq=2)({"alias": 1, "double_value": 71.0}).rebirth, "sent again"


def test_the_numbers_go_round_at_256() -> None:
    plant = Plant()
    plant.birth()
    for seq in (*range(2, 256), 0, 1):
        assert not plant.take("DDATA", "pump-1", seq=seq)({"alias": 1, "double_value": 1.0}).rebirth


@pytest.mark.parametrize("metric", [{"alias": 99, "double_value": 1.0}, {"alias": 2, "double_value": 1.0}])
def test_what_no_birth_explains_is_refused(metric: dict[str, Any]) -> None:
    plant = Plant()
    with pytest.raises(DecodeError, match="BIRTH"):
        plant.take("DDATA", "pump-1", seq=2)({"alias": 1, "double_value": 1.0})
    plant.birth()
    with pytest.raises(DecodeError) as refused:
        plant.take("DDATA", "pump-1", seq=2)({"alias": 1, "double_value": 1.0}, metric)
    assert refused.value.reason == "no_birth"


def test_a_death_makes_values_stale_and_never_zero() -> None:
    plant = Plant()
    plant.birth(bdseq=7)
    old = plant.take("NDEATH")({"name": "bdSeq", "datatype": 8, "long_value": 6})
    assert not old.readings
    assert old.skipped == {"old_death": 1}
    assert plant.edges.count() == {"online": 1, "stale": 0}
    taken = plant.take("NDEATH")({"name": "bdSeq", "datatype": 8, "long_value": 7})
    (reading,) = taken.readings
    assert reading.at_ms == NOW_MS, "a will's own time is that of the connection"
    assert reading.values == {"heat": None, "flow": None}
    assert reading.quality == {"heat": "bad", "flow": "bad"}
    assert b"0" not in reading.encoded().split(b'"values"')[1], "nowhere a zero"
    assert plant.edges.count() == {"online": 0, "stale": 1}
    assert not plant.take("NDEATH")({"name": "bdSeq", "datatype": 8, "long_value": 7}).readings, "dead already"
    alive = plant.take("DDATA", "pump-1", seq=9)({"alias": 1, "double_value": 70.0})
    assert alive.rebirth == "no_birth"


def test_a_devices_death_has_its_own_time() -> None:
    plant = Plant()
    plant.birth()
    (reading,) = plant.take("DDEATH", "pump-1", seq=2, ts=4000)().readings
    assert (reading.at_ms, set(reading.quality.values())) == (4000, {"bad"})
    assert plant.edges.count() == {"online": 1, "stale": 0}


def test_restored_births_count_only_for_what_the_broker_has_kept() -> None:
    first, again = Plant(), Plant()
    payload = sparkplug.new_payload()
    payload.metrics.add(name="Temp", alias=1, datatype=sparkplug.DOUBLE, double_value=1.0)
    birth = payload.SerializeToString()
    for plant in (first, again):
        plant.edges.restore(Address(*NODE, "", "NBIRTH"), sparkplug.new_payload().SerializeToString())
        plant.edges.restore(Address(*NODE, "pump-1", "DBIRTH"), birth)
    kept = first.take("DDATA", "pump-1", seq=9)({"alias": 1, "double_value": 70.0})
    assert kept.readings[0].values == {"heat": 70.0}
    with pytest.raises(DecodeError, match="before this start"):
        again.take("DDATA", "pump-1", seq=9, kept=False)({"alias": 1, "double_value": 70.0})
    again.birth()
    assert again.take("DDATA", "pump-1", seq=2, kept=False)({"alias": 1, "double_value": 70.0}).readings


def test_where_metrics_belong() -> None:
    plant = Plant(metrics=("Sensors/{asset}/{signal}", "{signal}"), asset="{node}.{device}", node_asset="")
    plant.take("NBIRTH", seq=0)({"name": "cpu", "alias": 9, "datatype": sparkplug.DOUBLE, "double_value": 3.0})
    taken = plant.take("DBIRTH", "gateway", seq=1)(
        {"name": "Sensors/pump-1/Temp", "datatype": sparkplug.DOUBLE, "double_value": 70.0},
        {"name": "power", "datatype": sparkplug.FLOAT, "float_value": 2.0},
        {"name": "too/deep/for/any", "datatype": sparkplug.FLOAT, "float_value": 2.0},
    )
    assert {held.asset: held.values for held in taken.readings} == {
        "pump-1": {"heat": 70.0},
        "line-1.gateway": {"power": 2.0},
    }
    assert taken.skipped == {"unmapped": 1}
    assert not plant.take("NDATA", seq=2)({"alias": 9, "double_value": 4.0}).readings


def test_the_command_for_a_rebirth() -> None:
    (metric,) = sparkplug.parse(sparkplug.rebirth(5)).metrics
    assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", sparkplug.BOOLEAN, True)
