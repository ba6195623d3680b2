"""The frame of every detector that is a Keras network: a subclass says what goes in and what should come out."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from models.base import FitReport, Float32, Progress
from models.network import Build, Network, Schedule
from models.surprise import SurpriseDetector
from models.windows import WindowSet


class DeepDetector(SurpriseDetector):
    """A ``SurpriseDetector`` whose expectations come from a ``Network``."""

    build: Build  # a plain function, kept as a staticmethod

    def __init__(self, signals: int, config: Any) -> None:
        super().__init__(signals, config)
        self._network = Network(type(self).build, signals, config)

    @abc.abstractmethod
    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        """(batch, window, signal), NaN where missing -> what the network reads, what it should give, what counts."""

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        schedule = Schedule(epochs=self.config.epochs, noise=self.config.noise)
        return self._network.fit(windows, later, self._prepare, schedule=schedule, seed=seed, progress=progress)

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return self._network.weights()

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self._network.load_weights(weights)
