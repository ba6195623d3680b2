"""How an inspector's network learns from pictures; imports TensorFlow, as ``models.training`` does.

It is trained on crops. With good pictures alone, most crops get a defect that is made up; with pictures of real
defects, crops lie on these as often as on the rest, each kind as often as another, and a third of the crops still get a
made-up one, of which only is learnt that it is no good surface: real ones are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import models.detectors  # noqa: F401  # sets TensorFlow's environment before its first import, just below

# isort: split
import keras
import tensorflow as tf

from models import raster, training
from models.base import NORMAL, Bool, Float32, Int32, Progress, no_progress
from models.blemishes import spoil
from models.errors import TrainingError
from models.pictures import Picture

_RATE: Final = 2e-3
_SPOILT: Final = 0.7  # share of the crops that get a defect
_WEIGHT: Final = 5.0  # of a spot on a defect
_TOLD_EVERY: Final = 50
#: Draws a crop (row, column, channel) and what is wanted: the class of each of its spots (row / 2, column / 2), or
#: channels (row, column, channel).
_Draw = Callable[[], tuple[Float32, Any]]
#: (what the network gives, what is wanted) -> a number.
_Loss = Callable[[Any, Any], Any]
#: The class of a spot on a made-up defect where kinds are learnt: any but normal.
_ANY: Final = -1
_MADE_UP: Final = 1 / 3  # of the crops where kinds are learnt
_JITTER: Final = 0.1  # of the contrast, for real defects: there are few


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """Weights by layer and name, the course of the loss, and what Keras makes of a picture's channels."""

    weights: dict[str, Float32]
    losses: list[float]
    predict: Callable[[Float32], Float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """One picture as it is trained on: channels (row, column, channel), and the class of each cell (row, column)."""

    channels: Float32
    mask: Bool
    kind: int


def learn(
    network: Any,
    pictures: Sequence[Picture],
    classes: Sequence[str],
    *,
    steps: int,
    crop: int,
    batch: int,
    seed: int,
    progress: Progress = no_progress,
) -> Learnt:
    """Train with Adam for so many steps on ``crop`` x ``crop`` cells (two by two pixels each)."""
    training.cap_threads()
    rng = np.random.default_rng(seed)
    sheets = [_sheet(picture, classes, crop) for picture in pictures if picture.kind in classes]
    made_up = _made_up(sheets, 1 if len(classes) == 2 else _ANY, crop, rng)
    drawn = made_up if len(classes) == 2 else _drawn(sheets, len(classes), crop, rng)

    def draw() -> tuple[Float32, Int32]:
        return made_up() if len(classes) == 2 or rng.random() < _MADE_UP else drawn()

    return _run(network, draw, _focal, steps=steps, batch=batch, rng=rng, progress=progress)


def remake(
    network: Any,
    pictures: Sequence[Picture],
    *,
    steps: int,
    crop: int,
    batch: int,
    seed: int,
    progress: Progress = no_progress,
) -> Learnt:
    """Train to give back crops of good pictures: the first ``raster.LIGHT`` channels, by their squared error."""
    training.cap_threads()
    rng = np.random.default_rng(seed)
    sheets = [_sheet(picture, (NORMAL,), crop) for picture in pictures]

    def draw() -> tuple[Float32, Float32]:
        sheet = sheets[rng.integers(len(sheets))]
        channels = _cut(sheet.channels, _corner(sheet.channels.shape, crop, rng), crop)
        return channels, channels[..., : raster.LIGHT]

    return _run(network, draw, _squared, steps=steps, batch=batch, rng=rng, progress=progress)


def _run(
    network: Any, draw: _Draw, loss: _Loss, *, steps: int, batch: int, rng: np.random.Generator, progress: Progress
) -> Learnt:
    _initialise(network, rng)
    optimizer = keras.optimizers.Adam(_RATE)
    optimizer.build(network.trainable_variables)
    step = _step(network, optimizer, loss)
    losses: list[float] = []
    total = 0.0
    for number in range(1, steps + 1):
        crops, wanted = zip(*(_turned(*draw(), rng) for _ in range(batch)), strict=True)
        rate = np.float32(_RATE * min(1.0, 3.0 * (1.0 - (number - 1) / steps)))
        total += float(step(np.stack(crops), np.stack(wanted), rate))
        if number % _TOLD_EVERY == 0 or number == steps:
            losses.append(total / ((number - 1) % _TOLD_EVERY + 1))
            total = 0.0
            progress(number, steps, f"loss {losses[-1]:.3g}")
    weights = {
        f"{layer.name}.{variable.name}": variable.numpy()
        for layer in network.layers
        for variable in layer.trainable_variables
    }
    return Learnt(weights, losses, lambda x: np.asarray(network(x[None]).numpy()[0], np.float32))


def _initialise(network: Any, rng: np.random.Generator) -> None:
    """Give the kernels their first values from ``rng``: the same seed, the same network."""
    for layer in network.layers:
        for variable in layer.trainable_variables:
            if variable.name == "kernel":
                drawn = keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
                variable.assign(drawn(variable.shape))


def _step(network: Any, optimizer: Any, loss: _Loss) -> Any:
    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(crops: Any, wanted: Any, rate: Any) -> Any:
        optimizer.learning_rate.assign(rate)
        with tf.GradientTape() as tape:
            value = loss(network(crops, training=True), wanted)
        optimizer.apply(tape.gradient(value, network.trainable_variables), network.trainable_variables)
        return value

    return step


def _focal(logits: Any, classes: Any) -> Any:
    """A spot that is right already counts less (Lin et al. 2017), one on a defect more."""
    logarithms = tf.nn.log_softmax(logits)
    own = tf.gather(logarithms, tf.maximum(classes, 0), batch_dims=3)
    any_defect = tf.reduce_logsumexp(logarithms[..., 1:], axis=-1)
    surprisal = -tf.where(classes == _ANY, any_defect, own)
    return tf.reduce_mean((1.0 - tf.exp(-surprisal)) * tf.where(classes == 0, 1.0, _WEIGHT) * surprisal)


def _squared(remade: Any, wanted: Any) -> Any:
    return tf.reduce_mean(tf.square(remade - wanted))


def _sheet(picture: Picture, classes: Sequence[str], crop: int) -> _Sheet:
    light = raster.reduced(picture.pixels)
    mask = np.zeros(light.shape, bool) if picture.mask is None else raster.reduced_mask(picture.mask)
    short = [(0, max(0, crop - n)) for n in light.shape]
    channels = np.pad(raster.read(light), [*short, (0, 0)], mode="symmetric")
    return _Sheet(channels, np.pad(mask, short, mode="symmetric"), list(classes).index(picture.kind))


def _made_up(sheets: Sequence[_Sheet], kind: int, crop: int, rng: np.random.Generator) -> _Draw:
    """Crops of good pictures, most of them spoilt; what is, is of the class ``kind``."""
    good = [sheet for sheet in sheets if sheet.kind == 0]

    def draw() -> tuple[Float32, Bool]:
        sheet, other = (good[rng.integers(len(good))] for _ in range(2))
        channels = _cut(sheet.channels, _corner(sheet.channels.shape, crop, rng), crop)
        if rng.random() >= _SPOILT:
            return channels, np.zeros((crop, crop), bool)
        piece = _cut(other.channels, _corner(other.channels.shape, crop, rng), crop)
        change, seen = spoil(channels[..., 0], piece[..., 0], rng)
        spoilt = channels.copy()
        spoilt[..., 0] += change
        spoilt[..., 1 : raster.LIGHT] += raster.details_of(change)
        return spoilt, seen

    return lambda: _classed(*draw(), kind)


def _drawn(sheets: Sequence[_Sheet], classes: int, crop: int, rng: np.random.Generator) -> _Draw:
    """Crops on defects, each kind as often as another, and anywhere on any picture."""
    kinds = [[sheet for sheet in sheets if sheet.kind == kind and sheet.mask.any()] for kind in range(1, classes)]
    if not all(kinds):
        raise TrainingError("a kind of defect has no picture with a drawn mask; give one, or leave the kind out")
    plain = [sheet for sheet in sheets if sheet.kind == 0]

    def draw() -> tuple[Float32, Bool, int]:
        if rng.random() < 1 / 3:
            sheet = plain[rng.integers(len(plain))]
            corner = _corner(sheet.channels.shape, crop, rng)
        else:
            held = kinds[rng.integers(len(kinds))]
            sheet = held[rng.integers(len(held))]
            spots = np.argwhere(sheet.mask)
            wanted = spots[rng.integers(len(spots))] - rng.integers(0, crop, 2)
            most = np.array(sheet.mask.shape) - crop
            corner = (int(np.clip(wanted[0], 0, most[0])), int(np.clip(wanted[1], 0, most[1])))
        channels = _cut(sheet.channels, corner, crop).copy()
        channels[..., : raster.LIGHT] *= np.float32(np.exp(rng.normal(0, _JITTER)))
        channels[..., 0] += np.float32(rng.normal(0, _JITTER))
        return channels, _cut(sheet.mask, corner, crop), sheet.kind

    return lambda: _classed(*draw())


def _classed(channels: Float32, mask: Bool, kind: int) -> tuple[Float32, Int32]:
    """A crop, and the class of each of its spots: two by two cells, on a defect if any of them is."""
    half = len(mask) // 2
    spots = mask.reshape(half, 2, half, 2).any(axis=(1, 3))
    return channels, np.where(spots, kind, 0).astype(np.int32)


def _corner(shape: tuple[int, ...], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Anywhere, and at the edges as often as in the middle."""
    row, column = (int(np.clip(rng.integers(-crop // 3, n - crop + crop // 3 + 1), 0, n - crop)) for n in shape[:2])
    return row, column


def _cut(x: Any, corner: tuple[int, int], crop: int) -> Any:
    return x[corner[0] : corner[0] + crop, corner[1] : corner[1] + crop]


def _turned(channels: Float32, wanted: Any, rng: np.random.Generator) -> tuple[Float32, Any]:
    """Upside down or mirrored, or as it is."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            channels, wanted = np.flip(channels, axis), np.flip(wanted, axis)
    return channels, wanted
