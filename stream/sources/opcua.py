"""The OPC UA bridge: variables of a server, subscribed to, to the readings topic, with their quality and source times.

A server sends what has changed and forgets it when it is taken, so "at least once" needs its history: after an
interruption, of the bridge, of Kafka or of the server, the bridge reads from there what came after the last reading of
each asset that Kafka has (the plan's ``history``). Where a server keeps no history, what it sent meanwhile is lost, as
for every client of it; its own queue (``queue``) bridges seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from stream.bridge.gather import Gatherer, Group, WorkingClock
from stream.bridge.health import BridgeHealth, BridgeMetrics
from stream.bridge.plan import BridgePlan
from stream.bridge.reading import Outlet, PlantReading, Quality, Ticket
from stream.bridge.settings import OpcuaSettings
from stream.bridge.variables import Variable, find_variables
from stream.errors import ConfigError
from stream.times import EPOCH

_log = logging.getLogger(__name__)

_RETRY_S: Final = (1.0, 30.0)
_ITEMS: Final = 1000  # monitored items made with one request
_PAGE: Final = 2000  # values of one variable read from the history at once
_REMEMBER_S: Final = 2.0
#: BadWaitingForInitialData: there is no value yet, and so no time of one.
_WAITING: Final = 0x80320000
#: Of what Part 4 calls the severity of a status code, its two highest bits.
_SEVERITY: Final[dict[int, Quality]] = {0: "good", 1: "uncertain"}


class _Inbox:
    """What the server has sent and was not taken yet, in order; beyond ``most`` no more, and it is ``full`` for good.

    asyncua calls it for each value.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.values: deque[tuple[int, Any]] = deque()
        self.came = asyncio.Event()
        self.full = False
        self.ended = ""

    def datachange_notification(self, _node: Any, _value: Any, data: Any) -> None:
        """Take a value with the handle of its variable."""
        self.full = self.full or len(self.values) >= self._most
        if not self.full:
            self.values.append((data.monitored_item.ClientHandle, data.monitored_item.Value))
        self.came.set()

    def status_change_notification(self, status: Any) -> None:
        """The subscription has ended."""
        self.ended = str(status.Status.name)
        self.came.set()


class Bridge:
    """A bridge from one OPC UA server.

    positions  what was remembered of assets: key -> the time of the last reading that is in Kafka, epoch milliseconds
    transient  only look
    """

    name = "opcua"

    def __init__(
        self,
        plan: BridgePlan,
        settings: OpcuaSettings,
        outlet: Outlet,
        metrics: BridgeMetrics,
        health: BridgeHealth,
        *,
        positions: Mapping[str, bytes] | None = None,
        transient: bool = False,
    ) -> None:
        if plan.opcua is None:
            raise ConfigError("the plan has no [bridge.opcua]: docs/bridges.md shows one")
        self._plan, self._settings, self._wait_s = plan.opcua, settings, plan.wait_s
        self._outlet, self._metrics, self._health = outlet, metrics, health
        self._transient = transient
        self._prefix = self.prefix(settings)
        self._safe_ms = {key.removeprefix(self._prefix): int(value) for key, value in (positions or {}).items()}
        self._changed: set[str] = set()
        self._remembered_at = time.monotonic()
        self._caught_up_ms: dict[str, int] = {}
        self._clock = WorkingClock()
        self._gatherer = Gatherer(self._wait_s, clock=self._clock)
        self._variables: list[Variable] = []
        self._held = 0
        self._told_of_history = False

    @staticmethod
    def prefix(settings: OpcuaSettings) -> str:
        """What the keys begin with under which it remembers."""
        return f"opcua/{settings.url}/"

    def status(self) -> str:
        """In a few words, for the status line."""
        return f"{len(self._variables)} variables of {len({held.asset for held in self._variables})} assets"

    async def run(self, stop: asyncio.Event) -> None:
        """Bridge until ``stop`` is set, then give on what was taken. Raises ``ConfigError``."""
        try:
            from asyncua import ua  # noqa: PLC0415  # of an extra
        except ImportError:
            raise ConfigError("the OPC UA bridge needs its client: pip install 'headrace[opcua]'") from None
        pause_s = _RETRY_S[0]
        while not stop.is_set():
            try:
                await self._session(stop)
                pause_s = _RETRY_S[0]
            except (ua.UaError, OSError, TimeoutError) as error:
                _log.warning("%s: %s; trying again in %g s", self._settings.url, _say(error), pause_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
                pause_s = min(pause_s * 2, _RETRY_S[1])
        await self._give(self._gatherer.drain())
        await self._outlet.flushed()
        await self._remember(at_once=True)
        await self._outlet.flushed()

    async def _session(self, stop: asyncio.Event) -> None:
        """One connection, until it is lost or ``stop`` is set."""
        client = await self._make_client()
        await client.connect()
        lost = asyncio.Event()

        async def when_lost(error: Exception) -> None:
            _log.warning("lost the OPC UA server at %s: %s", self._settings.url, _say(error))
            lost.set()

        client.connection_lost_callback = when_lost
        try:
            inbox = _Inbox(self._plan.max_held)
            subscription = await self._subscribe(client, inbox)
            self._health.plant = True
            self._metrics.connected("plant", True)
            _log.info("connected to %s: %s", self._settings.url, self.status())
            self._told_of_history = False
            if self._plan.history and not self._transient:
                await self._catch_up()
            await self._follow(inbox, subscription, stop, lost)
        finally:
            if not stop.is_set():
                self._metrics.lost("plant")
            self._health.plant = False
            with contextlib.suppress(Exception):  # it may be gone: nothing is left to do with it
                await asyncio.wait_for(client.disconnect(), self._settings.timeout_s)

    async def _make_client(self) -> Any:
        from asyncua import Client, ua  # noqa: PLC0415
        from asyncua.crypto import security_policies  # noqa: PLC0415

        settings = self._settings
        client = Client(settings.url, timeout=settings.timeout_s)
        client.name = client.description = "headrace"
        client.application_uri = settings.application_uri
        client.certificate_validator = None
        if settings.username:
            client.set_user(settings.username)
            client.set_password(settings.password.get_secret_value())
        if settings.security != "None":
            try:
                await client.set_security(
                    getattr(security_policies, f"SecurityPolicy{settings.security}"),
                    _key_material(settings.cert_file),
                    _key_material(settings.key_file),
                    server_certificate=_key_material(settings.server_cert_file),
                    mode=getattr(ua.MessageSecurityMode, settings.mode),
                )
            except (ValueError, OSError) as error:
                raise ConfigError(f"HEADRACE_OPCUA_CERT_FILE, _KEY_FILE, _SERVER_CERT_FILE: {error}") from None
        return client

    async def _subscribe(self, client: Any, inbox: _Inbox) -> Any:
        """Subscribe to all variables of the plan."""
        self._variables = await find_variables(client, self._plan)
        if not self._variables:
            raise ConfigError(
                f"{self._settings.url}: nothing there fits [bridge.opcua]; try headrace bridge opcua --check"
            )
        signals: dict[str, set[str]] = {}
        for held in self._variables:
            signals.setdefault(held.asset, set()).add(held.signal)
        if self._plan.history:
            self._gatherer.forget()  # the history has it, whole
        await self._give(self._gatherer.drain())
        self._gatherer = Gatherer(self._wait_s, signals, self._clock)
        subscription = await client.create_subscription(self._plan.publishing_ms, inbox)
        refused = 0
        for start in range(0, len(self._variables), _ITEMS):
            batch = self._variables[start : start + _ITEMS]
            results = await subscription.create_monitored_items(
                [self._item(held, start + place) for place, held in enumerate(batch)]
            )
            for held, result in zip(batch, results, strict=True):
                if not isinstance(result, int):
                    refused += 1
                    _log.error(
                        "%s does not let us watch %s: %s", self._settings.url, held.node.nodeid.to_string(), result
                    )
        if refused == len(self._variables):
            raise ConfigError(f"{self._settings.url}: it lets us watch none of {refused} variables")
        return subscription

    def _item(self, held: Variable, handle: int) -> Any:
        """A variable as it is to be watched: told of also when only its time or status changes."""
        from asyncua import ua  # noqa: PLC0415

        plan = self._plan
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = held.node.nodeid
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        asked = item.RequestedParameters
        asked.ClientHandle = handle
        asked.SamplingInterval = plan.publishing_ms if plan.sampling_ms is None else plan.sampling_ms
        asked.QueueSize, asked.DiscardOldest = plan.queue, True
        asked.Filter = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        return item

    async def _follow(self, inbox: _Inbox, subscription: Any, stop: asyncio.Event, lost: asyncio.Event) -> None:
        """Give on what the server sends."""
        number = subscription.subscription_id
        tick_s = min(self._wait_s / 4, 0.25)
        while not stop.is_set():
            if inbox.values:
                handle, told = inbox.values.popleft()
                self._metrics.took("value")
                await self._value(self._variables[handle], told)
            elif inbox.full:
                raise ConnectionError("more came than bridge.opcua.max_held while Kafka was away")
            elif inbox.ended:
                raise ConnectionError(f"the subscription ended: {inbox.ended}")
            elif lost.is_set() or subscription.subscription_id != number:
                raise ConnectionError("the connection was lost, or its subscription made anew")
            else:
                inbox.came.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(inbox.came.wait(), tick_s)
            await self._give(self._gatherer.due())
            await self._remember()

    async def _value(self, held: Variable, told: Any) -> None:
        """Take one value."""
        at_ms = _time_ms(told)
        if at_ms <= self._caught_up_ms.get(held.asset, at_ms - 1) and not self._gatherer.waits(held.asset, at_ms):
            return  # the history had it
        if told.StatusCode is not None and told.StatusCode.value == _WAITING:
            self._metrics.skipped("waiting")
            return
        found = _number(told)
        if found is None:
            self._metrics.skipped("not_a_number")
            return
        value, quality = found
        before = self._gatherer.split
        ready = self._gatherer.add(held.asset, held.signal, at_ms, value, quality)
        self._metrics.splits(self._gatherer.split - before)
        await self._give(ready)

    async def _give(self, groups: list[Group]) -> None:
        for group in groups:
            await self._send(group.reading)

    async def _send(self, reading: PlantReading) -> None:
        qualities = list(reading.quality.values())
        self._metrics.judged(qualities, len(reading.values) - len(qualities))
        self._held += 1
        ticket = Ticket(lambda: self._is_safe(reading))
        with self._clock.stopped():
            await self._outlet.reading(reading, (ticket,))
        ticket.release()
        self._metrics.holds(self._held)

    def _is_safe(self, reading: PlantReading) -> None:
        self._held -= 1
        if reading.at_ms > self._safe_ms.get(reading.asset, -1):
            self._safe_ms[reading.asset] = reading.at_ms
            self._changed.add(reading.asset)

    async def _remember(self, *, at_once: bool = False) -> None:
        """Now and then keep how far each asset's readings are in Kafka: what is read again after a crash is little."""
        now = time.monotonic()
        if not self._plan.history or (not at_once and now - self._remembered_at < _REMEMBER_S):
            return
        self._remembered_at = now
        changed, self._changed = self._changed, set()
        for asset in changed:
            await self._outlet.remember(f"{self._prefix}{asset}", str(self._safe_ms[asset]).encode())

    # What follows is about the server's history.

    async def _catch_up(self) -> None:
        """Read what came after the last readings that Kafka has, asset by asset, each in the order of time."""
        await self._outlet.flushed()
        by_asset: dict[str, list[Variable]] = {}
        for held in self._variables:
            by_asset.setdefault(held.asset, []).append(held)
        values = 0
        for asset, variables in by_asset.items():
            since_ms = self._safe_ms.get(asset)
            if since_ms is not None:
                values += await self._catch_up_asset(asset, variables, since_ms)
        self._metrics.history(values)
        if values:
            _log.info("read %d values from the history of %s", values, self._settings.url)

    async def _catch_up_asset(self, asset: str, variables: list[Variable], since_ms: int) -> int:
        """How many values there were. What is read at once is bounded; the rest follows."""
        count = 0
        while True:
            pages = [await self._page(held, since_ms) for held in variables]
            full = [page[-1][0] for page in pages if len(page) >= _PAGE]
            until_ms = min(full) if full else math.inf
            values = [
                (at_ms, place, told)
                for place, page in enumerate(pages)
                for at_ms, told in page
                if since_ms < at_ms <= until_ms
            ]
            values.sort(key=lambda value: value[0])
            for at_ms, place, told in values:
                found = _number(told)
                if found is not None:
                    # a reading may be complete only with what the subscription brings
                    await self._give(self._gatherer.add(asset, variables[place].signal, at_ms, *found))
                    count += 1
                self._caught_up_ms[asset] = at_ms
            if not full or not values:
                return count
            since_ms = int(until_ms)

    async def _page(self, held: Variable, since_ms: int) -> list[tuple[int, Any]]:
        """Values of a variable after a time, with their times, the oldest first; at most ``_PAGE``."""
        from asyncua import ua  # noqa: PLC0415

        start = EPOCH + timedelta(milliseconds=since_ms)
        end = datetime.now(UTC) + timedelta(hours=1)  # the server's clock may be ahead of ours
        try:
            found = await held.node.read_raw_history(start, end, numvalues=_PAGE, return_bounds=False)
        except ua.UaStatusCodeError as error:  # there is none, or none for us: what comes now must not wait for it
            if not self._told_of_history:
                self._told_of_history = True
                _log.warning(
                    "%s gives no history of %s (%s): what it sent while this bridge was away is lost",
                    self._settings.url,
                    held.node.nodeid.to_string(),
                    type(error).__name__,
                )
            return []
        return sorted(((_time_ms(told), told) for told in found), key=lambda pair: pair[0])


def _key_material(file: Path | None) -> Any:
    """A certificate or key as asyncua takes it: PEM or DER by what is in the file, not by its name."""
    from asyncua.crypto.uacrypto import CertProperties  # noqa: PLC0415

    content = (file or Path()).read_bytes()
    return CertProperties(content, extension="pem" if b"-----BEGIN" in content else "der")


def _number(told: Any) -> tuple[float | None, Quality] | None:
    """A value and its quality; None where it is no number. A bad one may have no value at all."""
    code = 0 if told.StatusCode is None else told.StatusCode.value
    quality = _SEVERITY.get(code >> 30, "bad")
    value = None if told.Value is None else told.Value.Value
    if value is None:
        return None, quality if quality != "good" else "bad"
    if not isinstance(value, int | float):
        return None if quality != "bad" else (None, quality)
    try:
        number = float(value)
    except OverflowError:
        return None, "bad"
    return (number if math.isfinite(number) else None), quality


def _time_ms(told: Any) -> int:
    """When a value was observed, epoch milliseconds, rounded down: by its source, else by its server."""
    at = told.SourceTimestamp or told.ServerTimestamp
    if at is None:
        return time.time_ns() // 1_000_000
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
    return int(since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
