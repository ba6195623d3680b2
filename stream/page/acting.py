"""What operators do on the live page: a POST with a token becomes a record on the actions' or the labels' topic.

    POST /api/act    {"action": "ack", "asset": "pump-17", "alert": "...", "by": "anna", "comment": ""}
                     "action": ack, shelve (with "for_s"), unshelve, resolve, true, false_alarm (with "fault")

The token travels in a header of its own (``X-Headrace-Token``): a page from elsewhere cannot send one, so nobody acts
for somebody who merely has the page open. Without a token in the settings every POST is refused: the page only shows.
The record goes to the topic whichever worker has the alert; what came of it is read there, as everybody else's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from aiohttp import web
from msgspec import Meta

from stream.actions import LONGEST_SHELF_S, Action, Comment, Who
from stream.errors import BrokerError
from stream.labels import Label
from stream.plan import TopicSettings
from stream.records import Alert, to_json
from stream.sources.base import Asset

_log = logging.getLogger(__name__)

TOKEN_HEADER: Final = "X-Headrace-Token"  # noqa: S105 (its name, not what it holds)
MOST_BYTES: Final = 8 << 10
#: What a wrong token costs: guessing is slow, and it takes no thread.
_WRONG_S: Final = 0.5


class Writer(Protocol):
    """``stream.controlwriter.ControlWriter``."""

    async def write(self, topic: str, key: str, value: bytes) -> None:
        """Write a record; on return it is safe. Raises ``BrokerError``."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...


class Deed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST."""

    action: Literal["ack", "shelve", "unshelve", "resolve", "true", "false_alarm"]
    asset: Asset
    alert: Annotated[str, Meta(min_length=8, max_length=64)]
    by: Who
    comment: Comment = ""
    fault: Annotated[str, Meta(max_length=64)] = ""
    for_s: Annotated[float, Meta(gt=0, le=LONGEST_SHELF_S)] | None = None


class Acting:
    """Takes POSTs.

    token   what they must show; not empty
    """

    def __init__(self, token: str, topics: TopicSettings, writer: Writer) -> None:
        if not token:
            raise ValueError("acting needs a token")
        self._token = token.encode()
        self._topics = topics
        self._writer = writer
        self._decode = msgspec.json.Decoder(Deed).decode

    async def take(self, request: web.Request, known: Callable[[str], Alert | None]) -> web.Response:
        """Answer a POST. ``known``: the newest of an alert, by its id, if this worker has it."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
            raise web.HTTPForbidden(text="from another site")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="application/json")
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), self._token):
            await asyncio.sleep(_WRONG_S)
            raise web.HTTPUnauthorized(text="the token is not right")
        try:
            deed = self._decode(await request.read())
            topic, key, record = self._record(deed, known(deed.alert))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        try:
            await self._writer.write(topic, key, to_json(record))
        except BrokerError as error:
            raise web.HTTPServiceUnavailable(text=f"Kafka did not take it: {error}") from None
        _log.info("page: %s of alert %s by %r from %s", deed.action, deed.alert, deed.by, request.remote)
        return web.json_response({"written": True}, status=202)

    async def stop(self) -> None:
        """Disconnect."""
        await self._writer.stop()

    def _record(self, deed: Deed, alert: Alert | None) -> tuple[str, str, Action | Label]:
        """Topic, key and record. Raises ``msgspec.ValidationError`` and ``HTTPNotFound``."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = {"asset": deed.asset, "by": deed.by, "at": now, "comment": deed.comment, "alert": deed.alert}
        if deed.action not in {"true", "false_alarm"}:
            made: dict[str, Any] = {**said, "id": uuid.uuid4().hex, "action": deed.action}
            if deed.for_s is not None:
                made["for_s"] = deed.for_s
            return self._topics.actions, deed.asset, msgspec.convert(made, Action)
        if alert is None or alert.asset != deed.asset:
            raise web.HTTPNotFound(text="this worker does not know the alert: label it on the page that shows it")
        label = msgspec.convert({**said, **about(alert), "verdict": deed.action, "fault": deed.fault}, Label)
        return self._topics.labels, label.key, label


def about(alert: Alert) -> dict[str, Any]:
    """What a label says of its alert."""
    return {
        "since": alert.onset,
        "until": alert.last_seen,
        "detector": alert.detector,
        "model_version": alert.model_version,
        "ratio": alert.peak / alert.threshold * alert.factor,
    }
