"""Alerts, scores, dead letters and late readings to Kafka topics. Essential: no batch is acknowledged without it.

Alerts are JSON (``records.Alert``) with the alert's id as the key, so that the topic can be compacted to the last state
of each alert; CloudEvents 1.0 attributes travel as ``ce_*`` headers (Kafka binding, binary mode). Keys are hashed as
they are with murmur2, like the Java client does, so an asset's records stay on one partition whoever writes them.

Dead letters and late readings keep the original key, value and headers byte for byte, and say in ``headrace.*`` headers
where they came from and why. One that is too large for its topic is cut, with its size in ``headrace.truncated``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaProducer, errors

from stream.errors import SinkRefused, SinkUnavailable
from stream.records import Alert, DeadLetter, Output, RawRecord, Record, Scores, to_json
from stream.settings import KafkaSettings, TopicSettings
from stream.sinks.rows import derive

_log = logging.getLogger(__name__)

_TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
#: Only an operator can mend these (an ACL, a topic's name): hold on to everything, ask again now and then.
_NEEDS_OPERATOR: Final = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.AuthenticationFailedError,
    errors.InvalidTopicError,
    errors.UnknownTopicOrPartitionError,
    errors.InvalidRequiredAcksError,
    errors.UnsupportedVersionError,
)
#: These are about the record itself: it will be refused for ever. By name, as not every aiokafka has each.
_REFUSED: Final = tuple(
    getattr(errors, name)
    for name in ("CorruptRecordException", "InvalidTimestampError", "PolicyViolationError", "InvalidRecordError")
    if hasattr(errors, name)
)
_OPERATOR_RETRY_S: Final = 5.0
_CUTS: Final = (1_000_000, 900_000, 500_000, 100_000, 10_000, 500, 0)
_OURS: Final = "headrace."

_Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class _Message:
    """One record to write; ``may_cut``: a part of the value is better than nothing."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: _Headers
    may_cut: bool = False


class KafkaSink:
    """Writes to the topics of ``topics`` with a producer of its own, acknowledged by all replicas.

    It compresses with gzip, which every client reads: kafka-python needs other packages for lz4, snappy and zstd.

    site           the plant's name, in the alerts' ``ce_source``
    timeout_s      how long a record is offered to the cluster before ``write`` raises ``SinkUnavailable``
    producer       makes the producer; for tests
    """

    name = "kafka"
    essential = True

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicSettings,
        *,
        site: str = "",
        timeout_s: float = 15.0,
        producer: Callable[..., Any] = AIOKafkaProducer,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._site = site
        self._timeout_s = timeout_s
        self._make = producer
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises ``SinkUnavailable`` naming the address if no broker answers."""
        async with self._starting:
            if self._producer is not None:
                return
            producer = self._make(
                **self._kafka.client_options(),
                client_id="headrace-sink",
                acks="all",
                compression_type="gzip",
                max_batch_size=256 << 10,
                max_request_size=self._kafka.max_record_bytes,
                request_timeout_ms=int(self._timeout_s * 1000),
            )
            try:
                await producer.start()
            except (errors.KafkaError, OSError, TimeoutError) as error:
                await _close(producer, 1.0)
                raise SinkUnavailable(
                    f"no Kafka broker answers at {self._kafka.bootstrap} (HEADRACE_KAFKA_BOOTSTRAP): {_say(error)}"
                ) from error
            self._producer = producer

    async def write(self, output: Output) -> None:
        """Write all of ``output``; on return every replica in sync has it.

        Raises ``SinkUnavailable`` when the cluster is away or an operator must mend it (rights, a topic's name), and
        ``SinkRefused`` with the dead letters of the records that the cluster will never take; the others are written.
        """
        if self._topics.scores and output.scores:  # a JSON for every row: not on the event loop
            messages = await asyncio.to_thread(lambda: list(self._messages(output)))
        else:
            messages = list(self._messages(output))
        if not messages:
            return
        await self.start()
        failed = await self._send(messages)
        refused: list[DeadLetter] = []
        for message, error in failed:
            left = await self._alone(message, error)
            if left is not None:
                refused.append(_refusal(message, left))
        if refused:
            raise SinkRefused(f"Kafka refused {len(refused)} records, the first: {refused[0].detail}", refused)

    async def stop(self) -> None:
        """Disconnect; whatever was acknowledged is safe, the rest was never reported as written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer, 5.0)

    async def _send(self, messages: Sequence[_Message]) -> list[tuple[_Message, BaseException]]:
        """Offer all at once, then wait for all. Returns those that failed on their own account."""
        producer = self._producer
        failed: list[tuple[_Message, BaseException]] = []
        sent: list[tuple[_Message, asyncio.Future[Any]]] = []
        trouble: BaseException | None = None
        for message in messages:
            try:
                future = await producer.send(
                    message.topic, message.value, key=message.key, headers=list(message.headers)
                )
            except _TOO_LARGE as error:
                failed.append((message, error))
            except Exception as error:  # judged below; those already sent must be waited for first
                trouble = error
                break
            else:
                sent.append((message, future))
        results = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        for (message, _), result in zip(sent, results, strict=True):
            if isinstance(result, BaseException):
                if isinstance(result, (*_TOO_LARGE, *_REFUSED)):
                    failed.append((message, result))
                else:
                    trouble = trouble or result
        if trouble is not None:
            await self._give_up(trouble)
        return failed

    async def _alone(self, message: _Message, error: BaseException) -> BaseException | None:
        """Write a record by itself, in ever smaller parts if it may be cut. Returns the error that remains, or None.

        A broker refuses a whole batch for one bad record, so most of those that failed together are good alone.
        """
        for candidate in (message, *_smaller(message)):
            failed = await self._send([candidate])
            if not failed:
                return None
            error = failed[0][1]
            if not isinstance(error, _TOO_LARGE):
                return error
        return error

    async def _give_up(self, error: BaseException) -> None:
        """Raise what the caller should make of ``error``; a producer that is beyond repair is replaced next time."""
        if isinstance(error, _NEEDS_OPERATOR):
            _log.error(
                "Kafka at %s refuses: %s. Until this is mended nothing is acknowledged.",
                self._kafka.bootstrap,
                _say(error),
            )
            raise SinkUnavailable(
                f"Kafka at {self._kafka.bootstrap} refuses: {_say(error)}", _OPERATOR_RETRY_S
            ) from error
        if not isinstance(error, errors.KafkaError) or isinstance(error, errors.ProducerClosed):
            producer, self._producer = self._producer, None
            if producer is not None:
                await _close(producer, 1.0)
        if isinstance(error, (errors.KafkaError, OSError, TimeoutError)):
            raise SinkUnavailable(f"Kafka at {self._kafka.bootstrap}: {_say(error)}") from error
        raise error

    def _messages(self, output: Output) -> Iterator[_Message]:
        for alert in output.alerts:
            yield _Message(self._topics.alerts, alert.id.encode(), to_json(alert), self._cloud_event(alert))
        if self._topics.scores:
            for scores in output.scores:
                for key, value in score_rows(scores, self._site):
                    yield _Message(self._topics.scores, key, value, (("content-type", b"application/json"),))
        for letter in output.dead:
            about = {"error": f"{letter.reason}: {letter.detail}", "reason": letter.reason, "stage": letter.stage}
            yield _carry(self._topics.dead_letters, letter.record, about)
        for late in output.late:
            yield _carry(self._topics.late, late.record, {"detail": late.detail})

    def _cloud_event(self, alert: Alert) -> _Headers:
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": f"{alert.id}:{alert.sequence}",
            "ce_source": f"/headrace/{alert.site or self._site}",
            "ce_type": f"io.headrace.alert.{alert.state}",
            "ce_time": alert.resolved or alert.last_seen,
            "ce_subject": alert.asset,
            "content-type": "application/json",
        }
        return tuple((name, value.encode()) for name, value in attributes.items())


def score_rows(scores: Scores, site: str) -> Iterator[tuple[bytes, bytes]]:
    """Key (the asset) and JSON of each row. What is not finite is left out; ``valid`` and ``reason`` say so."""
    rows = derive(scores)
    times = np.datetime_as_string(scores.at_ms.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    columns = {"values": scores.values, "expected": scores.expected, "low": rows.low, "high": rows.high}
    tables = {name: column.tolist() for name, column in columns.items() if column is not None}
    shares = scores.contributions.tolist()
    for row, (asset, score, threshold, valid, anomalous) in enumerate(
        zip(
            *(a.tolist() for a in (scores.asset, scores.score, scores.threshold, rows.valid, scores.anomalous)),
            strict=True,
        )
    ):
        record: dict[str, Any] = {
            "site": site,
            "asset": scores.names[asset],
            "detector": scores.detector,
            "kind": scores.kind,
            "model_version": scores.model_version,
            "ts": times[row],
            "valid": valid,
            "anomalous": anomalous,
            "verdict": rows.verdict[row],
        }
        if valid:
            record["score"] = score
        else:
            record["reason"] = rows.reason[row]
        if np.isfinite(threshold):
            record["threshold"] = threshold
        for name, table in tables.items():
            record[name] = _finite(scores.signals, table[row])
        record["shares"] = {name: share for name, share in zip(scores.signals, shares[row], strict=True) if share > 0}
        yield scores.names[asset].encode(), to_json(record)


def _finite(signals: Sequence[str], row: list[float]) -> dict[str, float]:
    return {name: value for name, value in zip(signals, row, strict=True) if value - value == 0.0}


def _carry(topic: str, record: RawRecord, about: dict[str, str]) -> _Message:
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
    return _Message(topic, key, record.value, tuple(headers), may_cut=True)


def _smaller(message: _Message) -> Iterator[_Message]:
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


def _refusal(message: _Message, error: BaseException) -> DeadLetter:
    record = Record(message.topic, -1, -1, message.value, message.key, headers=message.headers)
    return DeadLetter(record, "publish", "refused", f"{message.topic}: {_say(error)}")


async def _close(producer: Any, within_s: float) -> None:
    """Stop a producer; one that cannot flush any more is cut off."""
    try:
        await asyncio.wait_for(producer.stop(), within_s)
    except Exception as error:  # nothing is left to do with it whatever it says
        _log.warning("the Kafka producer did not stop in order: %s", _say(error))
        with contextlib.suppress(Exception):
            await asyncio.wait_for(producer.client.close(), within_s)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
