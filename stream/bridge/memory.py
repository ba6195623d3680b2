"""What the bridges have remembered on their topic, read back at the start."""

from __future__ import annotations

from stream.reader import read_records
from stream.settings import KafkaSettings


def remembered(kafka: KafkaSettings, topic: str, prefix: str) -> dict[str, bytes]:
    """The last value of each key that begins with ``prefix``. Raises ``BrokerError``."""
    found: dict[str, bytes] = {}
    for batch in read_records(kafka, topic):
        for record in batch:
            key = (record.key or b"").decode("utf-8", "replace")
            if key.startswith(prefix):
                if record.value:
                    found[key] = bytes(record.value)
                else:
                    found.pop(key, None)
    return found
