"""A worker's pipeline and its live page without a broker: recordings are played into it by a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from models.datasets import Recording
from stream.actions import Action
from stream.backtest import columns
from stream.incidentbook import IncidentBook
from stream.labels import Label
from stream.page.acting import Acting
from stream.page.board import Board
from stream.pipeline import Pipeline
from stream.plan import Plan, TopicSettings
from stream.records import Readings
from stream.shelf import Shelf
from stream.sinks.prometheus import Metrics
from stream.web import Health, WebServer


class LivePlant:
    """Serves the page from ``start`` to ``stop``; ``play`` lets the plant's time go on."""

    def __init__(self, plan: Plan, recordings: Sequence[Recording], *, site: str = "north", token: str = "") -> None:
        self.pipeline = Pipeline(plan, Shelf(plan))
        self._recordings = recordings
        self.now_ms = min(int(held.at_ms[0]) for held in recordings)
        self.incidents = IncidentBook(plan.lines)
        self.board = Board(
            site=site,
            units=plan.units,
            incidents=self.incidents,
            clock=lambda: self.now_ms / 1000,
            wall=lambda: self.now_ms / 1000,
        )
        self.health = Health()
        self.health.connected, self.health.partitions, self.health.models_loaded = True, 4, True
        self.written: list[Action | Label] = []
        acting = Acting(token, TopicSettings(), Loop(self)) if token else None
        self._server = WebServer(Metrics().registry, self.health, self.board, acting)

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def play(self, seconds: float, step_s: float = 10.0) -> None:
        """So much of the plant's time, in batches of ``step_s``."""
        end_ms = self.now_ms + round(seconds * 1000)
        while self.now_ms < end_ms:
            until_ms = min(self.now_ms + round(step_s * 1000), end_ms)
            self.board.take(self.pipeline.run(0, self._readings(self.now_ms, until_ms)))
            self.now_ms = until_ms

    def _readings(self, from_ms: int, until_ms: int) -> Readings:
        """What was observed from ``from_ms`` to before ``until_ms``, in the order of time."""
        asset, at_ms, values = [], [], []
        for index, held in enumerate(self._recordings):
            rows = slice(*np.searchsorted(held.at_ms, [from_ms, until_ms]).tolist())
            at_ms.append(held.at_ms[rows])
            asset.append(np.full(len(at_ms[-1]), index, dtype=np.int32))
            values.append(columns(held.signals, held.values[rows], self.pipeline.signals))
        order = np.argsort(np.concatenate(at_ms), kind="stable")
        return Readings(
            names=tuple(held.asset for held in self._recordings),
            asset=np.concatenate(asset)[order],
            at_ms=np.concatenate(at_ms)[order],
            signals=self.pipeline.signals,
            values=np.concatenate(values)[order],
            record=np.arange(len(order), dtype=np.int32),
        )


class Loop:
    """The control topics in short: what is done on the page comes back to the plant's pipeline at once."""

    def __init__(self, plant: LivePlant) -> None:
        self._plant = plant

    async def write(self, topic: str, key: str, value: bytes) -> None:
        plant = self._plant
        if topic == TopicSettings().actions:
            action = msgspec.json.decode(value, type=Action)
            plant.written.append(action)
            plant.board.take(plant.pipeline.act(action))
        else:
            label = msgspec.json.decode(value, type=Label)
            plant.written.append(label)
            plant.board.take(plant.pipeline.label(key, label))

    async def stop(self) -> None: ...
