"""The page over HTTP: a few static files and two questions, and what operators do (``stream.page.acting``).

    GET /                                      the page
    GET /page/<file>                           its script and style
    GET /api/overview?query=&state=            open alerts, counts, assets
    GET /api/asset?name=pump-17&since_ms=...   an asset's state, alerts, and rows observed after ``since_ms``

The page asks every second or two while somebody looks at it, and not at all while its tab is hidden. It needs nothing
from anywhere else, and its policy lets the browser fetch nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

from stream.page.acting import Acting
from stream.page.board import Board, Drawn

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
#: Answers below this size are not worth compressing; larger ones are, beside the event loop.
_COMPRESS_BYTES: Final = 16 << 10
_MAX_QUERY: Final = 256


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    tag: str


def add_page(
    app: web.Application, board: Board, health: Callable[[], Mapping[str, Any]], acting: Acting | None = None
) -> None:
    """Serve the page of ``board`` from ``app``.

    health   how the worker is, shown as it is
    acting   takes what operators do; without it the page only shows
    """
    served = _files()

    async def static(request: web.Request) -> web.Response:
        held = served.get(request.match_info.get("file", "index.html"))
        if held is None:
            raise web.HTTPNotFound
        headers = {**_HEADERS, "ETag": held.tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == held.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=held.body, content_type=held.content_type, charset="utf-8", headers=headers)

    async def overview(request: web.Request) -> web.Response:
        answer = board.overview(query=_text(request, "query"), state=_text(request, "state"))
        return await _json({**answer, "worker": health(), "acts": acting is not None})

    async def asset(request: web.Request) -> web.Response:
        since = _text(request, "since_ms") or "0"
        if not since.isdecimal() or len(since) > 15:
            raise web.HTTPBadRequest(text="since_ms: epoch milliseconds")
        found = board.asset(_text(request, "name"), int(since))
        if found is None:
            raise web.HTTPNotFound(text="no such asset on this worker")
        told, drawn = found
        return await _json({**told, "acts": acting is not None}, drawn)

    async def act(request: web.Request) -> web.Response:
        if acting is None:
            raise web.HTTPForbidden(text="this page only shows: set HEADRACE_PAGE_TOKEN to act on it")
        return await acting.take(request, board.alerts.newest)

    app.router.add_post("/api/act", act)
    app.router.add_get("/", static)
    app.router.add_get("/page/{file}", static)
    app.router.add_get("/api/overview", overview)
    app.router.add_get("/api/asset", asset)


def _files() -> dict[str, _File]:
    served = {}
    for held in files("stream.page").joinpath("static").iterdir():
        content_type = _TYPES.get(held.name.rpartition(".")[2])
        if content_type:
            body = held.read_bytes()
            served[held.name] = _File(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return served


def _text(request: web.Request, name: str) -> str:
    text = request.query.get(name, "")
    if len(text) > _MAX_QUERY:
        raise web.HTTPBadRequest(text=f"{name}: at most {_MAX_QUERY} characters")
    return text


async def _json(answer: Mapping[str, Any], drawn: Sequence[Drawn] | None = None) -> web.Response:
    """Written beside the event loop where there are rows to write: ten thousands of numbers at the first look."""
    if drawn is None:
        body = msgspec.json.encode(answer)
    else:
        body = await asyncio.to_thread(lambda: msgspec.json.encode({**answer, "detectors": [d.plain() for d in drawn]}))
    response = web.Response(
        body=body, content_type="application/json", headers=_HEADERS, zlib_executor_size=_COMPRESS_BYTES
    )
    if len(body) > _COMPRESS_BYTES:
        response.enable_compression()
    return response
