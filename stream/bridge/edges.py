"""Edge nodes of Sparkplug B as a host application knows them: their births, aliases, order, and whether they live.

A BIRTH names the metrics of an edge node or device, with an alias and a type each; DATA names them by alias alone. A
DEATH makes all of them stale: readings without values, of bad quality, never 0. Messages of an edge node are numbered
(``seq``, modulo 256): where one is missing, the node is asked for its births anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from stream.bridge import sparkplug
from stream.bridge.pattern import Pattern, fill
from stream.bridge.plan import SparkplugMapping
from stream.bridge.reading import PlantReading
from stream.bridge.sparkplug import FIELDS, Address
from stream.errors import DecodeError

_ROUND: Final = 256
#: Metrics of one birth, and edge nodes and devices known, at most: they come from outside.
_MOST_METRICS: Final = 100_000
_MOST_UNITS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Known:
    """A metric as its BIRTH defined it; ``place`` is (asset, signal), None where the plan leaves it out."""

    name: str
    datatype: int
    place: tuple[str, str] | None


@dataclass(slots=True)
class Unit:
    """An edge node itself, or one of its devices."""

    by_alias: dict[int, Known] = field(default_factory=dict)
    by_name: dict[str, Known] = field(default_factory=dict)
    alive: bool = True

    def places(self) -> dict[str, list[str]]:
        """The signals of each asset that it has."""
        found: dict[str, list[str]] = {}
        for known in self.by_name.values():
            if known.place:
                found.setdefault(known.place[0], []).append(known.place[1])
        return found


@dataclass(slots=True)
class Edge:
    """An edge node.

    bdseq     of its last NBIRTH: a DEATH of another session is an old one
    seq       of its last message; None where the next one may have any
    restored  its births are from before this start: they count for what the broker has kept for us, not for more
    """

    bdseq: int | None = None
    seq: int | None = None
    restored: bool = False
    units: dict[str, Unit] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its own birth was the last that was heard of it."""
        return "" in self.units and self.units[""].alive


@dataclass(slots=True)
class Taken:
    """What a message led to.

    birth    it is one, to be remembered
    rebirth  why the edge node should be asked for its births: ``gap``, ``no_birth``; empty: it should not
    skipped  how many of its values have no place, by reason
    """

    readings: list[PlantReading] = field(default_factory=list)
    birth: bool = False
    rebirth: str = ""
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count a value without a place."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Edges:
    """All edge nodes; ``rename`` as in the plan."""

    def __init__(self, mapping: SparkplugMapping, rename: dict[str, str]) -> None:
        self._mapping = mapping
        self._rename = rename
        self._patterns = [Pattern(text) for text in mapping.metrics]
        self.edges: dict[tuple[str, str], Edge] = {}
        self._units = 0

    def take(self, address: Address, value: bytes, now_ms: int, *, kept: bool = True) -> Taken:
        """What a message means.

        now_ms  when it came, epoch milliseconds
        kept    the broker has kept for us what came since the births that were restored

        Raises ``DecodeError``; with reason ``no_birth`` the edge node should be asked for its births.
        """
        payload = sparkplug.parse(value)
        if len(payload.metrics) > _MOST_METRICS:
            raise DecodeError("not_sparkplug", f"{len(payload.metrics)} metrics in one payload")
        handle: dict[str, Callable[..., Taken]] = {"BIRTH": self._birth, "DATA": self._data, "DEATH": self._death}
        return handle[address.kind[1:]](address, payload, now_ms, kept)

    def restore(self, address: Address, value: bytes) -> None:
        """Know a birth of before this start again. Raises ``DecodeError``."""
        payload = sparkplug.parse(value)
        edge = self._edge(address)
        edge.restored = True
        self._define(edge, address, payload)
        if not address.device:
            edge.bdseq = sparkplug.whole(payload, "bdSeq")

    def forget_order(self) -> None:
        """After a new connection to the broker what it kept is sent again: the next number of each may be any."""
        for edge in self.edges.values():
            edge.seq = None

    def count(self) -> dict[str, int]:
        """How many edge nodes are online, and how many stale."""
        online = sum(edge.alive for edge in self.edges.values())
        return {"online": online, "stale": len(self.edges) - online}

    def _edge(self, address: Address) -> Edge:
        edge = self.edges.get(address.edge)
        if edge is None:
            if len(self.edges) >= _MOST_UNITS:
                raise DecodeError("no_birth", f"more than {_MOST_UNITS} edge nodes")
            edge = self.edges[address.edge] = Edge()
        return edge

    def _birth(self, address: Address, payload: Any, now_ms: int, _: bool) -> Taken:
        edge = self._edge(address)
        taken = Taken(birth=True)
        if not address.device:
            # all before it is void: devices are born anew after it
            edge.units.clear()
            edge.restored = False
            edge.seq = None
            edge.bdseq = sparkplug.whole(payload, "bdSeq")
        self._number(edge, payload, taken)
        if edge.alive is False and address.device:
            taken.rebirth = taken.rebirth or "no_birth"
        self._define(edge, address, payload)
        unit = edge.units[address.device]
        for reading in self._values(unit, payload, now_ms, taken):
            if any(value is not None for value in reading.values.values()):
                taken.readings.append(reading)  # a metric that has no value yet is no news
        return taken

    def _define(self, edge: Edge, address: Address, payload: Any) -> None:
        if address.device not in edge.units and len(edge.units) >= _MOST_UNITS:
            raise DecodeError("no_birth", f"more than {_MOST_UNITS} devices")
        unit = edge.units[address.device] = Unit()
        for metric in sparkplug.metrics(payload):
            known = Known(metric.name, metric.datatype, self._place(address, metric.name, metric.datatype))
            unit.by_name[metric.name] = known
            if metric.HasField("alias"):
                unit.by_alias[metric.alias] = known

    def _place(self, address: Address, name: str, datatype: int) -> tuple[str, str] | None:
        """(asset, signal) of a metric, or None."""
        if datatype not in FIELDS:
            return None
        for pattern in self._patterns:
            found = pattern.match(name)
            if found is None:
                continue
            found |= {"group": address.group, "node": address.node, "device": address.device}
            template = "{asset}" if "asset" in found else self._mapping.asset
            if not address.device and "asset" not in pattern.names:
                template = self._mapping.node_asset
            asset = fill(template, found) if template else ""
            signal = self._rename.get(found["signal"], found["signal"])
            return (asset, signal) if asset else None
        return None

    def _data(self, address: Address, payload: Any, now_ms: int, kept: bool) -> Taken:
        edge = self.edges.get(address.edge)
        unit = edge.units.get(address.device) if edge else None
        who = "/".join(filter(None, (address.group, address.node, address.device)))
        if edge is None or unit is None:
            raise DecodeError("no_birth", f"{who}: its BIRTH was not heard")
        if edge.restored and not kept:
            raise DecodeError("no_birth", f"{who}: its BIRTH is from before this start, and may not be its last")
        taken = Taken()
        self._number(edge, payload, taken)
        if not unit.alive or not edge.alive:
            taken.rebirth = taken.rebirth or "no_birth"
        taken.readings = list(self._values(unit, payload, now_ms, taken))
        return taken

    def _death(self, address: Address, payload: Any, now_ms: int, _: bool) -> Taken:
        edge = self.edges.get(address.edge)
        taken = Taken()
        if edge is None:
            return taken
        if address.device:
            self._number(edge, payload, taken)
            # a will's time is that of the connection; a device's death has its own
            at_ms = payload.timestamp if payload.HasField("timestamp") else now_ms
            dying = [edge.units.get(address.device)]
        else:
            bdseq = sparkplug.whole(payload, "bdSeq")
            if bdseq is not None and edge.bdseq is not None and bdseq != edge.bdseq:
                taken.skip("old_death")
                return taken
            at_ms, edge.seq = now_ms, None
            dying = list(edge.units.values())
        for unit in dying:
            if unit is None or not unit.alive:
                continue
            unit.alive = False
            for asset, signals in unit.places().items():
                stale = PlantReading(asset, at_ms, {})
                for signal in signals:
                    stale.put(signal, None, "bad")
                taken.readings.append(stale)
        return taken

    def _number(self, edge: Edge, payload: Any, taken: Taken) -> None:
        """Follow the numbers of an edge node's messages."""
        if not payload.HasField("seq"):
            return
        seq = payload.seq % _ROUND
        if edge.seq is not None and seq != (edge.seq + 1) % _ROUND:
            taken.rebirth = "gap"
        edge.seq = seq

    def _values(self, unit: Unit, payload: Any, now_ms: int, taken: Taken) -> list[PlantReading]:
        """The readings of a payload: values of an asset with one time are one. Raises ``DecodeError``, all or none."""
        made: dict[tuple[str, int], PlantReading] = {}
        sent_ms = payload.timestamp if payload.HasField("timestamp") else now_ms
        for metric in sparkplug.metrics(payload):
            known = unit.by_name.get(metric.name) if metric.name else unit.by_alias.get(metric.alias)
            if known is None:
                raise DecodeError("no_birth", f"metric {metric.name or metric.alias!r:.100} is not in its BIRTH")
            if known.datatype not in FIELDS:
                taken.skip("not_a_number")
                continue
            if known.place is None:
                taken.skip("unmapped")
                continue
            value, quality = sparkplug.number(metric, known.datatype), sparkplug.quality(metric)
            asset, signal = known.place
            at_ms = metric.timestamp if metric.HasField("timestamp") else sent_ms
            reading = made.get((asset, at_ms))
            if reading is None:
                reading = made[asset, at_ms] = PlantReading(asset, at_ms, {})
            reading.put(signal, value, quality)
        return sorted(made.values(), key=lambda reading: reading.at_ms)
