"""Compares every value with the exponentially weighted mean of those before it: the baseline that needs no network.

What a control chart does. It knows nothing of rhythm or of relations that a mean cannot show, and still finds spikes,
steps and trends at once, trains on a hundred rows in milliseconds, and is hard to fool: a deep detector that is not
better on held-back data has not earned its place.

Limits: a cycle shorter than its memory is all noise to it; it follows a lasting change within ``span`` rows.
Cost: no TensorFlow; microseconds a window. Paper: Roberts 1959, Control Chart Tests Based on Geometric Moving Averages.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> detector = Ewma(signals=2, config=Config(window=16))
>>> _ = detector.fit([rng.normal(size=(200, 2)).astype("f4")], [rng.normal(size=(100, 2)).astype("f4")])
>>> window = rng.normal(size=(1, 16, 2)).astype("f4")
>>> calm = detector.score(window).score[0]
>>> window[0, -1, 1] = 9.0
>>> spike = detector.score(window)
>>> bool(spike.score[0] > 2 * calm), int(spike.contributions[0].argmax())
(True, 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.base import Float32
from models.ranges import within
from models.search import Real, Space, Whole
from models.surprise import SurpriseDetector
from models.windows import fill_forward


@dataclass(frozen=True, slots=True)
class Config:
    """window: rows it looks back over; span: rows the mean remembers, as in a moving average of that length."""

    window: int = 32
    span: float = 12.0

    def __post_init__(self) -> None:
        within(self, window=(4, 1024), span=(1.0, 1024.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {"window": Whole(8, 128, log=True), "span": Real(2.0, 100.0, log=True)}


class Ewma(SurpriseDetector):
    """Innovations against an exponentially weighted mean; spreads, whitening and score as in ``models.innovation``."""

    name = "ewma"

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        rate = np.float32(2.0 / (self.config.span + 1.0))
        known = fill_forward(windows)
        half = self.window // 2
        # the mean starts from the plain one of the older half, so that the window's first row has no special say
        level = known[:, : self.window - half].mean(axis=1)
        innovations = np.empty((len(windows), half, self.signals), np.float32)
        for row in range(half):
            expected = level
            position = self.window - half + row
            innovations[:, row] = windows[:, position] - expected
            level = level + rate * (known[:, position] - level)
        return innovations, expected
