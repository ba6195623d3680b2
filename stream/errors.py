"""What can go wrong on the way from bytes to alerts, and what the caller does about it.

StreamError
|-- ConfigError        stop the start: the message names the key and the remedy
|-- DecodeError        dead letter, with ``reason`` (a short code) and ``detail``
|-- SinkError
|   |-- SinkUnavailable    hold what was to be written and try again after ``retry_after_s``
|   `-- SinkRefused        what was written will never be taken: dead letter, go on
`-- BrokerError        the broker cannot be reached or refuses us: the message names address and remedy
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.records import DeadLetter


class StreamError(Exception):
    """Base of everything raised on purpose by ``stream``."""


class ConfigError(StreamError):
    """The plan or an environment variable is wrong; the message names the key and what to do."""


class DecodeError(StreamError):
    """A record cannot become readings: it goes to the dead-letter topic.

    ``reason`` is one of a few short codes (a metric's label); ``detail`` says it in words for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SinkError(StreamError):
    """A sink did not take what it was given."""


class SinkUnavailable(SinkError):
    """The sink is away or busy: hold, and try again after ``retry_after_s``."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class SinkRefused(SinkError):
    """The sink will never take this: dead letter it and go on.

    ``letters`` is what was refused, as dead letters; everything else of the same output was taken. Empty where the sink
    cannot tell: then all of it counts as refused.
    """

    def __init__(self, detail: str, letters: Sequence[DeadLetter] = ()) -> None:
        super().__init__(detail)
        self.letters = tuple(letters)


class BrokerError(StreamError):
    """The Kafka cluster cannot be reached, or refuses what is asked."""
