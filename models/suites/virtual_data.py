"""What made windows are worth, on the Tennessee Eastman process: a classifier is asked about recordings it never saw.

Trained on made windows alone it is compared with one trained on the real ones (``models.augment``; Esteban et al.
2017). Then each fault in turn is cut to a twentieth of its windows, and for the faults that lose most by it made
windows are added: what they win back is the second figure. The twentieth is one stretch at a place drawn by lot:
windows drawn one by one overlap so much that they still show most of the recording, and nothing is lost. Where a cut
costs nothing, nothing is to be won, so those that lose most are the ones that ask for it; the choice is made before any
window is. Faults 3, 9 and 15 leave hardly a trace and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.augment import learn
from models.base import NORMAL, Progress
from models.datasets import Recording
from models.errors import DataError
from models.suites import tep
from models.suites.base import Figure, Suite
from models.suites.kept import Kept
from models.transfer import judged_by

#: Small, and the same for all: only the difference between what they learnt from counts.
_CLASSIFIER: Final[Mapping[str, Any]] = {"members": 1, "epochs": 16}
_WINDOW: Final = 24  # rows of the classifier's window
_CUT: Final = 0.05
_TRIED: Final = 2  # faults that are cut and enlarged
_MADE: Final = 40  # windows of each class for the classifier that never sees a real one
_ADDED: Final = 60  # windows for a class that was cut


def study(folder: Path, seed: int, scores: Path | None, progress: Progress) -> list[Figure]:
    """Play and judge. Raises ``DataError`` if the folder is not laid out like the benchmark."""
    numbers = [
        number
        for number in range(1, 29)
        if number not in tep.HARD and all((folder / f"d{number:02d}{part}.dat").exists() for part in ("", "_te"))
    ]
    if len(numbers) < 2 or not all((folder / f"d00{part}.dat").exists() for part in ("", "_te")):
        raise DataError(
            f"{folder}: expected dNN.dat and dNN_te.dat of normal (00) and of two faults, as the set has them"
        )
    real = [tep.labelled(folder / f"d{number:02d}.dat") for number in (0, *numbers)]
    test = [tep.labelled(folder / f"d{number:02d}_te.dat", tep.BEGIN) for number in (0, *numbers)]
    kept = Kept(
        None if scores is None else scores / "answers.json",
        {"seed": seed, "folder": str(folder.resolve()), "faults": numbers},
    )

    def told(name: str, recordings: Callable[[], Sequence[Recording]]) -> dict[str, float]:
        """F1 by class, of the classifier that learnt from these."""
        found: dict[str, float] = kept.get(
            name, lambda: judged_by(recordings(), test, config=_CLASSIFIER, seed=seed, progress=progress).f1
        )
        return found

    from_real = told("real", lambda: real)
    from_made = told("made", lambda: _all_made(real, seed, progress))
    names = [f"fault {number}" for number in numbers]
    cut = {name: told(f"{name} cut", lambda name=name: _with_cut(real, name, seed)) for name in names}  # type: ignore[misc]
    lost = sorted(names, key=lambda name: cut[name][name] - from_real[name])[:_TRIED]
    won = {
        name: told(f"{name} enlarged", lambda name=name: _enlarged(real, name, seed, progress))[name] - cut[name][name]  # type: ignore[misc]
        for name in lost
    }
    whole, made = (float(np.mean(list(one.values()))) for one in (from_real, from_made))
    return [
        Figure("macro-F1 learnt from made windows, over that learnt from real ones", made / whole, bar=0.90),
        Figure("F1 that made windows add to a fault cut to 5 %", float(np.mean([*won.values()])), bar=0.05),
        Figure("macro-F1 learnt from real windows", whole),
        Figure("macro-F1 learnt from made windows", made),
        *(Figure(f"F1, {name}: all of it", from_real[name]) for name in lost),
        *(Figure(f"F1, {name}: cut", cut[name][name]) for name in lost),
        *(Figure(f"F1, {name}: cut and enlarged", cut[name][name] + won[name]) for name in lost),
    ]  # fmt: skip


def _all_made(real: Sequence[Recording], seed: int, progress: Progress) -> list[Recording]:
    maker = learn(real, seed=seed, progress=progress)
    return [one for name in maker.classes for one in maker.recordings(name, _MADE, seed=seed)]


def _with_cut(real: Sequence[Recording], name: str, seed: int) -> list[Recording]:
    """A stretch of the fault that holds a twentieth of its windows, and all of the others."""
    return [_stretch(held, seed) if _is(held, name) else held for held in real]


def _stretch(held: Recording, seed: int) -> Recording:
    rows = _WINDOW - 1 + round(_CUT * (len(held.values) - _WINDOW + 1))
    first = int(np.random.default_rng(seed).integers(len(held.values) - rows + 1))
    taken = slice(first, first + rows)
    faults = None if held.faults is None else held.faults[taken]
    return replace(held, at_ms=held.at_ms[taken], values=held.values[taken], faults=faults, labels=None)


def _enlarged(real: Sequence[Recording], name: str, seed: int, progress: Progress) -> list[Recording]:
    held = _with_cut(real, name, seed)
    maker = learn(held, seed=seed, progress=progress)
    return [*held, *maker.recordings(name, _ADDED, seed=seed)]


def _is(held: Recording, name: str) -> bool:
    return name != NORMAL and held.faults is not None and str(held.faults[0]) == name


SUITE = Suite(
    name="virtual_data",
    about="made windows, Tennessee Eastman process",
    detector="fault_classifier",
    cases=lambda _: (),
    figures=lambda _: (),
    published=(),
    study=study,
    folder="tep",
)
