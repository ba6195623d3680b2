"""Scores and alerts to InfluxDB 2 or 3, or whatever else takes its ``/api/v2/write`` (VictoriaMetrics, Telegraf).

Measurement ``headrace_score``, one point for each reading that was judged; tags ``site``, ``asset``, ``detector``:

    score, threshold             floats; ``score`` is left out where there is none
    valid                        whether there is a score; if not, ``reason`` says why: no_value, missing, stuck, ...
    anomalous                    whether an alert is open
    verdict                      text, only where it is not the model's own
    value_<signal>               what was measured, plant units; left out where missing
    expected_<signal>            what the detector expected, and its band ``low_<signal>`` to ``high_<signal>``
    share_<signal>               the signal's part in the score, only while an alert is open
    model_version                text

Measured values, score and threshold are written exactly, what was worked out from them with seven digits.

These are what Grafana draws: score over threshold, measured value in its band, share by signal under an open alert.
Measurement ``headrace_alert``, one point for each transition, with the same tags: state, severity, verdict, active,
score, threshold, peak, confidence, sequence, id, kind, model_version, onset, causes (text), share_<signal>: for
annotations and tables.

The sink is not essential: ``write`` puts the arrays into a backlog (``stream.sinks.backlog``), and a task of its own
posts them as lines in large blocks from a thread. When the server is away they are held, on disk where ``spool_dir``
says so, and written in order when it is back.

What the server answers decides: 5xx, 429 (and its ``Retry-After``), no answer, and what only an operator can mend (401,
403, 404: token, rights, bucket) hold everything back; any other 4xx is about the lines, of which those to blame become
dead letters (``influxdb_refused``) and the others are written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Final, cast

from stream.errors import SinkUnavailable
from stream.records import Alert, DeadLetter, Output, Record, Scores
from stream.sinks.backlog import Backlog, Block
from stream.sinks.held import Item
from stream.sinks.influxclient import InfluxClient, InfluxSettings
from stream.sinks.lineprotocol import alert_line, score_lines
from stream.sinks.rows import joined, slices
from stream.sinks.thin import history

__all__ = ["InfluxSettings", "InfluxSink"]

_log = logging.getLogger(__name__)

_MAX_BACKOFF_S: Final = 30.0
_LETTER_BYTES: Final = 256 << 10
_ABREAST: Final = 1_000  # lines made at once: their numbers and their text stay in the core's cache


class InfluxSink:
    """Holds what it is given, and writes it in order, in blocks, from a thread.

    stop_s   how long ``stop`` tries to write what is held

    ``bury``, set by the publisher, takes what the server will never take, as dead letters; it is logged and counted in
    any case. ``held_lines``, ``spooled_bytes``, ``written_lines``, ``refused_lines``, ``dropped_lines`` and
    ``failed_writes`` are for the metrics.
    """

    name = "influxdb"
    essential = False

    def __init__(self, settings: InfluxSettings, *, site: str = "", stop_s: float = 3.0) -> None:
        self._settings = settings
        self._site = site
        self._stop_s = stop_s
        self.bury: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None
        self.written_lines = 0
        self.refused_lines = 0
        self.failed_writes = 0
        self._backlog = Backlog(self.name, settings, self._encode)
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._client: InfluxClient | None = None

    @property
    def held_lines(self) -> int:
        """Lines that were taken and are not yet written, in memory and on disk."""
        return self._backlog.lines

    @property
    def spooled_bytes(self) -> int:
        """Bytes of these on disk."""
        return self._backlog.spooled_bytes

    @property
    def dropped_lines(self) -> int:
        """Lines for which there was no room."""
        return self._backlog.dropped_lines

    async def start(self) -> None:
        """Start the writer; the server need not be there. Raises ``SinkUnavailable`` if the spool cannot be opened."""
        if self._task is not None or not self._settings.url:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="influxdb")
        self._client = await asyncio.get_running_loop().run_in_executor(self._thread, InfluxClient, self._settings)
        try:
            await self._backlog.open()
        except SinkUnavailable:
            self._disconnect()
            raise
        self._task = asyncio.create_task(self._write_on(self._client), name="headrace-influxdb")

    async def write(self, output: Output) -> None:
        """Hold the scores and alerts. Waits only when there is no more room and ``when_full`` says so."""
        if not self._settings.url:
            return
        for scores in history(output):
            for part in slices(scores, self._settings.batch_lines):
                await self._backlog.put(part)
        for start in range(0, len(output.alerts), self._settings.batch_lines):
            await self._backlog.put(output.alerts[start : start + self._settings.batch_lines])

    async def stop(self) -> None:
        """Write what is held, within ``stop_s`` seconds, or put it on disk, and disconnect; says how much was left."""
        task, self._task = self._task, None
        if task is None:
            return
        await self._backlog.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, self._stop_s)
        await self._backlog.close(self._stop_s)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)
        if self._client:
            self._client.close()

    async def _write_on(self, client: InfluxClient) -> None:
        """Until stopped and empty: take the oldest block, write it, try again for as long as it takes."""
        while await self._backlog.more():
            try:
                block = await self._backlog.next()
                if block is not None and not await self._write_block(client, block):
                    return
            except Exception:  # a fault of ours, or of the disk: the block is lost, those behind it must not be
                lost = self._backlog.lines_in_hand
                _log.exception("influxdb: %d lines cannot be written", lost)
                self.refused_lines += lost
                if not lost:
                    await self._backlog.pause(1.0)
            await self._backlog.done()

    async def _write_block(self, client: InfluxClient, block: Block) -> bool:
        """Post until the server has it; whether it has. Not, if the worker stops and the block is safe on disk."""
        attempt = 0
        while True:
            try:
                refused = await asyncio.get_running_loop().run_in_executor(
                    self._thread, partial(client.post, block.text)
                )
            except SinkUnavailable as error:
                self.failed_writes += 1
                if attempt == 0:
                    _log.warning("influxdb: %s; %d lines are held", error, self.held_lines)
                await self._backlog.keep(block)
                await self._backlog.pause(max(error.retry_after_s, _backoff_s(attempt)))
                if self._backlog.stopping and block.on_disk:
                    return False
                attempt += 1
            else:
                if attempt:
                    _log.info("influxdb: takes lines again after %d failed writes", attempt)
                self._backlog.away = False
                await self._count(block, refused)
                return True

    async def _count(self, block: Block, refused: Sequence[tuple[list[bytes], str]]) -> None:
        """Count what became of a block, of which some lines were refused, and bury those."""
        count = sum(len(part) for part, _ in refused)
        self.written_lines += block.lines - count
        self.refused_lines += count
        if not refused:
            return
        part, reason = refused[0]
        _log.error(
            "influxdb: %d of %d lines refused, the first %.200s: %s", count, block.lines, part[0].decode(), reason
        )
        if self.bury is not None:
            await self.bury([letter for part, reason in refused for letter in _letters(part, reason)])

    def _encode(self, items: Sequence[Item]) -> bytes:
        """The lines of a block, as they are sent."""
        lines: list[bytes] = []
        for are_scores, group in groupby(items, key=lambda item: isinstance(item, Scores)):
            if are_scores:
                whole = joined(cast("list[Scores]", list(group)))
                parts = (part for scores in whole for part in slices(scores, _ABREAST))
                lines += (score_lines(part, self._site) for part in parts)
            else:
                lines += (
                    alert_line(alert, self._site).encode()
                    for item in group
                    for alert in cast("tuple[Alert, ...]", item)
                )
        return b"\n".join(lines)


def _letters(lines: Sequence[bytes], reason: str) -> Iterator[DeadLetter]:
    """Refused lines as dead letters, each of a size that every topic takes."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > _LETTER_BYTES:
            yield _letter(part, reason)
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield _letter(part, reason)


def _letter(lines: Sequence[bytes], reason: str) -> DeadLetter:
    record = Record("influxdb", -1, -1, b"\n".join(lines), timestamp=round(time.time() * 1000))
    return DeadLetter(record, "publish", "influxdb_refused", reason)


def _backoff_s(attempt: int) -> float:
    """0.25 s doubling up to 30 s, each with a random part so that workers do not come back all at once."""
    return float(min(0.25 * 2.0 ** min(attempt, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
