"""The frame of every detector that is a network: a subclass says what goes in and what should come out.

A detector's page has its network twice: ``build`` in Keras, to train, and ``forward`` in numpy, to score, with the
``shapes`` of the weights that both share. Keras is imported inside of ``build``, so scoring never imports it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from models.base import FitReport, Float32, Progress
from models.network import COMPARED, Forward, Network, Shapes
from models.objective import Objective
from models.surprise import SurpriseDetector
from models.windows import WindowSet


class DeepDetector(SurpriseDetector):
    """A ``SurpriseDetector`` whose expectations come from a ``Network``."""

    # plain functions of (signals, config), (signals, config) and (weights, x, config), kept as staticmethods
    build: Callable[[int, Any], Any]
    shapes: Callable[[int, Any], Shapes]
    forward: Forward
    #: Numbers that the network reads and gives for each value of a window.
    reads: ClassVar[int] = 1
    gives: ClassVar[int] = 1

    def __init__(self, signals: int, config: Any) -> None:
        super().__init__(signals, config)
        cls = type(self)
        self._network = Network(cls.forward, cls.shapes(signals, config), config, outputs=cls.gives * signals)

    @property
    def unread(self) -> int:
        """Rows of the window that the network does not read: a forecaster's newest."""
        return 0

    def _objective(self) -> Objective:
        """What the network is trained for."""
        return Objective(noise=self.config.noise)

    @abc.abstractmethod
    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        """(batch, window, signal), NaN where missing -> what the network reads, its target, and what of that counts."""

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        from models import training  # noqa: PLC0415  # it imports TensorFlow, which only training needs

        cls = type(self)
        learnt = training.learn(
            cls.build,
            cls.shapes(self.signals, self.config),
            self.signals,
            self.config,
            windows,
            later,
            self._prepare,
            schedule=training.Schedule(epochs=self.config.epochs),
            seed=seed,
            objective=self._objective(),
            progress=progress,
        )
        x = self._prepare(later.take(slice(-COMPARED, None)))[0]
        difference = self._network.adopt(learnt.weights, x, learnt.predict(x))
        return FitReport({**learnt.report.figures, "parity": difference}, learnt.report.curves)

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return self._network.weights()

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self._network.load_weights(weights, self.window - self.unread, type(self).reads * self.signals)
