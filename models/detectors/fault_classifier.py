"""Tells which of the faults it was shown a window looks like, or that it looks like nothing it was shown.

Two judges. A few small networks side by side (``body``: convolutions along time, or recurrent cells), each of them with
the means over time as a second input, learn the classes from labelled windows; their probabilities are averaged. They
read the rows, and beside them what a linear forecast learnt from normal rows could not foretell, whitened across
signals: in a plant full of control loops that is where a fault shows (on the Tennessee Eastman process the macro-F1 is
.90 without and .96 with it). A memory of what each class looked like (k-means prototypes of every signal's newest
value, mean and roughness) says how far a window is from all of them: a network is sure of itself far away from anything
it knows, a distance is not. What is further away than held-back windows were is ``unknown``. The score is the larger of
-log2 P(normal), 1 where a fault is as likely as not, and the distance to normal over what held-back normal windows
reach; contributions are each signal's part in that distance.

Limits: it knows what it was shown; a fault seen once is known as it went that once. Shown nothing but normal history it
is the memory alone. Cost here, one core, 52 signals, 9 classes: a minute of training on 4,000 windows, 0.2 ms a window
to score in batches, 2.4 ms for one. Papers: Zhao et al. 2019, Deep learning and its applications to machine health
monitoring (such heads compared); Lakshminarayanan et al. 2017 (ensembles); Bendale and Boult 2016 (why softmax alone
cannot say "unknown").

>>> from models.registry import create
>>> create("fault_classifier", signals=2, config={"classes": ["normal", "leak"]}).class_names
('normal', 'leak', 'unknown')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models import runtime
from models.autoregression import LAGS, Autoregression, clipped
from models.base import NORMAL, UNKNOWN, FitReport, Float32, Float64, Labelled, Progress, Scored, no_progress
from models.errors import TrainingError
from models.innovation import whitener
from models.network import COMPARED, Network, Shapes
from models.objective import Loss, Objective
from models.prototypes import Prototypes
from models.ranges import within
from models.windows import WindowSet, check_windows, fill_forward

_KERNEL: Final = 5  # rows of a convolution's filter
_MOST_BITS: Final = 20.0  # of surprisal: one chance in a million
_SMOOTHING: Final = (
    0.05  # of the labels: the rows around a fault's begin are labelled by a clock, not by what they show
)
_SHARPNESS: Final = 8.0  # of the step from known to unknown: twice the limit is unknown for certain
_LEAST_SPREAD: Final = 0.05  # scaled: an error of the forecast smaller than this is never strange
_VIEWS: Final = 3  # of each signal: newest value, mean, roughness
_MOST_VALIDATION: Final = 2048
_BODIES: Final = ("cnn", "gru", "lstm")


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and schedule.

    window: rows that are judged together; classes: what it tells apart, ``normal`` first (training fills them in);
    body: ``cnn``, ``gru`` or ``lstm``; units: filters or cells; members: networks that vote; prototypes: remembered for
    each class; epochs: so many, since a fault's later part is no measure of what is learnt from its earlier one; noise:
    standard deviation added to training inputs, scaled units.
    """

    window: int = 24
    classes: tuple[str, ...] = (NORMAL,)
    body: str = "cnn"
    units: int = 32
    members: int = 3
    prototypes: int = 16
    epochs: int = 24
    noise: float = 1.0

    def __post_init__(self) -> None:
        within(
            self,
            window=(2 * LAGS, 1024),
            units=(1, 512),
            members=(1, 16),
            prototypes=(1, 256),
            epochs=(1, 10_000),
            noise=(0.0, 1.0),
        )
        if self.body not in _BODIES:
            raise ValueError(f"body: expected one of {', '.join(_BODIES)}, got {self.body!r}")
        if not self.classes or self.classes[0] != NORMAL or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected different names, {NORMAL!r} first, got {self.classes}")
        if UNKNOWN in self.classes:
            raise ValueError(f"classes: {UNKNOWN!r} is what nothing was learnt of; name the class otherwise")


class CrossEntropy(Objective):
    """Give each class its probability: the output is logits, their last axis the class, the target probabilities."""

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """Mean surprisal, each window weighted."""
        del progress
        import keras  # noqa: PLC0415  # only training needs it

        surprisal = self.worth(outputs, target, weight)
        return [(keras.ops.sum(weight * surprisal) / keras.ops.sum(weight * target), ("",))]

    def worth(self, outputs: list[Any], target: Any, weight: Any) -> Any:
        """(batch, member, class): each class's part in the surprisal."""
        del weight
        import keras  # noqa: PLC0415  # only training needs it

        return -target * keras.ops.log_softmax(outputs[0])


def build(signals: int, config: Config) -> Any:
    """In Keras, to train: what ``_read`` gives (batch, time, 2 signal) -> logits (batch, member, class)."""
    import keras  # noqa: PLC0415  # only training needs it

    rows = keras.Input((config.window - LAGS, 2 * signals))
    means = keras.layers.GlobalAveragePooling1D()(rows)  # (batch, 2 signal)
    votes = []
    for _ in range(config.members):
        seen = keras.layers.Concatenate()([_body(rows, config), means])  # (batch, unit + 2 signal)
        votes.append(keras.layers.Reshape((1, len(config.classes)))(keras.layers.Dense(len(config.classes))(seen)))
    return keras.Model(rows, keras.layers.Concatenate(axis=1)(votes))


def _body(rows: Any, config: Config) -> Any:
    """(batch, time, 2 signal) -> (batch, unit)."""
    import keras  # noqa: PLC0415  # only training needs it

    if config.body != "cnn":
        cell = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[config.body]
        return cell(config.units)(rows)
    half = keras.layers.Conv1D(config.units, _KERNEL, strides=2, padding="same", activation="relu")(rows)
    seen = keras.layers.Conv1D(config.units, _KERNEL, padding="same", activation="relu")(half)
    return keras.layers.GlobalAveragePooling1D()(seen)


def shapes(signals: int, config: Config) -> Shapes:
    """What Keras learns, layer by layer, and of each layer member by member."""
    units, reads = config.units, 2 * signals
    layers: list[Shapes]
    if config.body == "cnn":
        layers = [
            (("kernel", (_KERNEL, reads, units)), ("bias", (units,))),
            (("kernel", (_KERNEL, units, units)), ("bias", (units,))),
        ]
    else:
        layers = [{"gru": runtime.gru_shapes, "lstm": runtime.lstm_shapes}[config.body](reads, units)]
    layers.append(runtime.dense_shapes(units + reads, len(config.classes)))
    return tuple(array for layer in layers for _ in range(config.members) for array in layer)


def forecast_shapes(signals: int) -> Shapes:
    """The linear forecast, whitened: a convolution along time."""
    return ("forecast_kernel", (LAGS + 1, signals, signals)), ("forecast_bias", (signals,))


def forward(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """In numpy, to score: (window, signal, batch) -> logits (member, class, batch)."""
    *learnt, kernel, bias = weights
    return _vote(learnt, _read(x, kernel, bias), config)


def _read(x: Float32, kernel: Float32, bias: Float32) -> Float32:
    """(window, signal, batch) -> the rows, and what of them was not foretold: (window - LAGS, 2 signal, batch).

    A fault goes further than it went when it was learnt; on a logarithmic scale the further part looks much alike.
    """
    # padded on both sides: the middle rows are those that saw LAGS rows before their own
    errors = runtime.conv(clipped(x), kernel, bias)[LAGS // 2 : len(x) - (LAGS - LAGS // 2)]
    both = np.concatenate([x[LAGS:], errors], axis=1)
    drawn_in: Float32 = np.sign(both) * np.log1p(np.abs(both))
    return drawn_in


def _vote(weights: Sequence[Float32], x: Float32, config: Config) -> Float32:
    """(time, 2 signal, batch) -> logits (member, class, batch)."""
    sizes = (2, 2, 2) if config.body == "cnn" else (3, 2)  # arrays of each layer
    means = x.mean(axis=0)
    votes = []
    for member in range(config.members):
        layers, first = [], 0
        for size in sizes:
            start = first + member * size
            layers.append(weights[start : start + size])
            first += config.members * size
        if config.body == "cnn":
            (first_kernel, first_bias), (kernel, bias) = layers[:2]
            half = runtime.relu(runtime.conv(x, first_kernel, first_bias, stride=2))
            seen = runtime.relu(runtime.conv(half, kernel, bias)).mean(axis=0)
        else:
            kernel, recurrent, bias = layers[0]
            seen = {"gru": runtime.gru, "lstm": runtime.lstm}[config.body](x, kernel, recurrent, bias)[-1]
        votes.append(runtime.dense(np.concatenate([seen, means]), *layers[-1]))
    return np.stack(votes)


class FaultClassifier:
    """Networks that vote, and prototypes that doubt; see the top of this file."""

    name: ClassVar[str] = "fault_classifier"

    def __init__(self, signals: int, config: Config) -> None:
        self.signals, self.config = signals, config
        held = (*shapes(signals, config), *forecast_shapes(signals))
        self._network = Network(forward, held, config, outputs=len(config.classes), rows=config.members)
        self._known: Prototypes | None = None

    @property
    def window(self) -> int:
        """Rows of a window."""
        return self.config.window

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the columns of ``Scored.classes`` are."""
        return (*self.config.classes, UNKNOWN)

    def fit(
        self,
        segments: Sequence[Float32],
        validation: Sequence[Float32],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn normal alone."""
        parts = [[Labelled(rows, np.zeros(len(rows), np.int64)) for rows in part] for part in (segments, validation)]
        return self.fit_labelled(parts[0], parts[1], seed=seed, progress=progress)

    def fit_labelled(
        self,
        segments: Sequence[Labelled],
        validation: Sequence[Labelled],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FitReport:
        """Learn the classes of ``config.classes``; see ``models.base.Classifier``."""
        from models import training  # noqa: PLC0415  # it imports TensorFlow, which only training needs

        windows = self._windows(segments).require(8, "training")
        later = self._windows(validation, most=_MOST_VALIDATION).require(4, "validation")
        counts = np.bincount(self._classes(windows.take()), minlength=len(self.config.classes))
        weights = (counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1)).astype(np.float32)

        kernel, bias = _forecast(segments)

        def prepare(held: Float32) -> tuple[Float32, Float32, Float32]:
            classes = self._classes(held)
            smooth = _SMOOTHING / len(self.config.classes)
            target = np.full((len(held), self.config.members, len(self.config.classes)), smooth, np.float32)
            target[np.arange(len(held)), :, classes] += 1 - _SMOOTHING
            read = _read(_columns(held[..., :-1]), kernel, bias)
            return read.transpose(2, 0, 1), target, np.broadcast_to(weights[classes, None, None], target.shape)

        learnt = training.learn(
            build, shapes(self.signals, self.config), self.signals, self.config, windows, later, prepare,
            schedule=training.Schedule(epochs=self.config.epochs, early_stop=False),
            objective=CrossEntropy(noise=self.config.noise),
            seed=seed, progress=progress,
        )  # fmt: skip
        compared = later.take(slice(-COMPARED, None))
        wanted = learnt.predict(prepare(compared)[0])
        difference = self._network.adopt([*learnt.weights, kernel, bias], fill_forward(compared[..., :-1]), wanted)
        held, held_back = windows.take(), later.take()
        self._known = Prototypes.fit(
            self._views(held[..., :-1]).reshape(len(held), -1),
            self._classes(held),
            self._views(held_back[..., :-1]).reshape(len(later), -1),
            self._classes(held_back),
            each=self.config.prototypes,
            rng=np.random.default_rng(seed),
        )
        return FitReport({**learnt.report.figures, "parity": difference}, learnt.report.curves)

    def score(self, windows: Float32) -> Scored:
        """Judge the newest row of each window; see ``models.base.Detector``."""
        check_windows(windows, self.window, self.signals)
        known = self._trained()
        probabilities = _softmax(self._network.predict(fill_forward(windows)).astype(np.float64)).mean(axis=1)
        present = ~np.isnan(windows[:, -1])
        views, shown = self._views(windows), np.tile(present, (1, _VIEWS))
        distance, to_normal = known.distances(views.reshape(len(views), _VIEWS * self.signals), shown)
        shares = to_normal.reshape(len(windows), _VIEWS, self.signals).sum(axis=1) * present
        total = shares.sum(axis=1, keepdims=True)
        contributions = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
        surprisal = np.minimum(-np.log2(np.maximum(probabilities[:, 0], 1e-9)), _MOST_BITS)
        score = np.maximum(surprisal, np.sqrt(total[:, 0] / (_VIEWS * self.signals)) / known.limits[1])
        score[~present.any(axis=1)] = np.nan
        novelty = distance / known.limits[0]
        unknown = 1.0 / (1.0 + np.maximum(novelty, 1e-9) ** -_SHARPNESS)
        classes = np.concatenate([probabilities * (1 - unknown)[:, None], unknown[:, None]], axis=1)
        return Scored(score, contributions, classes=classes.astype(np.float32))

    @property
    def limits(self) -> tuple[float, float]:
        """Distances beyond which a window is unknown, and not normal; training takes them from a rehearsal."""
        return self._trained().limits

    @limits.setter
    def limits(self, limits: tuple[float, float]) -> None:
        self._known = replace(self._trained(), limits=limits)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The networks and the prototypes."""
        return self._trained().weights() | self._network.weights()

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        self._network.load_weights(weights, self.window, self.signals)
        self._known = Prototypes.from_weights(weights, _VIEWS * self.signals, len(self.config.classes))

    def _trained(self) -> Prototypes:
        if self._known is None:
            raise RuntimeError("fault_classifier is neither trained nor loaded")
        return self._known

    def _windows(self, parts: Sequence[Labelled], most: int | None = None) -> WindowSet:
        """Windows of the rows with their class as one more column."""
        joined = [
            np.concatenate([part.rows, part.classes[:, None].astype(np.float32)], axis=1) if part.rows.ndim == 2
            else part.rows for part in parts
        ]  # fmt: skip
        return WindowSet.over(joined, self.window, signals=self.signals + 1, most=most)

    @staticmethod
    def _classes(windows: Float32) -> npt.NDArray[np.int64]:
        """(batch, time, signal + 1) -> (batch,) the class of the newest row."""
        return np.asarray(windows[:, -1, -1], np.int64)

    @staticmethod
    def _views(windows: Float32) -> Float64:
        """(batch, time, signal), NaN where missing -> (batch, view, signal)."""
        filled = fill_forward(windows).astype(np.float64)
        roughness = np.sqrt((np.diff(filled, axis=1) ** 2).mean(axis=1))
        return np.stack([filled[:, -1], filled.mean(axis=1), roughness], axis=1)


def _forecast(segments: Sequence[Labelled]) -> tuple[Float32, Float32]:
    """Learn from normal rows what the next row will be: as a convolution that gives the whitened error."""
    normal = []
    for part in segments:
        edges = np.flatnonzero(np.diff(part.classes == 0)) + 1
        normal += [
            fill_forward(rows[None])[0]
            for rows, told in zip(np.split(part.rows, edges), np.split(part.classes, edges), strict=True)
            if len(rows) > LAGS and told[0] == 0
        ]
    if not normal:
        raise TrainingError(f"training: no {LAGS + 1} normal rows in a row; give more history without gaps")
    forecast, errors = Autoregression.fit(normal)
    pooled = np.concatenate(errors)
    spread = np.maximum(pooled.std(axis=0), _LEAST_SPREAD)
    whiten = whitener(pooled / spread) / spread[:, None]  # (signal, signal)
    signals = len(whiten)
    lags = forecast.weights[:, :-1].reshape(signals, LAGS, signals).transpose(1, 2, 0)  # (lag, from, to), newest first
    taps = np.concatenate([-lags[::-1], np.eye(signals)[None]]) @ whiten
    return taps.astype(np.float32), (-forecast.weights[:, -1] @ whiten).astype(np.float32)


def _columns(windows: Float32) -> Float32:
    """(batch, time, signal), NaN where missing -> (time, signal, batch) without."""
    return np.ascontiguousarray(fill_forward(windows).transpose(1, 2, 0))


def _softmax(logits: Float64) -> Float64:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float64)
