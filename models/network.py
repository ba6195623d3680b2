"""A Keras network as a pure function of its weights: what all Keras detectors train and predict with.

A plant has dozens of machines and one model for each, all of one shape. So the network is built, traced and compiled
once per architecture (``_Program``, cached for the process) and the weights are arguments: a thirty-first model costs
an initialisation, not a compilation. A ``Network`` is nothing but a program and its own weights.

Every call of a program has one fixed batch of ``BATCH`` windows, padded. That is what makes a score depend on its
window alone: kernels for other batch sizes may add in another order, and live, replay and backtest batch differently
(the contract tests hold it to the bit). It also means that nothing is ever retraced.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import models.detectors  # noqa: F401  # sets TensorFlow's environment before its first import, just below

# isort: split
import keras
import tensorflow as tf

from models.base import FitReport, Float32, Progress, no_progress
from models.weights import checked
from models.windows import WindowSet

#: Windows in one call of a program. Larger batches gain little on a CPU, and a live batch is mostly smaller.
BATCH: Final = 32

#: Turns windows (batch, time, signal), with NaN, into (input without NaN, target, weight of each target value).
Prepare = Callable[[Float32], tuple[Float32, Float32, Float32]]
#: Builds the untrained network of (signals, config); its input and output are (batch, time, signal).
Build = Callable[[int, Any], Any]

_TRAIN_BATCH = 64
_HUBER = 2.0  # errors beyond two standard deviations count linearly: training data are never quite clean
_CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard to train; the defaults suit from two hundred to many thousands of rows."""

    epochs: int = 60
    patience: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    steps_least: int = 24  # an epoch on little data passes over it several times, so that epochs are comparable
    steps_most: int = 64
    noise: float = 0.0  # standard deviation of what is added to the inputs, scaled; not to the targets


class Network:
    """One model: a shared program and its own weights. Scoring is thread-safe once it is trained or loaded."""

    def __init__(self, build: Build, signals: int, config: Any) -> None:
        self._program = _program(build, signals, config)
        self._weights: list[Any] | None = None

    def fit(
        self,
        windows: WindowSet,
        validation: WindowSet,
        prepare: Prepare,
        *,
        schedule: Schedule,
        seed: int,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Train with Adam, stop when the validation loss no longer falls, keep the best weights.

        Same windows, schedule and seed: same weights to the bit on a CPU.
        """
        rng = np.random.default_rng(seed)
        weights = self._program.initial(rng)
        slots = [tf.zeros_like(w) for w in weights], [tf.zeros_like(w) for w in weights]
        steps = int(np.clip(len(windows) // _TRAIN_BATCH, schedule.steps_least, schedule.steps_most))
        best, best_loss, best_epoch, step = weights, self._loss(weights, validation, prepare), 0, 0
        curves: dict[str, list[float]] = {"loss": [], "validation_loss": []}
        for epoch in range(1, schedule.epochs + 1):
            total = 0.0
            for chosen in _shuffled(len(windows), steps, rng):
                x, target, weight = prepare(windows.take(chosen))
                if schedule.noise:
                    x = x + rng.normal(0.0, schedule.noise, x.shape).astype(np.float32)
                step += 1
                # the last third of the way in ever smaller steps: the end point is then less a matter of luck
                rate = schedule.learning_rate * min(1.0, 3.0 * (1.0 - (epoch - 1) / schedule.epochs))
                loss, weights, slots = self._program.step(
                    weights, slots, x, target, weight, np.float32(step), np.float32(rate), schedule.weight_decay
                )
                total += float(loss)
            curves["loss"].append(total / steps)
            loss_now = self._loss(weights, validation, prepare)
            curves["validation_loss"].append(loss_now)
            progress(epoch, schedule.epochs, f"epoch {epoch}, validation loss {loss_now:.4g}")
            if loss_now < best_loss:
                best, best_loss, best_epoch = weights, loss_now, epoch
            elif epoch - best_epoch >= schedule.patience:
                break
        self._weights = best
        return FitReport({"validation_loss": best_loss, "epochs": float(best_epoch)}, curves)

    def predict(self, x: Float32) -> Float32:
        """(batch, time, signal) float32 without NaN -> the network's output, the same bits in any company."""
        if self._weights is None:
            raise RuntimeError("the detector is neither trained nor loaded")
        return self._blocks(lambda block: self._program.call(self._weights, block), x)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Named arrays, as the artifact stores them."""
        if self._weights is None:
            raise RuntimeError("the detector is neither trained nor loaded")
        return {name: w.numpy() for name, w in zip(self._program.names, self._weights, strict=True)}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take what ``weights`` gave. Raises ``InvalidArtifact`` on a missing, misshapen or non-finite array."""
        taken = [
            checked(weights, name, tuple(template.shape))
            for name, template in zip(self._program.names, self._program.template, strict=True)
        ]
        self._weights = [tf.constant(array, tf.float32) for array in taken]

    def _loss(self, weights: list[Any], windows: WindowSet, prepare: Prepare) -> float:
        """Mean loss over the windows, each value weighted as in training."""
        total = count = 0.0
        for start in range(0, len(windows), _TRAIN_BATCH):
            parts = prepare(windows.take(slice(start, start + _TRAIN_BATCH)))
            summed, weighed = self._program.loss(weights, *(_padded(part, _TRAIN_BATCH) for part in parts))
            total, count = total + float(summed), count + float(weighed)
        return total / max(count, 1.0)

    @staticmethod
    def _blocks(call: Callable[[Float32], Any], x: Float32) -> Float32:
        parts = [call(_padded(x[start : start + BATCH], BATCH)).numpy() for start in range(0, len(x), BATCH)]
        return np.concatenate(parts)[: len(x)] if parts else np.empty((0, *x.shape[1:]), np.float32)


class _Program:
    """What is shared by all models of one architecture: the built network and its compiled functions.

    The network's own variables are only a template. ``jit_compile`` makes a recurrent layer one loop of machine code
    instead of dozens of small operations a time step (twice as fast here at a batch of 32).
    """

    def __init__(self, build: Build, signals: int, config: Any) -> None:
        _cap_threads()
        model = build(signals, config)
        # recurrent layers carry the (unused) random state of their dropout; anything else would be learnt and then lost
        unused = [tf.constant(variable.numpy()) for variable in model.non_trainable_variables]
        if any(state.dtype.is_floating for state in unused):
            raise TypeError("layers with learnt state, such as batch normalisation, do not fit into a Network")
        self.template = model.trainable_variables
        # by place, not by Keras's path: that numbers layers through the process ("lstm_1"), so another one would differ
        self.names = [f"network.{place:02d}.{variable.name}" for place, variable in enumerate(self.template)]
        decays = [float("bias" not in variable.name) for variable in self.template]  # a bias may be far from 0

        def apply(weights: list[Any], x: Any) -> Any:
            return model.stateless_call(weights, unused, x)[0]

        def losses(weights: list[Any], x: Any, target: Any, weight: Any) -> tuple[Any, Any]:
            error = tf.abs(apply(weights, x) - target)
            near = tf.minimum(error, _HUBER)
            return tf.reduce_sum(weight * (near * error - 0.5 * near * near)), tf.reduce_sum(weight)

        def step(
            weights: list[Any], slots: Any, x: Any, target: Any, weight: Any, count: Any, rate: Any, decay: Any
        ) -> Any:
            """One step of AdamW (Loshchilov and Hutter, 2019) with the gradient's norm clipped."""
            with tf.GradientTape() as tape:
                tape.watch(weights)
                summed, weighed = losses(weights, x, target, weight)
                loss = summed / tf.maximum(weighed, 1.0)
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), _CLIP_NORM)
            first = [0.9 * m + 0.1 * g for m, g in zip(slots[0], gradients, strict=True)]
            second = [0.999 * v + 0.001 * g * g for v, g in zip(slots[1], gradients, strict=True)]
            rate_now = rate * tf.sqrt(1.0 - 0.999**count) / (1.0 - 0.9**count)
            moved = [
                w - rate_now * m / (tf.sqrt(v) + 1e-7) - rate * decay * d * w
                for w, m, v, d in zip(weights, first, second, decays, strict=True)
            ]
            return loss, moved, (first, second)

        self.call = tf.function(apply, jit_compile=True)
        self.loss = tf.function(losses, jit_compile=True)
        self.step = tf.function(step, jit_compile=True)

    def initial(self, rng: np.random.Generator) -> list[Any]:
        """Fresh weights: Glorot for kernels, orthogonal for recurrent ones; biases as their layer starts them."""
        weights = []
        for variable in self.template:
            seed = int(rng.integers(2**31))
            if _starts_as_it_is(variable):
                weights.append(tf.constant(variable.numpy()))
            elif "recurrent" in variable.name:
                weights.append(keras.initializers.Orthogonal(seed=seed)(variable.shape))
            else:
                weights.append(keras.initializers.GlorotUniform(seed=seed)(variable.shape))
        return weights


def _starts_as_it_is(variable: Any) -> bool:
    """Whether a layer's own first value is meant: 0 or, for what an LSTM keeps, 1."""
    return "bias" in variable.name or "zeros" in variable.name


_programs: dict[tuple[Any, ...], _Program] = {}
_building = threading.Lock()  # two threads that load the first two models must not build at the same time


def _program(build: Build, signals: int, config: Any) -> _Program:
    with _building:
        key = (build, signals, config)
        if key not in _programs:
            _programs[key] = _Program(build, signals, config)
        return _programs[key]


def _cap_threads() -> None:
    """One thread unless HEADRACE_TF_THREADS says more: the caller's executor already uses the other cores.

    Scores are the same to the bit only under one setting: a convolution adds in another order with two threads.
    """
    asked = os.environ.get("HEADRACE_TF_THREADS", "1")
    if not asked.isdecimal() or not 1 <= int(asked) <= 256:
        raise ValueError(f"HEADRACE_TF_THREADS: expected a number of threads, 1 to 256, got {asked!r}")
    threads = int(asked)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # TensorFlow is already running in this process: whoever started it has decided


def _padded(x: Float32, size: int) -> Float32:
    """(batch, ...) -> (size, ...), zeros below."""
    if len(x) == size:
        return np.ascontiguousarray(x, np.float32)
    padded = np.zeros((size, *x.shape[1:]), np.float32)
    padded[: len(x)] = x
    return padded


def _shuffled(count: int, steps: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """``steps`` batches of window numbers; every window comes once before any comes again."""
    needed = steps * _TRAIN_BATCH
    order = np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])
    for start in range(0, needed, _TRAIN_BATCH):
        yield order[start : start + _TRAIN_BATCH]
