"""Says where on a picture of a surface there is something that does not belong there, and with labels which defect it
is.

A small fully convolutional network with a pyramid judges every spot of four by four pixels. Shown good pictures alone
it learns from defects that are made up (``models.blemishes``); shown pictures with drawn defects, it learns their
kinds. What is usual at an edge is not usual in the middle, so each spot's evidence counts against mean and spread at
that distance from the edges on good pictures; the score is the mean of the five highest spots, and all of them are the
heat map.

Limits: defects smaller than a few pixels, and large ones with soft rims, escape it; the camera and the light should be
as they were when it was trained. Cost here, one core: minutes of training, 20 ms a picture of 300 x 300 pixels. Papers:
Zavrtanik et al. 2021 (DRAEM); Lin et al. 2017 (feature pyramids).

>>> from models.registry import create
>>> create("surface_inspector", signals=1, config={"classes": ["normal", "crack"]}).class_names
('normal', 'crack')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models import raster, spots
from models.base import NORMAL, FitReport, Float32, Float64, Progress, Scored, UInt8, no_progress
from models.errors import InvalidArtifact, TrainingError
from models.network import Shapes
from models.pictures import Picture, good_ones
from models.ranges import within
from models.weights import checked

_TOLERANCE: Final = 1e-3
_AS_LIKELY_AS_NOT: Final = 2.0  # spreads above the usual highest evidence of a good picture
_SHARPNESS: Final = 2.0  # of the step from good to defect, over a spread
_PROBE: Final = (48, 64, raster.CHANNELS)
_DEFECT: Final = "defect"


@dataclass(frozen=True, slots=True)
class Config:
    """classes: ``normal`` first (training fills in the kinds of defects; ``defect`` where there is none); filters: of
    the first layer, deeper ones have up to twice as many; steps: of training; crop: pixels of a side that it is trained
    on, a multiple of 16; batch: crops at once.
    """

    classes: tuple[str, ...] = (NORMAL, _DEFECT)
    filters: int = 20
    steps: int = 3000
    crop: int = 160
    batch: int = 12

    def __post_init__(self) -> None:
        within(self, filters=(4, 256), steps=(1, 1_000_000), crop=(32, 1024), batch=(1, 1024))
        if self.crop % 16:
            raise ValueError(f"crop: expected a multiple of 16, got {self.crop}")
        if len(self.classes) < 2 or self.classes[0] != NORMAL or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected different names, {NORMAL!r} first, got {self.classes}")

    @property
    def window(self) -> int:
        """A picture is judged alone."""
        return 1


def _layers(config: Config) -> dict[str, tuple[int, int, int, int]]:
    """Name -> (taps, channels in, out, stride), in the order of use."""
    fine = 2 * config.filters // 3
    one, two, three, four = config.filters, 4 * config.filters // 3, 2 * config.filters, 8 * config.filters // 3
    return {
        "whole": (3, raster.CHANNELS, fine, 1), "half": (3, fine, two, 2), "half2": (3, two, two, 1),
        "quarter": (3, two, three, 2), "quarter2": (3, three, three, 1),
        "eighth": (3, three, four, 2), "eighth2": (3, four, four, 1),
        "up4": (3, four, three, 1), "up2": (3, three, two, 1), "last": (3, two, one, 1),
        "logits": (1, one, len(config.classes), 1),
    }  # fmt: skip


def build(config: Config) -> Any:
    """In Keras, to train: (batch, row, column, channel) -> logits (batch, row / 2, column / 2, class)."""
    import keras  # noqa: PLC0415  # only training needs it

    layers = {
        name: keras.layers.Conv2D(
            out, taps, strides=stride, padding="same", kernel_initializer="he_normal",
            activation=None if name == "logits" else "relu", name=name,
        )
        for name, (taps, _, out, stride) in _layers(config).items()
    }  # fmt: skip
    seen = keras.Input((None, None, raster.CHANNELS))
    return keras.Model(seen, _pyramid(layers, keras.layers.UpSampling2D(2), seen))


def _pyramid(layers: Mapping[str, Any], doubled: Any, x: Any) -> Any:
    """The network, whatever layers it is made of."""
    half = layers["half2"](layers["half"](layers["whole"](x)))
    quarter = layers["quarter2"](layers["quarter"](half))
    eighth = layers["eighth2"](layers["eighth"](quarter))
    quarter = layers["up4"](doubled(eighth)) + quarter
    half = layers["up2"](doubled(quarter)) + half
    return layers["logits"](layers["last"](half))


def shapes(config: Config) -> Shapes:
    """What it learns."""
    return tuple(
        array
        for name, (taps, inputs, outputs, _) in _layers(config).items()
        for array in ((f"{name}.kernel", (taps, taps, inputs, outputs)), (f"{name}.bias", (outputs,)))
    )


def forward(weights: Mapping[str, Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (row, column, channel), sides a multiple of ``raster.MULTIPLE`` -> logits."""

    def layer(name: str, stride: int) -> Any:
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]

        def run(x: Float32) -> Float32:
            out = raster.conv(x, kernel, bias, stride)
            return out if name == "logits" else np.maximum(out, np.float32(0), out=out)

        return run

    layers = {name: layer(name, stride) for name, (_, _, _, stride) in _layers(config).items()}
    logits: Float32 = _pyramid(layers, raster.doubled, x)
    return logits


class SurfaceInspector:
    """A pyramid of convolutions, its evidence against what is usual; see the top of this file."""

    name: ClassVar[str] = "surface_inspector"

    def __init__(self, signals: int, config: Config) -> None:
        if signals != 1:
            raise ValueError(f"surface_inspector: a picture is one signal, got {signals}")
        self.signals, self.config = signals, config
        self._weights: dict[str, npt.NDArray[Any]] | None = None
        self._usual: spots.Usual | None = None

    @property
    def window(self) -> int:
        """A picture is judged alone."""
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the columns of ``Scored.classes`` are."""
        return self.config.classes

    def fit_pictures(
        self,
        pictures: Sequence[Picture],
        validation: Sequence[Picture],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn from ``pictures``; what is usual, from the good ones of ``validation``.

        With ``classes`` other than ``normal`` and ``defect``, ``pictures`` hold each of these with masks. Raises
        ``TrainingError`` if there is too little.
        """
        from models import picture_training  # noqa: PLC0415  # it imports TensorFlow, which only training needs

        _, usual = good_ones(pictures, validation)
        learnt = picture_training.learn(
            build(self.config), pictures, self.config.classes,
            steps=self.config.steps, crop=self.config.crop // 2, batch=self.config.batch, seed=seed, progress=progress,
        )  # fmt: skip
        weights = learnt.weights
        probe = raster.read(np.random.default_rng(0).normal(size=_PROBE[:2]).astype(np.float32))
        wanted = learnt.predict(probe)
        difference = float(np.abs(forward(weights, probe, self.config) - wanted).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise TrainingError(f"the trained network gives other numbers in numpy than in Keras, by {difference:.2g}")
        self._weights = {**weights, "parity.input": probe, "parity.output": wanted}
        self._usual = spots.Usual.of([self._evidence(picture.pixels)[0] for picture in usual])
        return FitReport({"loss": learnt.losses[-1], "parity": difference}, {"loss": learnt.losses})

    def score(self, pictures: Sequence[UInt8]) -> Scored:
        """Judge each picture (row, column) uint8 alone; ``heat`` is its map, one cell for 4 x 4 pixels."""
        usual = self._trained()[1]
        scores, classes, maps = np.empty(len(pictures)), np.empty((len(pictures), len(self.config.classes))), []
        for number, pixels in enumerate(pictures):
            evidence, logits = self._evidence(pixels)
            heat = usual.heat(evidence)
            highest = spots.highest(heat)
            scores[number] = heat.ravel()[highest].mean(dtype=np.float64)
            classes[number] = _kinds(logits.reshape(-1, logits.shape[-1])[highest], float(scores[number]))
            maps.append(heat)
        shares = np.where(scores > 0, 1.0, 0.0)[:, None]
        return Scored(scores, shares, classes=classes.astype(np.float32), heat=tuple(maps))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The network, and what is usual."""
        weights, usual = self._trained()
        return {**weights, **usual.weights()}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        taken = {name: checked(weights, name, shape) for name, shape in shapes(self.config)}
        probe = checked(weights, "parity.input", _PROBE)
        wanted = checked(weights, "parity.output", (_PROBE[0] // 2, _PROBE[1] // 2, len(self.config.classes)))
        difference = float(np.abs(forward(taken, probe, self.config) - wanted).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise InvalidArtifact(f"weights: the network's answer to 'parity.input' is off by {difference:.2g}")
        self._weights = {**taken, "parity.input": probe, "parity.output": wanted}
        self._usual = spots.Usual.load(weights)

    def _trained(self) -> tuple[Mapping[str, npt.NDArray[Any]], spots.Usual]:
        if self._weights is None or self._usual is None:
            raise RuntimeError("surface_inspector is neither trained nor loaded")
        return self._weights, self._usual

    def _evidence(self, pixels: UInt8) -> tuple[Float64, Float32]:
        """(row, column) uint8 -> the odds of a defect at each spot (row / 4, column / 4), and the logits."""
        x = raster.read(raster.reduced(pixels))
        rows, columns = -(-x.shape[0] // 2), -(-x.shape[1] // 2)
        if self._weights is None:
            raise RuntimeError("surface_inspector is neither trained nor loaded")
        logits = forward(self._weights, raster.padded(x), self.config)[:rows, :columns]
        wide = logits.astype(np.float64)
        highest = wide[..., 1:].max(axis=-1)
        defect = highest + np.log(np.exp(wide[..., 1:] - highest[..., None]).sum(axis=-1))
        return np.asarray(defect - wide[..., 0], np.float64), logits


def _kinds(logits: Float32, score: float) -> Float64:
    """(spot, class) of the highest spots -> probabilities (class,).

    Whether there is a defect is the score's to say: the network saw defects far more often than a line makes them.
    Which it is, if there is one, is the network's.
    """
    defect = 1.0 / (1.0 + np.exp(-_SHARPNESS * (score - _AS_LIKELY_AS_NOT)))
    kinds = _softmax(logits[:, 1:].astype(np.float64).mean(axis=0))
    return np.concatenate([[1.0 - defect], defect * kinds])


def _softmax(logits: Float64) -> Float64:
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum(), np.float64)
