"""Makes the topics of a plan before the worker starts.

Faust cannot until it has their metadata, and brokers that create topics by themselves give them one partition.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from kafka import KafkaAdminClient, errors

from stream.door import knock
from stream.errors import BrokerError
from stream.plan import TopicSettings
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_KEEP_REPAIRS_MS: Final = 30 * _DAY_MS  # dead letters and late readings: time to notice, repair and send again
_KEEP_SCORES_MS: Final = 7 * _DAY_MS
_KEEP_ACTIONS_MS: Final = 366 * _DAY_MS  # who did what, and when, is asked long afterwards
_ROOM_FOR_HEADERS: Final = 64 << 10
_COMPACTED: Final = {"cleanup.policy": "compact"}
#: Only closed segments are compacted, and what is not compacted has to be read back: small ones, compacted early.
_STATE: Final = {
    **_COMPACTED,
    "segment.bytes": str(64 << 20),
    "segment.ms": str(_DAY_MS),
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": str(_DAY_MS),
}


def topic_configs(kafka: KafkaSettings, topics: TopicSettings) -> dict[str, dict[str, str]]:
    """What each topic is created with; the readings' topic is left to the broker's defaults but for its size limit."""
    largest = {"max.message.bytes": str(kafka.max_record_bytes)}
    repairs = {
        "retention.ms": str(_KEEP_REPAIRS_MS),
        "max.message.bytes": str(kafka.max_record_bytes + _ROOM_FOR_HEADERS),
    }
    configs = {
        topics.readings: largest,
        topics.alerts: {**_COMPACTED, **largest},
        topics.state: {**_STATE, **largest},
        topics.dead_letters: repairs,
        topics.late: repairs,
    }
    configs |= {
        topics.actions: {"retention.ms": str(_KEEP_ACTIONS_MS)},
        topics.labels: _COMPACTED,
        topics.models: _COMPACTED,
    }
    if topics.scores:
        configs[topics.scores] = {"retention.ms": str(_KEEP_SCORES_MS), **largest}
    return configs


def ensure_topics(kafka: KafkaSettings, topics: TopicSettings, *, timeout_s: float = 15.0) -> list[str]:
    """Create the topics that are missing; returns their names. Those that exist are left as they are.

    The topic of states gets as many partitions as the readings' topic has, and each control topic one: what is done to
    the plant has one order. A broker that does not know one of our
    configurations gets the topic without any. Raises ``BrokerError`` with the address and the remedy when no broker
    answers within ``timeout_s``, or when it refuses.
    """
    admin = _connect(kafka, timeout_s)
    try:
        existing = set(admin.list_topics())
        counts = _counts(admin, existing & {topics.readings, topics.state})
        wanted = {topics.state: counts.get(topics.readings, kafka.partitions)}
        wanted |= dict.fromkeys((topics.actions, topics.labels, topics.models), 1)
        created = []
        for name, configs in topic_configs(kafka, topics).items():
            partitions = wanted.get(name, kafka.partitions)
            if name not in existing and _create(admin, kafka, name, configs, partitions):
                created.append(name)
        _check_partitions(kafka, topics, counts)
        return created
    except (errors.KafkaError, OSError) as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap} does not create the topics: {_say(error)}") from error
    finally:
        admin.close()


def ensure_bridge_topics(kafka: KafkaSettings, topics: TopicSettings, state: str, *, timeout_s: float = 15.0) -> None:
    """Create what a bridge writes to, where it is missing: readings, dead letters, and ``state``, which it keeps.

    Raises ``BrokerError`` like ``ensure_topics``.
    """
    configs = topic_configs(kafka, topics)
    wanted = {name: configs[name] for name in (topics.readings, topics.dead_letters)}
    wanted[state] = {**_COMPACTED, **configs[topics.readings]}
    admin = _connect(kafka, timeout_s)
    try:
        existing = set(admin.list_topics())
        for name in wanted.keys() - existing:
            _create(admin, kafka, name, wanted[name], 1 if name == state else kafka.partitions)
    except (errors.KafkaError, OSError) as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap} does not create the topics: {_say(error)}") from error
    finally:
        admin.close()


def reachable(kafka: KafkaSettings, *, timeout_s: float = 5.0) -> int:
    """How many topics this user sees on the cluster. Raises ``BrokerError`` like ``ensure_topics``."""
    return len(list_topics(kafka, timeout_s=timeout_s))


def list_topics(kafka: KafkaSettings, *, timeout_s: float = 15.0) -> set[str]:
    """The topics that this user sees on the cluster. Raises ``BrokerError`` like ``ensure_topics``."""
    admin = _connect(kafka, timeout_s)
    try:
        return set(admin.list_topics())
    except (errors.KafkaError, OSError) as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap} does not list its topics: {_say(error)}") from error
    finally:
        admin.close()


def _connect(kafka: KafkaSettings, timeout_s: float) -> Any:
    knock(kafka, timeout_s=timeout_s)
    try:
        return KafkaAdminClient(
            **kafka.client_options(),
            client_id="headrace-topics",
            bootstrap_timeout_ms=int(timeout_s * 1000),
            request_timeout_ms=int(timeout_s * 1000),
        )
    except (errors.KafkaError, OSError, ValueError) as error:
        raise BrokerError(f"Kafka at {kafka.bootstrap}: {_say(error)}") from error


def _create(admin: Any, kafka: KafkaSettings, name: str, configs: dict[str, str], partitions: int) -> bool:
    """Whether the topic is ours; another worker may be faster. Raises ``BrokerError`` that names the topic."""
    wanted = {"num_partitions": partitions, "replication_factor": kafka.replication_factor}
    try:
        try:
            admin.create_topics({name: {**wanted, "configs": configs}})
        except (errors.InvalidConfigurationError, errors.InvalidRequestError, errors.PolicyViolationError) as error:
            _log.warning("topic %s: the broker does not take %s (%s), its defaults hold", name, configs, _say(error))
            admin.create_topics({name: wanted})
    except errors.TopicAlreadyExistsError:
        return False
    except errors.InvalidReplicationFactorError as error:
        raise BrokerError(
            f"topic {name}: the cluster has fewer than {kafka.replication_factor} brokers: "
            f"set HEADRACE_KAFKA_REPLICATION_FACTOR ({_say(error)})"
        ) from error
    except (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError) as error:
        raise BrokerError(f"topic {name} is missing and this user may not create it: create it, or allow it") from error
    except errors.KafkaError as error:
        raise BrokerError(f"topic {name}: Kafka at {kafka.bootstrap} does not create it: {_say(error)}") from error
    return True


def _counts(admin: Any, names: set[str]) -> dict[str, int]:
    """How many partitions topics have that exist."""
    if not names:
        return {}
    return {str(topic["name"]): len(topic["partitions"]) for topic in admin.describe_topics(sorted(names))}


def _check_partitions(kafka: KafkaSettings, topics: TopicSettings, counts: dict[str, int]) -> None:
    """Workers beyond the number of partitions have nothing to do: say so when the topic is not as wished.

    Raises ``BrokerError`` where the topic of states has fewer than the readings' topic.
    """
    readings, states = counts.get(topics.readings, kafka.partitions), counts.get(topics.state, 0)
    if 0 < readings < kafka.partitions:
        _log.warning(
            "topic %s has %d partitions, not %d: at most so many workers", topics.readings, readings, kafka.partitions
        )
    if 0 < states < readings:
        raise BrokerError(
            f"topic {topics.state} has {states} partitions and {topics.readings} has {readings}: give it as many "
            f"(kafka-topics --alter --topic {topics.state} --partitions {readings})"
        )


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__
