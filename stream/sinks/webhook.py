"""Alerts to any address that takes a POST: a chat room, a ticket system, a pager. Signed as Standard Webhooks has it.

One POST for each thing that people should know: an alert opened, became worse, alarmed again, was acknowledged, or is
over. Plain updates are not sent, nor is what is shelved or suppressed. The body is JSON: ``type`` (``alert.open``, and
so on), ``timestamp``, ``text`` for people, which chat rooms show as it is, and ``data``, the alert as on its topic.

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
from urllib.parse import quote

import aiohttp
import msgspec
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkRefused, SinkUnavailable
from stream.records import Alert, Output
from stream.settings import with_secret_file

_log = logging.getLogger(__name__)

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (what all of them begin with)
_SHORTEST_KEY: Final = 16
_WORTH_TELLING: Final = 0.01
_MAX_BACKOFF_S: Final = 60.0
_LONGEST_RETRY_AFTER_S: Final = 3600.0
#: What a transition is called, by the newest event of the alert's life; the others are not sent.
TYPES: Final = {
    "open": "alert.open",
    "major": "alert.worse",
    "critical": "alert.worse",
    "re_alarm": "alert.again",
    "shelf_over": "alert.again",
    "unshelve": "alert.again",
    "ack": "alert.acknowledged",
    "resolved": "alert.resolved",
    "resolve": "alert.resolved",
}
_WORDS: Final = {
    "alert.open": "{severity}",
    "alert.worse": "now {severity}",
    "alert.again": "still {severity}",
    "alert.acknowledged": "acknowledged by {by}",
    "alert.resolved": "resolved",
}
TEMPLATE: Final = "{what}: {asset} ({detector}): {causes}, {times} times its threshold at {peak_at}{comment} {link}"
_FIELDS: Final = frozenset(
    {"what", "asset", "site", "detector", "severity", "state", "causes", "diagnosis", "peak", "threshold", "times"}
    | {"peak_at", "onset", "last_seen", "by", "comment", "link", "id"}
)


class WebhookSettings(BaseSettings):
    """Where webhooks go; read from ``HEADRACE_WEBHOOK_*``. Empty ``urls`` turn the sink off.

    urls            addresses, with commas; each is told everything
    secret, secret_file   what POSTs are signed with: ``whsec_`` and base64, as receivers of Standard Webhooks make
                    them, or any text of 16 characters and more; the file that it is in, in its place
    template        of ``text``; filled in are ``{what}``, ``{asset}``, ``{site}``, ``{detector}``, ``{severity}``,
                    ``{state}``, ``{causes}``, ``{diagnosis}``, ``{peak}``, ``{threshold}``, ``{times}``, ``{peak_at}``,
                    ``{onset}``, ``{last_seen}``, ``{by}``, ``{comment}``, ``{link}``, ``{id}``
    link            where a person finds out more; ``{asset}``, ``{detector}`` and ``{site}`` are filled in
    timeout_s       for one request
    held_posts      that wait for an address that is away; beyond, the oldest are dropped, and counted
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_WEBHOOK_", frozen=True)

    urls: Annotated[str, Field(pattern=r"^(https?://[^\s,#@]+(,https?://[^\s,#@]+)*)?$")] = ""
    secret: SecretStr = SecretStr("")
    secret_file: Path | None = None
    template: str = TEMPLATE
    link: str = ""
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
            ("template", self.template, _FIELDS),
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


@dataclass(frozen=True, slots=True)
class Post:
    """One thing to tell: its id and its body."""

    id: str
    body: bytes


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

    clock   seconds since 1970, for the signature
    stop_s  how long ``stop`` tries to send what waits

    The figures are for the metrics; a line is a POST here.
    """

    name = "webhook"
    essential = False
    spooled_bytes = 0

    def __init__(
        self, settings: WebhookSettings, *, clock: Callable[[], float] = time.time, stop_s: float = 5.0
    ) -> None:
        self._settings = settings
        self._key = settings.key()
        self._clock = clock
        self._stop_s = stop_s
        self._targets = [_Target(url) for url in settings.urls.split(",") if url]
        self._told: dict[str, int] = {}  # of alerts that people know of: how many events of its life
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
        for alert in output.alerts if self._targets else ():
            post = self._news(alert)
            for target in self._targets if post is not None else ():
                if len(target.waiting) >= self._settings.held_posts:
                    target.waiting.popleft()
                    self.dropped_lines += 1
                target.waiting.append(post)  # type: ignore[arg-type]  # not None here
                target.changed.set()

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """After a restart or a rebalance: people have been told of these, by whoever had them."""
        self._told = {alert.id: len(alert.life) for alert in alerts if alert.told}

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

    def _news(self, alert: Alert) -> Post | None:
        """What people should be told of a transition; None where there is nothing."""
        events = len(alert.life)
        known = self._told.get(alert.id)
        if alert.state == "resolved":
            self._told.pop(alert.id, None)
            if known is None:  # shelved or suppressed from its beginning: nobody knows of it
                return None
        elif not alert.told:
            return None
        else:
            self._told[alert.id] = events
        if known == events:
            return None
        happened = next((event for event in reversed(alert.life[known or 0 :]) if event.what in TYPES), None)
        if known is None:
            kind = "alert.open"
        elif happened is None:
            return None
        else:
            kind = TYPES[happened.what]
        text = told(alert, kind, self._settings.template, self._settings.link)
        body = {"type": kind, "timestamp": alert.resolved or alert.last_seen, "text": text, "data": alert}
        return Post(f"{alert.id}:{alert.sequence}", msgspec.json.encode(body))

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


def told(alert: Alert, kind: str, template: str, link: str) -> str:
    """A transition in words."""
    causes = [f"{cause.signal} {cause.share:.0%}" for cause in alert.causes if cause.share >= _WORTH_TELLING][:3]
    likeliest = f"{alert.diagnosis[0].fault} ({alert.diagnosis[0].probability:.0%})" if alert.diagnosis else ""
    newest = next((event for event in reversed(alert.life) if event.by), None)
    by = newest.by if newest else ""
    names = {"site": alert.site, "asset": alert.asset, "detector": alert.detector}
    comment = f" ({newest.comment})" if newest and newest.comment else ""
    return template.format(
        **names,
        what=_WORDS[kind].format(severity=alert.severity, by=by),
        severity=alert.severity,
        state=alert.state,
        causes=", ".join(causes) or alert.verdict,
        diagnosis=likeliest,
        peak=f"{alert.peak:.4g}",
        threshold=f"{alert.threshold:.4g}",
        times=f"{alert.peak / alert.threshold:.1f}" if alert.threshold else "?",
        peak_at=alert.peak_at,
        onset=alert.onset,
        last_seen=alert.last_seen,
        by=by,
        comment=comment,
        link=link.format(**{name: quote(value, safe="") for name, value in names.items()}),
        id=alert.id,
    ).strip()


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
