"""The plan's part for the bridges: which of the plant's values are which signal of which asset."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.bridge.pattern import Pattern, names_in

_Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopicMapping(_Strict):
    """Plain MQTT topics: a number, an object with a value, or a whole reading in each message.

    topic               a pattern such as ``plant/{asset}/{signal}``; ``{name}`` is one level, ``{name+}`` all that
                        follow
    asset               put together from what the pattern found
    value, ts, quality  keys of an object that holds one value; ``ts`` may be absent: then it is when the message came
    time                what a number in ``ts`` means; text is RFC 3339
    """

    topic: Annotated[str, Field(min_length=1, max_length=1000)]
    asset: str = "{asset}"
    value: str = "value"
    ts: str = "ts"
    quality: str = "quality"
    time: Literal["s", "ms"] = "ms"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = set(Pattern(self.topic, mqtt=True).names)
        _demand("asset", self.asset, found)
        return self


class SparkplugMapping(_Strict):
    """Sparkplug B: which edge nodes, and which of their metrics are which signals.

    groups      group ids; ``+`` is every one
    metrics     patterns of metric names, the first that fits counts: ``{signal+}`` takes any, ``{asset}/{signal}``
                finds the asset in it. A metric that none fits is left out
    asset       put together from ``{group}``, ``{node}``, ``{device}`` and what the pattern found, where the pattern
                has no ``{asset}``
    node_asset  the same for metrics of the edge node itself, which have no ``{device}``; empty: these are left out
    rebirth     ask an edge node for its BIRTH when it was missed. A bridge that may not publish has false
    host_id     announce this bridge as a host application, so that edge nodes that know it keep their data while it, or
                Kafka, is away; empty: it only listens
    """

    groups: Annotated[tuple[str, ...], Field(min_length=1)] = ("+",)
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("{signal+}",)
    asset: str = "{device}"
    node_asset: str = "{node}"
    rebirth: bool = True
    host_id: Annotated[str, Field(pattern=r"^[^/+#]*$")] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for pattern in self.metrics:
            found = set(Pattern(pattern).names)
            if "signal" not in found:
                raise ValueError(f"metrics: {pattern!r} has no {{signal}}")
            if "asset" not in found:
                _demand("asset", self.asset, found | {"group", "node", "device"})
                _demand("node_asset", self.node_asset, found | {"group", "node"})
        for group in self.groups:
            if not group or ("+" in group and group != "+") or "/" in group or "#" in group:
                raise ValueError(f"groups: {group!r} is neither a group id nor '+'")
        return self


class MqttBridgePlan(_Strict):
    """The MQTT bridge.

    client_id   its name to the broker, which keeps what comes while the bridge is away under it: one for each bridge
    sparkplug   Sparkplug B; absent: none
    topics      plain topics, the first that fits counts
    rename      the plant's names of signals -> the plan's
    max_held    messages taken from the broker that are not in Kafka yet, at most; then no more are taken
    """

    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "headrace-bridge"
    sparkplug: SparkplugMapping | None = None
    topics: tuple[TopicMapping, ...] = ()
    rename: dict[str, str] = {}
    max_held: Annotated[int, Field(ge=20, le=65535)] = 2000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sparkplug is None and not self.topics:
            raise ValueError("give [bridge.mqtt.sparkplug], [[bridge.mqtt.topics]], or both")
        return self


class OpcuaNode(_Strict):
    """One variable.

    node           its node id, such as ``ns=2;s=Pump1.Temperature``
    asset, signal  what it is
    """

    node: Annotated[str, Field(min_length=3)]
    asset: Annotated[str, Field(min_length=1, max_length=200)]
    signal: Annotated[str, Field(min_length=1)]


class OpcuaBrowse(_Strict):
    """All variables below a node whose path fits.

    path   a pattern of browse names below ``under``, such as ``Plant/{asset}/{signal}``; the namespace is left out
    under  node id to begin at; ``i=85`` is the folder Objects
    asset  put together from what the pattern found
    """

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    under: str = "i=85"
    asset: str = "{asset}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = set(Pattern(self.path).names)
        if "signal" not in found:
            raise ValueError(f"path: {self.path!r} has no {{signal}}")
        _demand("asset", self.asset, found)
        return self


class OpcuaBridgePlan(_Strict):
    """The OPC UA bridge.

    nodes          variables by node id
    browse         variables by their path
    rename         the plant's names of signals -> the plan's
    publishing_ms  how often the server sends what has changed
    sampling_ms    how often it looks at each variable; None: as often as it sends
    queue          values of each variable that the server keeps between two messages
    history        after an interruption read what was missed from the server's history, where it has one
    max_held       values taken from the server that are not in Kafka yet, at most; beyond it the bridge connects anew
                   when there is room, and reads the history
    """

    nodes: tuple[OpcuaNode, ...] = ()
    browse: tuple[OpcuaBrowse, ...] = ()
    rename: dict[str, str] = {}
    publishing_ms: Annotated[float, Field(ge=10, le=3_600_000)] = 500.0
    sampling_ms: Annotated[float, Field(ge=0, le=3_600_000)] | None = None
    queue: Annotated[int, Field(ge=1, le=100_000)] = 100
    history: bool = True
    max_held: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.nodes and not self.browse:
            raise ValueError("give [[bridge.opcua.nodes]], [[bridge.opcua.browse]], or both")
        return self


class BridgePlan(_Strict):
    """The bridges from the plant to the readings topic.

    mqtt    from an MQTT broker; absent: none
    opcua   from an OPC UA server; absent: none
    wait_s  values of an asset that come one by one with the same time become one reading when all that the asset has
            are there, or after so long
    state   topic of what the bridges must remember over a restart; compacted
    """

    mqtt: MqttBridgePlan | None = None
    opcua: OpcuaBridgePlan | None = None
    wait_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    state: _Topic = "plant.bridge.v1"


def _demand(key: str, template: str, found: set[str]) -> None:
    missing = names_in(template) - found
    if missing:
        raise ValueError(
            f"{key}: {template!r} asks for {{{min(missing)}}}, there is {', '.join(sorted(found)) or 'none'}"
        )
