"""Squeezes the window with convolutions along time and finds strange what does not come back.

The same small filters slide over every part of the window, so a pattern is learnt wherever it falls and few weights are
needed: the autoencoder to try first where history is short or signals are many.

Limits: what it sees together is about two dozen rows; slower relations need a dense or LSTM autoencoder. Cost here,
one core, 8 signals: seconds of training on a few thousand rows, 110,000 windows a second to score in batches, 0.4 ms
for one. Needs about 150 rows of clean history without a gap. Paper: Masci et al. 2011, Stacked Convolutional
Auto-Encoders for Hierarchical Feature Extraction.

>>> from models.registry import names, needs_tensorflow
>>> "conv_autoencoder" in names(), needs_tensorflow("conv_autoencoder")
(True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models import runtime
from models.base import Float32
from models.network import Shapes
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are reconstructed together, a multiple of 4; filters: channels of the outer layers; code:
    channels of the bottleneck, at a quarter of the rate; kernel: rows of a filter; epochs: at most so many passes,
    fewer if the validation loss stops falling; noise: standard deviation added to training inputs, scaled units.
    """

    window: int = 32
    filters: int = 32
    code: int = 4
    kernel: int = 7
    epochs: int = 60
    noise: float = 0.2

    def __post_init__(self) -> None:
        within(
            self,
            window=(8, 1024),
            filters=(1, 512),
            code=(1, 512),
            kernel=(1, 64),
            epochs=(1, 10_000),
            noise=(0.0, 1.0),
        )
        if self.window % 4:
            raise ValueError(f"window: expected a multiple of 4 (two layers halve it), got {self.window}")


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, step=4),
    "filters": Whole(8, 64, log=True),
    "code": Whole(1, 32, log=True),
    "kernel": Whole(3, 11),
    "noise": Real(0.0, 0.5),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) -> the same shape."""
    import keras  # noqa: PLC0415  # only training needs it

    rows = keras.Input((config.window, signals))  # (batch, time, signal)
    half = _conv(config.filters, config.kernel, "relu", "outer")(rows)  # (batch, time / 2, filter)
    code = _conv(config.code, config.kernel, None, "code")(half)  # (batch, time / 4, code)
    half = _transposed(config.filters, config.kernel, "relu", "unfold")(code)  # (batch, time / 2, filter)
    return keras.Model(rows, _transposed(signals, config.kernel, None, "back")(half))


def _conv(filters: int, kernel: int, activation: str | None, name: str) -> Any:
    import keras  # noqa: PLC0415  # only training needs it

    return keras.layers.Conv1D(filters, kernel, strides=2, padding="same", activation=activation, name=name)


def _transposed(filters: int, kernel: int, activation: str | None, name: str) -> Any:
    import keras  # noqa: PLC0415  # only training needs it

    return keras.layers.Conv1DTranspose(filters, kernel, strides=2, padding="same", activation=activation, name=name)


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns; a transposed convolution's kernel is (tap, out, in)."""
    taps, filters, code = config.kernel, config.filters, config.code
    return (
        ("kernel", (taps, signals, filters)),
        ("bias", (filters,)),
        ("kernel", (taps, filters, code)),
        ("bias", (code,)),
        ("kernel", (taps, filters, code)),
        ("bias", (filters,)),
        ("kernel", (taps, signals, filters)),
        ("bias", (signals,)),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:  # noqa: ARG001  # sizes: the weights'
    """In numpy, to score: (window, signal, batch) -> the same shape."""
    outer, code_layer, unfold, back = zip(weights[::2], weights[1::2], strict=True)  # kernel and bias of each
    half = runtime.relu(runtime.conv(x, *outer, stride=2))  # (time / 2, filter, batch)
    code = runtime.conv(half, *code_layer, stride=2)  # (time / 4, code, batch)
    half = runtime.relu(runtime.conv_transposed(code, *unfold))  # (time / 2, filter, batch)
    return runtime.conv_transposed(half, *back)


class ConvAutoencoder(Autoencoder):
    """Strided convolutions down and up again; see ``models.reconstruction``."""

    name = "conv_autoencoder"
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)
