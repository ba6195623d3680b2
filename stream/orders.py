"""What is said on the models topic: orders to workers, and what workers report.

An order, key = the detector's name in the plan, carries the whole of what is wanted (what serves, what is a candidate),
so that the newest says all and the topic may be compacted. A report has a key of its own, which no detector can have.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.store import Decision
from stream.door import knock
from stream.errors import BrokerError
from stream.plan import Plan
from stream.records import to_json
from stream.settings import KafkaSettings

#: Between the parts of a report's key.
APART: Final = "|"
Text = Annotated[str, msgspec.Meta(max_length=2000)]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two models on the same readings of one partition, since the candidate began.

    readings            judged by both
    over_serving, over_candidate, over_both   readings at or over the threshold, by model
    begun_serving, begun_candidate            how often an asset went from below it to above it
    correlation         Pearson's, of the logarithms of score over threshold; None while it is not defined
    lasted_s            from the first of these readings to the last, of event time, summed over assets
    cost                seconds that scoring the candidate took, for each that the serving model took
    """

    readings: int
    over_serving: int
    over_candidate: int
    over_both: int
    begun_serving: int
    begun_candidate: int
    correlation: float | None = None
    lasted_s: float = 0.0
    cost: float = 0.0


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of the models topic, version 1.

    action      promote, rollback, shadow, drop (no candidate any more) and reload (look at the store again) are orders;
                switched, refused, shadowing and compared are reports
    serving, candidate   versions; in an order: what is wanted from now on
    by, at, why          who, when (RFC 3339), in whose words
    worker, partition, offset   of a report: who, and from which offset of the readings it holds
    """

    action: Literal["promote", "rollback", "shadow", "drop", "reload", "switched", "refused", "compared"]
    detector: Annotated[str, msgspec.Meta(max_length=64)]
    serving: Annotated[str, msgspec.Meta(max_length=64)] = ""
    candidate: Annotated[str, msgspec.Meta(max_length=64)] = ""
    by: Text = ""
    at: Annotated[str, msgspec.Meta(max_length=64)] = ""
    why: Text = ""
    worker: Text = ""
    partition: int | None = None
    offset: int | None = None
    comparison: Comparison | None = None

    @property
    def is_order(self) -> bool:
        """Whether a worker has to do something."""
        return self.action in {"promote", "rollback", "shadow", "drop", "reload"}

    def key(self) -> str:
        """The record's key."""
        if self.is_order:
            return self.detector
        place = "" if self.partition is None else str(self.partition)
        return APART.join([self.detector, self.action, place or self.worker])


def order_of(detector: str, decision: Decision) -> Message:
    """The order that tells workers of a decision in the store."""
    action = "drop" if decision.action == "train" else decision.action
    return Message(
        action=action,
        detector=detector,
        serving=decision.serving,
        candidate=decision.candidate,
        by=decision.by,
        at=decision.at,
        why=decision.why,
    )


def send(kafka: KafkaSettings, plan: Plan, message: Message) -> None:
    """Write a message, and return when the broker has it. Raises ``BrokerError``."""
    knock(kafka)
    try:
        producer = KafkaProducer(**kafka.client_options(), acks="all")
        try:
            sent = producer.send(plan.topics.models, key=message.key().encode(), value=to_json(message))
            sent.get(timeout=30)
        finally:
            producer.close(timeout=5)
    except KafkaError as error:
        raise BrokerError(f"{kafka.bootstrap}: {plan.topics.models}: {type(error).__name__}: {error}") from None
