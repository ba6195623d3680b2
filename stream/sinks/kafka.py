"""Alerts, scores, dead letters and late readings to Kafka topics. Essential: no batch is acknowledged without it.

``stream.sinks.messages`` says what is written; this is how: all of a batch at once, acknowledged by every replica in
sync, record by record only where the broker finds fault with one of them. Scores, of which there are as many as
readings, are made into Kafka's batches in a thread (``stream.sinks.batches``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, errors

from stream.errors import SinkRefused, SinkUnavailable
from stream.plan import TopicSettings
from stream.records import DeadLetter, Output, Record, Scores
from stream.settings import KafkaSettings
from stream.sinks.batches import SCORE_HEADERS, Pack, pack
from stream.sinks.messages import Message, all_messages, score_rows, smaller
from stream.sinks.thin import history

__all__ = ["KafkaSink", "score_rows"]

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
_YIELD_EVERY: Final = 200


class KafkaSink:
    """Writes to the topics of ``topics`` with a producer of its own, acknowledged by all replicas.

    It compresses with gzip, which every client reads: kafka-python needs other packages for lz4, snappy and zstd.

    site           the plant's name, in the alerts' ``ce_source``
    timeout_s      how long a record is offered to the cluster before ``write`` raises ``SinkUnavailable``
    client_id      its name to the cluster
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
        client_id: str = "headrace-sink",
        producer: Callable[..., Any] = AIOKafkaProducer,
    ) -> None:
        self._client_id = client_id
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
                client_id=self._client_id,
                acks="all",
                compression_type="gzip",
                max_batch_size=64 << 10,  # it is compressed on the event loop: not for long at a time
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
        messages = all_messages(output, self._topics, self._site)
        scores = [held for held in history(output) if len(held)] if self._topics.scores else []
        if not messages and not scores:
            return
        await self.start()
        failed = await self._send(messages)
        if scores:
            failed += await self._send_scores(scores)
        refused = await self._refusals(failed)
        if refused:
            raise SinkRefused(f"Kafka refused {len(refused)} records, the first: {refused[0].detail}", refused)

    async def send(self, messages: Sequence[Message]) -> list[DeadLetter]:
        """Write messages of any topics, in their order; those that the cluster will never take, as dead letters.

        Raises ``SinkUnavailable`` like ``write``.
        """
        await self.start()
        return await self._refusals(await self._send(messages))

    async def stop(self) -> None:
        """Disconnect; whatever was acknowledged is safe, the rest was never reported as written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer, 5.0)

    async def _refusals(self, failed: Sequence[tuple[Message, BaseException]]) -> list[DeadLetter]:
        """What is left of those that failed when each has been tried alone."""
        refused: list[DeadLetter] = []
        for message, error in failed:
            left = await self._alone(message, error)
            if left is not None:
                refused.append(_refusal(message, left))
        return refused

    async def _send(self, messages: Sequence[Message]) -> list[tuple[Message, BaseException]]:
        """Offer all at once, then wait for all. Returns those that failed on their own account."""
        producer = self._producer
        failed: list[tuple[Message, BaseException]] = []
        sent: list[tuple[Message, asyncio.Future[Any]]] = []
        trouble: BaseException | None = None
        for count, message in enumerate(messages, 1):
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # sending rarely waits: a flood of dead letters must not keep the loop
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

    async def _send_scores(self, scores: Sequence[Scores]) -> list[tuple[Message, BaseException]]:
        """All rows as batches made in a thread, one after the other to each partition. Returns those that failed."""
        producer = self._producer
        try:
            partitions = sorted(await producer.partitions_for(self._topics.scores))
        except errors.KafkaError as error:
            await self._give_up(error)
            raise
        packs = await asyncio.to_thread(pack, scores, self._site, partitions)
        sending = [self._send_packs(producer, partition, held) for partition, held in packs.items()]
        failed: list[tuple[Message, BaseException]] = []
        trouble: BaseException | None = None
        for found, wrong in await asyncio.gather(*sending):
            failed += found
            trouble = trouble or wrong
        if trouble is not None:
            await self._give_up(trouble)
        return failed

    async def _send_packs(
        self, producer: Any, partition: int, packs: Sequence[Pack]
    ) -> tuple[list[tuple[Message, BaseException]], BaseException | None]:
        """The rows that failed on their own account, and what else went wrong; nothing is sent after that."""
        topic = self._topics.scores
        failed: list[tuple[Message, BaseException]] = []
        sent: list[tuple[Pack, asyncio.Future[Any]]] = []
        trouble: BaseException | None = None
        for held in packs:
            try:
                sent.append((held, await producer.send_batch(held.batch, topic, partition=partition)))
            except Exception as error:  # judged by the caller; those already sent must be waited for first
                trouble = error
                break
        results = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        for (held, _), result in zip(sent, results, strict=True):
            if not isinstance(result, BaseException):
                continue
            if isinstance(result, (*_TOO_LARGE, *_REFUSED)):
                failed += [(Message(topic, key, value, SCORE_HEADERS), result) for key, value in held.rows]
            else:
                trouble = trouble or result
        return failed, trouble

    async def _alone(self, message: Message, error: BaseException) -> BaseException | None:
        """Write a record by itself, in ever smaller parts if it may be cut. Returns the error that remains, or None.

        A broker refuses a whole batch for one bad record, so most of those that failed together are good alone.
        """
        for candidate in (message, *smaller(message)):
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


def _refusal(message: Message, error: BaseException) -> DeadLetter:
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
