"""Alerts straight to Prometheus' Alertmanager, which groups, routes, silences and tells people.

One Alertmanager alert for each open alert of Headrace: its labels are who it is (alertname ``HeadraceAlert``, site,
asset, detector, kind, severity, and its line if the plan has one for it), its annotations what is known now (score,
threshold, causes, incident, where to look first, ...). As Alertmanager expects of its clients, what is open is sent
again every ``resend_every_s`` with an ``endsAt`` three such times ahead, so that the alerts of a worker that died end
by themselves unless another takes over; what is resolved is sent with the ``endsAt`` of its resolution. Severity is a
label, for routes go by it: where an alert becomes worse, the milder ends.

The sink is not essential: ``write`` only notes what has changed, and a task for each Alertmanager posts it
(``stream.sinks.courier``). They are told independently, as a cluster of them wants it (they remove what they have
twice); one that is away costs the others nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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
from stream.sinks.courier import Courier, Couriers, Held, Parcel
from stream.sinks.telling import TellingSink
from stream.sinks.trust import trusting

ALERT_NAME: Final = "HeadraceAlert"
_BATCH: Final = 250
_LIVES: Final = 3  # an alert that is not sent again ends after so many times ``resend_every_s``
_WORTH_TELLING: Final = 0.01  # a pager need not name signals with less than a hundredth of the blame
_LONGEST_PAUSE_S: Final = 30.0


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


@dataclass(frozen=True, slots=True)
class _Told:
    """Whether an alert is open, or has ended, at one severity."""

    alert: Alert
    severity: str
    ended: bool

    def parcel(self) -> Parcel[_Told]:
        """To bring: the newest state is told last, and once."""
        return Parcel((self.alert.id, self.severity), self)


class AlertmanagerSink(TellingSink[_Told]):
    """Keeps the alerts that are open, and posts what changes and, again and again, what is open.

    incidents   of the plan's lines; this worker's alerts are put there before they are told
    clock   seconds since 1970, for the times that Alertmanager is given
    stop_s  how long ``stop`` tries to tell what has changed

    What is open when it stops stays open for another worker to tell of, and is sent again in any case: nothing is worth
    a disk.
    """

    name = "alertmanager"

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        incidents: IncidentBook | None = None,
        clock: Callable[[], float] = time.time,
        stop_s: float = 5.0,
    ) -> None:
        super().__init__(incidents)
        self._settings = settings
        self._clock = clock
        self._open: dict[str, Alert] = {}
        urls = [f"{url.rstrip('/')}/api/v2/alerts" for url in settings.urls.split(",") if url]
        self._waiting: list[Held[_Told]] = [Held(settings.held_alerts) for _ in urls]
        self._couriers = Couriers(
            self.name, [self._courier(url, held) for url, held in zip(urls, self._waiting, strict=True)], stop_s
        )

    def _courier(self, url: str, waiting: Held[_Told]) -> Courier[_Told]:
        def refill() -> None:
            for alert in self._open.values():
                waiting.remind(_Told(alert, alert.severity, ended=False).parcel())

        return Courier(
            self.name,
            url,
            waiting,
            partial(self._post, url),
            batch=_BATCH,
            longest_pause_s=_LONGEST_PAUSE_S,
            refill=refill,
            every_s=self._settings.resend_every_s,
        )

    async def start(self) -> None:
        """Start to tell. No Alertmanager need be there."""
        if self._couriers.running or not self._couriers.each:
            return
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers=self._settings.headers(),
            connector=aiohttp.TCPConnector(ssl=trusting(self._settings.ca_file)),
        )
        await self._couriers.start()

    async def write(self, output: Output) -> None:
        """Note the transitions; never waits."""
        self._incidents.take(output.alerts)
        for alert in output.alerts if self._couriers.each else ():
            before = self._open.pop(alert.id, None)
            if before is not None and before.severity != alert.severity:
                self._tell(_Told(alert, before.severity, ended=True))
            ended = not alert.told  # nobody is told of one that is shelved or suppressed: it ends there
            if not ended:
                self._open[alert.id] = alert
            self._tell(_Told(alert, alert.severity, ended=ended))

    def reopen(self, alerts: Iterable[Alert]) -> None:
        """Replace what is known of open alerts: after a restart or a rebalance, when others may tell of some."""
        held = list(alerts)
        self._incidents.take(held)
        self._open = {alert.id: alert for alert in held if alert.told}
        for waiting in self._waiting:
            waiting.drop(lambda told: not told.ended and told.alert.id not in self._open)
        for alert in self._open.values():
            self._tell(_Told(alert, alert.severity, ended=False))

    def _tell(self, told: _Told) -> None:
        for waiting, courier in zip(self._waiting, self._couriers.each, strict=True):
            courier.figures.dropped += waiting.add(told.parcel())
            courier.wake()

    async def _post(self, url: str, batch: Sequence[_Told]) -> None:
        """Raises ``SinkUnavailable`` and ``SinkRefused``."""
        if self._session is None:
            raise SinkUnavailable(f"{url}: not started")
        headers = {"Content-Type": "application/json"}
        bodies = msgspec.json.encode([self._body(told) for told in batch])
        try:
            async with self._session.post(url, data=bodies, headers=headers) as answer:
                if answer.status < 300:
                    return
                said = f"{url}: HTTP {answer.status}: {(await answer.text())[:300]}"
                if answer.status in {408, 425, 429} or answer.status in {401, 403, 404} or answer.status >= 500:
                    raise SinkUnavailable(said)  # 401 to 404: an operator can mend these
                raise SinkRefused(said)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"{url}: {type(error).__name__} {error}") from None

    def _body(self, told: _Told) -> dict[str, Any]:
        return body(
            told.alert,
            told.severity,
            ended=told.ended,
            now=self._clock(),
            lives_s=_LIVES * self._settings.resend_every_s,
            link=self._settings.link,
            line=self._incidents.line(told.alert.asset),
            incident=self._incidents.of(told.alert),
        )


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
