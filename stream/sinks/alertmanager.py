"""Alerts straight to Prometheus' Alertmanager, which groups, routes, silences and tells people.

One Alertmanager alert for each open alert of Headrace: its labels are who it is (alertname ``HeadraceAlert``, site,
asset, detector, kind, severity, and its line if the plan has one for it), its annotations what is known now (score,
threshold, causes, incident, where to look first, ...). As Alertmanager expects of its clients, what is open is sent
again every ``resend_every_s`` with an ``endsAt`` three such times ahead, so that the alerts of a worker that died end
by themselves unless another takes over; what is resolved is sent with the ``endsAt`` of its resolution. Severity is a
label, for routes go by it: where an alert becomes worse, the milder ends.

The sink is not essential: ``write`` only notes what has changed, and a task for each Alertmanager posts it. They are
told independently, as a cluster of them wants it (they remove what they have twice); one that is away costs the others
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkRefused, SinkUnavailable
from stream.incidentbook import IncidentBook
from stream.incidents import Incident, look_first
from stream.records import Alert, Output
from stream.settings import with_secret_file
from stream.sinks.trust import trusting

_log = logging.getLogger(__name__)

ALERT_NAME: Final = "HeadraceAlert"
_BATCH: Final = 250
_LIVES: Final = 3  # an alert that is not sent again ends after so many times ``resend_every_s``
_WORTH_TELLING: Final = 0.01  # a pager need not name signals with less than a hundredth of the blame
_MAX_BACKOFF_S: Final = 30.0

#: An alert with one severity: what Alertmanager tells apart.
Key = tuple[str, str]


class AlertmanagerSettings(BaseSettings):
    """Where alerts are sent; read from ``HEADRACE_ALERTMANAGER_*``. Empty ``urls`` turn the sink off.

    urls            of every Alertmanager of the cluster, with commas; not of a load balancer before them
    token, token_file    sent as a bearer token; the file that it is in, in its place
    username, password, password_file   in place of a token
    ca_file         certificates (PEM) of the authorities to trust in place of the system's, where urls are https
    timeout_s       for one request
    resend_every_s  how often what is open is sent again
    held_alerts     changes held for an Alertmanager that is away; beyond, the oldest are dropped, and counted
    link            where a person finds out more; ``{asset}``, ``{detector}`` and ``{site}`` are filled in, for example
                    ``https://grafana.example/d/headrace-asset?var-asset={asset}&var-detector={detector}``
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_ALERTMANAGER_", frozen=True)

    urls: Annotated[str, Field(pattern=r"^(https?://[^\s,?#@]+(,https?://[^\s,?#@]+)*)?$")] = ""
    token: SecretStr = SecretStr("")
    token_file: Path | None = None
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    resend_every_s: Annotated[float, Field(ge=1, le=600)] = 60.0
    held_alerts: Annotated[int, Field(ge=100)] = 100_000
    link: str = ""

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        given = with_secret_file(given, "token", "HEADRACE_ALERTMANAGER_TOKEN")
        return with_secret_file(given, "password", "HEADRACE_ALERTMANAGER_PASSWORD")

    @model_validator(mode="after")
    def _usable(self) -> AlertmanagerSettings:
        try:
            self.link.format(site="", asset="", detector="")
        except (KeyError, IndexError, ValueError):
            raise ValueError("link: only {site}, {asset} and {detector} can be filled in") from None
        if self.ca_file is not None:
            trusting(self.ca_file)
        return self

    def headers(self) -> dict[str, str]:
        """What says who we are."""
        if token := self.token.get_secret_value():
            return {"Authorization": f"Bearer {token}"}
        if self.username:
            return {"Authorization": aiohttp.BasicAuth(self.username, self.password.get_secret_value()).encode()}
        return {}


@dataclass(slots=True)
class _Target:
    """One Alertmanager and what it has yet to be told: whether an alert of one severity is open or has ended."""

    url: str
    waiting: dict[Key, tuple[Alert, bool]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, alert: Alert, severity: str, *, ended: bool) -> None:
        key = (alert.id, severity)
        self.waiting.pop(key, None)  # the newest state is told last, and once
        self.waiting[key] = (alert, ended)
        self.changed.set()


class AlertmanagerSink:
    """Keeps the alerts that are open, and posts what changes and, again and again, what is open.

    incidents   of the plan's lines; this worker's alerts are put there before they are told
    clock   seconds since 1970, for the times that Alertmanager is given
    stop_s  how long ``stop`` tries to tell what has changed

    ``held_lines``, ``written_lines``, ``refused_lines``, ``dropped_lines``, ``spooled_bytes`` and ``failed_writes`` are
    for the metrics; a line is an alert here.
    """

    name = "alertmanager"
    essential = False
    spooled_bytes = 0  # what is open is sent again in any case: nothing is worth a disk

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        incidents: IncidentBook | None = None,
        clock: Callable[[], float] = time.time,
        stop_s: float = 5.0,
    ) -> None:
        self._settings = settings
        self._incidents = incidents or IncidentBook({})
        self._clock = clock
        self._stop_s = stop_s
        self._open: dict[str, Alert] = {}
        self._targets = [_Target(f"{url.rstrip('/')}/api/v2/alerts") for url in settings.urls.split(",") if url]
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self.written_lines = 0
        self.refused_lines = 0
        self.dropped_lines = 0
        self.failed_writes = 0

    @property
    def held_lines(self) -> int:
        """What has changed and is not yet told, all Alertmanagers together."""
        return sum(len(target.waiting) for target in self._targets)

    async def start(self) -> None:
        """Start to tell. No Alertmanager need be there."""
        if self._tasks or not self._targets:
            return
        self._stopping.clear()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers=self._settings.headers(),
            connector=aiohttp.TCPConnector(ssl=trusting(self._settings.ca_file)),
        )
        self._tasks = [
            asyncio.create_task(self._tell_on(target, self._session), name="headrace-alertmanager")
            for target in self._targets
        ]

    async def write(self, output: Output) -> None:
        """Note the transitions; never waits."""
        self._incidents.take(output.alerts)
        for alert in output.alerts if self._targets else ():
            before = self._open.pop(alert.id, None)
            if before is not None and before.severity != alert.severity:
                self._tell(alert, before.severity, ended=True)
            ended = not alert.told  # nobody is told of one that is shelved or suppressed: it ends there
            if not ended:
                self._open[alert.id] = alert
            self._tell(alert, alert.severity, ended=ended)

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """Replace what is known of open alerts: after a restart or a rebalance, when others may tell of some."""
        held = list(alerts)
        self._incidents.take(held)
        self._open = {alert.id: alert for alert in held if alert.told}
        for target in self._targets:
            for key, (alert, ended) in list(target.waiting.items()):
                if not ended and alert.id not in self._open:
                    del target.waiting[key]
        for alert in self._open.values():
            self._tell(alert, alert.severity, ended=False)

    async def stop(self) -> None:
        """Tell what has changed, within ``stop_s`` seconds. What is open stays open for another worker to tell of."""
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
            _log.warning("alertmanager: stopped with %d changes not told", self.held_lines)
        if self._session is not None:
            await self._session.close()

    def _tell(self, alert: Alert, severity: str, *, ended: bool) -> None:
        for target in self._targets:
            target.tell(alert, severity, ended=ended)
            while len(target.waiting) > self._settings.held_alerts:
                del target.waiting[next(iter(target.waiting))]
                self.dropped_lines += 1

    async def _tell_on(self, target: _Target, session: aiohttp.ClientSession) -> None:
        """Until stopped and told: what changes at once, what is open now and then."""
        resend_at = time.monotonic() + self._settings.resend_every_s
        attempt = 0
        while True:
            if not target.waiting:
                if self._stopping.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(resend_at - time.monotonic(), 0.0)):
                        await target.changed.wait()
            target.changed.clear()
            if time.monotonic() >= resend_at:
                resend_at = time.monotonic() + self._settings.resend_every_s
                for alert in self._open.values():
                    target.waiting.setdefault((alert.id, alert.severity), (alert, False))
            batch = dict(list(target.waiting.items())[:_BATCH])
            if not batch:
                continue
            try:
                await self._post(target, session, batch)
            except SinkUnavailable as error:
                self.failed_writes += 1
                if attempt == 0:
                    _log.warning("alertmanager: %s; %d changes are held", error, len(target.waiting))
                await self._pause(_backoff_s(attempt))
                attempt += 1
            except Exception:  # a fault of ours: what it was about is lost, what comes after it must not be
                _log.exception("alertmanager: %d alerts cannot be told", len(batch))
                self.refused_lines += len(batch)
                for key in batch:
                    target.waiting.pop(key, None)
            else:
                if attempt:
                    _log.info("alertmanager: %s takes alerts again after %d failed posts", target.url, attempt)
                attempt = 0

    async def _post(
        self, target: _Target, session: aiohttp.ClientSession, batch: Mapping[Key, tuple[Alert, bool]]
    ) -> None:
        """Tell a batch; if something in it is refused, one by one. Raises ``SinkUnavailable``."""
        try:
            await self._post_once(target, session, batch)
        except SinkRefused as error:
            if len(batch) > 1:
                for key, held in batch.items():
                    await self._post(target, session, {key: held})
                return
            self.refused_lines += 1
            _log.error("alertmanager: refused %.500s: %s", self._bodies(batch)[0]["labels"], error)
        else:
            self.written_lines += len(batch)
        for key, held in batch.items():
            if target.waiting.get(key) is held:  # else it has changed meanwhile
                del target.waiting[key]

    async def _post_once(
        self, target: _Target, session: aiohttp.ClientSession, batch: Mapping[Key, tuple[Alert, bool]]
    ) -> None:
        headers = {"Content-Type": "application/json"}
        try:
            async with session.post(
                target.url, data=msgspec.json.encode(self._bodies(batch)), headers=headers
            ) as answer:
                if answer.status < 300:
                    return
                said = f"{target.url}: HTTP {answer.status}: {(await answer.text())[:300]}"
                if answer.status in {408, 425, 429} or answer.status in {401, 403, 404} or answer.status >= 500:
                    raise SinkUnavailable(said)  # 401 to 404: an operator can mend these
                raise SinkRefused(said)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"{target.url}: {type(error).__name__} {error}") from None

    def _bodies(self, batch: Mapping[Key, tuple[Alert, bool]]) -> list[dict[str, Any]]:
        return [
            body(
                alert,
                severity,
                ended=ended,
                now=self._clock(),
                lives_s=_LIVES * self._settings.resend_every_s,
                link=self._settings.link,
                line=self._incidents.line(alert.asset),
                incident=self._incidents.of(alert),
            )
            for (_, severity), (alert, ended) in batch.items()
        ]

    async def _pause(self, seconds: float) -> None:
        """Sleep; much shorter when the worker is about to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may lose a cancellation, and stop would hang
                await self._stopping.wait()
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, 0.25))


def body(
    alert: Alert,
    severity: str,
    *,
    ended: bool,
    now: float,
    lives_s: float,
    link: str = "",
    line: str = "",
    incident: Incident | None = None,
) -> dict[str, Any]:
    """One alert as Alertmanager's API v2 takes it.

    The line is a label, for Alertmanager groups by labels, and it stays what it is; which incident the alert is part of
    may become another while alerts that began earlier come to be known, so it is an annotation.

    Times are the plant's as far as Alertmanager can use them: none lies ahead of ``now``, for a plant's clock may run
    ahead and a recording's lies behind, and an alert whose end is past counts as resolved.
    """
    starts = min(_seconds(alert.onset), now)
    ends = min(max(_seconds(alert.resolved or alert.last_seen), starts), now) if ended else now + lives_s
    labels = {
        "alertname": ALERT_NAME,
        "site": alert.site,
        "asset": alert.asset,
        "detector": alert.detector,
        "kind": alert.kind,
        "severity": severity,
        "line": line,
    }
    causes = ", ".join(f"{cause.signal} {cause.share:.0%}" for cause in alert.causes if cause.share >= _WORTH_TELLING)
    annotations = {
        "summary": f"{alert.asset}: {causes or alert.verdict}",
        "description": f"{alert.detector} scores {alert.score:.4g} where {alert.threshold:.4g} is an alarm, since "
        f"{alert.onset}; at most {alert.peak:.4g} at {alert.peak_at}",
        "score": f"{alert.score:.6g}",
        "threshold": f"{alert.threshold:.6g}",
        "peak": f"{alert.peak:.6g}",
        "confidence": f"{alert.confidence:.3g}",
        "causes": causes,
        "verdict": alert.verdict,
        "onset": alert.onset,
        "last_seen": alert.last_seen,
        "model_version": alert.model_version,
        "alert_id": alert.id,
        "incident": "" if incident is None else incident.id,
        "incident_alerts": "" if incident is None else str(len(incident.alerts)),
        "look_first": "" if incident is None else look_first(incident),
    }
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _stamp(starts),
        "endsAt": _stamp(ends),
        "generatorURL": link.format(
            site=quote(alert.site, safe=""), asset=quote(alert.asset, safe=""), detector=quote(alert.detector, safe="")
        ),
    }


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _backoff_s(attempt: int) -> float:
    """0.5 s doubling up to 30 s, each with a random part so that workers do not come back all at once."""
    return float(min(0.5 * 2.0 ** min(attempt, 10), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
