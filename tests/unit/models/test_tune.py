from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from models import registry
from models.contest import Exam, labelled, made_up
from models.errors import TrainingError
from models.search import OneOf, Whole, space_of
from models.tune import tune

TUNABLE = [name for name in registry.names() if name not in ("data_quality", "ensemble", "fault_classifier", "novelty")]


def plant(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)[:, None] / 5 + np.arange(3)
    return np.asarray(np.sin(hours) + 0.1 * rng.normal(size=(rows, 3)))


@pytest.fixture(scope="module")
def exam() -> Exam:
    return made_up(plant(600))


@pytest.mark.parametrize("name", TUNABLE)
def test_every_space_holds_the_defaults_and_only_what_the_config_allows(name: str) -> None:
    defaults = asdict(registry.configure(name, {}))
    for key, span in space_of(name).items():
        if isinstance(span, OneOf):
            assert defaults[key] in span.values
            continue
        assert span.low <= defaults[key] <= span.high, key
        if isinstance(span, Whole):
            assert (defaults[key] - span.low) % span.step == 0
        registry.configure(name, {key: span.low})
        registry.configure(name, {key: span.high})


def test_a_search_begins_with_the_defaults_and_goes_on_where_it_stopped(exam: Exam, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    first = tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=3, progress=lambda *step: told.append(step))
    assert (first.trials, first.earlier) == (3, 0)
    assert first.default == exam.sit("ewma", {}).worth
    assert first.worth >= first.default
    assert [note.split(",")[0] for _, _, note in told] == ["trial 1", "trial 2", "trial 3"]
    again = tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=4)
    assert (again.trials, again.earlier) == (7, 3)
    assert again.worth >= first.worth
    assert again.default == first.default
    assert again.worth == exam.sit("ewma", again.config).worth  # what is told is what the config gives


def test_what_was_interrupted_in_a_trial_goes_on(exam: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sit = Exam.sit
    with monkeypatch.context() as broken:
        broken.setattr(Exam, "sit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=3)
    assert Exam.sit is sit
    found = tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=1)
    assert found.trials == 1
    assert found.worth == found.default


def test_the_time_is_kept(exam: Exam, tmp_path: Path) -> None:
    found = tune(exam, "ewma", folder=tmp_path, minutes=0.01)
    assert 1 <= found.trials < 500


def test_what_the_plan_fixes_is_not_searched(exam: Exam, tmp_path: Path) -> None:
    found = tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=4, config={"span": 5.0})
    assert "span" not in found.config
    with pytest.raises(TrainingError, match="fixes all"):
        tune(exam, "ewma", folder=tmp_path / "b", minutes=5, config={"span": 5.0, "window": 16})


def test_a_study_of_something_else_is_not_gone_on_with(exam: Exam, tmp_path: Path) -> None:
    tune(exam, "ewma", folder=tmp_path, minutes=5, most_trials=1)
    with pytest.raises(TrainingError, match="another data"):
        tune(made_up(plant(600, seed=1)), "ewma", folder=tmp_path, minutes=5, most_trials=1)
    with pytest.raises(TrainingError, match="another detector"):
        tune(exam, "pca", folder=tmp_path, minutes=5, most_trials=1)


def test_configs_that_cannot_learn_are_passed_over_and_told(tmp_path: Path) -> None:
    short = made_up(plant(420))
    found = tune(short, "innovations", folder=tmp_path, minutes=5, most_trials=4)
    assert found.trials == 4
    with pytest.raises(TrainingError, match="declares nothing"):
        tune(short, "data_quality", folder=tmp_path / "b", minutes=1)


def test_labels_are_what_is_judged_by_where_there_are_any() -> None:
    values, labels = plant(300, seed=2), np.zeros(300, bool)
    values[200:260, 0] += 3.0
    labels[200:260] = True
    exam = labelled(plant(600), [(values, labels), (plant(50), np.zeros(50, bool))])
    assert len(exam.trials) == 1
    assert exam.sit("innovations", {}).found == 1.0
    with pytest.raises(TrainingError, match="labelled"):
        labelled(plant(600), [(values, np.zeros(300, bool))])
