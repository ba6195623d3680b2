"""The simulated plant for a cluster: the times on its readings, and that what is there is not overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.datasets import Recording
from stream.demo.plant import PLAN, prepare, stamped
from stream.demo.scenario import simulated
from stream.errors import StreamError


def test_times_begin_now_and_go_faster_with_the_assets_in_step(make_recording: Callable[..., Recording]) -> None:
    first, second = make_recording("a", rows=50), make_recording("b", rows=50)
    second.at_ms[:] += 400
    made = stamped([first, second], begin_ms=5_000, speed=10.0)
    assert made[0].at_ms[:3].tolist() == [5_000, 5_100, 5_200]
    assert made[1].at_ms[:2].tolist() == [5_040, 5_140]
    assert all((np.diff(held.at_ms) > 0).all() for held in made)
    assert [held.asset for held in made] == ["a", "b"]


def test_another_plan_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text("site = 'mine'\n")
    with pytest.raises(StreamError, match="another folder"):
        prepare(tmp_path)
    assert (tmp_path / PLAN).read_text() == "site = 'mine'\n"


def test_trains_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("stream.demo.plant.train_plan", lambda *_, only, **__: asked.append(only))
    missing = prepare(tmp_path)
    assert missing == asked[0]
    assert len(missing) == 9
    assert (tmp_path / PLAN).read_text() == simulated(7).plan()
    for name in missing[1:]:
        (tmp_path / "artifacts" / name).mkdir(parents=True)
    assert prepare(tmp_path) == asked[1] == missing[:1]
    (tmp_path / "artifacts" / missing[0]).mkdir()
    assert prepare(tmp_path) == []
    assert len(asked) == 2
