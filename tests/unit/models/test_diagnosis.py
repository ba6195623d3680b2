from dataclasses import replace

import numpy as np
import pytest

from models.artifact import load
from models.base import NORMAL, UNKNOWN
from models.datasets import Recording, read
from models.detectors.fault_classifier import Config
from models.diagnosis import _stretches, diagnose, train_classifier
from models.errors import TrainingError
from models.measures.classes import ClassTable
from models.train import score_series

FAULTS = (NORMAL, "leak", "burst")
SMALL = {"epochs": 6, "window": 16, "members": 1}


def shaken(rows, fault, seed):
    """Three signals; a fault shifts one, makes another swing, or does what no recording showed."""
    rng = np.random.default_rng(seed)
    time = np.arange(rows)
    course = np.sin(time / 9)
    values = np.stack([course, -course, rng.normal(size=rows)], axis=1) + 0.2 * rng.normal(size=(rows, 3))
    if fault == "leak":
        values[:, 0] -= 3
    elif fault == "hunting":
        values[:, 1] += 2.5 * np.sin(time * 1.9)
    elif fault == "burst":
        values[:, 2] += 14
    return values


def named(column):
    return None if column is None else column.tolist()


def recording(fault, seed, rows=400):
    return Recording(
        f"{fault}-{seed}", np.arange(rows) * 1000, ("a", "b", "c"), shaken(rows, fault, seed), None, (),
        np.full(rows, fault),
    )  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.parametrize("body", ["cnn", "gru", "lstm"])
def test_faults_are_told_apart_and_what_was_not_shown_is_unknown(body, tmp_path):
    shown = [recording(fault, seed) for seed, fault in enumerate((NORMAL, "leak", "hunting"))]
    artifact = load(train_classifier(shown, config={**SMALL, "body": body}).save(tmp_path / "artifact"))
    assert artifact.class_names == (NORMAL, "hunting", "leak", UNKNOWN)
    truth, said = [], []
    for seed, fault in enumerate((NORMAL, "leak", "hunting"), 10):
        told = diagnose(artifact, shaken(200, fault, seed))
        assert set(told[:15]) == {""}
        truth += [fault] * 185
        said += told[15:]
    assert ClassTable.of(truth, said).macro_f1 > 0.95
    assert np.mean([name == UNKNOWN for name in diagnose(artifact, shaken(200, "burst", 20))[15:]]) > 0.95

    threshold = artifact.threshold(24.0)  # an alarm is a fault that is known, or something that is not
    over = {fault: score_series(artifact, shaken(120, fault, 30)).score[15:] > threshold for fault in FAULTS}
    assert over[NORMAL].mean() < 0.05
    assert over["leak"].all()
    assert over["burst"].all()


def test_recordings_that_name_no_fault_are_refused():
    with pytest.raises(TrainingError, match="column `fault`"):
        train_classifier([recording(NORMAL, 0)])
    with pytest.raises(TrainingError, match="no row is normal"):
        train_classifier([recording("leak", 0)])
    with pytest.raises(TrainingError, match="no recording"):
        train_classifier([])


def test_what_was_wrong_without_a_name_is_neither_normal_nor_of_a_kind():
    held = recording("leak", 1)
    faults = np.where(np.arange(400) < 200, NORMAL, "leak")
    labels = faults != NORMAL
    labels[:50] = True
    ((values, told),) = _stretches(replace(held, faults=faults, labels=labels), held.signals, 5.0)
    assert len(values) == 350
    assert told.tolist() == [NORMAL] * 150 + ["leak"] * 200


def test_classes_begin_with_normal_and_leave_unknown_free():
    for classes in ((), ("leak",), (NORMAL, "leak", "leak"), (NORMAL, UNKNOWN)):
        with pytest.raises(ValueError, match="classes"):
            Config(classes=classes)
    with pytest.raises(ValueError, match="body"):
        Config(body="transformer")


def test_a_column_of_faults_is_no_signal_and_marks_rows(tmp_path):
    file = tmp_path / "pump.csv"
    file.write_text("ts,flow,fault\n1000,1.0,\n2000,1.1,0\n3000,2.0,leak\n4000,1.0,normal\n")
    (held,) = read(file)
    assert held.signals == ("flow",)
    assert named(held.faults) == [NORMAL, NORMAL, "leak", NORMAL]
    assert named(held.labels) == [False, False, True, False]
    file.write_text("ts,flow,fault\n1000,1.0,0\n2000,1.1,4\n")
    assert named(read(file)[0].faults) == [NORMAL, "fault 4"]
