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

from models import raster
from models.base import NORMAL, FitReport, Float32, Float64, Progress, Scored, UInt8, no_progress
from models.errors import InvalidArtifact, TrainingError
from models.network import Shapes
from models.pictures import Picture
from models.ranges import within
from models.weights import checked

_SPOT: Final = 4  # pixels of a side
_BINS: Final = 10  # spots from the edge; from there on all is middle
_HIGHEST: Final = 5  # spots that make the score
_LEAST_SPREAD: Final = 0.25  # of the evidence, in nats
_TOLERANCE: Final = 1e-3
_PROBE: Final = (48, 64, raster.CHANNELS)
_DEFECT: Final = "defect"


@dataclass(frozen=True, slots=True)
class Config:
    """classes: ``normal`` first (training fills in the kinds of defects; ``defect`` where there is none); filters: of
    the first layer, deeper ones have up to twice as many; steps: of training; crop: pixels of a side that it is trained
    on, a multiple of 16; batch: crops at once.
    """

    classes: tuple[str, ...] = (NORMAL, _DEFECT)
    filters: int = 24
    steps: int = 800
    crop: int = 192
    batch: int = 16

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

        usual = [picture for picture in validation if picture.kind == NORMAL]
        if len(usual) < 2 or not any(picture.kind == NORMAL for picture in pictures):
            raise TrainingError(
                f"{len(usual)} good pictures to measure by, at least 2 are needed, and some to learn from"
            )
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
        self._weights |= _usual([self._evidence(picture.pixels)[0] for picture in usual])
        return FitReport({"loss": learnt.losses[-1], "parity": difference}, {"loss": learnt.losses})

    def score(self, pictures: Sequence[UInt8]) -> Scored:
        """Judge each picture (row, column) uint8 alone; ``heat`` is its map, one cell for 4 x 4 pixels."""
        weights = self._trained()
        scores, classes, maps = np.empty(len(pictures)), np.empty((len(pictures), len(self.config.classes))), []
        for number, pixels in enumerate(pictures):
            evidence, logits = self._evidence(pixels)
            bins = _bins(evidence.shape)
            heat = np.maximum((evidence - weights["usual.mean"][bins]) / weights["usual.spread"][bins], 0.0)
            highest = np.argpartition(heat.ravel(), -_HIGHEST)[-_HIGHEST:]
            scores[number] = heat.ravel()[highest].mean()
            classes[number] = _softmax(logits.reshape(-1, logits.shape[-1])[highest].astype(np.float64).mean(axis=0))
            maps.append(heat.astype(np.float32))
        shares = np.where(scores > 0, 1.0, 0.0)[:, None]
        return Scored(scores, shares, classes=classes.astype(np.float32), heat=tuple(maps))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The network, and what is usual."""
        return dict(self._trained())

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        taken = {name: checked(weights, name, shape) for name, shape in shapes(self.config)}
        probe = checked(weights, "parity.input", _PROBE)
        wanted = checked(weights, "parity.output", (_PROBE[0] // 2, _PROBE[1] // 2, len(self.config.classes)))
        difference = float(np.abs(forward(taken, probe, self.config) - wanted).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise InvalidArtifact(f"weights: the network's answer to 'parity.input' is off by {difference:.2g}")
        table = {name: checked(weights, name, (_BINS, _BINS), np.float64) for name in ("usual.mean", "usual.spread")}
        if (table["usual.spread"] <= 0).any():
            raise InvalidArtifact("weights: array 'usual.spread' must be above 0")
        self._weights = {**taken, "parity.input": probe, "parity.output": wanted, **table}

    def _trained(self) -> Mapping[str, npt.NDArray[Any]]:
        if self._weights is None:
            raise RuntimeError("surface_inspector is neither trained nor loaded")
        return self._weights

    def _evidence(self, pixels: UInt8) -> tuple[Float64, Float32]:
        """(row, column) uint8 -> the odds of a defect at each spot (row / 4, column / 4), and the logits."""
        x = raster.read(raster.reduced(pixels))
        rows, columns = -(-x.shape[0] // 2), -(-x.shape[1] // 2)
        logits = forward(self._trained(), raster.padded(x), self.config)[:rows, :columns]
        wide = logits.astype(np.float64)
        highest = wide[..., 1:].max(axis=-1)
        defect = highest + np.log(np.exp(wide[..., 1:] - highest[..., None]).sum(axis=-1))
        return np.asarray(defect - wide[..., 0], np.float64), logits


def _usual(maps: Sequence[Float64]) -> dict[str, Float64]:
    """Mean and spread over good pictures of the highest evidence at each distance from the edges (down, across)."""
    found: list[list[list[float]]] = [[[] for _ in range(_BINS)] for _ in range(_BINS)]
    for evidence in maps:
        bins = _bins(evidence.shape)
        for down, across in np.ndindex(_BINS, _BINS):
            values = evidence[(bins[0] == down) & (bins[1] == across)]
            if len(values):
                # the middle has many spots, and its single highest would say more of its size than of the surface
                middle = down == across == _BINS - 1
                found[down][across].append(float(np.quantile(values, 0.999)) if middle else float(values.max()))
    overall = [value for row in found for values in row for value in values]
    mean, spread = (
        np.full((_BINS, _BINS), np.mean(overall)),
        np.full((_BINS, _BINS), max(np.std(overall), _LEAST_SPREAD)),
    )
    for down, across in np.ndindex(_BINS, _BINS):
        values = np.array(found[down][across])
        if len(values) > 1:
            mean[down, across], spread[down, across] = values.mean(), max(values.std(), _LEAST_SPREAD)
    return {"usual.mean": mean, "usual.spread": spread}


def _bins(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each spot's distance from the edges, down and across, (row, column) each."""
    down, across = (np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), _BINS - 1) for n in shape)
    return np.broadcast_to(down[:, None], shape), np.broadcast_to(across[None], shape)


def _softmax(logits: Float64) -> Float64:
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum(), np.float64)
