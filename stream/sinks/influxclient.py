"""Lines to InfluxDB's ``/api/v2/write``: one blocking request at a time, for a thread; and where that is."""

from __future__ import annotations

import email.utils
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import SinkUnavailable
from stream.settings import with_secret_file
from stream.sinks.trust import trusting

_RETRY_STATUS: Final = frozenset({408, 425, 429})
#: About us and not about the lines: a token that has run out, a bucket that is missing. An operator mends that.
_OPERATOR_STATUS: Final = frozenset({401, 403, 404, 407})
_OPERATOR_RETRY_S: Final = 10.0
_SPLIT_STATUS: Final = frozenset({400, 413, 422})  # perhaps only some of the lines are to blame
_MAX_RETRY_AFTER_S: Final = 300.0
_MAX_POSTS: Final = 64  # for one block, when looking for the lines to blame


class InfluxSettings(BaseSettings):
    """Where scores and alerts are kept; read from ``HEADRACE_INFLUX_*``. An empty ``url`` turns the sink off.

    url, org, bucket, token   where, and how to be let in
    ca_file        certificates (PEM) of the authorities to trust in place of the usual ones, where ``url`` is https
    timeout_s      for one request
    batch_lines    lines in one request
    held_lines, held_bytes    what is held in memory at most; an hour of 250 readings a second of 15 signals by default
    spool_dir      folder for what is beyond that, or must survive a restart: lines go there while the server is away,
                   and from there to the server, in order, when it is back. Empty: memory only
    spool_max_bytes           of each worker that uses the folder; a line of ten signals takes some 300 bytes there
    when_full      what happens when there is no more room: ``wait`` slows the whole worker down to the server's pace
                   and loses nothing, ``drop_oldest`` keeps alerts on time and loses the oldest history, counted;
                   ``auto`` waits for a server that takes lines, and drops where none does
    linger_s       how long the first line of a block waits for others
    gzip           a fifth of the traffic for three times the work: for a server that is far away
    token_file     the token's file, in place of ``token``
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_INFLUX_", frozen=True)

    url: Annotated[str, Field(pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$")] = ""
    org: str = "headrace"
    bucket: str = "headrace"
    token: SecretStr = SecretStr("")
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    batch_lines: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    held_lines: Annotated[int, Field(ge=1_000)] = 1_000_000
    held_bytes: Annotated[int, Field(ge=1 << 20)] = 512 << 20
    spool_dir: str = ""
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    when_full: Literal["auto", "wait", "drop_oldest"] = "auto"
    linger_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    gzip: bool = False

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "token", "HEADRACE_INFLUX_TOKEN")

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, given: Path | None) -> Path | None:
        if given is not None:
            trusting(given)
        return given

    @field_validator("spool_dir")
    @classmethod
    def _usable(cls, given: str) -> str:
        if not given:
            return given
        folder = Path(given).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"{there} is no folder that this user may write to")
        return str(folder)


class InfluxClient:
    """Writes lines with influxdb-client over a connection that is kept. Imports it when made: it takes half a second.

    Lines are made by ``stream.sinks.lineprotocol`` and handed over as bytes: a ``Point`` each costs a hundred times as
    much. Its retries are off, for they would sleep in the thread and hide what the server said.
    """

    def __init__(self, settings: InfluxSettings) -> None:
        from influxdb_client import InfluxDBClient  # noqa: PLC0415  # see above
        from influxdb_client.client.exceptions import InfluxDBError  # noqa: PLC0415
        from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  # comes with it

        self._settings = settings
        self._answered = InfluxDBError
        self._away = (HTTPError, OSError)
        self._client = InfluxDBClient(
            settings.url.rstrip("/"),
            token=settings.token.get_secret_value(),
            org=settings.org,
            timeout=int(settings.timeout_s * 1000),
            enable_gzip=settings.gzip,
            retries=False,
            ssl_context=trusting(settings.ca_file) if settings.ca_file else None,
        )
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def post(self, lines: bytes) -> list[tuple[list[bytes], str]]:
        """Write lines. Returns those that the server will never take, with its reasons.

        Where the server says that something in them is wrong, it is given halves, and halves of those, until the lines
        to blame stand alone; the others are written. Raises ``SinkUnavailable`` to try again with all: writing a line
        twice does no harm.
        """
        reason = self._post_once(lines)
        if not reason:
            return []
        refused: list[tuple[list[bytes], str]] = []
        waiting, posts = [(lines.split(b"\n"), reason)], 1
        while waiting:
            part, reason = waiting.pop()
            if reason.startswith("split ") and len(part) > 1 and posts < _MAX_POSTS:
                middle = len(part) // 2
                halves = [part[:middle], part[middle:]]
                waiting += [(half, self._post_once(b"\n".join(half))) for half in halves]
                posts += 2
            elif reason:
                refused.append((part, reason.removeprefix("split ")))
        return refused

    def _post_once(self, lines: bytes) -> str:
        """One request. Returns why the lines were refused, or "". Raises ``SinkUnavailable``."""
        try:
            self._api.write(self._settings.bucket, record=lines)
        except self._answered as error:
            status = getattr(error, "status", None) or 0
            answer = getattr(error, "response", None)
            said = "" if answer is None else _message(answer.data or "")
            said = said or getattr(error, "reason", "") or type(error).__name__  # its text has all headers in it
            reason = f"HTTP {status}: {self._without_token(said)}"
            if status in _OPERATOR_STATUS:
                reason += "; see HEADRACE_INFLUX_URL, _TOKEN, _ORG and _BUCKET"
                raise SinkUnavailable(reason, _OPERATOR_RETRY_S) from None
            if status in _RETRY_STATUS or not 400 <= status < 500:
                raise SinkUnavailable(reason, _retry_after_s(getattr(error, "headers", None))) from None
            return ("split " if status in _SPLIT_STATUS else "") + reason
        except self._away as error:
            raise SinkUnavailable(f"{self._settings.url}: {self._without_token(str(error))}", 0.0) from None
        return ""

    def _without_token(self, said: str) -> str:
        token = self._settings.token.get_secret_value()
        said = said.replace(token, "***") if token else said
        return said if len(said) <= 300 else said[:300] + "..."


def _message(said: bytes | str) -> str:
    """What the server says is wrong: InfluxDB 2's ``message``, InfluxDB 1's ``error``, or all it says."""
    text = (said if isinstance(said, str) else said.decode("utf-8", "replace")).strip()
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("message") or found.get("error") or text) if isinstance(found, dict) else text


def _retry_after_s(headers: Any) -> float:
    """What the server asks for, in seconds or as a date; 0 if it does not."""
    value = next((value for key, value in dict(headers or {}).items() if key.lower() == "retry-after"), "")
    if value.strip().isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        return min(max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0), _MAX_RETRY_AFTER_S)
    except (ValueError, TypeError):
        return 0.0
