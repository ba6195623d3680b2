"""The demo's camera: a station that photographs every tile that leaves the line, and a plan that inspects them.

Pictures have a topic, a plan and a worker of their own (``docs/adr/0011-pictures.md``); their alerts go where all
alerts go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.base import NORMAL, Progress, no_progress
from models.inspection import train_inspector
from models.pictures import Picture
from models.simulate_tiles import DEFECTS, jpeg, tile
from stream.door import knock
from stream.errors import BrokerError
from stream.plan import Plan
from stream.records import Alert
from stream.report.sightings import Sighting
from stream.settings import KafkaSettings
from stream.sources.json import timestamp

ASSET: Final = "camera-01"
DETECTOR: Final = "surface"
#: The consumer group of the worker that inspects.
GROUP: Final = "headrace-pictures"
PERIOD_S: Final = 240.0  # of the plant's time, from one tile to the next
_GOOD, _DEFECTIVE = 120, 36  # tiles to learn from
_FALSE_ALARMS_PER_DAY: Final = 1.0
_CONFIG: Final = "{ steps = 300, filters = 12, crop = 96, batch = 8 }"

PLAN: Final = f"""# Written by `headrace demo`: the camera's own plan, for a worker of its own.
site = "demo"

[input]
format = "pictures"

[topics]
readings = "plant.pictures.v1"
dead_letters = "plant.pictures.dlq.v1"
late = "plant.pictures.late.v1"
state = "plant.pictures.state.v1"

[detectors.{DETECTOR}]
kind = "surface_inspector"
assets = ["camera-*"]
artifact = "artifacts/surface"
false_alarms_per_day = {_FALSE_ALARMS_PER_DAY}
config = {_CONFIG}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """What the station sees while the plant is watched: a picture each ``PERIOD_S``, one of each defect among them.

    at_ms ascending, epoch milliseconds of the plant's time
    """

    pictures: Sequence[Picture]
    at_ms: Sequence[int]

    @classmethod
    def simulated(cls, seed: int, start_ms: int, end_ms: int) -> Camera:
        """Tiles from ``start_ms`` to ``end_ms``; the defects lie apart, in the middle three quarters."""
        rng = np.random.default_rng([seed, 1])
        at_ms = range(start_ms, end_ms, round(1000 * PERIOD_S))
        places = np.linspace(0.2, 0.85, len(DEFECTS)) + rng.uniform(-0.05, 0.05, len(DEFECTS))
        defects = dict(zip((places * len(at_ms)).astype(int).tolist(), DEFECTS, strict=True))
        return cls([tile(rng, defects.get(number, NORMAL)) for number in range(len(at_ms))], list(at_ms))

    def send(
        self, kafka: KafkaSettings, topic: str, speed: float | None, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Send every picture as JPEG, ``speed`` seconds of the plant's time a second. Raises ``BrokerError``."""
        knock(kafka)
        began = time.monotonic()
        try:
            producer = KafkaProducer(**kafka.client_options(), acks="all", max_request_size=kafka.max_record_bytes)
            try:
                for at_ms, picture in zip(self.at_ms, self.pictures, strict=True):
                    if speed is not None:
                        ahead = (at_ms - self.at_ms[0]) / 1000 / speed - (time.monotonic() - began)
                        time.sleep(max(ahead, 0.0))
                    told = [("ts", timestamp(at_ms).encode())]
                    producer.send(topic, key=ASSET.encode(), value=jpeg(picture.pixels), headers=told).get(timeout=60)
                    progress(1)
            finally:
                producer.close(timeout=5)
        except KafkaError as error:
            raise BrokerError(f"{kafka.bootstrap}: {topic}: {type(error).__name__}: {error}") from None

    def sightings(self, alerts: Iterable[Alert]) -> list[Sighting]:
        """Each defect with the alert that was raised for its picture, and each alert for a good one."""
        heard: dict[str, Alert] = {}
        for alert in alerts:
            if alert.asset == ASSET and alert.heat is not None:
                heard.setdefault(alert.heat.at, alert)
        found = []
        for at_ms, picture in zip(self.at_ms, self.pictures, strict=True):
            raised = heard.get(timestamp(at_ms))
            if picture.kind != NORMAL or raised is not None:
                found.append(Sighting(ASSET, at_ms, picture.kind, picture.pixels, raised))
        return found


def train_camera(plan: Plan, *, seed: int, progress: Progress = no_progress) -> None:
    """Teach the plan's inspector from tiles of the same line, good ones and labelled defects, and save it."""
    rng = np.random.default_rng([seed, 0])
    tiles = [tile(rng) for _ in range(_GOOD)]
    tiles += [tile(rng, DEFECTS[number % len(DEFECTS)]) for number in range(_DEFECTIVE)]
    artifact = train_inspector(
        tiles,
        detector=plan.detectors[DETECTOR].kind,
        config=plan.detectors[DETECTOR].config,
        kinds=True,
        seed=seed,
        period_s=PERIOD_S,
        progress=progress,
    )
    artifact.save(plan.artifact_path(DETECTOR))
