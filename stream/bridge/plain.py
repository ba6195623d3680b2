"""Plain MQTT messages: a number, an object with one value, an object of signals, or a reading of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from stream.bridge.pattern import Pattern, fill
from stream.bridge.plan import TopicMapping
from stream.bridge.reading import PlantReading, Quality
from stream.errors import DecodeError
from stream.sources.base import MAX_NAME
from stream.sources.json import Reading
from stream.times import UNITS, milliseconds

_QUALITIES: Final[dict[str, Quality]] = {"good": "good", "uncertain": "uncertain", "bad": "bad"}


@dataclass(frozen=True, slots=True)
class Value:
    """One value of one signal; ``at_ms`` is None where the message does not say."""

    asset: str
    signal: str
    at_ms: int | None
    value: float | None
    quality: Quality


class PlainTopics:
    """The plan's ``[[bridge.mqtt.topics]]``; ``rename`` likewise."""

    def __init__(self, mappings: tuple[TopicMapping, ...], rename: Mapping[str, str]) -> None:
        self._mappings = [(Pattern(mapping.topic, mqtt=True), mapping) for mapping in mappings]
        self._rename = rename

    @property
    def filters(self) -> list[str]:
        """What to subscribe to."""
        return [pattern.filter for pattern, _ in self._mappings]

    def read(self, topic: str, payload: bytes, now_ms: int) -> Value | PlantReading:
        """What a message says. Raises ``DecodeError``."""
        fitting = ((pattern.match(topic), mapping) for pattern, mapping in self._mappings)
        found, mapping = next(((names, one) for names, one in fitting if names is not None), (None, None))
        if found is None or mapping is None:
            raise DecodeError("bad_topic", f"{topic!r:.200} fits no topic of [[bridge.mqtt.topics]]")
        asset = fill(mapping.asset, found)
        if not asset.isprintable() or len(asset) > MAX_NAME:
            raise DecodeError("bad_topic", f"{topic!r:.200} gives no name of an asset")
        signal = found.get("signal")
        try:
            told = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("bad_value", f"neither a number nor JSON: {error}") from None
        if not isinstance(told, dict):
            if signal is None:
                raise DecodeError("bad_value", "a value by itself, on a topic that names no {signal}")
            return Value(asset, self._named(signal), None, _number(told), "good")
        if isinstance(told.get("values"), dict):
            return self._reading(asset, told, mapping)
        at_ms = _time(told.get(mapping.ts), mapping)
        if signal is None:
            return self._flat(asset, told, mapping, now_ms if at_ms is None else at_ms)
        if mapping.value not in told:
            raise DecodeError("bad_value", f"the object has no key {mapping.value!r}")
        quality = _quality(told.get(mapping.quality))
        return Value(asset, self._named(signal), at_ms, _number(told[mapping.value]), quality)

    def _named(self, signal: str) -> str:
        return self._rename.get(signal, signal)

    def _reading(self, asset: str, told: dict[str, Any], mapping: TopicMapping) -> PlantReading:
        try:
            reading = msgspec.convert({**told, "asset": asset}, Reading)
        except msgspec.ValidationError as error:
            raise DecodeError("bad_value", str(error)) from None
        made = PlantReading(asset, milliseconds(reading.ts, UNITS[mapping.time]), {})
        for signal, value in reading.values.items():
            made.put(self._named(signal), value, reading.quality.get(signal, "good"))
        return made

    def _flat(self, asset: str, told: dict[str, Any], mapping: TopicMapping, at_ms: int) -> PlantReading:
        """An object of signals: its members that are numbers or null."""
        made = PlantReading(asset, at_ms, {})
        quality = _quality(told.get(mapping.quality))
        for key, value in told.items():
            if key not in {mapping.ts, mapping.quality} and (value is None or isinstance(value, int | float)):
                made.put(self._named(key), _number(value), quality)
        if not made.values:
            raise DecodeError("bad_value", "the object has no number in it")
        return made


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise DecodeError("bad_value", f"the value is {type(value).__name__}, not a number")
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _time(ts: Any, mapping: TopicMapping) -> int | None:
    if ts is None:
        return None
    try:
        if isinstance(ts, str):
            return milliseconds(datetime.fromisoformat(ts), 1)
        if isinstance(ts, int | float) and not isinstance(ts, bool):
            return milliseconds(ts, UNITS[mapping.time])
    except (ValueError, DecodeError) as error:
        raise DecodeError("bad_value", f"{mapping.ts}: {error}") from None
    raise DecodeError("bad_value", f"{mapping.ts} is {type(ts).__name__}, not a time")


def _quality(told: Any) -> Quality:
    if told is None:
        return "good"
    found = _QUALITIES.get(str(told).lower())
    if found is None:
        raise DecodeError("bad_value", f"quality {told!r:.40} is none of good, uncertain, bad")
    return found
