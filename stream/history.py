"""A stretch of the readings topic as recordings, to train on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from stream.decode import Decoder
from stream.errors import ConfigError, NoReadings
from stream.plan import Plan
from stream.reader import edges, read_records
from stream.records import Readings
from stream.settings import KafkaSettings

if TYPE_CHECKING:
    from models.datasets import Recording

#: Records at each end of a partition that tell its times.
_EDGE: Final = 20


def read_topic(
    kafka: KafkaSettings, plan: Plan, since: str | None, until: str | None, signals: Sequence[str] = ()
) -> list[Recording]:
    """All readings of the topic observed from ``since`` to before ``until`` (RFC 3339), one recording an asset.

    ``signals``: which; those that the plan names by default. Raises ``ConfigError`` where the plan names none or a time
    is malformed, ``NoReadings``, ``BrokerError``.
    """
    signals = sorted(signals or {signal for held in plan.detectors.values() for signal in held.signals})
    if not signals:
        raise ConfigError("detectors.*.signals: to train from the topic, name the signals to learn")
    since_ms, until_ms = bound("--since", since), bound("--until", until)
    decoder = Decoder(plan.input, signals)
    parts = [decoder.decode(records)[0] for records in read_records(kafka, plan.topics.readings)]
    recordings = _by_asset(parts, signals, since_ms, until_ms)
    if not recordings:
        raise NoReadings(f"{plan.topics.readings}: no reading of the plan's signals between {since} and {until}")
    return recordings


def read_newest(kafka: KafkaSettings, plan: Plan, signals: Sequence[str], most_rows: int) -> list[Recording]:
    """About the ``most_rows`` newest readings of ``signals`` that the topic holds, one recording an asset.

    No more than that is in memory at a time. Raises ``BrokerError``.
    """
    wanted = sorted(signals)
    decoder = Decoder(plan.input, wanted)
    parts: deque[Readings] = deque()
    rows = 0
    for records in read_records(kafka, plan.topics.readings):
        parts.append(decoder.decode(records)[0])
        rows += len(parts[-1].at_ms)
        while rows - len(parts[0].at_ms) >= most_rows:
            rows -= len(parts.popleft().at_ms)
    return _by_asset(list(parts), wanted, None, None)


def held_from_to(kafka: KafkaSettings, plan: Plan, signals: Sequence[str]) -> tuple[int, int] | None:
    """Times of about the oldest and the newest reading of ``signals`` that the topic holds, epoch milliseconds.

    From a few records at each partition's ends, by their medians: one clock that is wrong does not count. None where
    there is nothing. Raises ``BrokerError``.
    """
    decoder = Decoder(plan.input, sorted(signals))
    times = [
        [int(np.median(at_ms)) for records in pair if len(at_ms := decoder.decode(records)[0].at_ms)]
        for pair in edges(kafka, plan.topics.readings, _EDGE)
    ]
    whole = [pair for pair in times if len(pair) == 2]
    return (min(first for first, _ in whole), max(last for _, last in whole)) if whole else None


def bound(option: str, text: str | None) -> int | None:
    """A time given with ``option``, epoch milliseconds. Raises ``ConfigError``."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a time such as 2026-11-23T08:00:00Z") from None
    if at.tzinfo is None:
        raise ConfigError(f"{option}: {text!r} has no offset from UTC: end it with Z")
    return round(at.timestamp() * 1000)


def _by_asset(parts: list[Readings], signals: list[str], since_ms: int | None, until_ms: int | None) -> list[Recording]:
    from models.datasets import Recording  # noqa: PLC0415 (polars is only needed when recordings are)

    names = np.array([name for part in parts for name in np.array(part.names, dtype=object)[part.asset]], dtype=object)
    if not len(names):
        return []
    at_ms = np.concatenate([part.at_ms for part in parts])
    values = np.concatenate([part.values for part in parts])
    wanted = np.ones(len(at_ms), dtype=bool)
    if since_ms is not None:
        wanted &= at_ms >= since_ms
    if until_ms is not None:
        wanted &= at_ms < until_ms
    recordings = []
    for asset in sorted(set(names[wanted])):
        rows = np.flatnonzero(wanted & (names == asset))
        _, newest = np.unique(at_ms[rows], return_index=True)  # sorted by time, repeated readings once
        rows = rows[newest]
        seen = ~np.isnan(values[rows]).all(axis=0)
        recordings.append(
            Recording(
                asset=str(asset),
                at_ms=at_ms[rows],
                signals=tuple(signal for signal, there in zip(signals, seen, strict=True) if there),
                values=values[rows][:, seen],
                labels=None,
            )
        )
    return recordings
