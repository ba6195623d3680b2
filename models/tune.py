"""The settings of one detector that do best on one's own held-back data: a search that can be stopped and gone on with.

Optuna draws configs from the detector's ``SEARCH`` (a tree of Parzen estimators; Bergstra et al. 2011, Akiba et al.
2019), each is learnt and judged as in ``models.contest``, and every trial is written to a journal in the study's folder
as it ends. The detector's defaults are the first trial, so what is found is never worse than they are, on the data that
it was found with: the more trials, the more of the gain is luck. Judge the outcome on recordings that the search has
not seen.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from models import registry
from models.base import Progress, no_progress
from models.contest import Exam
from models.errors import TrainingError
from models.search import OneOf, Real, Whole, space_of

#: The journal in a study's folder.
JOURNAL: Final = "study.journal"
_ABOUT: Final = "headrace"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search has found so far.

    config    the best one's keys that differ from the defaults
    worth     of it, and ``default`` that of the defaults; higher is better
    trials    that came to an end, ``refused`` of them because the config cannot be or did not learn
    earlier   how many of them were there before
    """

    config: Mapping[str, Any]
    worth: float
    default: float
    trials: int
    refused: int
    earlier: int


def tune(
    exam: Exam,
    detector: str,
    *,
    folder: Path,
    minutes: float,
    most_trials: int | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = no_progress,
) -> Tuned:
    """Search for so many minutes; a trial that has begun is finished.

    ``folder`` holds the study: what is in it from an earlier search of the same detector, config and data goes on.
    ``config``: what is fixed and not searched; ``most_trials``: an end before the time is up; ``progress`` counts
    seconds.

    Raises ``TrainingError`` if Optuna is not installed, the folder has a study of something else, the detector declares
    nothing to search, or no trial came to an end; ``UnknownDetector``; ``ValueError`` for ``config``.
    """
    optuna = _optuna()
    fixed = dict(config or {})
    plain = asdict(registry.configure(detector, fixed))
    space = {key: span for key, span in space_of(detector).items() if key not in fixed}
    if not space:
        raise TrainingError(f"{detector}: the plan's `config` fixes all that could be searched")
    study = _study(optuna, folder, _about(exam, detector, fixed), seed)
    for begun in study.get_trials(states=[optuna.trial.TrialState.RUNNING], deepcopy=False):
        study.tell(begun.number, state=optuna.trial.TrialState.FAIL)  # it was interrupted
    earlier = len(_ended(optuna, study))
    defaults = {key: plain[key] for key in space}
    if not earlier and not study.get_trials(states=[optuna.trial.TrialState.WAITING], deepcopy=False):
        study.enqueue_trial(defaults)
    begin = clock()

    def judge(trial: Any) -> float:
        chosen = {key: _draw(trial, key, span) for key, span in space.items()}
        try:
            worth = exam.sit(detector, fixed | chosen, seed).worth
        except (TrainingError, ValueError) as error:
            trial.set_user_attr("refused", str(error))
            raise optuna.TrialPruned(str(error)) from None
        return worth

    def told(study: Any, trial: Any) -> None:
        spent = min(clock() - begin, 60 * minutes)
        best = _best(optuna, study)
        note = f"trial {trial.number + 1}" + (f", best {best.value:.3f}" if best else "")
        progress(round(spent), round(60 * minutes), note)

    study.optimize(judge, n_trials=most_trials, timeout=60 * minutes, callbacks=[told])
    best, ended = _best(optuna, study), _ended(optuna, study)
    if best is None:
        reasons = {trial.user_attrs.get("refused", "") for trial in ended}
        raise TrainingError(f"{detector}: none of {len(ended)} trials came to an end: {'; '.join(sorted(reasons)[:3])}")
    known = {tuple(sorted(trial.params.items())): trial.value for trial in ended if trial.value is not None}
    return Tuned(
        config={key: value for key, value in best.params.items() if value != defaults.get(key)},
        worth=float(best.value),
        default=float(known.get(tuple(sorted(defaults.items())), math.nan)),
        trials=len(ended),
        refused=sum("refused" in trial.user_attrs for trial in ended),
        earlier=earlier,
    )


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415  # an extra, and half a second to import
    except ImportError:
        raise TrainingError("tuning needs Optuna: pip install 'headrace[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _about(exam: Exam, detector: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
    data = hashlib.sha256(exam.digest().encode()).hexdigest()[:16]
    return {"detector": detector, "fixed": {key: repr(value) for key, value in sorted(fixed.items())}, "data": data}


def _study(optuna: Any, folder: Path, about: Mapping[str, Any], seed: int) -> Any:
    """The study in a folder, or a new one. Raises ``TrainingError`` if it is of something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        storage = optuna.storages.JournalStorage(journal)
        study = optuna.create_study(storage=storage, study_name=_ABOUT, direction="maximize", load_if_exists=True)
    except OSError as error:
        raise TrainingError(f"{folder}: {error.strerror or error}") from None
    known = study.user_attrs.get("about")
    if known is None:
        study.set_user_attr("about", dict(about))
    elif known != about:
        differs = ", ".join(key for key in about if known.get(key) != about[key])
        raise TrainingError(
            f"{folder} has a study with another {differs}: name another folder with --study, or delete this one"
        )
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    return study


def _ended(optuna: Any, study: Any) -> list[Any]:
    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    return list(study.get_trials(states=states, deepcopy=False))


def _best(optuna: Any, study: Any) -> Any:
    """The best trial, the first of equals; None if none came to an end."""
    whole = study.get_trials(states=[optuna.trial.TrialState.COMPLETE], deepcopy=False)
    return max(whole, key=lambda trial: (trial.value, -trial.number), default=None)


def _draw(trial: Any, key: str, span: Whole | Real | OneOf) -> Any:
    if isinstance(span, Whole):
        return trial.suggest_int(key, span.low, span.high, step=span.step, log=span.log)
    if isinstance(span, Real):
        return trial.suggest_float(key, span.low, span.high, log=span.log)
    return trial.suggest_categorical(key, list(span.values))
