"""What bridges have in common: patterns, plain topics, readings put together, acknowledgements in order, settings."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from stream import sources
from stream.bridge.gather import Gatherer, WorkingClock
from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.outbox import Outbox
from stream.bridge.pattern import Pattern, fill, names_in
from stream.bridge.plain import PlainTopics, Value
from stream.bridge.plan import BridgePlan, TopicMapping
from stream.bridge.reading import PlantReading, Ticket
from stream.bridge.settings import MqttSettings, OpcuaSettings
from stream.decode import formats
from stream.errors import ConfigError, DecodeError, SinkUnavailable
from stream.plan import TopicSettings, parse_plan
from stream.settings import from_environment
from stream.sources.opcua import _number, _time_ms

NOW_MS = 1_764_000_000_000


def test_bridges_are_no_payload_formats() -> None:
    import importlib

    assert set(formats()) == {"frame", "json", "packed", "pictures"}
    for name in sources.BRIDGES:
        module = importlib.import_module(f"stream.sources.{name}")
        assert module.Bridge.name == name
        assert not hasattr(module, "Source")


@pytest.mark.parametrize(
    ("pattern", "topic", "found", "subscribed"),
    [
        ("plant/{asset}/{signal}", "plant/pump-1/flow", {"asset": "pump-1", "signal": "flow"}, "plant/+/+"),
        ("plant/{asset}/{signal}", "plant/pump-1/flow/x", None, "plant/+/+"),
        ("plant/{asset}/{signal+}", "plant/a/b/c", {"asset": "a", "signal": "b/c"}, "plant/+/#"),
        ("a/pump-{asset}/v", "a/pump-7/v", {"asset": "7"}, "a/+/v"),
        ("a.b/{asset}", "aXb/c", None, "a.b/+"),
    ],
)
def test_patterns(pattern: str, topic: str, found: dict[str, str] | None, subscribed: str) -> None:
    made = Pattern(pattern, mqtt=True)
    assert made.match(topic) == found
    assert made.filter == subscribed


@pytest.mark.parametrize(
    "wrong", ["plant/+/{signal}", "plant/#", "{asset}/{asset}", "{Asset}", "{asset", "{signal+}/x", "a{}"]
)
def test_wrong_patterns_say_so(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"name|braces|twice"):
        Pattern(wrong, mqtt=True)


def test_templates() -> None:
    assert fill("{node}.{device}", {"node": "a", "device": "b", "x": "c"}) == "a.b"
    assert names_in("{node}.{device}") == {"node", "device"}
    with pytest.raises(ValueError, match="braces"):
        names_in("{Node}")


PLAIN = PlainTopics(
    (
        TopicMapping(topic="plant/{asset}/{signal}"),
        TopicMapping(topic="line/{line}/{asset}", asset="{line}-{asset}", time="s"),
    ),
    {"temp": "heat"},
)


@pytest.mark.parametrize(
    ("payload", "at_ms", "value", "quality"),
    [
        (b"71.25", None, 71.25, "good"),
        (b"-3", None, -3.0, "good"),
        (b"null", None, None, "good"),
        (b"true", None, 1.0, "good"),
        (b'{"value": 71.25, "ts": 1764000000250}', 1_764_000_000_250, 71.25, "good"),
        (b'{"value": null, "ts": "2026-11-23T08:00:00.250Z"}', 1_795_420_800_250, None, "good"),
        (b'{"value": 3, "ts": 1764000000250, "quality": "Bad"}', 1_764_000_000_250, 3.0, "bad"),
    ],
)
def test_plain_values(payload: bytes, at_ms: int | None, value: float | None, quality: Any) -> None:
    assert PLAIN.read("plant/pump-1/temp", payload, NOW_MS) == Value("pump-1", "heat", at_ms, value, quality)


def test_plain_readings_and_objects_of_signals() -> None:
    reading = (
        b'{"ts": "2026-11-23T08:00:00Z", "values": {"temp": 71.2, "flow": null}, "quality": {"flow": "uncertain"}}'
    )
    told = PLAIN.read("line/north/pump-1", reading, NOW_MS)
    assert told == PlantReading("north-pump-1", 1_795_420_800_000, {"heat": 71.2, "flow": None}, {"flow": "uncertain"})
    flat = PLAIN.read("line/north/pump-1", b'{"ts": 1764000000.25, "temp": 71.2, "flow": 3, "name": "x"}', NOW_MS)
    assert flat == PlantReading("north-pump-1", 1_764_000_000_250, {"heat": 71.2, "flow": 3.0})
    assert PLAIN.read("line/n/p", b'{"flow": 3}', NOW_MS) == PlantReading("n-p", NOW_MS, {"flow": 3.0})


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("elsewhere/pump-1", b"1", "bad_topic"),
        ("plant/pump-1/flow", b"on", "bad_value"),
        ("plant/pump-1/flow", b"\xff", "bad_value"),
        ("plant/pump-1/flow", b"", "bad_value"),
        ("plant/pump-1/flow", b"NaN", "bad_value"),
        ("plant/pump-1/flow", b'"71.2"', "bad_value"),
        ("plant/pump-1/flow", b'{"v": 1}', "bad_value"),
        ("plant/pump-1/flow", b'{"value": [1]}', "bad_value"),
        ("plant/pump-1/flow", b'{"value": 1, "ts": "today"}', "bad_value"),
        ("plant/pump-1/flow", b'{"value": 1, "ts": "2026-11-23T08:00:00"}', "bad_value"),
        ("plant/pump-1/flow", b'{"value": 1, "quality": "so-so"}', "bad_value"),
        ("plant/pump-1/flow", b'{"values": {"flow": 1}}', "bad_value"),
        ("line/north/pump-1", b"71", "bad_value"),
        ("line/north/pump-1", b'{"name": "x"}', "bad_value"),
        ("line/north/pump-1", b'{"ts": "2026-11-23T08:00:00Z", "values": {"flow": "x"}}', "bad_value"),
        ("plant/pump\n1/flow", b"1", "bad_topic"),
    ],
)
def test_what_is_refused(topic: str, payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        PLAIN.read(topic, payload, NOW_MS)
    assert refused.value.reason == reason


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_values_with_one_time_become_one_reading() -> None:
    clock = Clock()
    gatherer = Gatherer(1.0, {"pump-1": {"flow", "heat"}}, clock)
    assert not gatherer.add("pump-1", "flow", 1000, 1.0, "good")
    (done,) = gatherer.add("pump-1", "heat", 1000, 2.0, "uncertain")
    assert done.reading == PlantReading("pump-1", 1000, {"flow": 1.0, "heat": 2.0}, {"heat": "uncertain"})
    assert not gatherer.due()


def test_what_lacks_a_signal_goes_after_the_wait_and_never_overtaken() -> None:
    clock = Clock()
    gatherer = Gatherer(1.0, {"pump-1": {"flow", "heat"}}, clock)
    gatherer.add("pump-1", "flow", 1000, 1.0, "good")
    clock.now = 0.5
    gatherer.add("pump-1", "flow", 2000, 1.0, "good")
    ready = gatherer.add("pump-1", "heat", 2000, 2.0, "good")
    assert [group.reading.at_ms for group in ready] == [1000, 2000], "the older one first, though it lacks heat"
    gatherer.add("pump-1", "flow", 3000, 1.0, "good")
    clock.now = 1.4
    assert not gatherer.due()
    clock.now = 1.6
    assert [group.reading.values for group in gatherer.due()] == [{"flow": 1.0}]
    assert gatherer.split == 0
    gatherer.add("pump-1", "heat", 3000, 2.0, "good")
    assert gatherer.split == 1, "its reading has gone"
    assert [group.reading.values for group in gatherer.drain()] == [{"heat": 2.0}]


def test_an_assets_first_reading_waits_for_the_signals_that_it_may_have() -> None:
    clock = Clock()
    gatherer = Gatherer(1.0, clock=clock)
    assert not gatherer.add("pump-1", "flow", 1000, 1.0, "good")
    assert not gatherer.add("pump-1", "heat", 1000, 2.0, "good")
    clock.now = 1.1
    assert [group.reading.values for group in gatherer.due()] == [{"flow": 1.0, "heat": 2.0}]
    assert not gatherer.add("pump-1", "heat", 2000, 2.0, "good")
    assert len(gatherer.add("pump-1", "flow", 2000, 1.0, "good")) == 1, "now it is known what it has"
    assert gatherer.split == 0


def test_waiting_for_kafka_is_no_waiting_for_signals() -> None:
    clock = WorkingClock()
    gatherer = Gatherer(0.05, {"pump-1": {"flow", "heat"}}, clock)
    gatherer.add("pump-1", "flow", 1000, 1.0, "good")
    with clock.stopped():
        time.sleep(0.1)
    assert not gatherer.due(), "the rest may be in line behind that wait"
    time.sleep(0.06)
    assert len(gatherer.due()) == 1


def test_a_ticket_is_settled_when_all_that_was_made_of_it_is_safe() -> None:
    settled: list[str] = []
    ticket = Ticket(lambda: settled.append("a"))
    gatherer = Gatherer(1.0, {"pump-1": {"flow", "heat"}})
    assert not gatherer.add("pump-1", "flow", 1000, 1.0, "good", ticket)
    assert not gatherer.add("pump-1", "flow", 2000, 1.0, "good", ticket)
    ticket.release()
    for group in gatherer.drain():
        assert not settled
        for held in group.tickets.values():
            held.release()
    assert settled == ["a"]


class FlakySink:
    """Refuses some times, then takes."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.refused = asyncio.Event()
        self.written: list[Any] = []

    async def send(self, messages: Any) -> list[Any]:
        if self.failures:
            self.failures -= 1
            self.refused.set()
            raise SinkUnavailable("away", 0.01)
        self.written += messages
        return []


async def test_the_outbox_tries_again_in_order_and_settles_only_what_is_written() -> None:
    sink, metrics, health = FlakySink(2), BridgeMetrics("mqtt"), BridgeHealth(kafka=True)
    outbox = Outbox(sink, TopicSettings(), "state", metrics, health, room=2)  # type: ignore[arg-type]
    settled: list[int] = []
    tickets = [Ticket(lambda number=number: settled.append(number)) for number in range(3)]  # type: ignore[misc]

    async def give() -> None:
        for number, ticket in enumerate(tickets):
            await outbox.reading(PlantReading("pump-1", NOW_MS + number, {"flow": 1.0}), (ticket,))
            ticket.release()
        await outbox.refuse("plant/x", b"?", "bad_value", "no number", None)
        await outbox.remember("key", b"value")

    giving = asyncio.create_task(give())
    writing = asyncio.create_task(outbox.run())
    await asyncio.wait_for(sink.refused.wait(), 20)
    assert not settled
    await giving
    await outbox.flushed()
    writing.cancel()
    assert settled == [0, 1, 2]
    assert health.kafka
    assert [message.topic for message in sink.written] == [
        *["plant.readings.v1"] * 3, "plant.readings.dlq.v1", "state",
    ]  # fmt: skip
    assert [json.loads(message.value)["ts"][-5:] for message in sink.written[:3]] == [".000Z", ".001Z", ".002Z"]
    letter = dict(sink.written[3].headers)
    assert (letter["headrace.stage"], letter["headrace.topic"]) == (b"bridge", b"plant/x")
    assert sink.written[3].value == b"?"
    assert metrics.totals["readings"] == 3


def test_the_series_do_not_grow_with_the_plant() -> None:
    metrics = BridgeMetrics("mqtt", version="1", site="north")
    metrics.took("ddata")
    before = generate_latest(metrics.registry).count(b"\n")
    for number in range(1000):
        metrics.took("ddata")
        metrics.judged(["bad"], 3)
        metrics.sent([NOW_MS + number])
        metrics.dead_lettered("bad_value")
    after = generate_latest(metrics.registry).decode()
    assert after.count("\n") == before
    assert 'headrace_bridge_dead_letters_total{reason="no_birth"} 0.0' in after
    assert "1000" in after


def test_health_names_the_side_that_does_not_answer() -> None:
    health = BridgeHealth()
    assert health.unready() == ["the plant does not answer", "Kafka does not answer"]
    assert not health.stalled()
    health.plant = health.kafka = True
    assert not health.unready()
    assert health.told()["status"] == "ok"


class Status:
    def __init__(self, value: int) -> None:
        self.value = value


class Told:
    """As much of a DataValue as is looked at."""

    def __init__(self, value: Any, status: int | None = None, at: Any = None) -> None:
        self.Value = None if value is None else type("Variant", (), {"Value": value})
        self.StatusCode = None if status is None else Status(status)
        self.SourceTimestamp, self.ServerTimestamp = at, None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Told(3.5), (3.5, "good")),
        (Told(True, 0), (1.0, "good")),
        (Told(3.5, 0x40000000), (3.5, "uncertain")),
        (Told(3.5, 0x80000000), (3.5, "bad")),
        (Told(None, 0x80320000), (None, "bad")),
        (Told(None, 0), (None, "bad")),
        (Told(float("nan"), 0), (None, "good")),
        (Told("running", 0), None),
        (Told([1.0, 2.0], 0), None),
    ],
)
def test_status_codes_become_quality(told: Any, expected: Any) -> None:
    assert _number(told) == expected


def test_source_times_are_rounded_down() -> None:
    from datetime import UTC, datetime

    assert _time_ms(Told(1.0, at=datetime(2026, 11, 23, 8, 0, 0, 250_900, UTC))) == 1_795_420_800_250
    assert _time_ms(Told(1.0, at=datetime(2026, 11, 23, 8, 0))) == 1_795_420_800_000  # as old stacks give it


DETECTOR = {"detectors": {"d": {"kind": "ewma", "artifact": "a"}}}


@pytest.mark.parametrize(
    ("bridge", "said"),
    [
        ({"mqtt": {}}, "give [bridge.mqtt.sparkplug]"),
        ({"mqtt": {"topics": [{"topic": "a/+/{signal}"}]}}, "instead of + or #"),
        ({"mqtt": {"topics": [{"topic": "a/{signal}"}]}}, "asks for {asset}"),
        ({"mqtt": {"sparkplug": {"metrics": ["{asset}"]}}}, "has no {signal}"),
        ({"mqtt": {"sparkplug": {"asset": "{line}"}}}, "asks for {line}"),
        ({"mqtt": {"sparkplug": {"groups": ["a/b"]}}}, "neither a group id"),
        ({"opcua": {}}, "give [[bridge.opcua.nodes]]"),
        ({"opcua": {"browse": [{"path": "Plant/{asset}"}]}}, "has no {signal}"),
        ({"opcua": {"nodez": []}}, "bridge.opcua.nodez: unknown key"),
    ],
)
def test_a_wrong_section_stops_the_start_and_says_what(bridge: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_plan({**DETECTOR, "bridge": bridge})
    assert said in str(refused.value)
    assert "bridge." in str(refused.value)


def test_a_plan_without_bridges_has_none() -> None:
    assert parse_plan(DETECTOR).bridge == BridgePlan()


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (MqttSettings, {"password": "x"}, "HEADRACE_MQTT_USERNAME"),
        (MqttSettings, {"tls": True, "cert_file": "a"}, "HEADRACE_MQTT_KEY_FILE"),
        (MqttSettings, {"ca_file": __file__}, "HEADRACE_MQTT_TLS"),
        (MqttSettings, {"tls": True, "ca_file": "nowhere"}, "there is no file"),
        (OpcuaSettings, {"url": "http://x"}, "opc.tcp://host:port"),
        (OpcuaSettings, {"url": "opc.tcp://user:secret@x"}, "without a user"),
        (OpcuaSettings, {"security": "Basic256Sha256"}, "HEADRACE_OPCUA_CERT_FILE"),
        (OpcuaSettings, {"cert_file": __file__}, "HEADRACE_OPCUA_SECURITY"),
        (OpcuaSettings, {"password": "x"}, "HEADRACE_OPCUA_USERNAME"),
    ],
)
def test_wrong_settings_name_their_variable(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_environment(kind, **given)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_passwords_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("tell-nobody\n")
    settings = from_environment(MqttSettings, username="headrace", password_file=tmp_path / "password")
    assert settings.password.get_secret_value() == "tell-nobody"
    assert "tell-nobody" not in repr(settings)
