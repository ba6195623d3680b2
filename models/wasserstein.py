"""Two networks that play against each other over windows of sensor data: a maker, and a critic that tells made from
real.

A conditional Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017), convolutional along time. The maker draws
one code for a whole window and fresh noise for every row (Esteban et al. 2017 feed theirs so), because a plant's window
is both: a course, and noise on top of it. A linear path learns the noise's colour and company in a few hundred steps;
the course goes through the nonlinear one. The maker is told besides how far level, spread and steps of what it makes
are from the class's, which a critic of a few hundred overlapping windows tells it late. The weights that make windows
are a running mean of those that were trained.

Imports TensorFlow, as ``models.training`` does: only ``headrace augment`` needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import models.detectors  # noqa: F401  # sets TensorFlow's environment before its first import, just below

# isort: split
import keras
import tensorflow as tf

from models import training
from models.base import Float32, Progress, no_progress

_PENALTY: Final = 10.0  # of a critic whose slope is not 1
_CRITIC_STEPS: Final = 2  # for one of the maker
_RATE: Final = 1e-3
_KEPT: Final = 0.998  # of the running mean, a step
_KERNEL: Final = 5  # rows
_MOMENTS: Final = 4.0  # weight of level, spread and steps
_STEPS: Final = (1, 2, 8)  # rows
_BATCH: Final = 64
_TOLD_EVERY: Final = 50
_CALLED: Final = 256  # windows made at once

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """rows: of a window, a multiple of 4; channels: of a row; classes; filters: of the hidden layers; code: numbers
    drawn for a window as a whole.
    """

    rows: int
    channels: int
    classes: int
    filters: int = 64
    code: int = 32


def maker(sizes: Sizes) -> Any:
    """(code (batch, code), noise (batch, time, channel), class (batch, class) one-hot) -> (batch, time, channel)."""
    layers = keras.layers
    code, told = keras.Input((sizes.code,)), keras.Input((sizes.classes,))
    noise = keras.Input((sizes.rows, sizes.channels))
    quarter = sizes.rows // 4
    course = layers.Dense(quarter * sizes.filters, activation="relu")(layers.Concatenate()([code, told]))
    course = layers.UpSampling1D(2)(layers.Reshape((quarter, sizes.filters))(course))
    course = layers.Conv1D(sizes.filters, _KERNEL, padding="same", activation="relu")(course)
    course = layers.UpSampling1D(2)(course)
    which = layers.RepeatVector(sizes.rows)(told)
    both = layers.Concatenate()([course, noise, which])
    both = layers.Conv1D(sizes.filters, _KERNEL, padding="same", activation="relu")(both)
    curved = layers.Conv1D(sizes.channels, _KERNEL, padding="same")(layers.Concatenate()([both, course]))
    plain = layers.Conv1D(sizes.channels, _KERNEL, padding="same")(noise)
    return keras.Model([code, noise, told], curved + plain)


def critic(sizes: Sizes) -> Any:
    """(windows (batch, time, channel), class (batch, class) one-hot) -> (batch, 1), higher is more real."""
    layers = keras.layers
    rows, told = keras.Input((sizes.rows, sizes.channels)), keras.Input((sizes.classes,))
    seen = layers.Concatenate()([rows, layers.RepeatVector(sizes.rows)(told)])
    seen = layers.Conv1D(sizes.filters, _KERNEL, strides=2, padding="same")(seen)
    seen = layers.Conv1D(sizes.filters, _KERNEL, strides=2, padding="same")(layers.LeakyReLU(0.2)(seen))
    seen = layers.LeakyReLU(0.2)(seen)
    flat = layers.Flatten()(seen)
    hidden = layers.LeakyReLU(0.2)(layers.Dense(sizes.filters)(layers.Concatenate()([flat, told])))
    return keras.Model([rows, told], layers.Dense(1)(hidden))


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A trained maker: ``make(classes (window,), rng)`` -> (window, time, channel); ``gaps``: the course of the
    critic's estimate of how far made windows are from real ones, once in so many steps.
    """

    make: Callable[[Int64, np.random.Generator], Float32]
    gaps: list[float]


def play(
    windows: Float32, classes: Int64, sizes: Sizes, *, steps: int, seed: int, progress: Progress = no_progress
) -> Played:
    """Train on ``windows`` (window, time, channel), of about unit spread, and the class of each; every class as often
    as another. The same seed makes the same windows under the same number of threads.
    """
    training.cap_threads()
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    making, judging = maker(sizes), critic(sizes)
    mean = [tf.Variable(weight) for weight in making.trainable_variables]
    optimizers = [keras.optimizers.Adam(_RATE, beta_1=0.0, beta_2=0.9) for _ in range(2)]
    for optimizer, network in zip(optimizers, (making, judging), strict=True):
        optimizer.build(network.trainable_variables)
    step = _step(making, judging, optimizers, mean)
    members = [np.flatnonzero(classes == number) for number in range(sizes.classes)]
    eye = np.eye(sizes.classes, dtype=np.float32)
    gaps: list[float] = []
    total = 0.0
    for number in range(1, steps + 1):
        told = rng.permutation(np.arange(_CRITIC_STEPS * _BATCH) % sizes.classes)
        chosen = np.array([members[one][rng.integers(len(members[one]))] for one in told])
        real = windows[chosen].reshape(_CRITIC_STEPS, _BATCH, sizes.rows, sizes.channels)
        drawn = [rng.normal(size=(_CRITIC_STEPS, _BATCH, *shape)).astype(np.float32)
                 for shape in ((sizes.code,), (sizes.rows, sizes.channels))]  # fmt: skip
        mixed = rng.random((_CRITIC_STEPS, _BATCH, 1, 1)).astype(np.float32)
        rate = np.float32(_RATE * min(1.0, 2.0 * (1.0 - (number - 1) / steps)))
        kept = np.float32(min(_KEPT, number / (number + 10)))
        given = eye[told].reshape(_CRITIC_STEPS, _BATCH, sizes.classes)
        total += float(step(real, given, *drawn, mixed, rate, kept))
        if number % _TOLD_EVERY == 0 or number == steps:
            gaps.append(total / ((number - 1) % _TOLD_EVERY + 1))
            total = 0.0
            progress(number, steps, f"distance {gaps[-1]:.3g}")
    for weight, averaged in zip(making.trainable_variables, mean, strict=True):
        weight.assign(averaged)

    def make(wanted: Int64, rng: np.random.Generator) -> Float32:
        parts = [np.empty((0, sizes.rows, sizes.channels), np.float32)]
        for start in range(0, len(wanted), _CALLED):
            told = eye[wanted[start : start + _CALLED]]
            code = rng.normal(size=(len(told), sizes.code)).astype(np.float32)
            noise = rng.normal(size=(len(told), sizes.rows, sizes.channels)).astype(np.float32)
            parts.append(making([code, noise, told]).numpy())
        return np.concatenate(parts)

    return Played(make, gaps)


def _step(making: Any, judging: Any, optimizers: list[Any], mean: list[Any]) -> Any:
    """Some steps of the critic and one of the maker; returns the critic's estimate of the distance."""

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(real: Any, told: Any, code: Any, noise: Any, mixed: Any, rate: Any, kept: Any) -> Any:
        for optimizer in optimizers:
            optimizer.learning_rate.assign(rate)
        distance = tf.constant(0.0)
        for turn in range(_CRITIC_STEPS):
            made = making([code[turn], noise[turn], told[turn]])
            with tf.GradientTape() as tape:
                distance = tf.reduce_mean(judging([real[turn], told[turn]])) - tf.reduce_mean(
                    judging([made, told[turn]])
                )
                between = mixed[turn] * real[turn] + (1 - mixed[turn]) * made
                with tf.GradientTape() as inner:
                    inner.watch(between)
                    judged = judging([between, told[turn]])
                slope = tf.sqrt(tf.reduce_sum(tf.square(inner.gradient(judged, between)), axis=(1, 2)) + 1e-12)
                loss = -distance + _PENALTY * tf.reduce_mean(tf.square(slope - 1))
            optimizers[1].apply(tape.gradient(loss, judging.trainable_variables), judging.trainable_variables)
        with tf.GradientTape() as tape:
            made = making([code[0], noise[-1], told[-1]])
            loss = -tf.reduce_mean(judging([made, told[-1]])) + _MOMENTS * _unlike(made, real[-1], told[-1])
        optimizers[0].apply(tape.gradient(loss, making.trainable_variables), making.trainable_variables)
        for averaged, weight in zip(mean, making.trainable_variables, strict=True):
            averaged.assign(kept * averaged + (1 - kept) * weight)
        return distance

    return step


def _unlike(made: Any, real: Any, told: Any) -> Any:
    """How far level, spread and steps of each class and channel are from the real ones'."""
    each = told / (tf.reduce_sum(told, axis=0) + 1e-6)  # (batch, class)

    def moments(x: Any) -> Any:
        level = tf.reduce_mean(x, axis=1)
        steps = [tf.reduce_mean(tf.square(x[:, rows:] - x[:, :-rows]), axis=1) for rows in _STEPS]
        inner = [level, tf.square(level), tf.reduce_mean(tf.square(x), axis=1), *steps]
        return [tf.einsum("bk,bc->kc", each, part) for part in inner]

    wanted, found = moments(real), moments(made)
    rough = [tf.reduce_mean(tf.abs(wanted[0] - found[0]))]
    rough += [
        tf.reduce_mean(tf.abs(tf.math.log(one + 1e-3) - tf.math.log(other + 1e-3)))
        for one, other in zip(wanted[1:], found[1:], strict=True)
    ]
    return tf.add_n(rough)
