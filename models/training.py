"""How a Keras network learns: the only module that imports TensorFlow, and only training imports it.

The network is a pure function of its weights. A plant has dozens of machines and one model for each, all of one shape,
so a network is built, traced and compiled once per architecture (``_Program``, cached for the process) and the weights
are arguments: a thirty-first model costs an initialisation, not a compilation. All batches have one size, padded, so
nothing is ever retraced. What was learnt leaves as plain arrays; ``models.network`` scores with them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import models.detectors  # noqa: F401  # sets TensorFlow's environment before its first import, just below

# isort: split
import keras
import tensorflow as tf

from models.base import FitReport, Float32, Progress, no_progress
from models.network import Shapes
from models.objective import Objective
from models.windows import WindowSet

#: Turns windows (batch, time, signal), with NaN, into (input without NaN, target, weight of each target value).
Prepare = Callable[[Float32], tuple[Float32, Float32, Float32]]
#: Builds the untrained network of (signals, config); its first input and output are (batch, time, number).
Build = Callable[[int, Any], Any]

_TRAIN_BATCH = 64
_CLIP_NORM = 1.0
_PLAIN = Objective()


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard to train; the defaults suit from two hundred to many thousands of rows."""

    epochs: int = 60
    patience: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    steps_least: int = 24  # an epoch on little data passes over it several times, so that epochs are comparable
    steps_most: int = 64
    early_stop: bool = True  # else all epochs, and the last weights


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """A trained network: its weights in the order of the page's ``shapes``, how training went, and what Keras makes of
    it, (batch, time, signal) -> the same, to compare with what scores.
    """

    weights: list[Float32]
    report: FitReport
    predict: Callable[[Float32], Float32]


def learn(
    build: Build,
    shapes: Shapes,
    signals: int,
    config: Any,
    windows: WindowSet,
    validation: WindowSet,
    prepare: Prepare,
    *,
    schedule: Schedule,
    seed: int,
    objective: Objective = _PLAIN,
    progress: Progress = no_progress,
) -> Learnt:
    """Train with Adam, stop when the validation loss no longer falls, keep the best weights.

    Same windows, schedule and seed: same weights to the bit on a CPU. Raises ``TypeError`` if what ``build`` gives has
    other weights than ``shapes`` says.
    """
    program = _program(build, signals, config, objective)
    if program.shapes != shapes:
        raise TypeError(f"the Keras network has the weights {program.shapes}, the page says {shapes}")
    rng = np.random.default_rng(seed)
    weights = program.initial(rng)
    slots = [tf.zeros_like(w) for w in weights], [tf.zeros_like(w) for w in weights]
    steps = int(np.clip(len(windows) // _TRAIN_BATCH, schedule.steps_least, schedule.steps_most))
    best, best_loss, best_epoch, step = weights, _loss(program, weights, validation, prepare), 0, 0
    curves: dict[str, list[float]] = {"loss": [], "validation_loss": []}
    for epoch in range(1, schedule.epochs + 1):
        total = 0.0
        for chosen in _shuffled(len(windows), steps, rng):
            x, target, weight = prepare(windows.take(chosen))
            x, weight = objective.spoil(x, weight, rng)
            drawn = rng.normal(size=(len(x), objective.drawn)).astype(np.float32) if objective.drawn else None
            step += 1
            # the last third of the way in ever smaller steps: the end point is then less a matter of luck
            rate = schedule.learning_rate * min(1.0, 3.0 * (1.0 - (epoch - 1) / schedule.epochs))
            loss, weights, slots = program.step(
                weights,
                slots,
                (x, drawn),
                target,
                weight,
                np.float32(step),
                np.float32(rate),
                schedule.weight_decay,
                np.float32((epoch - 1) / schedule.epochs),
            )
            total += float(loss)
        curves["loss"].append(total / steps)
        loss_now = _loss(program, weights, validation, prepare)
        curves["validation_loss"].append(loss_now)
        progress(epoch, schedule.epochs, f"epoch {epoch}, validation loss {loss_now:.4g}")
        if loss_now < best_loss or not schedule.early_stop:
            best, best_loss, best_epoch = weights, loss_now, epoch
        elif epoch - best_epoch >= schedule.patience:
            break
    report = FitReport({"validation_loss": best_loss, "epochs": float(best_epoch)}, curves)

    def predict(x: Float32) -> Float32:
        return objective.answer(lambda x, drawn: _predict(program, best, x, drawn), x)

    return Learnt([w.numpy() for w in best], report, predict)


def _predict(program: _Program, weights: list[Any], x: Float32, drawn: Float32 | None) -> list[Float32]:
    parts = []
    for start in range(0, len(x), _TRAIN_BATCH):
        chosen = slice(start, start + _TRAIN_BATCH)
        beside = program.beside if drawn is None else _padded(drawn[chosen], _TRAIN_BATCH)
        given = program.call(weights, (_padded(x[chosen], _TRAIN_BATCH), beside))
        parts.append([output.numpy() for output in given])
    return [np.asarray(np.concatenate(each)[: len(x)], np.float32) for each in zip(*parts, strict=True)]


def _loss(program: _Program, weights: list[Any], windows: WindowSet, prepare: Prepare) -> float:
    """Mean loss over the windows, each value weighted as in training."""
    total = count = 0.0
    for start in range(0, len(windows), _TRAIN_BATCH):
        x, target, weight = prepare(windows.take(slice(start, start + _TRAIN_BATCH)))
        x, weight = program.objective.examine(x, weight)
        x, target, weight = (_padded(part, _TRAIN_BATCH) for part in (x, target, weight))
        summed, weighed = program.loss(weights, (x, program.beside), target, weight)
        total, count = total + float(summed), count + float(weighed)
    return total / max(count, 1.0)


class _Program:
    """What is shared by all models of one architecture: the built network and its compiled functions.

    The network's own variables are only a template. ``jit_compile`` makes a recurrent layer one loop of machine code
    instead of dozens of small operations a time step (twice as fast here at a batch of 32).
    """

    def __init__(self, build: Build, signals: int, config: Any, objective: Objective) -> None:
        cap_threads()
        self.objective = objective
        #: What stands beside windows of which nothing is drawn.
        self.beside = np.zeros((_TRAIN_BATCH, objective.drawn), np.float32) if objective.drawn else None
        model = build(signals, config)
        # recurrent layers carry the (unused) random state of their dropout; anything else would be learnt and then lost
        unused = [tf.constant(variable.numpy()) for variable in model.non_trainable_variables]
        if any(state.dtype.is_floating for state in unused):
            raise TypeError("layers with learnt state, such as batch normalisation, cannot be trained here")
        self.template = model.trainable_variables
        # Keras's names without its path, which numbers layers through the process ("lstm_1")
        self.shapes: Shapes = tuple((variable.name, tuple(variable.shape)) for variable in self.template)
        decays = [float("bias" not in variable.name) for variable in self.template]  # a bias may be far from 0

        def apply(weights: list[Any], given: tuple[Any, Any]) -> list[Any]:
            x, drawn = given
            outputs = model.stateless_call(weights, unused, x if drawn is None else [x, drawn])[0]
            return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

        def loss(weights: list[Any], given: tuple[Any, Any], target: Any, weight: Any) -> tuple[Any, Any]:
            wrong = objective.worth(apply(weights, given), target, weight)
            return tf.reduce_sum(weight * wrong), tf.reduce_sum(weight)

        layers = [variable.path.split("/")[0] for variable in self.template]

        def step(
            weights: list[Any],
            slots: Any,
            given: tuple[Any, Any],
            target: Any,
            weight: Any,
            count: Any,
            rate: Any,
            decay: Any,
            progress: Any,
        ) -> Any:
            """One step of AdamW (Loshchilov and Hutter, 2019) with the norm of each loss's gradient clipped."""
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(weights)
                losses = objective.losses(apply(weights, given), target, weight, progress)
            gradients = [tf.zeros_like(w) for w in weights]
            for value, moved in losses:
                places = [place for place, layer in enumerate(layers) if layer.startswith(moved)]
                own = tape.gradient(value, [weights[place] for place in places], unconnected_gradients="zero")
                for place, gradient in zip(places, tf.clip_by_global_norm(own, _CLIP_NORM)[0], strict=True):
                    gradients[place] = gradients[place] + gradient
            first = [0.9 * m + 0.1 * g for m, g in zip(slots[0], gradients, strict=True)]
            second = [0.999 * v + 0.001 * g * g for v, g in zip(slots[1], gradients, strict=True)]
            rate_now = rate * tf.sqrt(1.0 - 0.999**count) / (1.0 - 0.9**count)
            after = [
                w - rate_now * m / (tf.sqrt(v) + 1e-7) - rate * decay * d * w
                for w, m, v, d in zip(weights, first, second, decays, strict=True)
            ]
            return sum(value for value, _ in losses), after, (first, second)

        self.call = tf.function(apply, jit_compile=True)
        self.loss = tf.function(loss, jit_compile=True)
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


def _program(build: Build, signals: int, config: Any, objective: Objective = _PLAIN) -> _Program:
    with _building:
        key = (build, signals, config, objective)
        if key not in _programs:
            _programs[key] = _Program(build, signals, config, objective)
        return _programs[key]


def cap_threads() -> None:
    """One thread unless HEADRACE_TF_THREADS says more: networks this small gain nothing from a second.

    Weights are the same to the bit only under one setting: a convolution adds in another order with two threads.
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
