"""JSON Schemas of the records on the topics, made from the code that reads and writes them.

    python -m stream.schemas docs/schemas

writes them; a test holds that what is committed there is current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from stream.actions import Action
from stream.labels import Label
from stream.orders import Message
from stream.records import Alert
from stream.sources.frame import Frame
from stream.sources.json import Reading


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema (JSON Schema 2020-12)."""
    return {
        "reading.v1.json": _schema(Reading, "One reading of one asset: plant.readings.v1, key = asset"),
        "frame.v1.json": _schema(Frame, "Many readings of one asset as columns: plant.readings.v1, key = asset"),
        "alert.v1.json": _schema(Alert, "One transition of one alert: plant.alerts.v1, key = id"),
        "model.v1.json": _schema(
            Message, "An order on a detector's model, or a worker's report: plant.models.v1, key = detector"
        ),
        "action.v1.json": _schema(Action, "What an operator did: plant.actions.v1, key = asset (or a pattern)"),
        "label.v1.json": _schema(Label, "What an alert or a stretch was: plant.labels.v1, key = alert, or stretch"),
    }


def write(folder: Path) -> None:
    """Write every schema into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(text(schema), encoding="utf-8")


def text(schema: dict[str, Any]) -> str:
    """A schema as it is written."""
    return json.dumps(schema, indent=2) + "\n"


def _schema(kind: type[msgspec.Struct], title: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **msgspec.json.schema(kind),
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]))
