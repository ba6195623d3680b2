"""The last stage: give a batch's output to the sinks, the essential ones first.

``publish`` returns when every essential sink has the output, so that the batch may be acknowledged. A sink that is
away is asked again for as long as it takes: nothing is acknowledged meanwhile, and back-pressure reaches the consumer.
A sink that is not essential may fail in any way without delaying or breaking the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from stream.errors import SinkRefused, SinkUnavailable
from stream.records import Alert, DeadLetter, Output, Record, to_json
from stream.sinks.base import Sink

_log = logging.getLogger(__name__)

_REMIND_S: Final = 60.0
_RESTART_S: Final = 30.0


class Observer(Protocol):
    """What the publisher tells the metrics; ``stream.sinks.prometheus.Metrics`` follows it."""

    def known(self, sink: str) -> None:
        """There is such a sink."""
        ...

    def sink_failed(self, sink: str, reason: str) -> None:
        """A sink did not take a write: unavailable, refused or error."""
        ...

    def dead_lettered(self, stage: str, reason: str, count: int = 1) -> None:
        """Dead letters were made after the pipeline."""
        ...

    def watch(self, sink: Any) -> None:
        """A sink holds lines: show how many."""
        ...


class Publisher:
    """Gives output to ``sinks``.

    dead_letter_sink   takes what an essential sink refused; the first essential one by default
    max_wait_s         the longest pause between two attempts at a sink that is away, unless the sink asks for more
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        metrics: Observer | None = None,
        dead_letter_sink: Sink | None = None,
        max_wait_s: float = 30.0,
    ) -> None:
        self._essential = [sink for sink in sinks if sink.essential]
        self._others = [sink for sink in sinks if not sink.essential]
        self._metrics = metrics
        self._dead_letter_sink = dead_letter_sink or next(iter(self._essential), None)
        self._max_wait_s = max_wait_s
        self._stopping = asyncio.Event()
        self._not_started: dict[str, float] = {}
        self._told_at: dict[str, float] = {}

    async def start(self) -> None:
        """Start all sinks. Raises what an essential one raises, with those before it stopped again."""
        self._stopping.clear()
        if self._metrics:
            for sink in (*self._essential, *self._others):
                self._metrics.known(sink.name)
        started: list[Sink] = []
        try:
            for sink in self._essential:
                started.append(sink)
                await sink.start()
        except BaseException:
            for sink in started:
                await self._stop_one(sink)
            raise
        for sink in self._others:
            if self._metrics and hasattr(sink, "held_lines"):
                self._metrics.watch(sink)
            if hasattr(sink, "bury"):
                sink.bury = self.bury
            await self._start_other(sink)

    async def stop(self) -> None:
        """End the waiting of ``publish``, and stop all sinks, those last that take what the others may still bury.

        Safe to call twice, or without ``start``.
        """
        self._stopping.set()
        await asyncio.gather(*(self._stop_one(sink) for sink in self._others))
        await asyncio.gather(*(self._stop_one(sink) for sink in self._essential))

    async def publish(self, output: Output) -> None:
        """Give ``output`` to every sink; on return the essential ones have it.

        Raises ``SinkUnavailable`` only when the publisher is stopped while an essential sink is away: the batch must
        not be acknowledged then, nor after any other error.
        """
        for sink in self._essential:
            try:
                await self._insist(sink, output)
            except SinkRefused as error:
                await self._bury(sink, output, error)
        if len(self._others) == 1:
            await self._offer(self._others[0], output)
        elif self._others:
            await asyncio.gather(*(self._offer(sink, output) for sink in self._others))

    def reopen(self, alerts: Sequence[Alert]) -> None:
        """Tell the sinks that remember open alerts which are open on this worker now."""
        for sink in (*self._essential, *self._others):
            if hasattr(sink, "reopen"):
                sink.reopen(alerts)

    async def _insist(self, sink: Sink, output: Output) -> None:
        """Write until taken. Raises ``SinkRefused``, and ``SinkUnavailable`` when stopped."""
        attempt = 0
        while True:
            try:
                await sink.write(output)
            except SinkUnavailable as error:
                self._failed(sink, "unavailable", error)
                if self._stopping.is_set():
                    raise
                backoff_s = min(0.1 * 2.0 ** min(attempt, 12), self._max_wait_s) * random.uniform(0.5, 1.0)  # noqa: S311
                attempt += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), max(error.retry_after_s, backoff_s))
            else:
                if attempt:
                    self._told_at.pop(sink.name, None)
                    _log.info("sink %s takes output again after %d attempts", sink.name, attempt)
                return

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters of a sink's, for as long as it takes. What cannot be buried either is logged in full."""
        if self._metrics:
            for letter in letters:
                self._metrics.dead_lettered(letter.stage, letter.reason)
        grave = self._dead_letter_sink
        try:
            if grave is None:
                raise SinkRefused("there is no sink for dead letters")
            await self._insist(grave, Output(dead=tuple(letters)))
        except SinkRefused as refusal:
            for letter in refusal.letters or letters:
                _log.error(
                    "lost, refused twice (%s): %s %.2000r", letter.detail, letter.record.key, letter.record.value
                )

    async def _bury(self, sink: Sink, output: Output, error: SinkRefused) -> None:
        """Make dead letters of what an essential sink refused."""
        self._failed(sink, "refused", error)
        letters = error.letters or _letters(output, str(error))
        if letters:
            await self.bury(letters)

    async def _offer(self, sink: Sink, output: Output) -> None:
        """Write once to a sink that is not essential; whatever happens stays here."""
        due_at = self._not_started.get(sink.name)
        if due_at is not None:
            if time.monotonic() < due_at:
                if self._metrics:
                    self._metrics.sink_failed(sink.name, "unavailable")
                return
            await self._start_other(sink)
            if sink.name in self._not_started:
                return
        try:
            await sink.write(output)
        except SinkUnavailable as error:
            self._failed(sink, "unavailable", error)
        except SinkRefused as error:
            self._failed(sink, "refused", error)
        except Exception as error:  # whatever it is, it must not reach the essential way
            self._failed(sink, "error", error)

    async def _start_other(self, sink: Sink) -> None:
        try:
            await sink.start()
            self._not_started.pop(sink.name, None)
        except Exception as error:  # a dashboard that is away must not keep a plant unwatched
            self._failed(sink, "error", error)
            self._not_started[sink.name] = time.monotonic() + _RESTART_S

    async def _stop_one(self, sink: Sink) -> None:
        try:
            await sink.stop()
        except Exception:  # the other sinks still have something to write
            _log.exception("sink %s did not stop in order", sink.name)

    def _failed(self, sink: Sink, reason: str, error: Exception) -> None:
        """Count a failure; log it unless that was done within the last minute."""
        if self._metrics:
            self._metrics.sink_failed(sink.name, reason)
        now = time.monotonic()
        if now - self._told_at.get(sink.name, -_REMIND_S) >= _REMIND_S:
            self._told_at[sink.name] = now
            _log.error("sink %s, %s: %s: %s", sink.name, reason, type(error).__name__, error)


def _letters(output: Output, detail: str) -> tuple[DeadLetter, ...]:
    """All that can be carried of an output whose sink did not say what it refused; dead letters stay as they are."""
    alerts = (
        DeadLetter(Record("", -1, -1, to_json(alert), alert.id.encode()), "publish", "refused", detail)
        for alert in output.alerts
    )
    late = (DeadLetter(late.record, "publish", "refused", f"{detail}; {late.detail}") for late in output.late)
    return (*output.dead, *alerts, *late)
