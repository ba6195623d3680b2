"""The servers of the integration tests: see ``server_fixtures``."""

from __future__ import annotations

from bridge_fixtures import bridges, mqtt_broker  # noqa: F401  # asked for by name
from server_fixtures import (  # noqa: F401  # asked for by name
    apache_broker,
    broker,
    embedded_broker,
    influxdb,
    kafka,
    killable_kafka,
    own_plan,
    prometheus,
    start_worker,
    topics,
    victoria,
)
