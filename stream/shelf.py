"""The artifacts that serve a plan, loaded before the first reading comes, and versions of the store that come later.

A detector has one artifact for all its assets, or, where its path holds ``{asset}``, one for each asset that has a
folder. A damaged artifact stops the start: a plant must not learn later that it was not watched. One that the store has
no version of yet begins as what the plan says (``begins_as``); that is made of the plan alone, the same on every
worker, and lies in no store.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models import artifact as artifacts
from models.artifact import Artifact
from models.beginning import untrained
from models.errors import InvalidArtifact, ModelError, StoreError
from models.signing import Verifier
from stream.errors import ConfigError
from stream.plan import DetectorSettings, Plan

_log = logging.getLogger(__name__)


class Shelf:
    """Loads and holds the artifacts of a plan. Raises ``ConfigError`` that names the detector and the remedy.

    verifier  with one, nothing is loaded that is not signed
    """

    def __init__(self, plan: Plan, verifier: Verifier | None = None) -> None:
        self._plan = plan
        self._verifier = verifier
        self.store = plan.open_store(verifier) if any(held.is_stored for held in plan.detectors.values()) else None
        self._versions: dict[tuple[str, str], Artifact] = {}
        self._fleet: dict[str, Artifact] = {}
        self._single: dict[tuple[str, str], Artifact] = {}
        self._beginnings = {name: begun(name, held) for name, held in plan.detectors.items() if held.begins_as}
        for name, settings in plan.detectors.items():
            if settings.is_stored:
                self._fleet[name] = self._stored(name)
            elif settings.one_model_per_asset:
                for asset, path in self._folders(name, settings):
                    self._single[name, asset] = self._load(name, settings, path)
                if not any(detector == name for detector, _ in self._single):
                    raise ConfigError(
                        f"detectors.{name}.artifact: nothing fits {settings.artifact!r}; train it first: headrace train"
                    )
            else:
                self._fleet[name] = self._load(name, settings, plan.artifact_path(name))

    def find(self, detector: str, asset: str) -> Artifact | None:
        """The artifact that serves ``detector`` for ``asset``; None if there is none."""
        return self._fleet.get(detector) or self._single.get((detector, asset))

    def signals(self) -> tuple[str, ...]:
        """All signals that any artifact looks at, sorted."""
        return tuple(sorted({signal for _, held in self.serving() for signal in held.signals}))

    def serving(self) -> Iterator[tuple[str, Artifact]]:
        """Every artifact with its detector's name in the plan."""
        yield from self._fleet.items()
        for key, held in self._single.items():
            yield key[0], held

    def warm(self) -> None:
        """Score a window with each model, so that the first real one does not wait for a graph to be traced."""
        for _, held in self.serving():
            exercise(held)

    def version(self, detector: str, version: str) -> Artifact | None:
        """A version that was fetched, serves since the start, or is a beginning; None if there is none."""
        held = self._fleet.get(detector)
        if held is not None and held.version == version:
            return held
        begins = self._beginnings.get(detector)
        if begins is not None and begins.version == version:
            return begins
        return self._versions.get((detector, version))

    def fetch(self, detector: str, version: str) -> Artifact:
        """Load and try a version of the store, in whichever thread this is called; from then on ``version`` has it.

        Raises ``InvalidArtifact`` or ``StoreError`` that says what is wrong: nothing is changed then.
        """
        if held := self.version(detector, version):
            return held
        if self.store is None or not self._plan.detectors[detector].is_stored:
            raise StoreError(f"detectors.{detector}.artifact: a folder; only versions of the store can be exchanged")
        held = self.store.load(self._plan.stored(detector), version)
        settings = self._plan.detectors[detector]
        if not settings.takes(held.detector.name):
            raise InvalidArtifact(f"{detector} {version}: a {held.detector.name!r}, the plan says {settings.kind!r}")
        if settings.signals and set(settings.signals) != set(held.signals):
            raise InvalidArtifact(
                f"{detector} {version}: trained on {', '.join(held.signals)}, "
                f"the plan says {', '.join(settings.signals)}"
            )
        exercise(held)
        self._versions[detector, version] = held
        return held

    def forget(self, wanted: Collection[tuple[str, str]]) -> None:
        """Let go of versions that were fetched and are not in ``wanted`` (detector, version)."""
        for key in self._versions.keys() - set(wanted):
            del self._versions[key]

    def _stored(self, name: str) -> Artifact:
        assert self.store is not None  # noqa: S101 (made where a detector is stored)
        model = self._plan.stored(name)
        try:
            history = self.store.history(model)
            served = list(dict.fromkeys(decision.serving for decision in reversed(history) if decision.serving))
        except ModelError as error:
            raise ConfigError(f"detectors.{name}.artifact: {error}") from None
        if not served and name in self._beginnings:
            begins = self._beginnings[name]
            _log.info("detectors.%s: the store has no version: it begins as %s", name, begins.detector.name)
            return begins
        if not served:
            raise ConfigError(
                f"detectors.{name}.artifact: nothing serves as {model!r} in {self.store.url}; "
                f"train it first: headrace train"
            )
        refused: ModelError | None = None
        for version in served:
            try:
                held = self.store.load(model, version)
            except ModelError as error:
                refused = refused or error
                continue
            if refused is not None:
                _log.error("detectors.%s: %s; %s, which served before, serves instead", name, refused, version)
            return self._checked(name, self._plan.detectors[name], f"{model} {version}", held)
        raise ConfigError(f"detectors.{name}.artifact: {refused}") from None

    def _folders(self, name: str, settings: DetectorSettings) -> Iterator[tuple[str, Path]]:
        before, after = settings.artifact.split("{asset}", 1)
        if "{asset}" in after:
            raise ConfigError(f"detectors.{name}.artifact: {{asset}} may stand only once")
        base = self._plan.folder / before
        parent, prefix = (base, "") if before.endswith("/") or not before else (base.parent, base.name)
        suffix, _, rest = after.partition("/")
        for folder in sorted(parent.glob("*")) if parent.is_dir() else ():
            stem = folder.name
            if not (stem.startswith(prefix) and stem.endswith(suffix)) or len(stem) <= len(prefix) + len(suffix):
                continue
            asset = stem[len(prefix) : len(stem) - len(suffix)]
            path = folder / rest if rest else folder
            if settings.watches(asset) and (path / artifacts.MANIFEST).is_file():
                yield asset, path

    def _load(self, name: str, settings: DetectorSettings, path: Path) -> Artifact:
        try:
            held = artifacts.load(path, verifier=self._verifier)
        except ModelError as error:
            raise ConfigError(f"detectors.{name}.artifact: {error}; train it again: headrace train") from None
        return self._checked(name, settings, str(path), held)

    @staticmethod
    def _checked(name: str, settings: DetectorSettings, path: str, held: Artifact) -> Artifact:
        if not settings.takes(held.detector.name):
            raise ConfigError(
                f"detectors.{name}.kind: {settings.kind!r}, but {path} holds a {held.detector.name!r}; train it again"
            )
        if settings.signals and settings.signals != held.signals:
            raise ConfigError(
                f"detectors.{name}.signals: {', '.join(settings.signals)}, but {path} was trained on "
                f"{', '.join(held.signals)}; train it again"
            )
        return held


def begun(name: str, settings: DetectorSettings) -> Artifact:
    """What a detector begins as; the same settings give the same version. Raises ``ConfigError``."""
    assert settings.begins_as is not None  # noqa: S101 (asked only where the plan says so)
    assert settings.period_s is not None  # noqa: S101 (the plan was checked)
    config = settings.config if settings.begins_as == settings.kind else {}
    try:
        return untrained(settings.begins_as, signals=settings.signals, period_s=settings.period_s, config=config)
    except ValueError as error:
        raise ConfigError(f"detectors.{name}.config: {error}") from None


def exercise(held: Artifact) -> None:
    """Score an empty window: a model that cannot, or that says nothing finite of the middle of its own range, is bad.

    Raises ``InvalidArtifact``.
    """
    if held.inspects:
        inspector: Any = held.detector
        inspector.score([np.zeros((64, 64), dtype=np.uint8)])
        return
    windows = np.zeros((1, held.window, len(held.signals)), dtype=np.float32)
    try:
        scored = held.detector.score(windows)
    except (ValueError, ArithmeticError, IndexError) as error:
        raise InvalidArtifact(f"version {held.version} cannot score: {type(error).__name__}: {error}") from None
    if np.isinf(scored.score).any():
        raise InvalidArtifact(f"version {held.version} scores {scored.score[0]} where all is as usual")


class Single:
    """A shelf with one model, for one detector: to see what a version would have said."""

    def __init__(self, detector: str, held: Artifact) -> None:
        self._detector = detector
        self._held = held

    def find(self, detector: str, asset: str) -> Artifact | None:  # noqa: ARG002 (one for all)
        """See ``Shelf``."""
        return self._held if detector == self._detector else None

    def signals(self) -> tuple[str, ...]:
        """See ``Shelf``."""
        return tuple(sorted(self._held.signals))

    def serving(self) -> Iterator[tuple[str, Artifact]]:
        """See ``Shelf``."""
        yield self._detector, self._held

    def version(self, detector: str, version: str) -> Artifact | None:
        """See ``Shelf``."""
        return self._held if (detector, version) == (self._detector, self._held.version) else None
