"""Detectors by name: a file ``models/detectors/<name>.py`` is the detector ``<name>``, imported only when asked for.

>>> "ewma" in names()
True
>>> create("ewma", signals=3, config={"window": 16}).window
16
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.base import Detector
from models.errors import UnknownDetector

_FOLDER = Path(__file__).parent / "detectors"
#: Where those are that read pictures.
_INSPECTORS = Path(__file__).parent / "inspectors"


def names() -> tuple[str, ...]:
    """All detectors' names, in order, without importing any."""
    return _in(_FOLDER)


def inspectors() -> tuple[str, ...]:
    """Names of those that read pictures: the files in ``models/inspectors``."""
    return _in(_INSPECTORS)


@functools.cache  # whether a model inspects is asked at each batch
def _in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def detector_class(name: str) -> type[Any]:
    """The class of a detector, imported now. Raises ``UnknownDetector``, naming what is spelled like it."""
    folder = "inspectors" if _known(name) in inspectors() else "detectors"
    module = importlib.import_module(f"models.{folder}.{name}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if getattr(found, "name", None) == name and found.__module__ == module.__name__:
            return found
    raise UnknownDetector(f"models/{folder}/{name}.py defines no class with `name = {name!r}`")


def needs_tensorflow(name: str) -> bool:
    """Whether it takes TensorFlow to train a detector, read from its source without importing anything.

    Scoring never does. A deep detector builds the network that Keras trains in its own file, so that file imports
    keras: inside of ``build``, for training alone.
    """
    tree = ast.parse((_FOLDER / f"{_known(name)}.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return any(module.split(".")[0] in ("keras", "tensorflow") for module in imported)


def tells_faults_apart(name: str) -> bool:
    """Whether a detector learns from labelled faults (``models.base.Classifier``); imports its file."""
    return hasattr(detector_class(name), "fit_labelled")


def names_kinds(name: str) -> bool:
    """Whether an inspector says which kind of defect it is; imports its file."""
    return hasattr(detector_class(name), "class_names")


def begins_cold(name: str) -> bool:
    """Whether a detector is of use without any history."""
    return hasattr(detector_class(name), "begin_empty")


def create(name: str, *, signals: int, config: Mapping[str, Any] | None = None) -> Detector:
    """An untrained detector for ``signals`` signals.

    Raises ``UnknownDetector`` for the name, ``ValueError`` naming the key for a config that the detector's own
    ``Config`` does not know or allow.
    """
    found = detector_class(name)
    if signals < 1:
        raise ValueError(f"{name}: a detector needs at least 1 signal, got {signals}")
    detector: Detector = found(signals, configure(name, config or {}))
    return detector


def configure(name: str, config: Mapping[str, Any]) -> Any:
    """A detector's ``Config`` from plain values (TOML, JSON). Raises ``ValueError`` naming the key that is wrong."""
    cls = inspect.getmodule(detector_class(name)).Config  # type: ignore[union-attr]  # the class's module exists
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in config:
        if key not in known:
            raise ValueError(f"{name}: unknown key {key!r}; known are {', '.join(known)}")
    return cls(**{key: _typed(f"{name}.{key}", value, hints[key]) for key, value in config.items()})


def _typed(where: str, value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted in (bool, str) and isinstance(value, wanted):
        return value
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(where, item, typing.get_args(wanted)[0]) for item in value)
    shown = getattr(wanted, "__name__", str(wanted))
    raise ValueError(f"{where}: expected {shown}, got {value!r}")


def _known(name: str) -> str:
    known = (*names(), *inspectors())
    if name not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise UnknownDetector(f"no detector is called {name!r}: {hint}")
    return name
