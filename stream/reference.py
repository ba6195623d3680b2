"""The reference page of settings, topics, metrics and schemas, made from the code that reads and writes them.

    python -m stream.reference docs/reference.md

writes it (``make docs``); a test holds that what is committed there is current, and that nothing is left unexplained.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from models import registry
from stream.bridge.health import BridgeMetrics
from stream.bridge.plan import (
    BridgePlan,
    MqttBridgePlan,
    OpcuaBridgePlan,
    OpcuaBrowse,
    OpcuaNode,
    SparkplugMapping,
    TopicMapping,
)
from stream.bridge.settings import BridgeSettings, MqttSettings, OpcuaSettings
from stream.errors import REASONS
from stream.operating import LineSettings, MaintenanceSettings, ModeSettings, SuppressSettings
from stream.plan import (
    DetectorSettings,
    DriftSettings,
    GapSettings,
    InputSettings,
    Plan,
    QualitySettings,
    SignalSettings,
    StateSettings,
    StoreSettings,
    ThinningSettings,
    TopicSettings,
)
from stream.schemas import schemas
from stream.settings import KafkaSettings, ModelsSettings, WorkerSettings
from stream.sinks.alertmanager import AlertmanagerSettings
from stream.sinks.influxdb import InfluxSettings
from stream.sinks.page import PageSettings
from stream.sinks.prometheus import Metrics
from stream.sinks.webhook import WebhookSettings
from stream.topics import topic_configs

#: The tables of the plan, as they stand in it.
_PLAN: dict[str, type[BaseModel]] = {
    "": Plan,
    "topics": TopicSettings,
    "input": InputSettings,
    "detectors.NAME": DetectorSettings,
    "detectors.NAME.gaps": GapSettings,
    "detectors.NAME.drift": DriftSettings,
    "signals.PATTERN": SignalSettings,
    "quality": QualitySettings,
    "maintenance.NAME": MaintenanceSettings,
    "suppress.NAME": SuppressSettings,
    "modes.NAME": ModeSettings,
    "lines.NAME": LineSettings,
    "thinning": ThinningSettings,
    "state": StateSettings,
    "bridge": BridgePlan,
    "bridge.mqtt": MqttBridgePlan,
    "bridge.mqtt.sparkplug": SparkplugMapping,
    "[bridge.mqtt.topics]": TopicMapping,
    "bridge.opcua": OpcuaBridgePlan,
    "[bridge.opcua.browse]": OpcuaBrowse,
    "[bridge.opcua.nodes]": OpcuaNode,
    "models": StoreSettings,
}
_ENVIRONMENT: tuple[type[BaseSettings], ...] = (
    KafkaSettings,
    WorkerSettings,
    ModelsSettings,
    PageSettings,
    InfluxSettings,
    AlertmanagerSettings,
    WebhookSettings,
    BridgeSettings,
    MqttSettings,
    OpcuaSettings,
)
#: Tables of the plan that have a section of their own.
_SECTIONS = (TopicSettings, InputSettings, ThinningSettings, StateSettings, QualitySettings, BridgePlan, StoreSettings)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*)\s{2,}(\S.*)$")
_HEAD = """# Reference

Settings, topics, metrics and schemas. Written from the code by `make docs`; what the words mean in use is in the pages
for [the operator](operator.md) and [the engineer](engineer.md).
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD, "## The plan\n", "`headrace.toml`. Unknown keys and impossible values stop the start.\n"]
    for name, kind in _PLAN.items():
        parts += [f"### `[{name}]`\n" if name else "### At its top\n", *_settings(kind, lambda field: field)]
    parts.append("## The environment\n")
    for settings in _ENVIRONMENT:
        prefix = str(settings.model_config.get("env_prefix", ""))
        parts += [f"### `{prefix}*`\n", *_settings(settings, lambda field, prefix=prefix: f"{prefix}{field}".upper())]
    parts += ["## Topics\n", *_topics(), "## Reasons for dead letters\n", *_reasons()]
    parts += ["## Metrics\n", *_metrics(Metrics().registry)]
    parts += ["### Of a bridge\n", *_metrics(BridgeMetrics("").registry)]
    parts += ["## Detectors\n", *_detectors(), "## Schemas\n", *_schemas()]
    return "\n".join(parts).rstrip("\n") + "\n"


def described(kind: type[BaseModel]) -> dict[str, str]:
    """What the docstring of settings says of each field: lines of a name, two spaces or more, and a text."""
    texts: dict[str, list[str]] = {}
    current: Sequence[str] = ()
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        if found := _ENTRY.match(line):
            current = found[1].split(", ")
            texts |= {name: [found[2]] for name in current}
        elif line.startswith("    ") and current:
            for name in current:
                texts[name].append(line.strip())
        else:
            current = ()
    return {name: " ".join(lines).replace("``", "`") for name, lines in texts.items() if name in kind.model_fields}


def _settings(kind: type[BaseModel], named: Any) -> Iterator[str]:
    """A table of settings under what their docstring says first."""
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
    yield _prose(first) + "\n"
    texts = described(kind)
    rows = [
        (f"`{named(name)}`", _type(field), _default(field), texts.get(name, ""))
        for name, field in kind.model_fields.items()
        if not (field.exclude or isinstance(field.default, _SECTIONS))
    ]
    yield _table(("key", "type", "default", "meaning"), rows)


def _type(field: FieldInfo) -> str:
    """The type in words, with its bounds."""
    low = next((f"at least {_number(held.ge)}" for held in field.metadata if isinstance(held, Ge)), "")
    low = low or next((f"above {_number(held.gt)}" for held in field.metadata if isinstance(held, Gt)), "")
    high = next((f"at most {_number(held.le)}" for held in field.metadata if isinstance(held, Le)), "")
    high = high or next((f"below {_number(held.lt)}" for held in field.metadata if isinstance(held, Lt)), "")
    return ", ".join(filter(None, (_words(field.annotation), low, high)))


def _words(kind: Any) -> str:  # noqa: PLR0911 (one return a kind of type reads as a table)
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    if origin in {Union, UnionType}:
        return " or ".join(_words(part) for part in get_args(kind) if part is not NoneType)
    if origin is tuple:
        held = get_args(kind)[0]
        return "list of tables" if isinstance(held, type) and issubclass(held, BaseModel) else "list of texts"
    if origin is dict:
        return "table"
    if hasattr(kind, "__metadata__"):
        return _words(kind.__origin__)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: FieldInfo) -> str:  # noqa: PLR0911 (likewise)
    default = field.default
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel) or default in ({}, (), None):
        return ""
    if isinstance(default, SecretStr):
        return ""
    if isinstance(default, Enum | bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return _number(default)
    if isinstance(default, tuple):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{default}`" if str(default) else "(empty)"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{float(value):,g}" if float(value) < 1e6 else f"{value:,.0f}"


def _topics() -> Iterator[str]:
    topics = TopicSettings(scores="plant.scores.v1")
    texts = described(TopicSettings)
    configs = topic_configs(KafkaSettings(), topics)
    yield "Those that are missing are created so; those that exist are left as they are. All names are the plan's.\n"
    yield _table(
        ("topic", "key of the plan", "what it holds", "created with"),
        [
            (
                f"`{getattr(topics, name)}`",
                f"`topics.{name}`",
                texts[name],
                ", ".join(f"`{key}={value}`" for key, value in configs.get(getattr(topics, name), {}).items()),
            )
            for name in TopicSettings.model_fields
        ],
    )


def _reasons() -> Iterator[str]:
    yield "Header `headrace.stage`, and the reason in `headrace.error`; `headrace dlq list` shows them.\n"
    rows = [(stage, f"`{reason}`", text) for stage, held in REASONS.items() for reason, text in held.items()]
    yield _table(("stage", "reason", "meaning"), rows)


def _metrics(held_by: CollectorRegistry) -> Iterator[str]:
    yield "Served at `/metrics`. No label is by asset or signal: the number of series does not grow with the plant.\n"
    rows = []
    for collector in list(held_by._collector_to_names):  # noqa: SLF001 (labels are told nowhere else)
        for family in collector.collect():
            held = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()) or ()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if family.name.startswith("headrace_"):
                labels = ", ".join(f"`{label}`" for label in held)
                rows.append((f"`{name}`", family.type, labels, family.documentation))
    yield _table(("metric", "type", "labels", "meaning"), sorted(rows))


def _detectors() -> Iterator[str]:
    yield "A detector's `kind` in the plan, what it does, and the keys of its `config` with their defaults.\n"
    rows = []
    for name in sorted(registry.names()):
        module = inspect.getmodule(registry.detector_class(name))
        first = inspect.cleandoc((module.__doc__ if module else "") or "").split("\n\n")[0]
        config = registry.configure(name, {})
        keys = ", ".join(f"`{key}` {getattr(config, key)}" for key in config.__dataclass_fields__)
        rows.append((f"`{name}`", first, keys))
    yield _table(("kind", "what it does", "config"), rows)


def _schemas() -> Iterator[str]:
    yield "JSON Schema 2020-12, in [schemas](schemas).\n"
    for name, schema in schemas().items():
        record = schema["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        yield f"### [`{name}`](schemas/{name})\n"
        yield f"{_cell(schema['title'])}.\n"
        needed = set(record.get("required", ()))
        rows = [
            (f"`{key}`", _shape(held), "required" if key in needed else "")
            for key, held in record["properties"].items()
        ]
        yield _table(("field", "type", ""), rows)


def _shape(schema: Mapping[str, Any]) -> str:
    """A property's type in words."""
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_shape(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_shape(schema.get('items', {}) or {})}"
    return str(kind)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
