"""What can go wrong on the way from bytes to alerts, and what the caller does about it.

StreamError
|-- ConfigError        stop the start: the message names the key and the remedy
|   `-- NoReadings         there is nothing in the stretch asked for; a schedule tries again
|-- DecodeError        dead letter, with ``reason`` (a short code) and ``detail``
|-- SinkError
|   |-- SinkUnavailable    hold what was to be written and try again after ``retry_after_s``
|   `-- SinkRefused        what was written will never be taken: dead letter, go on
|-- StateRefused       saved state that cannot be read: what it held is begun anew; with ``reason``, a short code
`-- BrokerError        the broker cannot be reached or refuses us: the message names address and remedy
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream.records import DeadLetter

#: Why a record becomes a dead letter: stage -> code -> what it means. The codes are a metric's labels, so they are few;
#: docs/payloads.md shows them to producers.
REASONS: Final = {
    "decode": {
        "empty": "the record has no value (a tombstone), or an empty one",
        "too_large": "more bytes than `input.max_record_bytes`",
        "not_json": "not JSON in UTF-8 (`NaN` and `Infinity` are not JSON either), and no packed frame",
        "wrong_type": "JSON of another shape: a key missing, text for a number, an empty `values` or `ts`",
        "bad_asset": "the asset's name is empty, longer than 200 characters, or has characters that cannot be printed",
        "bad_time": "`ts` is text without an offset from UTC",
        "absurd_time": "`ts` is outside of `input.earliest` to `input.latest`: a wrong unit, a dead clock battery",
        "unknown_signals": "no detector of the plan watches any of its signals",
        "ragged_frame": "the arrays of a frame are not all as long as `ts`",
        "too_many_readings": "a frame with more readings than `input.max_readings_per_record`",
        "not_a_picture": "in the format `pictures`: neither JPEG nor PNG, or damaged",
        "too_many_pixels": "a picture of more than 16 million pixels: it is refused before it is decoded",
        "too_small": "a picture with a side of fewer than 32 pixels",
        "decoder_failed": "a fault of Headrace's: please report it",
    },
    "bridge": {
        "bad_topic": "an MQTT topic that fits nothing in `[bridge.mqtt]`",
        "bad_value": "on a plain MQTT topic neither a number, nor an object with a value, nor a reading",
        "not_sparkplug": "no payload of Sparkplug B",
        "no_birth": "Sparkplug B: DATA of an edge node or device whose BIRTH was missed; it was asked for it",
        "bridge_failed": "a fault of Headrace's: please report it",
    },
    "window": {"future": "the time is farther ahead of its asset and of others of its partition than `input.ahead_s`"},
    "score": {"detector_failed": "a model failed on these readings; other detectors have judged them"},
    "control": {
        "malformed": "a record of a control topic (actions, labels, models) that is not as its schema says",
        "failed": "a fault of Headrace's in applying a record of a control topic: please report it",
    },
    "pipeline": {"pipeline_failed": "a fault of Headrace's: please report it"},
    "publish": {
        "refused": "Kafka refused a piece of output for good",
        "influxdb_refused": "InfluxDB refused these lines for good (HTTP 4xx); the letter's value is the lines",
    },
}


class StreamError(Exception):
    """Base of everything raised on purpose by ``stream``."""


class ConfigError(StreamError):
    """The plan or an environment variable is wrong; the message names the key and what to do."""


class NoReadings(ConfigError):
    """Where readings were looked for there are none: another stretch, or later."""


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


class StateRefused(StreamError):
    """A snapshot's value is not what it should be; ``reason`` is a metric's label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class BrokerError(StreamError):
    """The Kafka cluster cannot be reached, or refuses what is asked."""
