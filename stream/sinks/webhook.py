"""Alerts to any address that takes a POST: a chat room, a ticket system, a pager. Signed as Standard Webhooks has it.

One POST for each thing that people should know (``stream.sinks.news``). The body is JSON: ``type`` (``alert.open``, and
so on), ``timestamp``, ``text`` for people, which chat rooms show as it is, ``data``, the alert as on its topic, and,
where the alert is of a line of the plan, ``incident``, as ``headrace incidents --json`` prints it.

Signature (https://www.standardwebhooks.com): ``webhook-id`` (the same for each attempt, and in a replay),
``webhook-timestamp`` (epoch seconds of the attempt) and ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256
over id, timestamp and body with dots between them.

The sink is not essential: ``write`` only puts POSTs into a queue for each address, and a task for each sends them, in
their order, again and again with pauses (or those that ``Retry-After`` asks for) until they are taken.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Final

import aiohttp
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkRefused, SinkUnavailable
from stream.incidentbook import IncidentBook
from stream.records import Alert, Output
from stream.settings import with_secret_file
from stream.sinks.news import FIELDS, TEMPLATE, News, Per, Post

_log = logging.getLogger(__name__)

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (what all of them begin with)
_SHORTEST_KEY: Final = 16
_MAX_BACKOFF_S: Final = 60.0
_LONGEST_RETRY_AFTER_S: Final = 3600.0


class WebhookSettings(BaseSettings):
    """Where webhooks go; read from ``HEADRACE_WEBHOOK_*``. Empty ``urls`` turn the sink off.

    urls            addresses, with commas; each is told everything
    secret, secret_file   what POSTs are signed with: ``whsec_`` and base64, as receivers of Standard Webhooks make
                    them, or any text of 16 characters and more; the file that it is in, in its place
    template        of ``text``; filled in are ``{what}``, ``{asset}``, ``{site}``, ``{detector}``, ``{severity}``,
                    ``{state}``, ``{causes}``, ``{diagnosis}``, ``{peak}``, ``{threshold}``, ``{times}``, ``{peak_at}``,
                    ``{onset}``, ``{last_seen}``, ``{by}``, ``{comment}``, ``{incident}``, ``{link}``, ``{id}``
    link            where a person finds out more; ``{asset}``, ``{detector}`` and ``{site}`` are filled in
    per             what one message is about: an ``alert``; or an ``incident``: of its alerts the first is told, what
                    is worse than those before, what somebody does, and the end of the last. Alerts of no line of the
                    plan (``[lines.NAME]``) are told each by itself in any case
    timeout_s       for one request
    held_posts      that wait for an address that is away; beyond, the oldest are dropped, and counted
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_WEBHOOK_", frozen=True)

    urls: Annotated[str, Field(pattern=r"^(https?://[^\s,#@]+(,https?://[^\s,#@]+)*)?$")] = ""
    secret: SecretStr = SecretStr("")
    secret_file: Path | None = None
    template: str = TEMPLATE
    link: str = ""
    per: Per = "alert"
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    held_posts: Annotated[int, Field(ge=100)] = 10_000

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "secret", "HEADRACE_WEBHOOK_SECRET")

    @model_validator(mode="after")
    def _usable(self) -> WebhookSettings:
        if self.urls and len(self.key()) < _SHORTEST_KEY:
            raise ValueError(f"secret: at least {_SHORTEST_KEY} bytes; `openssl rand -base64 32` makes one")
        for name, text, known in (
            ("template", self.template, FIELDS),
            ("link", self.link, {"site", "asset", "detector"}),
        ):
            try:
                used = {part for _, part, _, _ in Formatter().parse(text) if part is not None}
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if unknown := sorted(used - set(known)):
                raise ValueError(f"{name}: {unknown[0]!r} cannot be filled in; there are {', '.join(sorted(known))}")
        return self

    def key(self) -> bytes:
        """The bytes to sign with. Raises ``ValueError``."""
        secret = self.secret.get_secret_value()
        if not secret.startswith(_SECRET_PREFIX):
            return secret.encode()
        try:
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("secret: what follows whsec_ is no base64") from None


@dataclass(slots=True)
class _Target:
    """An address and what it has yet to be told; the oldest first."""

    url: str
    waiting: deque[Post] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The address for the log: what follows the host may be a secret, as chat rooms make it."""
        return "/".join(self.url.split("/", 3)[:3])


class WebhookSink:
    """Queues what people should know, and posts it.

    incidents   of the plan's lines; this worker's alerts are put there before anybody is told of them
    clock   seconds since 1970, for the signature
    stop_s  how long ``stop`` tries to send what waits

    The figures are for the metrics; a line is a POST here.
    """

    name = "webhook"
    essential = False
    spooled_bytes = 0

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        incidents: IncidentBook | None = None,
        clock: Callable[[], float] = time.time,
        stop_s: float = 5.0,
    ) -> None:
        self._settings = settings
        self._key = settings.key()
        self._clock = clock
        self._stop_s = stop_s
        self._targets = [_Target(url) for url in settings.urls.split(",") if url]
        self._incidents = incidents or IncidentBook({})
        self._news = News(settings.template, settings.link, settings.per, self._incidents)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self.written_lines = self.refused_lines = self.dropped_lines = self.failed_writes = 0

    @property
    def held_lines(self) -> int:
        """POSTs that wait, all addresses together."""
        return sum(len(target.waiting) for target in self._targets)

    async def start(self) -> None:
        """Start to send. No receiver need be there."""
        if self._tasks or not self._targets:
            return
        self._stopping.clear()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s))
        self._tasks = [
            asyncio.create_task(self._send_on(target, self._session), name="headrace-webhook")
            for target in self._targets
        ]

    async def write(self, output: Output) -> None:
        """Queue what people should know; never waits."""
        self._incidents.take(output.alerts)
        for alert in output.alerts if self._targets else ():
            post = self._news.post(alert)
            for target in self._targets if post is not None else ():
                if len(target.waiting) >= self._settings.held_posts:
                    target.waiting.popleft()
                    self.dropped_lines += 1
                target.waiting.append(post)  # type: ignore[arg-type]  # not None here
                target.changed.set()

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """After a restart or a rebalance: people have been told of these, by whoever had them."""
        held = list(alerts)
        self._incidents.take(held)
        self._news.reopen(held)

    async def stop(self) -> None:
        """Send what waits, within ``stop_s`` seconds."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        self._stopping.set()
        for target in self._targets:
            target.changed.set()
        _, late = await asyncio.wait(tasks, timeout=self._stop_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self.held_lines:
            _log.warning("webhook: stopped with %d posts not sent", self.held_lines)
        if self._session is not None:
            await self._session.close()

    async def _send_on(self, target: _Target, session: aiohttp.ClientSession) -> None:
        """Until stopped and sent."""
        attempt = 0
        while True:
            if not target.waiting:
                if self._stopping.is_set():
                    return
                target.changed.clear()
                await target.changed.wait()
                continue
            post = target.waiting[0]
            try:
                await self._post(target, session, post)
            except SinkUnavailable as error:
                self.failed_writes += 1
                if attempt == 0:
                    _log.warning("webhook: %s; %d posts wait", error, len(target.waiting))
                backoff_s = min(0.5 * 2.0 ** min(attempt, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311
                await self._pause(max(error.retry_after_s, backoff_s))
                attempt += 1
                continue
            except SinkRefused as error:
                self.refused_lines += 1
                _log.error("webhook: refused %s: %s", post.id, error)
            except Exception:  # a fault of ours: what comes after it must not be lost as well
                self.refused_lines += 1
                _log.exception("webhook: %s cannot be sent", post.id)
            else:
                self.written_lines += 1
                if attempt:
                    _log.info("webhook: %s takes posts again after %d attempts", target.name, attempt)
            attempt = 0
            if target.waiting and target.waiting[0] is post:  # else it was dropped meanwhile, for there was no room
                target.waiting.popleft()

    async def _post(self, target: _Target, session: aiohttp.ClientSession, post: Post) -> None:
        """Raises ``SinkUnavailable`` and ``SinkRefused``; neither has the whole address in it."""
        now_s = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": post.id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": signature(self._key, post.id, now_s, post.body),
        }
        try:
            async with session.post(target.url, data=post.body, headers=headers, allow_redirects=False) as answer:
                if answer.status < 300:
                    return
                said = f"{target.name}: HTTP {answer.status}"
                if answer.status in {401, 403, 404, 408, 425, 429} or answer.status >= 500 or answer.status < 400:
                    raise SinkUnavailable(said, _retry_after_s(answer.headers.get("Retry-After"), self._clock()))
                raise SinkRefused(said)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"{target.name}: {type(error).__name__}", 0.0) from None

    async def _pause(self, seconds: float) -> None:
        """Sleep; much shorter when the worker is about to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may lose a cancellation, and stop would hang
                await self._stopping.wait()
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, 0.25))


def signature(key: bytes, post_id: str, at_s: int, body: bytes) -> str:
    """What ``webhook-signature`` holds.

    >>> key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")  # the example of the specification's libraries
    >>> signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    signed = b".".join((post_id.encode(), str(at_s).encode(), body))
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def _retry_after_s(header: str | None, now_s: float) -> float:
    """Seconds that ``Retry-After`` asks for: a number, or a date (RFC 9110, 10.2.3); 0 where it says nothing usable."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return min(float(header), _LONGEST_RETRY_AFTER_S)
    try:
        at = datetime.strptime(header.strip(), "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return min(max(at.timestamp() - now_s, 0.0), _LONGEST_RETRY_AFTER_S)
