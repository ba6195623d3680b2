"""Metrics, health and the live page over HTTP, on one narrow address.

    GET /metrics        for Prometheus; OpenMetrics where the client asks for it
    GET /health/live    200 while the worker gets on, 503 when it should be restarted
    GET /health/ready   200 while it can work, 503 with the reasons why not
    GET /               the live page (``stream.page``), if the worker has one

Only GET and HEAD, but for what operators do on the page (``stream.page.acting``), if it has a token. Only the page
names assets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.page.acting import MOST_BYTES, Acting
from stream.page.board import Board
from stream.page.routes import add_page

_MAX_HEAD_BYTES: Final = 8190
_SAFE: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_INDEX: Final = "Headrace\n\n/metrics\n/health/live\n/health/ready\n"


@dataclass(slots=True)
class Health:
    """How the worker is; the app keeps it up to date.

    connected       whether the broker answers
    partitions      partitions of the input topic that this worker has; None before the first assignment. 0 is well: a
                    worker more than there are partitions stands by
    models_loaded   whether every detector of the plan has its model
    lag             records that wait on those partitions
    recovering      partitions whose state is being read back, each with how far that is
    beat_at         when the event loop last had a moment for ``beat``, by ``clock`` (seconds)
    progress_at     when the committed offset last moved, by ``clock`` (seconds); set by ``progressed``
    stall_after_s   so long may the offset stand still while records wait, before the worker should be restarted
    """

    connected: bool = False
    partitions: int | None = None
    models_loaded: bool = False
    lag: int = 0
    stall_after_s: float = 300.0
    stopping: bool = False
    recovering: dict[int, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    progress_at: float = field(init=False)
    beat_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.progress_at = self.beat_at = self.clock()

    def progressed(self) -> None:
        """Say that the committed offset has moved, or that nothing waits."""
        self.progress_at = self.clock()

    def beat(self) -> None:
        """Say that the event loop turns."""
        self.beat_at = self.clock()

    def stalled(self) -> list[str]:
        """Why the worker should be restarted; empty if it should not. A stop has a grace of its own.

        While the broker is away it should not: starting again would not bring it back.
        """
        if self.stopping:
            return []
        now = self.clock()
        if now - self.beat_at > self.stall_after_s:
            return [f"the event loop has not turned for {now - self.beat_at:.0f} s"]
        if not self.connected:
            return []
        idle_s = now - self.progress_at
        if self.lag > 0 and self.partitions and idle_s > self.stall_after_s:
            return [f"{self.lag} records wait and no offset was committed for {idle_s:.0f} s"]
        return []

    def unready(self) -> list[str]:
        """Why the worker cannot work now; empty if it can."""
        reasons = self.stalled()
        if not self.connected:
            reasons.append("the broker does not answer")
        if self.partitions is None:
            reasons.append("no partitions are assigned yet")
        reasons += [f"partition {number}: {how}" for number, how in sorted(self.recovering.items())]
        if not self.models_loaded:
            reasons.append("the models are not loaded")
        if self.stopping:
            reasons.append("the worker is stopping")
        return reasons

    def told(self, reasons: list[str] | None = None) -> dict[str, Any]:
        """All of it for JSON; ``reasons`` why not, by default those of ``unready``."""
        why = self.unready() if reasons is None else reasons
        return {
            "status": "unavailable" if why else "ok",
            "reasons": why,
            "partitions": self.partitions,
            "lag": self.lag,
            "seconds_since_progress": round(self.clock() - self.progress_at, 1),
        }


class WebServer:
    """Serves ``registry``, ``health`` and the page of ``board``, if there is one, on ``host`` and ``port``.

    Port 0 takes any free one, which ``port`` then tells.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        board: Board | None = None,
        acting: Acting | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._registry = registry
        self._health = health
        self._board = board
        self._acting = acting
        self._host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is served, without a slash at the end."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}"

    async def start(self) -> None:
        """Bind and serve. Raises ``OSError`` that names the address if it is taken."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=MOST_BYTES)
        app.on_response_prepare.append(_without_banner)
        if self._board is None:
            app.router.add_get("/", self._index)
        else:
            add_page(app, self._board, self._health.told, self._acting)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            max_line_size=_MAX_HEAD_BYTES,
            max_field_size=_MAX_HEAD_BYTES,
            keepalive_timeout=30.0,
            shutdown_timeout=2.0,
        )
        await runner.setup()
        site = web.TCPSite(runner, self._host, self.port)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving. Safe to call twice, or without ``start``."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if self._acting is not None:
            await self._acting.stop()

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _live(self, _: web.Request) -> web.Response:
        return self._answer(self._health.stalled())

    async def _ready(self, _: web.Request) -> web.Response:
        return self._answer(self._health.unready())

    def _answer(self, reasons: list[str]) -> web.Response:
        body = msgspec.json.encode(self._health.told(reasons))
        return web.Response(body=body, status=503 if reasons else 200, content_type="application/json")


async def _without_banner(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
    for name, value in _SAFE.items():
        response.headers.setdefault(name, value)
