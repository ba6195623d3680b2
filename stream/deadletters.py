"""Dead letters read back: what was refused and why, and sending it again when the cause is mended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.errors import BrokerError
from stream.reader import read_records, writable
from stream.settings import KafkaSettings

_OURS: Final = "headrace."
_IN_FLIGHT: Final = 1000


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it came, and what was said of it.

    at          partition and offset of the letter itself
    origin      topic, partition and offset of the record; partition and offset are -1 where it was never read
    written_ms  when the letter was written, epoch milliseconds
    truncated   bytes of the original value where the letter holds only a part of it, else None
    """

    at: tuple[int, int]
    origin: tuple[str, int, int]
    written_ms: int
    stage: str
    reason: str
    error: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    truncated: int | None

    @property
    def unsendable(self) -> str:
        """Why it cannot be sent again, in words; empty if it can."""
        if self.stage == "publish":
            return "is a piece of output, no reading"
        if self.stage == "bridge":
            return f"is a message that a bridge took from {self.origin[0]}, no reading"
        if self.truncated is not None:
            return f"holds a part of {self.truncated} bytes"
        return "" if self.value else "is empty"


def letters(
    kafka: KafkaSettings,
    topic: str,
    *,
    reasons: Collection[str] = (),
    stages: Collection[str] = (),
    since_ms: int | None = None,
) -> Iterator[Letter]:
    """The dead letters that the topic holds, of these reasons and stages (all where none are named).

    Raises ``BrokerError``.
    """
    for batch in read_records(kafka, topic, since_ms=since_ms):
        for record in batch:
            letter = letter_of(record)
            if (not reasons or letter.reason in reasons) and (not stages or letter.stage in stages):
                yield letter


def letter_of(record: Any) -> Letter:
    """A record of the dead letter topic taken apart; what someone else wrote there has empty reasons."""
    about = {
        name.removeprefix(_OURS): (value or b"").decode("utf-8", "replace")
        for name, value in record.headers
        if name.startswith(_OURS)
    }
    return Letter(
        at=(record.partition, record.offset),
        origin=(about.get("topic", ""), _number(about.get("partition")), _number(about.get("offset"))),
        written_ms=record.timestamp,
        stage=about.get("stage", ""),
        reason=about.get("reason", ""),
        error=about.get("error", ""),
        key=None if about.get("key") == "null" else record.key,
        value=record.value,
        headers=tuple((name, value) for name, value in record.headers if not name.startswith(_OURS)),
        truncated=_number(about["truncated"]) if "truncated" in about else None,
    )


def _number(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        return -1


def resend(
    kafka: KafkaSettings,
    chosen: Iterator[Letter],
    topic: str,
    *,
    sent: Callable[[Letter], None] = lambda _: None,
    producer: Callable[..., Any] = KafkaProducer,
) -> tuple[int, list[Letter]]:
    """Send letters to ``topic`` with their own key, value and headers; how many, and those that can't be sent.

    A letter that holds only a part of its record, nothing at all, or output that a sink refused, stays where it is.
    Sending one twice does no harm: readings that were taken the first time are late or duplicates the second. Raises
    ``BrokerError``.
    """
    client = None
    left: list[Letter] = []
    pending: list[tuple[Any, Letter]] = []
    count = 0

    def settle() -> None:
        nonlocal count
        for future, letter in pending:
            future.get(timeout=60)
            count += 1
            sent(letter)
        pending.clear()

    try:
        client = producer(
            **kafka.client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=kafka.max_record_bytes,
        )
        for letter in chosen:
            if letter.unsendable:
                left.append(letter)
                continue
            future = client.send(topic, key=letter.key, value=letter.value, headers=writable(letter.headers))
            pending.append((future, letter))
            if len(pending) >= _IN_FLIGHT:
                settle()
        client.flush()
        settle()
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None
    finally:
        if client is not None:
            client.close(timeout=5)
    return count, left
