"""Scores and alerts as InfluxDB line protocol, column by column: 5 us a row, where ``influxdb_client.Point`` takes 100.

Timestamps are nanoseconds. A number that is not finite is never written: the field is left out, and ``valid=false``
with a ``reason`` says that there was no score. Text is escaped as the protocol wants it; in tags and keys a quote,
a backslash or a control character becomes ``%22``, ``%5C``, ``%0A``, ..., because the servers read those differently.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from stream.records import Alert, Float64, Scores
from stream.sinks.rows import derive

_UNSAFE: Final = re.compile(r"[\\\"\x00-\x1f\x7f]")
_ESCAPES: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT: Final = str.maketrans({'"': r"\"", "\\": r"\\", "\n": " ", "\r": " "})
_NS_PER_MS: Final = 1_000_000


def escape(name: str) -> str:
    """A tag's key or value, or a field's key."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name).translate(_ESCAPES)


def text(value: str) -> str:
    """A field's value that is text, in its quotes; in one line."""
    return f'"{value.translate(_TEXT)}"'


def score_lines(scores: Scores, site: str = "") -> list[str]:
    """One line a row of ``headrace_score``; ``stream.sinks.influxdb`` says what is in it."""
    rows = derive(scores)
    heads = [_head("headrace_score", site, asset, scores.detector) for asset in scores.names]
    tail = f",model_version={text(scores.model_version)} "
    columns: list[list[str]] = [
        [heads[asset] for asset in scores.asset.tolist()],
        ["valid=true" if ok else "valid=false" for ok in rows.valid.tolist()],
        _floats("score", scores.score),
        _floats("threshold", scores.threshold),
        [",anomalous=true" if on else ",anomalous=false" for on in scores.anomalous.tolist()],
        [f",reason={text(reason)}" if reason else "" for reason in rows.reason],
        [f",verdict={text(verdict)}" if verdict != "model" else "" for verdict in rows.verdict],
    ]
    shares = np.where(scores.anomalous[:, None] & (scores.contributions > 0), scores.contributions, np.nan)
    tables = {
        "value": scores.values,
        "expected": scores.expected,
        "low": rows.low,
        "high": rows.high,
        "share": shares if scores.anomalous.any() else None,
    }
    for name, table in tables.items():
        if table is not None:
            keys = (f"{name}_{escape(signal)}" for signal in scores.signals)
            columns += [_floats(key, table[:, at], exact=name == "value") for at, key in enumerate(keys)]
    columns.append([f"{tail}{at_ms * _NS_PER_MS}" for at_ms in scores.at_ms.tolist()])
    return list(map("".join, zip(*columns, strict=True)))


def alert_line(alert: Alert, site: str = "") -> str:
    """One transition as a line of ``headrace_alert``.

    Its time is that of the reading that caused it; the transition's sequence stands in the nanoseconds, so that two
    transitions of one asset in the same millisecond are two points, and the same one written twice is one.
    """
    at_ms = int(np.datetime64((alert.resolved or alert.last_seen).removesuffix("Z"), "ms").astype(np.int64))
    fields: dict[str, Any] = {
        "state": alert.state,
        "severity": alert.severity,
        "verdict": alert.verdict,
        "id": alert.id,
        "sequence": alert.sequence,
        "kind": alert.kind,
        "model_version": alert.model_version,
        "active": alert.state != "resolved",
        "score": alert.score,
        "threshold": alert.threshold,
        "peak": alert.peak,
        "confidence": alert.confidence,
        "onset": alert.onset,
        "causes": ", ".join(f"{cause.signal} {cause.share:.0%}" for cause in alert.causes),
    }
    for cause in alert.causes:
        fields[f"share_{cause.signal}"] = float(cause.share)
    pairs = ",".join(f"{escape(name)}={_field(value)}" for name, value in fields.items() if _is_writable(value))
    head = _head("headrace_alert", alert.site or site, alert.asset, alert.detector)
    return f"{head}{pairs} {at_ms * _NS_PER_MS + alert.sequence % _NS_PER_MS}"


def _head(measurement: str, site: str, asset: str, detector: str) -> str:
    """Measurement and tags, sorted by key as the servers like them; an empty tag is not allowed and is left out."""
    tags = {"asset": asset, "detector": detector, "site": site}
    return measurement + "".join(f",{key}={escape(value)}" for key, value in tags.items() if value) + " "


def _floats(key: str, column: Float64, *, exact: bool = True) -> list[str]:
    """``,key=value`` for each row, "" where it is not finite; seven digits unless ``exact``."""
    start = f",{key}="
    values = column.tolist()
    if exact:
        return [f"{start}{value!r}" if value - value == 0.0 else "" for value in values]
    return [f"{start}{value:.7g}" if value - value == 0.0 else "" for value in values]


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    return repr(value) if isinstance(value, float) else text(value)


def _is_writable(value: Any) -> bool:
    return not isinstance(value, float) or value - value == 0.0
