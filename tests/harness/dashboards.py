"""The committed Grafana dashboards as data, and what Grafana does to a query before it asks a data source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")


@dataclass(frozen=True)
class Query:
    """One query of one panel, variable or annotation. ``source``: prometheus or influxdb; ``text`` as it is kept."""

    board: str
    panel: str
    ref: str
    source: str
    text: str
    kind: str = "panel"

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} ({self.ref})"


def boards() -> dict[str, Any]:
    """Name -> the dashboard's JSON."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(board: Mapping[str, Any]) -> list[Any]:
    """All panels but rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every query of every dashboard: panels, variables, annotations."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                source = target["datasource"]["type"]
                text = target["expr"] if source == "prometheus" else target["query"]
                yield Query(name, panel["title"], target["refId"], source, text)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                source = variable["datasource"]["type"]
                yield Query(name, f"${variable['name']}", "-", source, variable["query"], "variable")
        for mark in board["annotations"].get("list", ()):
            if mark.get("target") and "query" in mark["target"]:
                yield Query(name, mark["name"], "-", "influxdb", mark["target"]["query"], "annotation")


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put values for the variables, as the query's formats ask. Raises ``KeyError`` for one that has no value."""

    def value(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        return re.escape(values[name]) if form == "regex" else values[name]

    return _VARIABLE.sub(value, text)
