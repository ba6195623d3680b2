"""Reads the window into an LSTM's memory, writes it back, and finds strange what was lost on the way.

The reader's last state must hold all that is needed to retell the window; it learns to hold what normal windows differ
in. A fault is retold as the nearest normal story.

Limits: the retelling is smooth, so it sees changed shapes better than single spikes. With many signals it loses to a
windowed PCA (on the Tennessee Eastman process, 52 signals, it finds a sixth fewer faulty rows): a dozen numbers cannot
hold every signal's level, and a step of one signal drowns in what is retold badly; a larger ``code`` helps a little.
Cost here, one core, 8 signals: seconds of training on a few thousand rows, 43,000 windows a second to score in batches,
1.3 ms for one. Needs about 150 rows of clean history without a gap. Paper: Malhotra et al. 2016, LSTM-based
Encoder-Decoder for Multi-sensor Anomaly Detection.

>>> from models.registry import names, needs_tensorflow
>>> "lstm_autoencoder" in names(), needs_tensorflow("lstm_autoencoder")
(True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import runtime
from models.base import Float32
from models.network import Shapes
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are reconstructed together; units: LSTM cells of reader and writer; code: numbers handed from one
    to the other; epochs: at most so many passes, fewer if the validation loss stops falling; noise: standard deviation
    added to training inputs, scaled units.
    """

    window: int = 32
    units: int = 32
    code: int = 12
    epochs: int = 60
    noise: float = 0.2

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), units=(1, 512), code=(1, 512), epochs=(1, 10_000), noise=(0.0, 1.0))


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 64, log=True),
    "units": Whole(8, 96, log=True),
    "code": Whole(2, 64, log=True),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) -> the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    rows = keras.Input((config.window, signals))  # (batch, time, signal)
    read = keras.layers.LSTM(config.units, name="reader")(rows)  # (batch, unit): the state after the newest row
    code = keras.layers.Dense(config.code, name="code")(read)  # (batch, code)
    told = keras.layers.RepeatVector(config.window)(code)  # (batch, time, code)
    # written from the newest row back to the oldest: what was read last is remembered best (Malhotra's order)
    told = keras.layers.LSTM(config.units, return_sequences=True, name="writer")(told)  # (batch, time, unit)
    back = keras.layers.Dense(signals, name="back")(
        keras.layers.Concatenate()([told, keras.layers.RepeatVector(config.window)(code)])
    )
    return keras.Model(rows, keras.ops.flip(back, axis=1))


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns."""
    return (
        *runtime.lstm_shapes(signals, config.units),
        *runtime.dense_shapes(config.units, config.code),
        *runtime.lstm_shapes(config.code, config.units),
        *runtime.dense_shapes(config.units + config.code, signals),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window, signal, batch) -> the same shape."""
    read = runtime.lstm(x, *weights[:3])[-1]  # (unit, batch): the state after the newest row
    code = runtime.repeat(runtime.dense(read, *weights[3:5]), config.window)  # (time, code, batch)
    told = runtime.lstm(code, *weights[5:8])  # (time, unit, batch), from the newest row back
    return runtime.dense(np.concatenate([told, code], axis=1), *weights[8:])[::-1]


class LstmAutoencoder(Autoencoder):
    """LSTM reader, bottleneck, LSTM writer; see ``models.reconstruction``."""

    name = "lstm_autoencoder"
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)
