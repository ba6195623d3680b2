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
import email.utils
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkUnavailable
from stream.records import Alert, Output, Scores
from stream.sinks.lineprotocol import alert_line, score_lines
from stream.sinks.rows import slices

_log = logging.getLogger(__name__)

#: Told of lines that the server will never take: (lines, its reason).
Refused = Callable[[Sequence[str], str], None]

_RETRY_STATUS: Final = frozenset({408, 425, 429})
_SPLIT_STATUS: Final = frozenset({400, 413, 422})  # perhaps only some of the lines are to blame
_MAX_BACKOFF_S: Final = 30.0
_MAX_RETRY_AFTER_S: Final = 300.0
_MAX_POSTS: Final = 64  # for one block, when looking for the lines to blame


class InfluxSettings(BaseSettings):
    """Where scores and alerts are kept; read from ``HEADRACE_INFLUX_*``. An empty ``url`` turns the sink off.

    batch_lines    lines in one request
    held_lines     lines that are held while the server is away; an hour of 250 readings a second by default
    when_full      what happens then: ``wait`` slows the whole worker down to the server's pace and loses nothing;
                   ``drop_oldest`` keeps alerts on time and loses the oldest history, counted
    linger_s       how long the first line of a block waits for others
    gzip           a fifth of the traffic for three times the work: for a server that is far away
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_INFLUX_", frozen=True)

    url: Annotated[str, Field(pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$")] = ""
    org: str = "headrace"
    bucket: str = "headrace"
    token: SecretStr = SecretStr("")
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    batch_lines: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    held_lines: Annotated[int, Field(ge=1_000)] = 1_000_000
    when_full: Literal["wait", "drop_oldest"] = "wait"
    linger_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    gzip: bool = False


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
        self._client: Any = None
        self._api: Any = None
        self._error_type: type[Exception] = Exception

    @property
    def held_lines(self) -> int:
        """Lines that were taken and are not yet written."""
        return self._queued + self._in_hand

    async def start(self) -> None:
        """Start the writer. The server need not be there."""
        if self._task is not None or not self._settings.url:
            return
        # Half a second that a worker without InfluxDB, and `headrace --help`, need not spend.
        from influxdb_client import InfluxDBClient  # noqa: PLC0415
        from influxdb_client.client.exceptions import InfluxDBError  # noqa: PLC0415
        from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415

        self._error_type = InfluxDBError
        self._client = InfluxDBClient(
            self._settings.url.rstrip("/"),
            token=self._settings.token.get_secret_value(),
            org=self._settings.org,
            timeout=int(self._settings.timeout_s * 1000),
            enable_gzip=self._settings.gzip,
            retries=False,  # it would sleep in the thread and hide what the server said
        )
        self._api = self._client.write_api(write_options=SYNCHRONOUS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="influxdb")
        self._stopping.clear()
        self._task = asyncio.create_task(self._write_on(), name="headrace-influxdb")

    async def write(self, output: Output) -> None:
        """Hold the scores and alerts. Waits only when the bound is reached and ``when_full`` is ``wait``."""
        if not self._settings.url:
            return
        for scores in output.scores:
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

    async def _write_on(self) -> None:
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
                await self._write_block(block)
            except Exception:  # a fault of ours: the block is lost, those behind it must not be
                _log.exception("influxdb: %d lines cannot be written", self._in_hand)
                self.refused_lines += self._in_hand
            async with self._changed:
                self._in_hand = 0
                self._changed.notify_all()

    async def _write_block(self, block: Sequence[Scores | tuple[Alert, ...]]) -> None:
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(self._thread, self._encode, block)
        attempt = 0
        while True:
            try:
                await loop.run_in_executor(self._thread, self._post, lines)
            except SinkUnavailable as error:
                self.failed_writes += 1
                if attempt == 0:
                    _log.warning("influxdb: %s; %d lines are held", error, self.held_lines)
                await self._pause(max(error.retry_after_s, _backoff_s(attempt)))
                attempt += 1
            else:
                if attempt:
                    _log.info("influxdb: takes lines again after %d failed writes", attempt)
                return

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

    def _encode(self, block: Sequence[Scores | tuple[Alert, ...]]) -> list[str]:
        lines: list[str] = []
        for item in block:
            lines += (
                score_lines(item, self._site)
                if isinstance(item, Scores)
                else [alert_line(alert, self._site) for alert in item]
            )
        return lines

    def _post(self, lines: list[str]) -> None:
        """Write lines, in the thread. Raises ``SinkUnavailable`` to try again with all of them: that does no harm.

        Where the server says that something in them is wrong, it is given halves, and halves of those, until the lines
        to blame stand alone; they are refused and the others are written.
        """
        refused: list[tuple[list[str], str]] = []
        waiting, posts = [lines], 0
        while waiting:
            part = waiting.pop()
            reason, posts = self._post_once(part), posts + 1
            if reason.startswith("split ") and len(part) > 1 and posts < _MAX_POSTS:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
            elif reason:
                refused.append((part, reason.removeprefix("split ")))
        count = sum(len(part) for part, _ in refused)
        self.written_lines += len(lines) - count
        self.refused_lines += count
        if refused:
            part, reason = refused[0]
            _log.error("influxdb: %d of %d lines refused, the first %.200s: %s", count, len(lines), part[0], reason)
        if self._refused is not None:
            for part, reason in refused:
                self._refused(part, reason)

    def _post_once(self, lines: list[str]) -> str:
        """One request. Returns why the lines were refused, or "". Raises ``SinkUnavailable``."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  # comes with influxdb_client

        try:
            self._api.write(self._settings.bucket, record="\n".join(lines))
        except self._error_type as error:
            status = getattr(error, "status", None) or 0
            said = f"HTTP {status}: {self._without_token(getattr(error, 'message', '') or str(error))}"
            if status in _RETRY_STATUS or not 400 <= status < 500:
                raise SinkUnavailable(said, _retry_after_s(getattr(error, "headers", None))) from None
            return ("split " if status in _SPLIT_STATUS else "") + said
        except (HTTPError, OSError) as error:
            raise SinkUnavailable(f"{self._settings.url}: {self._without_token(str(error))}", 0.0) from None
        return ""

    def _without_token(self, said: str) -> str:
        token = self._settings.token.get_secret_value()
        said = said.replace(token, "***") if token else said
        return said if len(said) <= 300 else said[:300] + "..."


def _backoff_s(attempt: int) -> float:
    """0.25 s doubling up to 30 s, each with a random part so that workers do not come back all at once."""
    return float(min(0.25 * 2.0 ** min(attempt, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret


def _retry_after_s(headers: Any) -> float:
    """What the server asks for, in seconds or as a date; 0 if it does not."""
    value = next((value for key, value in dict(headers or {}).items() if key.lower() == "retry-after"), "")
    if value.strip().isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        return min(max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0), _MAX_RETRY_AFTER_S)
    except (ValueError, TypeError):
        return 0.0
