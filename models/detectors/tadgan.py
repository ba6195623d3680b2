"""Learns to make windows that critics take for real, and finds strange what it cannot remake.

An encoder turns a window into a code, a generator turns codes into windows, and two critics watch: one tells made
windows from real ones, the other codes of real windows from a standard normal cloud. So the generator knows the world
of normal windows and nothing beside it; a fault is remade as the nearest normal window. The critic's doubt can multiply
the error (the paper's product): ``doubt``, by default 0. It was measured: what the critic has learnt of real windows
does not carry to later ones. On the Tennessee Eastman process it doubts clean windows of another day more than those of
a step in the cooling water, and with ``doubt = 0.1`` the detection rate falls from .86 to .78.

What differs from the paper, so that it is stable on a CPU in a minute: least squares (Mao et al. 2017) in place of
Wasserstein's with a gradient penalty, convolutions in place of LSTMs, and a critic that judges every value of the
window (as PatchGAN judges patches; Isola et al. 2017), so that its doubt belongs to a row and a signal. The weights
kept are those that remade held-back windows best.

Shapes: (window, signal) in; out are the remade window and the critic's doubt, about 0 for real and 1 for made.

Limits: seeds differ (three of them found .77 to .86 of the faulty rows of the Tennessee Eastman process); a ``code`` of
10 numbers, enough for 8 signals, loses a fault of a single one of 52 altogether. Cost here, one core, 8 signals: half a
minute of training on a few thousand rows, 97,000 windows a second to score in batches, 0.6 ms for one. Needs about 150
rows of clean history without a gap. Paper: Geiger et al. 2020, TadGAN: Time Series Anomaly Detection Using Generative
Adversarial Networks.

>>> from models.registry import create, needs_tensorflow
>>> needs_tensorflow("tadgan")
True
>>> create("tadgan", signals=2, config={"window": 30})
Traceback (most recent call last):
ValueError: window: expected a multiple of 4 (two layers halve it), got 30
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import runtime
from models.base import FitReport, Float32, Progress
from models.network import Shapes
from models.objective import Call, Loss, Objective, huber, mean
from models.ranges import within
from models.reconstruction import Autoencoder
from models.search import Real, Space, Whole
from models.weights import checked
from models.windows import WindowSet, fill_forward

_REMAKING: Final = 10.0  # weight of the reconstruction beside the critics, as in the paper
_MOST_DOUBT: Final = 3.0  # standard deviations above the usual: a doubt beyond adds nothing


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are remade together, a multiple of 4; filters: channels of the convolutions; code: numbers in the
    bottleneck; kernel: rows of a filter; doubt: what a standard deviation of the critic's doubt adds to an error;
    epochs: at most so many passes, fewer if the validation loss stops falling; noise: standard deviation added to
    training inputs, scaled units.
    """

    window: int = 32
    filters: int = 24
    code: int = 24
    kernel: int = 5
    doubt: float = 0.0
    epochs: int = 60
    noise: float = 0.1

    def __post_init__(self) -> None:
        within(self, window=(8, 1024), filters=(1, 512), code=(1, 512), kernel=(1, 64), doubt=(0.0, 10.0))
        within(self, epochs=(1, 10_000), noise=(0.0, 1.0))
        if self.window % 4:
            raise ValueError(f"window: expected a multiple of 4 (two layers halve it), got {self.window}")


#: What ``headrace tune`` may turn.
SEARCH: Final[Space] = {
    "window": Whole(8, 96, step=4),
    "filters": Whole(8, 64, log=True),
    "code": Whole(2, 64, log=True),
    "kernel": Whole(3, 9),
    "doubt": Real(0.0, 0.5),
    "noise": Real(0.0, 0.4),
}


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: (batch, window, signal) and what is drawn (batch, code) -> the remade window; the critic's
    doubt about the real and about a made window; the other critic's about the window's code and about the drawn one.
    """
    import keras  # noqa: PLC0415  # only training needs it

    layers, quarter = keras.layers, config.window // 4
    common = {"padding": "same"}
    encoder = [
        layers.Conv1D(config.filters, config.kernel, 2, activation="relu", name="encoder_half", **common),
        layers.Conv1D(config.filters, config.kernel, 2, activation="relu", name="encoder_quarter", **common),
        layers.Flatten(),
        layers.Dense(config.code, name="encoder_code"),
    ]
    generator = [
        layers.Dense(quarter * config.filters, activation="relu", name="generator_quarter"),
        layers.Reshape((quarter, config.filters)),
        layers.Conv1DTranspose(config.filters, config.kernel, 2, activation="relu", name="generator_half", **common),
        layers.Conv1DTranspose(signals, config.kernel, 2, name="generator_back", **common),
    ]
    critic = [
        layers.Conv1D(config.filters, config.kernel, activation="relu", name="critic_outer", **common),
        layers.Conv1D(config.filters, config.kernel, activation="relu", name="critic_inner", **common),
        layers.Dense(signals, name="critic_doubt"),
    ]
    warden = [
        layers.Dense(config.filters, activation="relu", name="warden_hidden"),
        layers.Dense(1, name="warden_doubt"),
    ]

    def through(parts: list[Any], x: Any) -> Any:
        for part in parts:
            x = part(x)
        return x

    rows, drawn = keras.Input((config.window, signals)), keras.Input((config.code,))
    code = through(encoder, rows)  # (batch, code)
    made = through(generator, drawn)  # (batch, time, signal)
    return keras.Model(
        [rows, drawn],
        [
            through(generator, code),
            through(critic, rows),
            through(critic, made),
            through(warden, code),
            through(warden, drawn),
        ],
    )


def shapes(signals: int, config: Config) -> Shapes:
    """What it learns, in Keras's order: encoder, generator, and both critics layer by layer."""
    taps, filters, code, quarter = config.kernel, config.filters, config.code, config.window // 4
    return (
        *runtime.conv_shapes(taps, signals, filters),
        *runtime.conv_shapes(taps, filters, filters),
        *runtime.dense_shapes(quarter * filters, code),
        *runtime.dense_shapes(code, quarter * filters),
        *runtime.conv_transposed_shapes(taps, filters, filters),
        *runtime.conv_transposed_shapes(taps, filters, signals),
        *runtime.conv_shapes(taps, signals, filters),
        *runtime.conv_shapes(taps, filters, filters),
        *runtime.dense_shapes(code, filters),
        *runtime.dense_shapes(filters, signals),
        *runtime.dense_shapes(filters, 1),
    )


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window, signal, batch) -> (window, 2 signal, batch), remade window and doubt."""
    half, quarter, code, unfold, back_half, back, outer, inner, _, doubt, _ = zip(
        weights[::2], weights[1::2], strict=True
    )
    hidden = runtime.relu(runtime.conv(x, *half, stride=2))  # (time / 2, filter, batch)
    hidden = runtime.relu(runtime.conv(hidden, *quarter, stride=2))  # (time / 4, filter, batch)
    codes = runtime.dense(hidden.reshape(-1, x.shape[2]), *code)  # (code, batch)
    hidden = runtime.relu(runtime.dense(codes, *unfold)).reshape(len(x) // 4, config.filters, -1)
    remade = runtime.conv_transposed(runtime.relu(runtime.conv_transposed(hidden, *back_half)), *back)
    seen = runtime.relu(runtime.conv(runtime.relu(runtime.conv(x, *outer)), *inner))  # (time, filter, batch)
    return np.concatenate([remade, runtime.dense(seen, *doubt)], axis=1)


@dataclass(frozen=True)
class Adversaries(Objective):
    """Encoder and generator against two critics, by least squares: 0 is real, 1 is made.

    code: numbers in the bottleneck.
    """

    code: int = 0

    @property
    def drawn(self) -> int:
        """A code to make a window of."""
        return self.code

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """The critics', and their opponents'."""
        import keras  # noqa: PLC0415  # only training needs it

        del progress
        remade, doubt_real, doubt_made, code_real, code_drawn = outputs
        square, average = keras.ops.square, keras.ops.mean
        return [
            (mean(square(doubt_real), weight) + average(square(doubt_made - 1)), ("critic",)),
            (average(square(code_drawn)) + average(square(code_real - 1)), ("warden",)),
            (
                _REMAKING * mean(huber(remade - target), weight)
                + average(square(doubt_made)) + average(square(code_real)),
                ("encoder", "generator"),
            ),
        ]  # fmt: skip

    def answer(self, call: Call, x: Float32) -> Float32:
        """The remade window and the critic's doubt about the real one."""
        remade, doubt, *_ = call(x, None)
        return np.concatenate([remade, doubt], axis=2)


class Tadgan(Autoencoder):
    """Encoder, generator and critics; see the top of this file and ``models.reconstruction``."""

    name = "tadgan"
    gives = 2
    build = staticmethod(build)
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    def __init__(self, signals: int, config: Config) -> None:
        super().__init__(signals, config)
        # (2, signal): mean and standard deviation of the critic's doubt about each signal on clean data
        self._usual_doubt = np.ones((2, signals), np.float32)

    def _objective(self) -> Objective:
        return Adversaries(noise=self.config.noise, code=self.config.code)

    def _learn(self, windows: WindowSet, later: WindowSet, seed: int, progress: Progress) -> FitReport:
        report = super()._learn(windows, later, seed, progress)
        _, doubt = self._given(later.take())
        deviation = np.maximum(doubt.std(axis=(0, 1), dtype=np.float64), 1e-3)
        self._usual_doubt = np.stack([doubt.mean(axis=(0, 1), dtype=np.float64), deviation]).astype(np.float32)
        return report

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """Errors, enlarged where the critic doubts, for the newer half of the rows; the newest row remade."""
        remade, doubt = self._given(windows)
        usual, deviation = self._usual_doubt
        unusual = np.clip((doubt - usual) / deviation, 0, _MOST_DOUBT)
        errors = windows[:, -(self.window // 2) :] - remade
        return errors * (1 + np.float32(self.config.doubt) * unusual), remade[:, -1]

    def _given(self, windows: Float32) -> tuple[Float32, Float32]:
        """The remade window and the critic's doubt: (batch, newer half of the rows, signal)."""
        given = self._network.predict(fill_forward(windows))[:, -(self.window // 2) :]
        return given[:, :, : self.signals], given[:, :, self.signals :]

    def _learnt(self) -> dict[str, npt.NDArray[Any]]:
        return super()._learnt() | {"usual_doubt": self._usual_doubt}

    def _restore(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(weights)
        self._usual_doubt = checked(weights, "usual_doubt", (2, self.signals))
