"""Which OPC UA variable is which signal: node ids of the plan, and what is found by walking the address space."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from stream.bridge.pattern import Pattern, fill
from stream.bridge.plan import OpcuaBridgePlan, OpcuaBrowse
from stream.errors import ConfigError

_log = logging.getLogger(__name__)

_DEEPEST = 32
_MOST = 200_000


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the server; ``node`` is asyncua's."""

    node: Any
    asset: str
    signal: str


async def find_variables(client: Any, plan: OpcuaBridgePlan) -> list[Variable]:
    """All variables of the plan, each once: a node id of the plan comes before what is found by its path.

    Raises ``ConfigError`` for node ids that are none, and where two variables are one signal of one asset.
    """
    found: dict[Any, Variable] = {}
    for wanted in plan.nodes:
        node = _node(client, "bridge.opcua.nodes.node", wanted.node)
        found.setdefault(node.nodeid, Variable(node, wanted.asset, plan.rename.get(wanted.signal, wanted.signal)))
    for browse in plan.browse:
        for node, names in await _walk(client, browse):
            signal = plan.rename.get(names["signal"], names["signal"])
            found.setdefault(node.nodeid, Variable(node, fill(browse.asset, names), signal))
    places: dict[tuple[str, str], Variable] = {}
    for variable in found.values():
        other = places.setdefault((variable.asset, variable.signal), variable)
        if other is not variable:
            raise ConfigError(
                f"bridge.opcua: {variable.node.nodeid.to_string()} and {other.node.nodeid.to_string()} are both "
                f"{variable.signal} of {variable.asset}"
            )
    return list(found.values())


async def _walk(client: Any, browse: OpcuaBrowse) -> list[tuple[Any, dict[str, str]]]:
    """The variables whose path below ``browse.under`` fits, with what the pattern found."""
    from asyncua import ua  # noqa: PLC0415  # of an extra

    pattern = Pattern(browse.path)
    deepest = _DEEPEST if "+}" in browse.path else browse.path.count("/") + 1
    start = _node(client, "bridge.opcua.browse.under", browse.under)
    found: list[tuple[Any, dict[str, str]]] = []
    seen, level = {start.nodeid}, [("", start)]
    for _ in range(deepest):
        deeper = []
        for path, node in level:
            for child in await node.get_children_descriptions():
                name = f"{path}{child.BrowseName.Name}"
                names = pattern.match(name) if child.NodeClass == ua.NodeClass.Variable else None
                held = client.get_node(child.NodeId)
                if names is not None:
                    found.append((held, names))
                if child.NodeId not in seen:
                    seen.add(child.NodeId)
                    deeper.append((f"{name}/", held))
        if len(seen) > _MOST:
            _log.warning("bridge.opcua.browse: more than %d nodes below %s: the rest is left out", _MOST, browse.under)
            break
        level = deeper
    return found


def _node(client: Any, key: str, text: str) -> Any:
    from asyncua import ua  # noqa: PLC0415

    try:
        return client.get_node(text)
    except (ua.UaError, ValueError, TypeError):
        raise ConfigError(f"{key}: {text!r} is no node id such as ns=2;s=Pump1.Temperature") from None
