"""The artifacts that serve a plan, loaded before the first reading comes.

A detector has one artifact for all its assets, or, where its path holds ``{asset}``, one for each asset that has a
folder. A damaged artifact stops the start: a plant must not learn later that it was not watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models import artifact as artifacts
from models.artifact import Artifact
from models.errors import ModelError
from stream.errors import ConfigError
from stream.settings import DetectorSettings, Plan


class Shelf:
    """Loads and holds the artifacts of a plan. Raises ``ConfigError`` that names the detector and the remedy."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fleet: dict[str, Artifact] = {}
        self._single: dict[tuple[str, str], Artifact] = {}
        for name, settings in plan.detectors.items():
            if settings.one_model_per_asset:
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
            if held.inspects:
                inspector: Any = held.detector
                inspector.score([np.zeros((64, 64), dtype=np.uint8)])
            else:
                held.detector.score(np.zeros((1, held.window, len(held.signals)), dtype=np.float32))

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
            held = artifacts.load(path)
        except ModelError as error:
            raise ConfigError(f"detectors.{name}.artifact: {error}; train it again: headrace train") from None
        if held.detector.name != settings.kind:
            raise ConfigError(
                f"detectors.{name}.kind: {settings.kind!r}, but {path} holds a {held.detector.name!r}; train it again"
            )
        if settings.signals and settings.signals != held.signals:
            raise ConfigError(
                f"detectors.{name}.signals: {', '.join(settings.signals)}, but {path} was trained on "
                f"{', '.join(held.signals)}; train it again"
            )
        return held
