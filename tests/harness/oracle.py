"""What a run that was disturbed is held against: the same records through a pipeline that nothing disturbs.

``judge`` reads the readings' topic as it stands and what was published, byte for byte. Every record must have come to
something (a score, a dead letter, a late reading, or a reading that nobody watches, which leaves no trace), and nothing
else may have come out. Copies are counted and allowed: delivery is at least once, and a copy has the id of the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition

from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.reader import read_records
from stream.records import Output, Record, to_json
from stream.settings import KafkaSettings
from stream.shelf import Shelf
from stream.sinks.messages import score_rows
from stream.sinks.thin import history
from stream.worker import pipeline_of

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Judgement:
    """How what was published differs from what an undisturbed run publishes.

    expected   pieces of output that an undisturbed run has: scores, alerts (by id and sequence), dead letters, late
    lost       of these, those that are missing
    invented   pieces that it has not, or whose bytes differ
    repeated   copies beyond the first
    examples   a few of what is lost or invented, for a failed test's message
    """

    expected: int
    lost: int
    invented: int
    repeated: int
    examples: tuple[str, ...] = ()

    def must_hold(self) -> Judgement:
        """Fail with examples unless nothing is lost and nothing invented."""
        assert self.expected > 0, "nothing was expected: the test tests nothing"
        assert not self.lost, f"{self}"
        assert not self.invented, f"{self}"
        return self


def judge(kafka: KafkaSettings, plan: Plan) -> Judgement:
    """Compare what ``plan``'s topics hold now; the run must have come to its end (``wait_committed``)."""
    outputs = undisturbed(kafka, plan)
    found: list[tuple[str, Counter[Hashable], Counter[Hashable]]] = [
        ("alert", _expected(outputs, _alerts), published(kafka, plan.topics.alerts)),
        ("dead", _expected(outputs, _dead), published(kafka, plan.topics.dead_letters, _origin)),
        ("late", _expected(outputs, _late), published(kafka, plan.topics.late, _origin)),
    ]
    if plan.topics.scores:
        scores = published(kafka, plan.topics.scores)
        found.append(("score", _expected(outputs, lambda output: _scores(output, plan.site)), scores))
    lost = [(kind, each) for kind, wanted, got in found for each in wanted.keys() - got.keys()]
    invented = [(kind, each) for kind, wanted, got in found for each in got.keys() - wanted.keys()]
    repeated = sum(max(got[each] - count, 0) for _, wanted, got in found for each, count in wanted.items())
    return Judgement(
        sum(wanted.total() for _, wanted, _ in found),
        len(lost),
        len(invented),
        repeated,
        tuple(f"{what}: {each!r:.300}" for what, all_ in (("lost", lost), ("invented", invented)) for each in all_[:5]),
    )


def undisturbed(kafka: KafkaSettings, plan: Plan) -> list[Output]:
    """What a pipeline of this process makes of the records of the readings' topic."""
    pipeline: Pipeline = pipeline_of(plan, Shelf(plan))
    outputs = []
    for batch in read_records(kafka, plan.topics.readings):
        for start in range(0, len(batch), _BATCH):
            records = [
                Record(raw.topic, raw.partition, raw.offset, raw.value, raw.key, raw.timestamp, tuple(raw.headers))
                for raw in batch[start : start + _BATCH]
            ]
            outputs.append(pipeline.process(records[0].partition, records))
    return outputs


def _expected(outputs: list[Output], pieces: Callable[[Output], Iterable[Hashable]]) -> Counter[Hashable]:
    return Counter(piece for output in outputs for piece in pieces(output))


def _alerts(output: Output) -> Iterable[Hashable]:
    return (to_json(alert) for alert in output.alerts)


def _scores(output: Output, site: str) -> Iterable[Hashable]:
    return (value for scores in history(output) for _, value in score_rows(scores, site))


def _dead(output: Output) -> Iterable[Hashable]:
    return ((letter.record.partition, letter.record.offset, letter.stage, letter.reason) for letter in output.dead)


def _late(output: Output) -> Iterable[Hashable]:
    return ((late.record.partition, late.record.offset) for late in output.late)


def published(
    kafka: KafkaSettings, topic: str, piece: Callable[..., Hashable] = lambda raw: raw.value
) -> Counter[Hashable]:
    """What a topic holds: the records' values, or what ``piece`` makes of a record."""
    return Counter(piece(raw) for batch in read_records(kafka, topic) for raw in batch)


def _origin(raw: object) -> Hashable:
    """A dead letter's or a late reading's: where it came from, and why."""
    about = {name: (value or b"").decode() for name, value in raw.headers}  # type: ignore[attr-defined]  # no types
    place = int(about["headrace.partition"]), int(about["headrace.offset"])
    return (*place, about["headrace.stage"], about["headrace.reason"]) if "headrace.stage" in about else place


def committed(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """The offset that the group has committed, by partition; 0 where there is none."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.servers, group_id=kafka.group, enable_auto_commit=False)
    try:
        numbers = sorted(consumer.partitions_for_topic(topic) or ())
        return {number: consumer.committed(TopicPartition(topic, number)) or 0 for number in numbers}
    finally:
        consumer.close()
