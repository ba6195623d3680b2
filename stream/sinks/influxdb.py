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

The sink is not essential: ``write`` puts the arrays into a bounded queue, and a task of its own turns them into lines
and posts them in large blocks from a thread. When the server is away they are held, and written in order when it is
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Final, cast

from stream.errors import SinkUnavailable
from stream.records import Alert, Output, Scores
from stream.sinks.influxclient import InfluxClient, InfluxSettings
from stream.sinks.lineprotocol import alert_line, score_lines
from stream.sinks.rows import joined, slices
from stream.sinks.thin import history

__all__ = ["InfluxSettings", "InfluxSink"]

_log = logging.getLogger(__name__)

#: Told of lines that the server will never take: (lines, its reason).
Refused = Callable[[Sequence[str], str], None]

_MAX_BACKOFF_S: Final = 30.0


class InfluxSink:
    """Holds what it is given, and writes it in order, in blocks, from a thread.

    refused     told of lines that the server will never take; they are logged and counted in any case
    stop_s      how long ``stop`` tries to write what is held

    ``held_lines``, ``written_lines``, ``refused_lines``, ``dropped_lines`` and ``failed_writes`` are for the metrics.
    """

    name = "influxdb"
    essential = False

    def __init__(
        self, settings: InfluxSettings, *, site: str = "", refused: Refused | None = None, stop_s: float = 5.0
    ) -> None:
        self._settings = settings
        self._site = site
        self._refused = refused
        self._stop_s = stop_s
        self._queue: deque[Scores | tuple[Alert, ...]] = deque()
        self._in_hand = 0  # lines of the block that is being written
        self._queued = 0
        self.written_lines = 0
        self.refused_lines = 0
        self.dropped_lines = 0
        self.failed_writes = 0
        self._changed = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._client: InfluxClient | None = None

    @property
    def held_lines(self) -> int:
        """Lines that were taken and are not yet written."""
        return self._queued + self._in_hand

    async def start(self) -> None:
        """Start the writer. The server need not be there."""
        if self._task is not None or not self._settings.url:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="influxdb")
        self._client = await asyncio.get_running_loop().run_in_executor(self._thread, InfluxClient, self._settings)
        self._stopping.clear()
        self._task = asyncio.create_task(self._write_on(self._client), name="headrace-influxdb")

    async def write(self, output: Output) -> None:
        """Hold the scores and alerts. Waits only when the bound is reached and ``when_full`` is ``wait``."""
        if not self._settings.url:
            return
        for scores in history(output):
            for part in slices(scores, self._settings.batch_lines):
                await self._hold(part)
        for start in range(0, len(output.alerts), self._settings.batch_lines):
            await self._hold(output.alerts[start : start + self._settings.batch_lines])

    async def stop(self) -> None:
        """Write what is held, within ``stop_s`` seconds, and disconnect; says in the log how much was left."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        async with self._changed:
            self._changed.notify_all()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, self._stop_s)
        if self.held_lines:
            _log.warning("influxdb: stopped with %d lines not written", self.held_lines)
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)
        if self._client:
            self._client.close()

    async def _hold(self, item: Scores | tuple[Alert, ...]) -> None:
        async with self._changed:
            while self.held_lines and self.held_lines + len(item) > self._settings.held_lines:
                if self._settings.when_full == "drop_oldest" and self._queue:
                    self._drop(self._queue.popleft())
                    continue
                if self._stopping.is_set():
                    raise SinkUnavailable("influxdb: stopped")
                await self._changed.wait()
            self._queue.append(item)
            self._queued += len(item)
            self._changed.notify_all()

    def _drop(self, item: Scores | tuple[Alert, ...]) -> None:
        if not self.dropped_lines:
            _log.error("influxdb: %d lines are held, the oldest are dropped from now on", self.held_lines)
        self._queued -= len(item)
        self.dropped_lines += len(item)

    async def _write_on(self, client: InfluxClient) -> None:
        """Until stopped and empty: take a block, write it, try again for as long as it takes."""
        while True:
            async with self._changed:
                while not self._queue:
                    if self._stopping.is_set():
                        return
                    await self._changed.wait()
            if self._queued < self._settings.batch_lines and self._settings.linger_s:
                await self._pause(self._settings.linger_s)
            block = self._take()
            try:
                await self._write_block(client, block)
            except Exception:  # a fault of ours: the block is lost, those behind it must not be
                _log.exception("influxdb: %d lines cannot be written", self._in_hand)
                self.refused_lines += self._in_hand
            async with self._changed:
                self._in_hand = 0
                self._changed.notify_all()

    async def _write_block(self, client: InfluxClient, block: Sequence[Scores | tuple[Alert, ...]]) -> None:
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(self._thread, self._encode, block)
        attempt = 0
        while True:
            try:
                refused = await loop.run_in_executor(self._thread, client.post, lines)
            except SinkUnavailable as error:
                self.failed_writes += 1
                if attempt == 0:
                    _log.warning("influxdb: %s; %d lines are held", error, self.held_lines)
                await self._pause(max(error.retry_after_s, _backoff_s(attempt)))
                attempt += 1
            else:
                if attempt:
                    _log.info("influxdb: takes lines again after %d failed writes", attempt)
                self._count(refused)
                return

    def _count(self, refused: Sequence[tuple[list[str], str]]) -> None:
        """Count the block in hand, of which some lines were refused."""
        count = sum(len(part) for part, _ in refused)
        self.written_lines += self._in_hand - count
        self.refused_lines += count
        if refused:
            part, reason = refused[0]
            _log.error("influxdb: %d of %d lines refused, the first %.200s: %s", count, self._in_hand, part[0], reason)
        if self._refused is not None:
            for part, reason in refused:
                self._refused(part, reason)

    def _take(self) -> list[Scores | tuple[Alert, ...]]:
        """As many items as fit into one block; each alone fits."""
        block: list[Scores | tuple[Alert, ...]] = []
        while self._queue and self._in_hand + len(self._queue[0]) <= self._settings.batch_lines:
            item = self._queue.popleft()
            block.append(item)
            self._in_hand += len(item)
            self._queued -= len(item)
        return block

    async def _pause(self, seconds: float) -> None:
        """Sleep; much shorter when the worker is about to stop."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, 0.25))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _encode(self, block: Sequence[Scores | tuple[Alert, ...]]) -> str:
        """The lines of a block, as they are sent."""
        lines: list[str] = []
        for are_scores, items in groupby(block, key=lambda item: isinstance(item, Scores)):
            if are_scores:
                lines += (score_lines(scores, self._site) for scores in joined(cast("list[Scores]", list(items))))
            else:
                lines += (alert_line(alert, self._site) for item in items for alert in cast("tuple[Alert, ...]", item))
        return "\n".join(lines)


def _backoff_s(attempt: int) -> float:
    """0.25 s doubling up to 30 s, each with a random part so that workers do not come back all at once."""
    return float(min(0.25 * 2.0 ** min(attempt, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
