"""Scores and alerts as InfluxDB line protocol: 1.5 us a row of 34 fields, where ``influxdb_client.Point`` takes 400.

Timestamps are nanoseconds. A number that is not finite is never written: the field is left out, and ``valid=false``
with a ``reason`` says that there was no score. Text is escaped as the protocol wants it; in tags and keys a quote,
a backslash or a control character becomes ``%22``, ``%5C``, ``%0A``, ..., because the servers read those differently.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import numpy as np

from models.base import KINDS
from stream.records import Alert, Bool, Float64, Scores
from stream.sinks.columns import Chosen, Numbers, Part, Whole
from stream.sinks.rows import REASONS, derive
from stream.sinks.text import weave

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


_REASONS: Final = ("", *(f",reason={text(reason)}" for reason in REASONS[1:]))
_VERDICTS: Final = ("", *(f",verdict={text(verdict)}" for verdict in KINDS[1:]))


def score_lines(scores: Scores, site: str = "") -> bytes:
    """A line for each row, without a line feed at the end; ``stream.sinks.influxdb`` says what is in it."""
    rows = derive(scores)
    signals = [escape(signal) for signal in scores.signals]

    def fields(name: str, table: Float64, exact: bool, present: Bool | None = None) -> Numbers:
        return Numbers(tuple(f"{name}_{signal}=" for signal in signals), table, exact, present)

    there = np.zeros(len(scores.names), np.bool_)  # a thinned batch may have kept rows of few of its names
    there[scores.asset] = True
    kept = np.flatnonzero(there).tolist()
    parts: list[Part] = [
        Chosen(
            [_head("headrace_score", site, scores.names[asset], scores.detector) for asset in kept],
            (np.cumsum(there) - 1)[scores.asset],
        ),
        Chosen(("valid=false", "valid=true"), rows.valid),
        Chosen((",anomalous=false", ",anomalous=true"), scores.anomalous),
        Chosen(_REASONS, rows.reason),
        Chosen(_VERDICTS, scores.verdict),
        Numbers(("score=",), scores.score[:, None], exact=True),
        Numbers(("threshold=",), scores.threshold[:, None], exact=True),
        fields("value", scores.values, exact=True),
    ]
    tables = {"expected": scores.expected, "low": rows.low, "high": rows.high}
    parts += [fields(name, table, exact=False) for name, table in tables.items() if table is not None]
    if scores.anomalous.any():
        shared = scores.anomalous[:, None] & (scores.contributions > 0)
        parts.append(fields("share", scores.contributions, exact=False, present=shared))
    parts += [f",model_version={text(scores.model_version)} ", Whole(scores.at_ms * _NS_PER_MS)]
    return weave(len(scores), parts)


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


@lru_cache(maxsize=1 << 16)
def _head(measurement: str, site: str, asset: str, detector: str) -> str:
    """Measurement and tags, sorted by key as the servers like them; an empty tag is not allowed and is left out."""
    tags = {"asset": asset, "detector": detector, "site": site}
    return measurement + "".join(f",{key}={escape(value)}" for key, value in tags.items() if value) + " "


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    return repr(value) if isinstance(value, float) else text(value)


def _is_writable(value: Any) -> bool:
    return not isinstance(value, float) or value - value == 0.0
