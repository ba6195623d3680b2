"""A secret that any library logs is not in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from stream.redact import redact, secrets_of
from stream.settings import KafkaSettings
from stream.sinks.influxclient import InfluxSettings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_secrets_are_hidden_in_messages_and_arguments(caplog: pytest.LogCaptureFixture) -> None:
    settings = [
        KafkaSettings.model_validate({"password": "pass-word"}),
        InfluxSettings.model_validate({"token": "pass-word-and-more"}),
    ]
    redact(secrets_of(settings))
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("client").debug("sent %s to %s", "pass-word-and-more", {"p": "pass-word"})
        logging.getLogger("client").info("nothing to hide: %d %%", 7)
    assert [record.getMessage() for record in caplog.records] == ["sent *** to {'p': '***'}", "nothing to hide: 7 %"]


def test_what_is_empty_or_too_short_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    redact(["", "a"])
    logging.getLogger("client").warning("a banana")
    assert caplog.messages == ["a banana"]
