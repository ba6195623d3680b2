"""Alerts to any address that takes a POST: a chat room, a ticket system, a pager. Signed as Standard Webhooks has it.

One POST for each thing that people should know (``stream.sinks.news``). The body is JSON: ``type`` (``alert.open``, and
so on), ``timestamp``, ``text`` for people, which chat rooms show as it is, ``data``, the alert as on its topic, and,
where the alert is of a line of the plan, ``incident``, as ``headrace incidents --json`` prints it.

Signature (https://www.standardwebhooks.com): ``webhook-id`` (the same for each attempt, and in a replay),
``webhook-timestamp`` (epoch seconds of the attempt) and ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256
over id, timestamp and body with dots between them.

The sink is not essential: ``write`` only puts POSTs into a queue for each address, and a task for each sends them, in
their order, again and again with pauses (or those that ``Retry-After`` asks for) until they are taken
(``stream.sinks.courier``). With ``spool_dir`` the queues are on disk: a batch is acknowledged only after ``write``, so
what people should know is either there or comes again with its readings, under the same ids.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Final, NoReturn

import aiohttp
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkRefused, SinkUnavailable
from stream.incidentbook import IncidentBook
from stream.records import Alert, Output
from stream.settings import with_secret_file
from stream.sinks.courier import Courier, Couriers, Held, OnDisk, Parcel, Waiting
from stream.sinks.news import FIELDS, TEMPLATE, News, Per, Post
from stream.sinks.telling import TellingSink
from stream.sinks.trust import trusting

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (what all of them begin with)
_SHORTEST_KEY: Final = 16
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
    ca_file         certificates (PEM) of the authorities to trust in place of the system's, where urls are https
    timeout_s       for one request
    held_posts      that wait in memory for an address that is away; beyond, the oldest are dropped, and counted
    spool_dir       folder where POSTs wait in place of memory, so that they outlive the process; empty: in memory only
    spool_max_bytes           of each worker and address there; beyond, the oldest are dropped, and counted
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_WEBHOOK_", frozen=True)

    urls: Annotated[str, Field(pattern=r"^(https?://[^\s,#@]+(,https?://[^\s,#@]+)*)?$")] = ""
    secret: SecretStr = SecretStr("")
    secret_file: Path | None = None
    template: str = TEMPLATE
    link: str = ""
    per: Per = "alert"
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    held_posts: Annotated[int, Field(ge=100)] = 10_000
    spool_dir: str = ""
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "secret", "HEADRACE_WEBHOOK_SECRET")

    @model_validator(mode="after")
    def _usable(self) -> WebhookSettings:
        if self.urls and len(self.key()) < _SHORTEST_KEY:
            raise ValueError(f"secret: at least {_SHORTEST_KEY} bytes; `openssl rand -base64 32` makes one")
        if self.ca_file is not None:
            trusting(self.ca_file)
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


class WebhookSink(TellingSink[Post]):
    """Queues what people should know, and posts it.

    incidents   of the plan's lines; this worker's alerts are put there before anybody is told of them
    clock   seconds since 1970, for the signature
    stop_s  how long ``stop`` tries to send what waits
    """

    name = "webhook"

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        incidents: IncidentBook | None = None,
        clock: Callable[[], float] = time.time,
        stop_s: float = 5.0,
    ) -> None:
        super().__init__(incidents)
        self._settings = settings
        self._key = settings.key()
        self._clock = clock
        self._news = News(settings.template, settings.link, settings.per, self._incidents)
        addresses = [url for url in settings.urls.split(",") if url]
        self._couriers = Couriers(self.name, [self._courier(url) for url in addresses], stop_s)

    def _courier(self, url: str) -> Courier[Post]:
        settings = self._settings
        waiting: Waiting[Post] = Held(settings.held_posts)
        if settings.spool_dir:
            # each address has a queue of its own; what follows the host may be a secret, as chat rooms make it
            folder = Path(settings.spool_dir) / hashlib.sha256(url.encode()).hexdigest()[:16]
            waiting = OnDisk(folder, settings.spool_max_bytes, _packed, _unpacked, most=settings.held_posts)
        return Courier(self.name, _host(url), waiting, partial(self._post, url))

    async def start(self) -> None:
        """Start to send. No receiver need be there. Raises ``SinkUnavailable`` where the spool cannot be opened."""
        if self._couriers.running or not self._couriers.each:
            return
        await self._couriers.start()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            connector=aiohttp.TCPConnector(ssl=trusting(self._settings.ca_file)),
        )

    async def write(self, output: Output) -> None:
        """Queue what people should know; never waits for a receiver."""
        self._incidents.take(output.alerts)
        for alert in output.alerts if self._couriers.each else ():
            if (post := self._news.post(alert)) is not None:
                for courier in self._couriers.each:
                    await courier.put(Parcel(post.id, post))

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """After a restart or a rebalance: people have been told of these, by whoever had them."""
        held = list(alerts)
        self._incidents.take(held)
        self._news.reopen(held)

    async def _post(self, url: str, posts: Sequence[Post]) -> None:
        """Raises ``SinkUnavailable`` and ``SinkRefused``; neither has the whole address in it."""
        if self._session is None:
            raise SinkUnavailable(f"{_host(url)}: not started")
        for post in posts:
            now_s = int(self._clock())
            headers = {
                "Content-Type": "application/json",
                "webhook-id": post.id,
                "webhook-timestamp": str(now_s),
                "webhook-signature": signature(self._key, post.id, now_s, post.body),
            }
            try:
                async with self._session.post(url, data=post.body, headers=headers, allow_redirects=False) as answer:
                    if answer.status >= 300:
                        _refuse(f"{_host(url)}: HTTP {answer.status}", answer, self._clock())
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise SinkUnavailable(f"{_host(url)}: {type(error).__name__}", 0.0) from None


def _refuse(said: str, answer: aiohttp.ClientResponse, now_s: float) -> NoReturn:
    if answer.status in {401, 403, 404, 408, 425, 429} or answer.status >= 500 or answer.status < 400:
        raise SinkUnavailable(said, _retry_after_s(answer.headers.get("Retry-After"), now_s))
    raise SinkRefused(said)


def _host(url: str) -> str:
    """An address for the log: what follows the host may be a secret, as chat rooms make it."""
    return "/".join(url.split("/", 3)[:3])


def _packed(parcel: Parcel[Post]) -> str:
    return f"{parcel.what.id}\n{parcel.what.body.decode()}"


def _unpacked(text: str) -> Parcel[Post]:
    """Raises ``ValueError``."""
    post_id, newline, body = text.partition("\n")
    if not newline or not post_id:
        raise ValueError("no id")
    return Parcel(post_id, Post(post_id, body.encode()))


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
