"""An InfluxDB that is away, slow or full: what is held goes to the disk, comes back in order, and is bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from stream.errors import ConfigError
from stream.records import Alert, Output, Scores
from stream.settings import from_environment
from stream.sinks.influxclient import InfluxSettings
from stream.sinks.influxdb import InfluxSink
from stream.sinks.lineprotocol import score_lines

#: Under the two seconds that a request may take, and over what a busy machine needs.
_AT_ONCE_S = 1.5


class Server:
    """Takes lines; ``away`` answers 503, ``delay_s`` makes it slow."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.away = False
        self.delay_s = 0.0
        self.asked: list[float] = []
        self.headers: dict[str, str] = {}
        self.status = 503
        self.url = ""

    async def write(self, request: web.Request) -> web.Response:
        self.asked.append(time.monotonic())
        body = (await request.read()).decode()
        await asyncio.sleep(self.delay_s)
        if self.away:
            return web.Response(status=self.status, headers=self.headers)
        self.lines += body.splitlines()
        return web.Response(status=204)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served, app = Server(), web.Application(client_max_size=64 << 20)
    app.router.add_post("/api/v2/write", served.write)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sinks.influxdb._backoff_s", lambda _attempt: 0.05)


@pytest.fixture
def batches(make_scores: Callable[..., Scores]) -> Callable[[int, int], list[Scores]]:
    """``batches(first, last)``: scores of 100 rows each, every row of every batch at a time of its own."""

    def make(first: int, last: int) -> list[Scores]:
        return [
            make_scores(rows=100, assets=1, at_ms=1_764_000_000_000 + batch * 1000 + np.arange(100, dtype=np.int64))
            for batch in range(first, last)
        ]

    return make


def settings(server: Server, folder: Path | None, **fields: Any) -> InfluxSettings:
    given = {"url": server.url, "linger_s": 0.0, "timeout_s": 2.0, "batch_lines": 100, **fields}
    return InfluxSettings.model_validate({**given, "spool_dir": str(folder or "")})


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.lines"))


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


async def give(sink: InfluxSink, batches: list[Scores]) -> float:
    """Write all; the longest that one took, in seconds."""
    slowest = 0.0
    for scores in batches:
        began = time.monotonic()
        await sink.write(Output(scores=(scores,)))
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0)
    return slowest


def lines_of(batches: list[Scores]) -> list[str]:
    return [line for scores in batches for line in score_lines(scores).decode().split("\n")]


async def test_an_outage_goes_to_the_disk_and_comes_back_in_order(
    server: Server, tmp_path: Path, batches: Callable[[int, int], list[Scores]]
) -> None:
    sink = InfluxSink(settings(server, tmp_path))
    await sink.start()
    await give(sink, batches(0, 3))
    await until(lambda: sink.written_lines == 300)
    assert sink.spooled_bytes == 0
    server.away = True
    slowest_s = await give(sink, batches(3, 40))
    await until(lambda: sink._backlog.lines_in_memory == 0)
    assert slowest_s < _AT_ONCE_S
    assert (sink.held_lines, sink.dropped_lines) == (3700, 0)
    assert sink.spooled_bytes > 0
    server.away = False
    await give(sink, batches(40, 45))
    await until(lambda: sink.written_lines == 4500)
    await sink.stop()
    assert server.lines == lines_of(batches(0, 45))
    assert segments(tmp_path) == []


async def test_what_is_held_survives_a_restart_and_goes_first(
    server: Server, tmp_path: Path, batches: Callable[[int, int], list[Scores]], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = True
    first = InfluxSink(settings(server, tmp_path), stop_s=10.0)
    await first.start()
    await give(first, batches(0, 20))
    await first.stop()
    assert "not written" not in caplog.text
    server.away = False
    second = InfluxSink(settings(server, tmp_path))
    with caplog.at_level(logging.INFO):
        await second.start()
    assert "2000 lines of an earlier run are on disk and go first" in caplog.text
    await give(second, batches(20, 25))
    await until(lambda: second.written_lines == 2500)
    await second.stop()
    assert server.lines == lines_of(batches(0, 25))


async def test_what_a_slow_server_leaves_goes_to_the_disk_without_delay_and_in_order(
    server: Server, tmp_path: Path, batches: Callable[[int, int], list[Scores]]
) -> None:
    server.delay_s = 0.3
    sink = InfluxSink(settings(server, tmp_path, held_lines=1000))
    await sink.start()
    began = time.monotonic()
    for number in range(60):
        await give(sink, batches(number, number + 1))
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < 60 * server.delay_s / 2  # the server needs twice as long
    assert sink._backlog.lines_in_memory <= 1000
    assert sink.spooled_bytes > 0
    server.delay_s = 0.0
    await until(lambda: sink.written_lines == 6000)
    await sink.stop()
    assert (sink.failed_writes, sink.dropped_lines) == (0, 0)
    assert server.lines == lines_of(batches(0, 60))


async def test_a_full_spool_drops_the_oldest_counted_and_said_and_delays_nothing(
    server: Server, tmp_path: Path, make_scores: Callable[..., Scores], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = True
    sink = InfluxSink(settings(server, tmp_path, spool_max_bytes=1 << 20, held_lines=1000))
    await sink.start()
    signals = tuple(f"signal-{number}" for number in range(30))
    batches = [
        make_scores(rows=100, assets=1, signals=signals, at_ms=1_764_000_000_000 + n * 1000 + np.arange(100))
        for n in range(60)
    ]
    slowest_s = 0.0
    for scores in batches:
        slowest_s = max(slowest_s, await give(sink, [scores]))
        await until(lambda: sink._backlog.lines_in_memory <= 100)  # its place on disk may be dropped as well
    assert slowest_s < _AT_ONCE_S
    assert 0 < sink.dropped_lines < 6000
    assert sink.held_lines + sink.dropped_lines == 6000
    assert sum(path.stat().st_size for path in segments(tmp_path)) == sink.spooled_bytes <= 1 << 20
    assert caplog.text.count("the oldest on disk are dropped from now on") == 1
    server.away = False
    await until(lambda: sink.held_lines == 0)
    await sink.stop()
    everything = lines_of(batches)  # the first block was being posted all the time
    assert server.lines == everything[:100] + everything[100 + sink.dropped_lines :]


async def test_a_full_spool_waits_if_told_to(
    server: Server, tmp_path: Path, batches: Callable[[int, int], list[Scores]]
) -> None:
    server.away = True
    sink = InfluxSink(settings(server, tmp_path, held_lines=1000, when_full="wait"))
    sink._backlog._bounds = sink._settings.model_copy(update={"spool_max_bytes": 20_000})
    await sink.start()
    writing = asyncio.create_task(give(sink, batches(0, 80)))
    await asyncio.sleep(1.0)
    assert not writing.done()
    assert sink._backlog.lines_in_memory <= 1000
    server.away = False
    await asyncio.wait_for(writing, 20.0)
    await until(lambda: sink.written_lines == 8000)
    await sink.stop()
    assert server.lines == lines_of(batches(0, 80))
    assert sink.dropped_lines == 0


async def test_a_full_disk_holds_in_memory_and_says_so(
    server: Server,
    tmp_path: Path,
    batches: Callable[[int, int], list[Scores]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write = os.write
    full = True

    def no_space(handle: int, data: memoryview) -> int:
        if full and bytes(data[:4]) == b"HRsp":
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", no_space)
    monkeypatch.setattr("stream.sinks.backlog._DISK_RETRY_S", 0.1)
    server.away = True
    sink = InfluxSink(settings(server, tmp_path, held_lines=1000))
    await sink.start()
    assert await give(sink, batches(0, 40)) < _AT_ONCE_S
    assert (sink.spooled_bytes, sink.held_lines, sink.dropped_lines) == (0, 1000, 3000)
    assert "No space left on device" in caplog.text
    assert "the oldest in memory are dropped from now on" in caplog.text
    full = False
    await until(lambda: sink.spooled_bytes > 0 and sink._backlog.lines_in_memory == 0)
    server.away = False
    await until(lambda: sink.written_lines == 1000)
    await sink.stop()
    everything = lines_of(batches(0, 40))
    assert server.lines == [line for line in everything if line in set(server.lines)]  # in order, none twice
    assert server.lines[-100:] == everything[-100:]


async def test_memory_is_bounded_in_bytes_however_wide_the_readings(
    server: Server, make_scores: Callable[..., Scores]
) -> None:
    server.away = True
    sink = InfluxSink(settings(server, None, held_bytes=1 << 20))
    await sink.start()
    wide = make_scores(rows=100, assets=1, signals=tuple(f"s{number}" for number in range(200)))
    for _ in range(30):
        await sink.write(Output(scores=(wide,)))
        await until(lambda: sink._backlog.away)
    assert sink._backlog._queue.size_bytes <= 1 << 20
    assert sink.held_lines + sink.dropped_lines == 3000
    assert sink.held_lines < 300
    await sink.stop()


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_however_much_comes(
    server: Server,
    tmp_path: Path,
    batches: Callable[[int, int], list[Scores]],
    status: int,
    spooled: bool,
) -> None:
    server.away, server.status, server.headers = True, status, {"Retry-After": "1"}
    sink = InfluxSink(settings(server, tmp_path if spooled else None))
    await sink.start()
    for number in range(20):
        await give(sink, batches(number, number + 1))
        await asyncio.sleep(0.02)
    server.away = False
    await until(lambda: sink.written_lines == 2000)
    await sink.stop()
    assert server.asked[1] - server.asked[0] >= 1.0
    assert server.lines == lines_of(batches(0, 20))


async def test_a_damaged_spool_is_told_and_the_rest_is_written(
    server: Server, tmp_path: Path, batches: Callable[[int, int], list[Scores]], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = True
    first = InfluxSink(settings(server, tmp_path), stop_s=10.0)
    await first.start()
    await give(first, batches(0, 5))
    await first.stop()
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    server.away = False
    second = InfluxSink(settings(server, tmp_path))
    await second.start()
    await give(second, batches(5, 6))
    await until(lambda: second.written_lines == 500)
    await second.stop()
    assert "are torn or damaged and left out" in caplog.text
    assert server.lines == lines_of(batches(1, 6))


async def test_alerts_and_scores_keep_their_order_on_disk(
    server: Server, tmp_path: Path, make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]
) -> None:
    server.away = True
    sink = InfluxSink(settings(server, tmp_path))
    await sink.start()
    for sequence in range(5):
        await sink.write(Output(scores=(make_scores(rows=2),), alerts=(make_alert(sequence=sequence),)))
    await until(lambda: sink._backlog.lines_in_memory == 0)
    server.away = False
    await until(lambda: sink.written_lines == 15)
    await sink.stop()
    assert [line.split(",")[0] for line in server.lines] == ["headrace_score", "headrace_score", "headrace_alert"] * 5


async def test_a_spool_that_cannot_be_opened_is_told_and_tried_again(server: Server, tmp_path: Path) -> None:
    blocked = tmp_path / "spool"
    sink = InfluxSink(settings(server, blocked))
    blocked.write_text("a file")
    with pytest.raises(Exception, match="spool"):
        await sink.start()
    blocked.unlink()
    await sink.start()
    await sink.stop()


def test_a_folder_that_cannot_be_is_named_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_INFLUX_SPOOL_DIR", str(tmp_path / "file" / "spool"))
    with pytest.raises(ConfigError, match=r"HEADRACE_INFLUX_SPOOL_DIR: .*file is no folder"):
        from_environment(InfluxSettings)
    monkeypatch.setenv("HEADRACE_INFLUX_SPOOL_DIR", "")
    assert from_environment(InfluxSettings).spool_dir == ""
