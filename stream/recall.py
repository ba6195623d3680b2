"""A stretch of what workers wrote to InfluxDB, as recordings: the readings that a detector judged, ``value_<signal>``.

Asked in InfluxQL on ``/query``, which InfluxDB 1 has, 2 has where the bucket has a DBRP mapping, and 3 has; a page at a
time, asset by asset. What is learnt from must be what the plant sent: history that was thinned, or of a detector that
scores only every so many readings, has holes that no model may take for the plant's pace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stream.errors import ConfigError, NoReadings, SinkUnavailable
from stream.history import bound
from stream.plan import Plan
from stream.sinks.influxclient import InfluxSettings
from stream.sinks.lineprotocol import escape
from stream.sinks.trust import trusting

if TYPE_CHECKING:
    from models.datasets import Recording

_PAGE: Final = 10_000  # points of an answer
#: A step this much longer than the model's period skips a reading ...
_LONGER: Final = 1.5
#: ... and more than this share of such steps are no outages.
_MOST_SKIPS: Final = 0.05


def read_influxdb(
    influx: InfluxSettings,
    plan: Plan,
    detector: str,
    since: str | None,
    until: str | None,
    *,
    signals: Sequence[str],
    period_s: float | None,
) -> list[Recording]:
    """What ``detector`` judged from ``since`` to before ``until`` (RFC 3339), one recording an asset.

    period_s   how far apart the plant's readings are, as the model that serves knows it; None: the usual step

    Raises ``ConfigError`` where rows are missing by rule, ``NoReadings``, ``SinkUnavailable``.
    """
    if not influx.url:
        raise ConfigError("HEADRACE_INFLUX_URL: empty; it says where the history is")
    if plan.thinning.every_s:
        raise ConfigError("thinning: what is in InfluxDB is thinned, and no history to learn from: take the topic")
    if (hop := plan.detectors[detector].hop) > 1:
        raise ConfigError(f"detectors.{detector}.hop: InfluxDB has only every {hop}th reading: take the topic")
    if not signals:
        raise ConfigError(f"detectors.{detector}.signals: name the signals to learn")
    server = _Server(influx)
    whose = [f"\"detector\" = '{_quoted(detector)}'", f"\"site\" = '{_quoted(plan.site)}'"]  # '': no such tag
    where = [f"time >= {at}ms" for at in [bound("--since", since)] if at is not None]
    where += [f"time < {at}ms" for at in [bound("--until", until)] if at is not None]
    recordings = [
        held for asset in server.assets(whose)
        if (held := _recording(server, asset, signals, [*whose, f"\"asset\" = '{_quoted(asset)}'", *where])) is not None
    ]  # fmt: skip
    if not recordings:
        raise NoReadings(f"{influx.url}: {influx.bucket} has no readings of {detector} between {since} and {until}")
    _check_pace(detector, recordings, period_s)
    return recordings


def _recording(server: _Server, asset: str, signals: Sequence[str], where: Sequence[str]) -> Recording | None:
    from models.datasets import Recording  # noqa: PLC0415 (polars is only needed when recordings are)

    pages = list(server.pages([f"value_{escaped(signal)}" for signal in signals], where))
    if not pages:
        return None
    at_ms, values = (np.concatenate([page[part] for page in pages]) for part in (0, 1))
    seen = ~np.isnan(values).all(axis=0)
    names = tuple(signal for signal, there in zip(signals, seen, strict=True) if there)
    return Recording(asset, at_ms, names, values[:, seen], None) if names else None


def _check_pace(detector: str, recordings: Sequence[Recording], period_s: float | None) -> None:
    """Raise ``ConfigError`` if so many readings are missing that somebody left them out."""
    steps_ms = np.concatenate([np.diff(held.at_ms) for held in recordings])
    if not len(steps_ms):
        return
    period_s = float(np.median(steps_ms)) / 1000.0 if period_s is None else period_s
    share = float((steps_ms > _LONGER * 1000.0 * period_s).mean())
    if share > _MOST_SKIPS:
        raise ConfigError(
            f"{detector}: {share:.0%} of the steps in InfluxDB are longer than the {period_s:g} s from one reading to "
            f"the next: it was thinned, or only every so many readings were scored; take the topic, or files"
        )


class _Server:
    """Asks one question at a time."""

    def __init__(self, settings: InfluxSettings) -> None:
        import urllib3  # noqa: PLC0415  # comes with influxdb-client

        self._settings = settings
        token = settings.token.get_secret_value()
        self._away = urllib3.exceptions.HTTPError
        self._pool = urllib3.PoolManager(
            headers={"Authorization": f"Token {token}"} if token else {},
            timeout=settings.timeout_s,
            retries=False,
            ssl_context=trusting(settings.ca_file) if settings.ca_file else None,
        )

    def assets(self, where: Sequence[str]) -> list[str]:
        """The assets that have points."""
        query = f'SHOW TAG VALUES FROM "headrace_score" WITH KEY = "asset" WHERE {" AND ".join(where)}'
        return sorted({str(value) for columns, rows in self._ask(query) for value in _column("value", columns, rows)})

    def pages(self, fields: Sequence[str], where: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        """Times (row,) int64 milliseconds and values (row, field) float64, NaN where missing, in the order of time."""
        # `valid` is in every point: a reading of which nothing could be measured is a row too
        chosen = ", ".join(_name(field) for field in (*fields, "valid"))
        after: list[str] = []
        while True:
            conditions = " AND ".join([*where, *after])
            query = f'SELECT {chosen} FROM "headrace_score" WHERE {conditions} LIMIT {_PAGE}'  # noqa: S608  # quoted
            rows = [row for _, found in self._ask(query) for row in found]
            if rows:
                at_ms = np.array([row[0] for row in rows], dtype=np.int64)
                values = np.array([row[1:-1] for row in rows], dtype=np.float64).reshape(len(rows), len(fields))
                yield at_ms, values
                after = [f"time > {at_ms[-1]}ms"]
            if len(rows) < _PAGE:
                return

    def _ask(self, query: str) -> list[tuple[list[str], list[Any]]]:
        """(columns, rows) of each series. Raises ``SinkUnavailable``, ``ConfigError`` for what only people can mend."""
        url = f"{self._settings.url.rstrip('/')}/query"
        asked = {"db": self._settings.bucket, "q": query, "epoch": "ms"}
        try:
            answer = self._pool.request("GET", url, fields=asked)
        except self._away as error:
            raise SinkUnavailable(f"{self._settings.url}: {error}", 0.0) from None
        try:
            told = json.loads(answer.data)
            result = told["results"][0] if answer.status == 200 else told
        except (ValueError, LookupError, TypeError):
            raise SinkUnavailable(f"{url}: HTTP {answer.status}, which answers no InfluxQL", 0.0) from None
        if wrong := result.get("error") or result.get("message"):
            raise ConfigError(f"{url}: HTTP {answer.status}: {wrong}; see HEADRACE_INFLUX_URL, _TOKEN and _BUCKET")
        return [(series["columns"], series.get("values", [])) for series in result.get("series", [])]


def escaped(signal: str) -> str:
    """A signal as it stands in a field's key: what the line protocol escapes is read back without."""
    return escape(signal).replace("\\,", ",").replace("\\=", "=").replace("\\ ", " ")


def _column(name: str, columns: list[str], rows: list[Any]) -> list[Any]:
    return [row[columns.index(name)] for row in rows]


def _name(field: str) -> str:
    return '"' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
