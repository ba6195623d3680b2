"""Line protocol that is always valid, and a sink that holds, waits, retries and never loses silently."""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.records import Alert, Cause, DeadLetter, Output, Scores
from stream.settings import from_environment
from stream.sinks import lineprotocol
from stream.sinks.influxclient import InfluxSettings, _message, _retry_after_s
from stream.sinks.influxdb import InfluxSink, _backoff_s
from stream.sinks.lineprotocol import alert_line, escape, text
from stream.sinks.rows import joined, take

NAMES = st.text(min_size=1, max_size=12).filter(lambda name: not any(0xD800 <= ord(char) <= 0xDFFF for char in name))
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def score_lines(scores: Scores, site: str = "") -> list[str]:
    return lineprotocol.score_lines(scores, site).decode().split("\n")


def split(line: str, at: str) -> list[str]:
    """Split where ``at`` is neither escaped nor in quotes: how InfluxDB reads a line."""
    parts, quoted, index, start = [], False, 0, 0
    while index < len(line):
        if line[index] == "\\":
            index += 1
        elif line[index] == '"':
            quoted = not quoted
        elif line[index] == at and not quoted:
            parts.append(line[start:index])
            start = index + 1
        index += 1
    return [*parts, line[start:]]


def unescape(name: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", name)


def parse(line: str) -> tuple[str, dict[str, str], dict[str, Any], int]:
    """Measurement, tags, fields and nanoseconds of a line."""
    assert "\n" not in line
    head, body, at_ns = split(line, " ")
    measurement, *tags = split(head, ",")
    fields: dict[str, Any] = {}
    for pair in split(body, ","):
        key, value = split(pair, "=")
        if value.startswith('"'):
            fields[unescape(key)] = re.sub(r"\\([\"\\])", r"\1", value[1:-1])
        elif value in {"true", "false"}:
            fields[unescape(key)] = value == "true"
        else:
            fields[unescape(key)] = int(value[:-1]) if value.endswith("i") else float(value)
    pairs = [split(tag, "=") for tag in tags]
    return measurement, {unescape(key): unescape(value) for key, value in pairs}, fields, int(at_ns)


def test_a_score_line_says_all_that_grafana_draws(make_scores: Callable[..., Scores]) -> None:
    scores = make_scores(
        rows=1, anomalous=np.array([True]), contributions=np.array([[0.0, 1.0]]), score=np.array([4.5])
    )
    (line,) = score_lines(scores, "mill")
    measurement, tags, fields, at_ns = parse(line)
    assert measurement == "headrace_score"
    assert tags == {"asset": "pump-0", "detector": "pumps", "site": "mill"}
    assert at_ns == 1_764_000_000_000 * 1_000_000
    assert fields["value_flow"] == scores.values[0, 0]
    assert fields["low_heat"] < fields["expected_heat"] < fields["high_heat"]
    expected = {
        "score": 4.5,
        "threshold": 3.0,
        "valid": True,
        "anomalous": True,
        "share_heat": 1.0,
        "model_version": "v1",
    }
    assert expected.items() <= fields.items()
    assert not {"share_flow", "reason", "verdict"} & fields.keys()


def test_what_is_not_a_number_is_left_out_and_explained(make_scores: Callable[..., Scores]) -> None:
    scores = make_scores(
        rows=2,
        score=np.array([np.nan, np.inf]),
        verdict=np.array([2, 0], np.uint8),
        values=np.array([[np.nan, 1.0], [np.inf, -np.inf]]),
        expected=None,
        spread=None,
    )
    first, second = (parse(line)[2] for line in score_lines(scores))
    assert (first["valid"], first["reason"], first["verdict"], first["value_heat"]) == (
        False,
        "missing",
        "missing",
        1.0,
    )
    assert (second["valid"], second["reason"]) == (False, "no_value")
    assert not {"score", "value_flow", "expected_flow", "low_flow"} & (first.keys() | second.keys())


@example_settings(max_examples=50, deadline=None)
@given(NAMES, NAMES, NAMES, st.lists(FLOATS, min_size=8, max_size=8), st.text(max_size=20))
def test_whatever_names_and_numbers_come_the_line_is_valid(
    asset: str, signal: str, site: str, numbers: list[float], version: str
) -> None:
    a, b, c, d, e, f, g, h = numbers
    scores = Scores(
        "d", "k", version, (asset,), np.zeros(2, np.int32), np.array([0, 1]), np.array([a, b]), np.array([c, d]),
        np.array([True, False]), (signal,), np.array([[e], [f]]), np.array([[0.5], [0.5]]), np.array([[g], [h]]),
        np.array([[1.0], [np.nan]]), np.zeros(2, np.uint8),
    )  # fmt: skip
    for row, line in enumerate(score_lines(scores, site)):
        _, tags, fields, _ = parse(line)
        assert tags["asset"] == unescape(escape(asset))
        assert tags["site"] == unescape(escape(site))
        assert all(math.isfinite(value) for value in fields.values() if isinstance(value, float))
        assert fields["valid"] == math.isfinite([a, b][row])
        value = [e, f][row]
        assert fields.get(f"value_{unescape(escape(signal))}") == (value if math.isfinite(value) else None)


@given(st.text())
def test_text_comes_back(value: str) -> None:
    assert re.sub(r"\\([\"\\])", r"\1", text(value)[1:-1]) == value.replace("\n", " ").replace("\r", " ")


def test_names_without_quotes_backslashes_and_control_characters() -> None:
    assert escape("a b,c=d") == r"a\ b\,c\=d"
    assert escape('back\\slash"\n') == "back%5Cslash%22%0A"


def test_an_alert_line_keeps_two_transitions_of_a_millisecond_apart(make_alert: Callable[..., Alert]) -> None:
    first, second = alert_line(make_alert(), "mill"), alert_line(make_alert(state="updated", sequence=1), "mill")
    measurement, tags, fields, at_ns = parse(first)
    assert (measurement, tags) == ("headrace_alert", {"asset": "pump-1", "detector": "pumps", "site": "mill"})
    assert at_ns == 1_795_420_801_250 * 1_000_000
    assert parse(second)[3] == at_ns + 1
    assert alert_line(make_alert(), "mill") == first
    assert (fields["state"], fields["severity"], fields["active"], fields["sequence"]) == ("open", "major", True, 0)
    assert (fields["causes"], fields["share_heat"]) == ("heat 75%, flow 25%", 0.75)
    odd = make_alert(peak=math.nan, causes=(Cause(signal="", share=1.0),), site="other")
    assert "peak" not in parse(alert_line(odd, "mill"))[2]
    assert parse(alert_line(odd, "mill"))[1]["site"] == "other"


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sinks.influxdb._backoff_s", lambda _attempt: 0.05)


class Server:
    """Takes ``/api/v2/write`` like InfluxDB; answers with ``answers`` first, then 204."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bad = "\0"  # a block with this in it is refused with 400
        self.blocks: list[list[str]] = []
        self.requests: list[web.Request] = []
        self.delay_s = 0.0
        self.closing = False  # after each answer, without having said so
        self.url = ""

    async def write(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(request)
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        await asyncio.sleep(self.delay_s)
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers, text='{"message": "not now, secret-token"}')
        if self.bad in body.decode():
            return web.Response(status=400, text='{"message": "field type conflict"}')
        self.blocks.append(body.decode().splitlines())
        if self.closing and request.transport:
            asyncio.get_running_loop().call_later(0.02, request.transport.close)
        return web.Response(status=204)

    @property
    def lines(self) -> list[str]:
        return [line for block in self.blocks for line in block]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/api/v2/write", server.write)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def settings(server: Server, **fields: Any) -> InfluxSettings:
    return InfluxSettings(**{"url": server.url, "token": "secret-token", "linger_s": 0.0, "timeout_s": 2.0, **fields})


def collect(letters: list[DeadLetter]) -> Callable[[Sequence[DeadLetter]], Awaitable[None]]:
    async def bury(given: Sequence[DeadLetter]) -> None:
        letters.extend(given)

    return bury


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


async def test_writes_in_blocks_in_order_and_names_org_and_bucket(
    server: Server, make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]
) -> None:
    sink = InfluxSink(settings(server, batch_lines=100, linger_s=0.05, gzip=True), site="mill")
    await sink.start()
    everything = make_scores(rows=250)
    await sink.write(Output(scores=(everything,), alerts=(make_alert(),)))
    await sink.stop()
    assert server.lines == [*score_lines(everything, "mill"), alert_line(make_alert(), "mill")]
    assert [len(block) for block in server.blocks] == [100, 100, 51]
    assert dict(server.requests[0].query) == {"org": "headrace", "bucket": "headrace", "precision": "ns"}
    assert server.requests[0].headers["Authorization"] == "Token secret-token"
    assert server.requests[0].headers["Content-Encoding"] == "gzip"
    assert (sink.written_lines, sink.held_lines) == (251, 0)


async def test_many_small_outputs_make_few_requests(server: Server, make_alert: Callable[..., Alert]) -> None:
    sink = InfluxSink(settings(server, linger_s=0.1))
    await sink.start()
    for i in range(300):
        await sink.write(Output(alerts=(make_alert(sequence=i),)))
    await until(lambda: sink.written_lines == 300)
    assert len(server.blocks) <= 3
    await sink.stop()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
async def test_what_passes_is_tried_again_with_the_same(
    server: Server, make_scores: Callable[..., Scores], status: int
) -> None:
    server.answers = [(status, {})] * 2
    sink = InfluxSink(settings(server))
    await sink.start()
    await sink.write(Output(scores=(make_scores(),)))
    await until(lambda: sink.written_lines == 3)
    assert sink.failed_writes == 2
    assert server.lines == score_lines(make_scores())
    await sink.stop()


async def test_retry_after_is_honoured(server: Server, make_scores: Callable[..., Scores]) -> None:
    server.answers = [(503, {"Retry-After": "1"})]
    sink = InfluxSink(settings(server))
    await sink.start()
    began = time.monotonic()
    await sink.write(Output(scores=(make_scores(),)))
    await until(lambda: sink.written_lines == 3)
    assert time.monotonic() - began >= 1.0
    await sink.stop()


async def test_a_bad_line_costs_only_itself(
    server: Server, make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    buried: list[DeadLetter] = []
    sink = InfluxSink(settings(server))
    sink.bury = collect(buried)
    server.bad = "pump-33,"
    await sink.start()
    await sink.write(Output(scores=(make_scores(rows=100, assets=100),)))
    await until(lambda: sink.written_lines + sink.refused_lines == 100)
    await sink.stop()
    (letter,) = buried
    assert (letter.stage, letter.reason) == ("publish", "influxdb_refused")
    assert letter.detail == "HTTP 400: field type conflict"
    assert letter.record.value in [line.encode() for line in score_lines(make_scores(rows=100, assets=100))]
    assert b"pump-33," in letter.record.value
    assert (sink.written_lines, sink.refused_lines) == (99, 1)
    assert sorted(server.lines) == sorted(
        line for line in score_lines(make_scores(rows=100, assets=100)) if "pump-33," not in line
    )
    assert "field type conflict" in caplog.text


async def test_a_server_that_wants_nothing_of_it_gets_few_requests(
    server: Server, make_scores: Callable[..., Scores]
) -> None:
    server.bad = "headrace_score"
    sink = InfluxSink(settings(server))
    await sink.start()
    await sink.write(Output(scores=(make_scores(rows=5000),)))
    await until(lambda: sink.refused_lines == 5000, 20.0)
    assert len(server.requests) < 150
    await sink.stop()


async def test_a_connection_that_the_server_has_closed_is_opened_again(
    server: Server, make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    server.closing = True
    sink = InfluxSink(settings(server))
    await sink.start()
    for count in range(1, 4):
        await sink.write(Output(scores=(make_scores(),)))
        await until(lambda count=count: sink.written_lines == 3 * count)  # type: ignore[misc]
        await asyncio.sleep(0.05)
    assert sink.failed_writes == 0
    assert "are held" not in caplog.text
    await sink.stop()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_an_operator_can_mend_loses_nothing_and_the_token_is_not_told(
    server: Server,
    make_scores: Callable[..., Scores],
    caplog: pytest.LogCaptureFixture,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.sinks.influxclient._OPERATOR_RETRY_S", 0.1)
    server.answers = [(status, {})] * 2
    sink = InfluxSink(settings(server))
    await sink.start()
    await sink.write(Output(scores=(make_scores(),)))
    await until(lambda: sink.written_lines == 3)
    await sink.stop()
    assert (sink.failed_writes, sink.refused_lines) == (2, 0)
    assert f"HTTP {status}: not now, ***; see HEADRACE_INFLUX_URL, _TOKEN, _ORG and _BUCKET" in caplog.text
    assert "secret-token" not in caplog.text + repr(settings(server))


async def test_an_outage_delays_no_write_until_the_bound_then_it_waits_and_loses_nothing(
    server: Server, make_scores: Callable[..., Scores]
) -> None:
    server.answers = [(503, {})] * 4
    sink = InfluxSink(settings(server, held_lines=1000, when_full="wait"))
    await sink.start()
    began = time.monotonic()
    await sink.write(Output(scores=(make_scores(rows=900),)))
    assert time.monotonic() - began < 0.1
    waiting = asyncio.create_task(sink.write(Output(scores=(make_scores(rows=300),))))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 10.0)
    await until(lambda: sink.written_lines == 1200)
    assert server.lines == score_lines(make_scores(rows=900)) + score_lines(make_scores(rows=300))
    await sink.stop()


async def test_or_drops_the_oldest_if_told_to_and_counts_them(
    make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    sink = InfluxSink(
        InfluxSettings(url="http://127.0.0.1:9", held_lines=1000, when_full="drop_oldest", linger_s=0.0), stop_s=0.2
    )
    await sink.start()
    for _ in range(5):
        await asyncio.wait_for(sink.write(Output(scores=(make_scores(rows=400),))), 1.0)
    assert sink.held_lines <= 1000
    assert sink.dropped_lines + sink.held_lines == 2000
    assert "the oldest in memory are dropped" in caplog.text
    await sink.stop()


async def test_stop_is_quick_although_the_server_is_away_and_tells_what_is_left(
    make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    sink = InfluxSink(InfluxSettings(url="http://127.0.0.1:9"), stop_s=0.3)
    await sink.start()
    await sink.write(Output(scores=(make_scores(),)))
    await asyncio.wait_for(sink.stop(), 2.0)
    assert "3 lines not written" in caplog.text


async def test_a_fault_of_ours_does_not_end_the_writer(
    server: Server, make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    sink = InfluxSink(settings(server))
    await sink.start()
    with caplog.at_level(logging.CRITICAL):
        await sink.write(Output(scores=(make_scores(verdict=np.full(3, 99, np.uint8)),)))
        await until(lambda: sink.refused_lines == 3)
    await sink.write(Output(scores=(make_scores(),)))
    await until(lambda: sink.written_lines == 3)
    await sink.stop()


async def test_without_an_address_it_is_off(output: Output) -> None:
    sink = InfluxSink(InfluxSettings(url=""))
    await sink.start()
    await sink.write(output)
    assert sink.held_lines == 0
    await sink.stop()


def test_a_bad_address_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_INFLUX_URL", "influx:8086")
    with pytest.raises(ConfigError, match="HEADRACE_INFLUX_URL"):
        from_environment(InfluxSettings)


def test_waiting_grows_and_stays_bounded() -> None:
    assert 0.12 < _backoff_s(0) <= 0.25
    assert 15.0 <= _backoff_s(100) <= 30.0
    assert [_message(said) for said in (b'{"error": "old"}', b'{"message": "new"}', b"[1]", b"plain")] == [
        "old",
        "new",
        "[1]",
        "plain",
    ]
    assert _retry_after_s({"retry-after": "7"}) == 7.0
    assert _retry_after_s({"Retry-After": "86400"}) == 300.0
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    assert 15.0 < _retry_after_s({"Retry-After": soon}) <= 20.0
    assert _retry_after_s({"Retry-After": "soon"}) == _retry_after_s(None) == 0.0


def test_batches_of_one_model_are_written_as_one_and_say_the_same(make_scores: Callable[..., Scores]) -> None:
    one = make_scores(rows=3, assets=1, names=("pump-7",))
    parts = [make_scores(rows=4, assets=2), one, make_scores(rows=5, assets=3)]
    other = replace(make_scores(rows=2), detector="other")
    made = joined([*parts, other, parts[0]])
    assert [len(scores) for scores in made] == [12, 2, 4]
    assert [line for scores in made for line in score_lines(scores)] == [
        line for scores in [*parts, other, parts[0]] for line in score_lines(scores)
    ]


def test_kept_rows_are_written_as_they_would_be_among_all(make_scores: Callable[..., Scores]) -> None:
    """Names of which no row is left do no harm, nor does a spread that is the same for all rows."""
    whole = make_scores(rows=12, assets=4, spread=np.broadcast_to(np.array([[0.5, 0.25]]), (12, 2)))
    kept = take(whole, np.array([1, 5, 6, 9]))
    lines = score_lines(whole)
    assert [parse(line) for line in score_lines(kept)] == [parse(lines[row]) for row in (1, 5, 6, 9)]
    assert kept.spread is not None
    assert np.array_equal(kept.spread, np.broadcast_to([[0.5, 0.25]], (4, 2)))
