import numpy as np
import pytest

from models.base import NORMAL, no_progress
from models.errors import DataError
from models.measures.classes import ClassTable
from models.suites import virtual_data
from models.suites.kept import Kept
from models.suites.tep import labelled


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tep"
    path.mkdir()
    rng = np.random.default_rng(0)
    for number in (0, 1, 2, 3):
        np.savetxt(path / f"d{number:02d}.dat", rng.normal(number, 1, (503, 52)))
        np.savetxt(path / f"d{number:02d}_te.dat", rng.normal(number, 1, (200, 52)))
    return path


def test_a_twentieth_of_the_windows_is_left_and_no_other_fault_is_touched(folder):
    real = [labelled(folder / f"d0{number}.dat") for number in (0, 1, 2)]
    normal, cut, other = virtual_data._with_cut(real, "fault 1", 0)
    assert (normal, other) == (real[0], real[2])
    assert len(cut.values) == 24 - 1 + 24  # 24 of 480 windows
    assert cut.faults is not None
    assert set(cut.faults) == {"fault 1"}
    start = int(np.flatnonzero((real[1].values == cut.values[0]).all(axis=1))[0])
    assert np.array_equal(cut.values, real[1].values[start : start + 47])
    assert np.array_equal(cut.at_ms, real[1].at_ms[start : start + 47])


def test_what_loses_most_is_enlarged_and_an_interrupted_study_goes_on(folder, tmp_path, monkeypatch):
    asked = []

    class Maker:
        classes = (NORMAL, "fault 1", "fault 2")

        def recordings(self, name, count, *, seed=0):
            return [f"made {name}"] * count

    def judged_by(learnt_from, asked_about, **_):
        """Fault 2 suffers from a cut, and half of that is won back."""
        made = [one for one in learnt_from if isinstance(one, str)]
        whole = not made and all(len(held.values) > 100 for held in learnt_from)
        asked.append(len(learnt_from))
        hits = 10 if whole else 8 if len(made) == 303 else 6 if made else 4 if _short(learnt_from) == "fault 2" else 9
        return ClassTable.of(["fault 2"] * 10 + ["fault 1"] * 10 + [NORMAL] * 10,
                             ["fault 2"] * hits + ["x"] * (10 - hits) + ["fault 1"] * 10 + [NORMAL] * 10)  # fmt: skip

    def _short(learnt_from):
        return next(str(held.faults[0]) for held in learnt_from if len(held.values) < 100)

    monkeypatch.setattr(virtual_data, "judged_by", judged_by)
    monkeypatch.setattr(virtual_data, "learn", lambda *_, **__: Maker())
    monkeypatch.setattr(virtual_data, "_MADE", 101)
    monkeypatch.setattr(virtual_data, "_TRIED", 1)
    figures = virtual_data.study(folder, 0, tmp_path / "scores", no_progress)
    values = {figure.name: figure.value for figure in figures}
    one = {hits: 2 * hits / (hits + 10) for hits in (4, 6, 8, 10)}  # F1 of fault 2
    assert values["F1 that made windows add to a fault cut to 5 %"] == pytest.approx(one[6] - one[4])
    assert values["macro-F1 learnt from made windows, over that learnt from real ones"] == pytest.approx(
        (2 + one[8]) / 3
    )
    assert values["F1, fault 2: cut"] == pytest.approx(one[4])
    assert [figure.met for figure in figures[:2]] == [True, True]
    before = len(asked)
    again = virtual_data.study(folder, 0, tmp_path / "scores", no_progress)
    assert [figure.record() for figure in again] == [figure.record() for figure in figures]
    assert len(asked) == before  # nothing was worked out anew
    virtual_data.study(folder, 1, tmp_path / "scores", no_progress)
    assert len(asked) == 2 * before


def test_a_folder_without_faults_is_refused(tmp_path):
    with pytest.raises(DataError, match="two faults"):
        virtual_data.study(tmp_path, 0, None, no_progress)


def test_answers_made_with_something_else_are_not_taken(tmp_path):
    file = tmp_path / "answers.json"
    assert Kept(file, {"seed": 0}).get("a", lambda: [1, 2.5]) == [1, 2.5]
    assert Kept(file, {"seed": 0}).get("a", lambda: [3]) == [1, 2.5]
    assert Kept(file, {"seed": 1}).get("a", lambda: [3]) == [3]
    assert Kept(None, {"seed": 0}).get("a", lambda: [4]) == [4]
