"""Says how far a picture is from what a convolutional autoencoder, shown good pictures alone, can give back.

Three convolutions halve the picture each, a narrow middle keeps a few numbers for each patch of sixteen by sixteen
pixels, and three more bring it back. What is no part of a good surface does not fit through the middle, so the error is
high there: its logarithm at every spot of four by four pixels is the evidence, judged against what is usual at that
distance from the edges (``models.spots``). It names no kinds of defects.

Limits: it gives back small faint defects with everything else, has errors wherever good surfaces are rough, and is
told nothing of what a defect looks like, as ``surface_inspector`` is. It is the plain baseline, tested on simulated
tiles; on the magnetic tile set it has not been measured. Papers: Bergmann et al. 2019 (autoencoders on textured
surfaces); Masci et al. 2011.

>>> from models.registry import create
>>> create("picture_autoencoder", signals=1).window
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models import raster, spots
from models.base import FitReport, Float32, Float64, Progress, Scored, UInt8, no_progress
from models.errors import InvalidArtifact, TrainingError
from models.network import Shapes
from models.pictures import Picture, good_ones
from models.ranges import within
from models.weights import checked

_TOLERANCE: Final = 1e-3
_PROBE: Final = (48, 64, raster.CHANNELS)
_FLOOR: Final = 1e-4  # of a squared error: below it nothing is strange


@dataclass(frozen=True, slots=True)
class Config:
    """filters: of the first layer, deeper ones have twice as many; code: numbers kept for a patch of 16 x 16 pixels;
    steps: of training; crop: pixels of a side that it is trained on, a multiple of 16; batch: crops at once.
    """

    filters: int = 16
    code: int = 8
    steps: int = 800
    crop: int = 128
    batch: int = 16

    def __post_init__(self) -> None:
        within(self, filters=(4, 256), code=(1, 256), steps=(1, 1_000_000), crop=(32, 1024), batch=(1, 1024))
        if self.crop % 16:
            raise ValueError(f"crop: expected a multiple of 16, got {self.crop}")

    @property
    def window(self) -> int:
        """A picture is judged alone."""
        return 1


def _layers(config: Config) -> dict[str, tuple[int, int, int, int]]:
    """Name -> (taps, channels in, out, stride), in the order of use."""
    one, two = config.filters, 2 * config.filters
    return {
        "half": (3, raster.CHANNELS, one, 2), "quarter": (3, one, two, 2), "eighth": (3, two, two, 2),
        "code": (1, two, config.code, 1),
        "up4": (3, config.code, two, 1), "up2": (3, two, two, 1), "up1": (3, two, one, 1),
        "remade": (3, one, raster.LIGHT, 1),
    }  # fmt: skip


_LINEAR: Final = ("code", "remade")


def build(config: Config) -> Any:
    """In Keras, to train: (batch, row, column, channel) -> its first ``raster.LIGHT`` channels remade."""
    import keras  # noqa: PLC0415  # only training needs it

    layers = {
        name: keras.layers.Conv2D(
            out, taps, strides=stride, padding="same", activation=None if name in _LINEAR else "relu", name=name
        )
        for name, (taps, _, out, stride) in _layers(config).items()
    }
    seen = keras.Input((None, None, raster.CHANNELS))
    return keras.Model(seen, _through(layers, keras.layers.UpSampling2D(2), seen))


def _through(layers: Mapping[str, Any], doubled: Any, x: Any) -> Any:
    """The network, whatever layers it is made of."""
    code = layers["code"](layers["eighth"](layers["quarter"](layers["half"](x))))
    back = layers["up2"](doubled(layers["up4"](doubled(code))))
    return layers["remade"](layers["up1"](doubled(back)))


def shapes(config: Config) -> Shapes:
    """What it learns."""
    return tuple(
        array
        for name, (taps, inputs, outputs, _) in _layers(config).items()
        for array in ((f"{name}.kernel", (taps, taps, inputs, outputs)), (f"{name}.bias", (outputs,)))
    )


def forward(weights: Mapping[str, Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (row, column, channel), sides a multiple of ``raster.MULTIPLE`` -> remade channels."""

    def layer(name: str, stride: int) -> Any:
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]

        def run(x: Float32) -> Float32:
            out = raster.conv(x, kernel, bias, stride)
            return out if name in _LINEAR else np.maximum(out, np.float32(0), out=out)

        return run

    layers = {name: layer(name, stride) for name, (_, _, _, stride) in _layers(config).items()}
    remade: Float32 = _through(layers, raster.doubled, x)
    return remade


class PictureAutoencoder:
    """Convolutions through a narrow middle and back; see the top of this file."""

    name: ClassVar[str] = "picture_autoencoder"

    def __init__(self, signals: int, config: Config) -> None:
        if signals != 1:
            raise ValueError(f"picture_autoencoder: a picture is one signal, got {signals}")
        self.signals, self.config = signals, config
        self._weights: dict[str, npt.NDArray[Any]] | None = None
        self._usual: spots.Usual | None = None

    @property
    def window(self) -> int:
        """A picture is judged alone."""
        return 1

    def fit_pictures(
        self,
        pictures: Sequence[Picture],
        validation: Sequence[Picture],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn from the good ones of ``pictures``; what is usual, from those of ``validation``.

        Raises ``TrainingError`` if there is too little.
        """
        from models import picture_training  # noqa: PLC0415  # it imports TensorFlow, which only training needs

        good, usual = good_ones(pictures, validation)
        learnt = picture_training.remake(
            build(self.config), good,
            steps=self.config.steps, crop=self.config.crop // 2, batch=self.config.batch, seed=seed, progress=progress,
        )  # fmt: skip
        probe = raster.read(np.random.default_rng(0).normal(size=_PROBE[:2]).astype(np.float32))
        wanted = learnt.predict(probe)
        difference = float(np.abs(forward(learnt.weights, probe, self.config) - wanted).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise TrainingError(f"the trained network gives other numbers in numpy than in Keras, by {difference:.2g}")
        self._weights = {**learnt.weights, "parity.input": probe, "parity.output": wanted}
        self._usual = spots.Usual.of([self._evidence(picture.pixels) for picture in usual])
        return FitReport({"loss": learnt.losses[-1], "parity": difference}, {"loss": learnt.losses})

    def score(self, pictures: Sequence[UInt8]) -> Scored:
        """Judge each picture (row, column) uint8 alone; ``heat`` is its map, one cell for 4 x 4 pixels."""
        usual = self._trained()[1]
        maps = [usual.heat(self._evidence(pixels)) for pixels in pictures]
        scores = np.array([heat.ravel()[spots.highest(heat)].mean(dtype=np.float64) for heat in maps], np.float64)
        return Scored(scores, np.where(scores > 0, 1.0, 0.0)[:, None], heat=tuple(maps))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The network, and what is usual."""
        weights, usual = self._trained()
        return {**weights, **usual.weights()}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        taken = {name: checked(weights, name, shape) for name, shape in shapes(self.config)}
        probe = checked(weights, "parity.input", _PROBE)
        wanted = checked(weights, "parity.output", (*_PROBE[:2], raster.LIGHT))
        difference = float(np.abs(forward(taken, probe, self.config) - wanted).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise InvalidArtifact(f"weights: the network's answer to 'parity.input' is off by {difference:.2g}")
        self._weights = {**taken, "parity.input": probe, "parity.output": wanted}
        self._usual = spots.Usual.load(weights)

    def _trained(self) -> tuple[Mapping[str, npt.NDArray[Any]], spots.Usual]:
        if self._weights is None or self._usual is None:
            raise RuntimeError("picture_autoencoder is neither trained nor loaded")
        return self._weights, self._usual

    def _evidence(self, pixels: UInt8) -> Float64:
        """(row, column) uint8 -> logarithm of the error at each spot (row / 4, column / 4)."""
        if self._weights is None:
            raise RuntimeError("picture_autoencoder is neither trained nor loaded")
        x = raster.read(raster.reduced(pixels))
        rows, columns = x.shape[:2]
        remade = forward(self._weights, raster.padded(x), self.config)[:rows, :columns]
        errors = np.square(remade - x[..., : raster.LIGHT]).mean(axis=-1, dtype=np.float32)
        errors = raster.smooth(np.pad(errors, ((0, rows % 2), (0, columns % 2)), mode="edge"), 1.0)
        halved = errors.reshape(len(errors) // 2, 2, -1, 2).mean(axis=(1, 3), dtype=np.float64)
        return np.asarray(np.log(halved + _FLOOR), np.float64)
