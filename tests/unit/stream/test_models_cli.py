"""``headrace models``: what it shows, what it decides, and what it refuses. No broker is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from models.datasets import Recording
from models.store import Store
from models.train import train
from stream.cli import main
from stream.commands import models as commands
from stream.orders import Comparison, Message
from stream.plan import load_plan

PLAN = """
[models]
store = "versions"
[detectors.quick]
kind = "ewma"
artifact = "store:"
false_alarms_per_day = 1
[detectors.folder]
kind = "ewma"
artifact = "folder"
"""


class Desk:
    """The commands, on a plan with two versions of ``quick``; the first serves."""

    def __init__(self, folder: Path, recording: Recording, versions: list[Any]) -> None:
        self.plan = folder / "headrace.toml"
        self.plan.write_text(PLAN)
        self.store: Store = load_plan(self.plan).open_store()
        self.first, self.second = (self.store.add("quick", held, why="a test", by="anna") for held in versions)
        self.store.decide("quick", "promote", serving=self.first, why="the first", by="anna")
        self.recording = recording

    def said(self, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(main, ["models", *arguments, "--plan", str(self.plan)])
        assert done.exit_code == status, done.output
        return done.output

    @property
    def serving(self) -> tuple[str, str]:
        now = self.store.now("quick")
        return now.serving, now.candidate


@pytest.fixture
def desk(make_recording: Callable[..., Recording], tmp_path: Path) -> Desk:
    versions = [train([make_recording("pump-1", rows=1500, seed=seed)], detector="ewma", seed=1) for seed in (1, 2)]
    return Desk(tmp_path, make_recording("pump-1", rows=600, seed=3, fault=(300, 330)), versions)


def test_list_says_what_serves_and_what_is_a_candidate(desk: Desk) -> None:
    desk.store.decide("quick", "shadow", candidate=desk.second)
    rows = [json.loads(line) for line in desk.said("list", "--json").splitlines()]
    assert {row["version"]: row["role"] for row in rows} == {desk.first: "serves", desk.second: "candidate"}
    assert {row["by"] for row in rows} == {"anna"}
    shown = desk.said("list")
    assert desk.first in shown
    assert "candidate" in shown


def test_show_tells_a_version_and_who_decided_what(desk: Desk) -> None:
    told = json.loads(desk.said("show", "quick", "--json"))
    assert (told["version"], told["kind"], told["signals"]) == (desk.first, "ewma", ["flow", "heat", "pressure"])
    assert told["threshold"] > 0
    assert [(held["action"], held["by"], held["why"]) for held in told["history"]] == [("promote", "anna", "the first")]
    assert json.loads(desk.said("show", "quick", desk.second[:6], "--json"))["version"] == desk.second
    assert "the first" in desk.said("show", "quick")
    assert "0 versions begin with 'zz'" in desk.said("show", "quick", "zz", status=2)


def test_compare_counts_alarms_of_both_on_the_same_recordings(
    desk: Desk, write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    file = str(write_csv(desk.recording, tmp_path))
    assert "there is no candidate beside what serves" in desk.said("compare", "quick", file, status=2)
    desk.store.decide("quick", "shadow", candidate=desk.second)
    told = json.loads(desk.said("compare", "quick", file, "--json"))
    assert [held["version"] for held in told["versions"]] == [desk.first, desk.second]
    assert all(held["alarms"] >= 1 for held in told["versions"])  # the fault
    assert told["correlation"] > 0.9  # two models of one kind
    assert "--live" in desk.said("compare", "quick", status=2)


def test_a_candidate_is_compared_before_it_serves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Message] = []
    monkeypatch.setattr(commands, "reports", lambda *_: reports)
    desk.said("shadow", "quick", desk.second, "--no-notify")
    assert desk.serving == (desk.first, desk.second)
    assert "has not been compared" in desk.said("promote", "quick", "--no-notify", status=2)
    assert desk.serving == (desk.first, desk.second)
    comparison = Comparison(readings=10, over_serving=0, over_candidate=0, over_both=0, begun_serving=0,
                            begun_candidate=0, correlation=None, lasted_s=10.0, cost=1.0)  # fmt: skip
    reports.append(
        Message(action="compared", detector="quick", serving=desk.first, candidate=desk.second, worker="w",
                partition=0, comparison=comparison)
    )  # fmt: skip
    assert f"{desk.second} serves" in desk.said("promote", "quick", "--why", "fewer alarms", "--no-notify")
    assert desk.serving == (desk.second, "")
    assert desk.store.history("quick")[-1].why == "fewer alarms"
    assert "serves already" in desk.said("promote", "quick", desk.second, "--force", "--no-notify", status=2)
    assert "serves already" in desk.said("shadow", "quick", desk.second, "--no-notify", status=2)


def test_where_nothing_serves_there_is_nothing_to_compare_with(desk: Desk) -> None:
    desk.store.decide("quick", "drop", serving="", candidate=desk.second)
    desk.said("promote", "quick", "--no-notify")
    assert desk.serving == (desk.second, "")


def test_rollback_goes_back_one_and_not_further_than_the_first(desk: Desk) -> None:
    desk.said("promote", "quick", desk.second, "--force", "--no-notify")
    desk.said("rollback", "quick", "--why", "misses a leak", "--no-notify")
    assert desk.serving == (desk.first, "")
    newest = desk.store.history("quick")[-1]
    assert (newest.action, newest.before, newest.why) == ("rollback", desk.second, "misses a leak")
    assert "nothing served before" in desk.said("rollback", "quick", "--no-notify", status=2)


def test_a_candidate_is_dropped(desk: Desk) -> None:
    desk.said("shadow", "quick", desk.second, "--no-notify")
    desk.said("shadow", "quick", "--drop", "--no-notify")
    assert desk.serving == (desk.first, "")


def test_what_has_no_versions_is_refused(desk: Desk) -> None:
    assert "a plain folder has no versions" in desk.said("show", "folder", status=2)
    assert "the plan has quick, folder" in desk.said("rollback", "other", "--no-notify", status=2)


def test_a_damaged_version_does_not_serve(desk: Desk, tmp_path: Path) -> None:
    weights = next((tmp_path / "versions" / "quick" / "versions" / desk.second).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    desk.said("promote", "quick", desk.second, "--force", "--no-notify", status=2)
    assert desk.serving == (desk.first, "")
