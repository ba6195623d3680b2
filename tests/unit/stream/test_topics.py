"""Which topics are created, and what is said when they cannot be; the real thing is in tests/integration."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from kafka import errors

from stream import topics as subject
from stream.errors import BrokerError
from stream.plan import TopicSettings
from stream.settings import KafkaSettings
from stream.topics import ensure_topics, topic_configs

KAFKA = KafkaSettings(bootstrap="127.0.0.1:9", partitions=4, replication_factor=3)


class FakeAdmin:
    """Answers like a cluster with the topics of ``existing``; raises ``errors`` first, one a creation."""

    def __init__(self, existing: dict[str, int], failures: list[Exception]) -> None:
        self.existing, self.failures = existing, failures
        self.created: dict[str, dict[str, Any]] = {}
        self.closed = False

    def __call__(self, **options: Any) -> FakeAdmin:
        return self

    def list_topics(self) -> list[str]:
        return list(self.existing)

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"name": name, "partitions": [{}] * self.existing[name]} for name in names]

    def create_topics(self, wanted: dict[str, dict[str, Any]]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.created |= wanted

    def close(self) -> None:
        self.closed = True


def cluster(monkeypatch: pytest.MonkeyPatch, existing: dict[str, int] | None = None, *failures: Exception) -> FakeAdmin:
    admin = FakeAdmin(existing or {}, list(failures))
    monkeypatch.setattr(subject, "KafkaAdminClient", admin)
    monkeypatch.setattr(subject, "knock", lambda kafka, timeout_s: None)
    return admin


def test_creates_what_is_missing_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = cluster(monkeypatch, {"plant.readings.v1": 4})
    assert ensure_topics(KAFKA, TopicSettings()) == [
        "plant.alerts.v1",
        "plant.state.v1",
        "plant.readings.dlq.v1",
        "plant.readings.late.v1",
        "plant.actions.v1",
        "plant.labels.v1",
        "plant.models.v1",
    ]
    for control in ("plant.actions.v1", "plant.labels.v1", "plant.models.v1"):
        assert admin.created[control]["num_partitions"] == 1  # one order of what was done
    assert admin.created["plant.labels.v1"]["configs"]["cleanup.policy"] == "compact"
    alerts = admin.created["plant.alerts.v1"]
    assert (alerts["num_partitions"], alerts["replication_factor"]) == (4, 3)
    assert alerts["configs"]["cleanup.policy"] == "compact"
    dead = admin.created["plant.readings.dlq.v1"]["configs"]
    assert int(dead["max.message.bytes"]) > KAFKA.max_record_bytes  # the headers that we add must fit too
    assert int(dead["retention.ms"]) == 30 * 86_400_000
    assert admin.closed


def test_the_topic_of_states_is_compacted_and_has_the_partitions_of_the_readings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = cluster(monkeypatch, {"plant.readings.v1": 7})
    ensure_topics(KAFKA, TopicSettings())
    assert admin.created["plant.state.v1"]["num_partitions"] == 7
    assert admin.created["plant.state.v1"]["configs"]["cleanup.policy"] == "compact"
    cluster(monkeypatch, {"plant.readings.v1": 7, "plant.state.v1": 4})
    with pytest.raises(BrokerError, match=r"plant\.state\.v1 has 4 partitions and plant\.readings\.v1 has 7"):
        ensure_topics(KAFKA, TopicSettings())


def test_the_scores_topic_only_where_it_is_named() -> None:
    assert "plant.scores.v1" not in topic_configs(KAFKA, TopicSettings())
    assert "plant.scores.v1" in topic_configs(KAFKA, TopicSettings(scores="plant.scores.v1"))


def test_another_worker_may_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, None, errors.TopicAlreadyExistsError())
    assert "plant.readings.v1" not in ensure_topics(KAFKA, TopicSettings())


def test_a_configuration_that_the_broker_does_not_know_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    admin = cluster(monkeypatch, None, errors.InvalidConfigurationError())
    assert len(ensure_topics(KAFKA, TopicSettings())) == 8
    assert "configs" not in admin.created["plant.readings.v1"]
    assert "its defaults hold" in caplog.text


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.InvalidReplicationFactorError(), "HEADRACE_KAFKA_REPLICATION_FACTOR"),
        (errors.TopicAuthorizationFailedError(), "create it, or allow it"),
        (errors.InvalidTopicError(), r"plant\.readings\.v1.*127\.0\.0\.1:9"),
    ],
)
def test_a_refusal_names_topic_and_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str) -> None:
    admin = cluster(monkeypatch, None, error)
    with pytest.raises(BrokerError, match=remedy):
        ensure_topics(KAFKA, TopicSettings())
    assert admin.closed


def test_fewer_partitions_than_wished_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster(monkeypatch, {"plant.readings.v1": 1})
    ensure_topics(KAFKA, TopicSettings())
    assert "has 1 partitions, not 4" in caplog.text


def test_no_broker_is_told_within_the_time_with_address_and_variable() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(BrokerError, match=rf"{address}.*HEADRACE_KAFKA_BOOTSTRAP"):
            ensure_topics(KafkaSettings(bootstrap=address), TopicSettings(), timeout_s=0.5)
        assert time.monotonic() - began < 5.0
