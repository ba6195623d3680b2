"""What is written to Kafka: an output as messages, byte for byte.

Alerts are JSON (``records.Alert``) with the alert's id as the key, so that the topic can be compacted to the last state
of each alert; CloudEvents 1.0 attributes travel as ``ce_*`` headers (Kafka binding, binary mode). Keys are hashed as
they are with murmur2, like the Java client does, so an asset's records stay on one partition whoever writes them.

Dead letters and late readings keep the original key, value and headers byte for byte, and say in ``headrace.*`` headers
where they came from and why. One that is too large for its topic is cut, with its size in ``headrace.truncated``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from models.base import KINDS
from stream.plan import TopicSettings
from stream.records import Alert, DeadLetter, Output, RawRecord, Scores, to_json
from stream.sinks.columns import Chosen, Numbers, Part, Times
from stream.sinks.rows import REASONS, derive
from stream.sinks.text import weave

_CUTS: Final = (1_000_000, 900_000, 500_000, 100_000, 10_000, 500, 0)
_OURS: Final = "headrace."

_VERDICTS: Final = tuple(f',"verdict":"{verdict}"' for verdict in KINDS)
_REASONS: Final = ("", *(f',"reason":"{reason}"' for reason in REASONS[1:]))

_Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One record to write; ``may_cut``: a part of the value is better than nothing."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: _Headers
    may_cut: bool = False


def all_messages(output: Output, topics: TopicSettings, site: str) -> list[Message]:
    """All of ``output`` but its scores, in the order of its topics: alerts, dead letters, late."""
    return list(_messages(output, topics, site))


def _messages(output: Output, topics: TopicSettings, site: str) -> Iterator[Message]:
    for alert in output.alerts:
        yield Message(topics.alerts, alert.id.encode(), to_json(alert), _cloud_event(alert, site))
    for letter in output.dead:
        yield dead_letter(letter, topics)
    for late in output.late:
        yield _carry(topics.late, late.record, {"detail": late.detail})


def dead_letter(letter: DeadLetter, topics: TopicSettings) -> Message:
    """A dead letter: the record as it came, and why in its headers."""
    about = {"error": f"{letter.reason}: {letter.detail}", "reason": letter.reason, "stage": letter.stage}
    return _carry(topics.dead_letters, letter.record, about)


def _cloud_event(alert: Alert, site: str) -> _Headers:
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": f"{alert.id}:{alert.sequence}",
        "ce_source": f"/headrace/{alert.site or site}",
        "ce_type": f"io.headrace.alert.{alert.state}",
        "ce_time": alert.resolved or alert.last_seen,
        "ce_subject": alert.asset,
        "content-type": "application/json",
    }
    return tuple((name, value.encode()) for name, value in attributes.items())


def score_rows(scores: Scores, site: str) -> Iterator[tuple[bytes, bytes]]:
    """Key (the asset) and JSON of each row. What is not finite is left out; ``valid`` and ``reason`` say so.

    Measured values and scores are written exactly, what was worked out from them with seven digits.
    """
    if not len(scores):
        return
    rows = derive(scores)
    about = [
        to_json({"site": site, "asset": asset, "detector": scores.detector, "kind": scores.kind})[:-1].decode()
        for asset in scores.names
    ]
    quoted = tuple(f"{msgspec.json.encode(signal).decode()}:" for signal in scores.signals)
    parts: list[Part] = [
        Chosen(about, scores.asset),
        f',"model_version":{msgspec.json.encode(scores.model_version).decode()},"ts":"',
        Times(scores.at_ms),
        Chosen(('","valid":false', '","valid":true'), rows.valid),
        Chosen((',"anomalous":false', ',"anomalous":true'), scores.anomalous),
        Chosen(_VERDICTS, scores.verdict),
        Chosen(_REASONS, rows.reason),
        Numbers(('"score":',), scores.score[:, None], exact=True),
        Numbers(('"threshold":',), scores.threshold[:, None], exact=True),
    ]
    tables = {"values": scores.values, "expected": scores.expected, "low": rows.low, "high": rows.high}
    for name, table in tables.items():
        if table is not None:
            parts += [f',"{name}":{{', Numbers(quoted, table, exact=name == "values", separated=False), "}"]
    shares = scores.contributions
    parts += [',"shares":{', Numbers(quoted, shares, exact=False, present=shares > 0, separated=False), "}}"]
    assets = [asset.encode() for asset in scores.names]
    for at, row in zip(scores.asset.tolist(), weave(len(scores), parts).split(b"\n"), strict=True):
        yield assets[at], row


def _carry(topic: str, record: RawRecord, about: dict[str, str]) -> Message:
    """A record as it came, with where it came from and ``about`` in its headers.

    The record's own timestamp goes into a header: a broker may refuse old or future ones, and retention goes by them.
    """
    place = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
    }
    headers = [(name, value) for name, value in record.headers if not name.startswith(_OURS)]
    key = record.key
    if (
        key is None and record.value is None
    ):  # the client writes no record that is neither; the header tells it from b""
        key, place["key"] = b"", "null"
    headers += [(_OURS + name, text.encode("utf-8", "replace")) for name, text in {**about, **place}.items()]
    return Message(topic, key, record.value, tuple(headers), may_cut=True)


def smaller(message: Message) -> Iterator[Message]:
    """The same in ever smaller parts: first the value is cut, at last key and foreign headers too."""
    if not message.may_cut:
        return
    value = message.value or b""
    headers = (*message.headers, (_OURS + "truncated", str(len(value)).encode()))
    for size in _CUTS:
        if size < len(value):
            yield replace(message, value=value[:size], headers=headers)
    ours = tuple((name, value and value[:1000]) for name, value in headers if name.startswith(_OURS))
    cut = None if message.value is None else value[:500]
    yield replace(message, key=(message.key or b"")[:1000], value=cut, headers=ours)
