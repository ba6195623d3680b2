"""Sparkplug B's topics and payloads, as far as measurements go.

The payload is a protobuf message (proto2; Sparkplug 3.0.0, chapter 6). Its schema is public and small, and what of it
matters here stands below as a table: unknown fields (templates, data sets, metadata) are skipped when it is read. The
``protobuf`` package does the reading. docs/adr/0012 says why no Sparkplug library does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from stream.errors import ConfigError, DecodeError

PREFIX: Final = "spBv1.0"
Kind = Literal["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"]
KINDS: Final[tuple[Kind, ...]] = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")

#: Message -> its fields: (number, name, type), ``*`` where it repeats.
_SCHEMA: Final = {
    "Payload": ((1, "timestamp", "uint64"), (2, "metrics", "Metric*"), (3, "seq", "uint64")),
    "Metric": (
        (1, "name", "string"),
        (2, "alias", "uint64"),
        (3, "timestamp", "uint64"),
        (4, "datatype", "uint32"),
        (5, "is_historical", "bool"),
        (6, "is_transient", "bool"),
        (7, "is_null", "bool"),
        (9, "properties", "PropertySet"),
        (10, "int_value", "uint32"),
        (11, "long_value", "uint64"),
        (12, "float_value", "float"),
        (13, "double_value", "double"),
        (14, "boolean_value", "bool"),
        (15, "string_value", "string"),
    ),
    "PropertySet": ((1, "keys", "string*"), (2, "values", "PropertyValue*")),
    "PropertyValue": (
        (1, "type", "uint32"),
        (2, "is_null", "bool"),
        (3, "int_value", "uint32"),
        (4, "long_value", "uint64"),
        (5, "float_value", "float"),
        (6, "double_value", "double"),
        (7, "boolean_value", "bool"),
        (8, "string_value", "string"),
    ),
}
INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN = range(1, 12)
#: Bits of the signed types, whose values travel as two's complement in an unsigned field.
_SIGNED: Final = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
#: Types that are measurements, and the field that carries each.
FIELDS: Final = {
    **dict.fromkeys((INT8, INT16, INT32, UINT8, UINT16), ("int_value",)),
    UINT32: ("int_value", "long_value"),  # Sparkplug says int_value; libraries in Java write a long
    INT64: ("long_value",),
    UINT64: ("long_value",),
    FLOAT: ("float_value",),
    DOUBLE: ("double_value",),
    BOOLEAN: ("boolean_value",),
}
#: Values of the property ``Quality``.
_STALE, _GOOD = 500, 192


@dataclass(frozen=True, slots=True)
class Address:
    """Whom a message is from: ``device`` is empty for the edge node itself."""

    group: str
    node: str
    device: str
    kind: Kind

    @property
    def edge(self) -> tuple[str, str]:
        """The edge node."""
        return self.group, self.node


def address(topic: str) -> Address | None:
    """What a topic says, or None where it is none of the messages that carry measurements. Raises ``DecodeError``."""
    parts = topic.split("/")
    if (len(parts) >= 3 and parts[2] in ("NCMD", "DCMD")) or parts[1:2] == ["STATE"]:
        return None
    wanted = {"N": 4, "D": 5}.get(parts[2][:1] if len(parts) > 2 else "")
    if parts[0] != PREFIX or len(parts) != wanted or parts[2] not in KINDS or not all(parts):
        raise DecodeError("bad_topic", f"{topic!r:.200} is no topic of Sparkplug B")
    return Address(parts[1], parts[3], parts[4] if len(parts) == 5 else "", parts[2])


@cache
def _payload_class() -> Any:
    """The class of payloads, made of the table above. Raises ``ConfigError`` where protobuf is missing."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415  # of an extra
    except ImportError:
        raise ConfigError("Sparkplug B needs protobuf: pip install 'headrace[mqtt]'") from None
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="headrace/sparkplug_b.proto", package="headrace.sparkplug")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            plain = kind.rstrip("*")
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            if plain in _SCHEMA:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".{file.package}.{plain}"
            else:
                made.type = getattr(kinds, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Payload"))


def new_payload() -> Any:
    """An empty payload, to be filled and sent with ``SerializeToString()``. Raises ``ConfigError``."""
    return _payload_class()()


def parse(value: bytes) -> Any:
    """A payload's bytes read. Raises ``DecodeError``."""
    made = new_payload()
    try:
        made.ParseFromString(value)
    except Exception as error:  # protobuf's own, of an extra that is imported late
        raise DecodeError("not_sparkplug", f"no payload of Sparkplug B: {error}") from None
    return made


def number(metric: Any, datatype: int) -> float | None:
    """The value of a metric that is a measurement of type ``datatype``; None where it is null or not finite.

    Raises ``DecodeError`` where its value is not of that type: then the type is of another birth.
    """
    if metric.is_null:
        return None
    for field in FIELDS[datatype]:
        if metric.HasField(field):
            value = getattr(metric, field)
            break
    else:
        who = metric.name or metric.alias
        raise DecodeError("no_birth", f"the value of metric {who!r:.100} is not of its BIRTH's type {datatype}")
    bits = _SIGNED.get(datatype)
    if bits is not None:
        value &= (1 << bits) - 1
        value -= (value >> (bits - 1)) << bits
    value = float(value)
    return value if math.isfinite(value) else None


def quality(metric: Any) -> Literal["good", "uncertain", "bad"]:
    """What the property ``Quality`` says: good where there is none."""
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key.lower() != "quality" or value.is_null:
            continue
        code = value.int_value if value.HasField("int_value") else value.long_value
        if code == _STALE:
            return "bad"
        # otherwise as in OPC: the upper two of eight bits, 192 is good and 64 uncertain
        return {3: "good", 1: "uncertain"}.get((code & 0xFF) >> 6, "bad")  # type: ignore[return-value]
    return "good"


def whole(payload: Any, name: str) -> int | None:
    """The whole number that a metric called ``name`` holds, or None where there is none: for ``bdSeq``."""
    for metric in payload.metrics:
        if metric.name == name:
            for field in ("long_value", "int_value"):
                if metric.HasField(field):
                    return int(getattr(metric, field))
    return None


def metrics(payload: Any) -> Iterator[Any]:
    """The metrics that are no control and no session number."""
    for metric in payload.metrics:
        if metric.name != "bdSeq" and not metric.name.startswith(("Node Control/", "Device Control/")):
            yield metric


def rebirth(at_ms: int) -> bytes:
    """The command that asks an edge node for its BIRTH."""
    payload = new_payload()
    payload.timestamp = at_ms
    payload.metrics.add(name="Node Control/Rebirth", timestamp=at_ms, datatype=BOOLEAN, boolean_value=True)
    return bytes(payload.SerializeToString())
