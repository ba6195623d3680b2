import numpy as np
import pytest

from models.contest import contest
from models.errors import TrainingError, UnknownDetector
from stream.commands.choose import run_choose


def plant(rows, seed=0):
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)[:, None] / 5 + np.arange(3)
    return np.sin(hours) + 0.1 * rng.normal(size=(rows, 3))


def test_what_foretells_beats_what_knows_only_a_mean():
    told = []
    standings = contest(plant(1600), ("ewma", "innovations"), progress=lambda *step: told.append(step))
    assert [standing.detector for standing in standings] == ["innovations", "ewma"]
    best = standings[0]
    assert best.found >= 0.8
    assert best.false_alarms < 0.1
    assert told == [(1, 2, "ewma"), (2, 2, "innovations")]


def test_the_same_seed_gives_the_same_standings():
    assert contest(plant(600), ("ewma",), seed=3) == contest(plant(600), ("ewma",), seed=3)


def test_too_little_history_or_none_that_moves_is_said():
    with pytest.raises(TrainingError, match="more history"):
        contest(plant(100), ("ewma",))
    with pytest.raises(TrainingError, match="moves"):
        contest(np.ones((600, 2)), ("ewma",))
    with pytest.raises(UnknownDetector):
        contest(plant(600), ("nobody",))


def test_the_command_shows_the_standings_and_a_plan(tmp_path, capsys):
    table = "\n".join(["a,b,c", *(",".join(map(str, row)) for row in plant(600))])
    (tmp_path / "pump.csv").write_text(table)
    run_choose([tmp_path / "pump.csv"], candidates=("ewma",))
    shown = capsys.readouterr().out
    assert "ewma" in shown
    assert 'kind = "ewma"' in shown
