"""A model is grown beside the worker, when there is enough, in a process that ends with it; if better, it serves."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.datasets import Recording
from models.errors import StoreError
from models.train import train
from stream import growing as under_test
from stream.backtest import backtest, side_by_side
from stream.commands import grow as command
from stream.commands.exam import Exam, Marks, limited, sit, verdict
from stream.errors import BrokerError
from stream.growing import Growing, Outcome, Told, read_told, tried, why_not
from stream.pipeline import Pipeline
from stream.plan import Plan, load_plan
from stream.settings import KafkaSettings, ModelsSettings
from stream.shelf import Shelf, begun

PLAN = """
[models]
store = "versions"

[detectors.pumps]
kind = "mset"
begins_as = "novelty"
period_s = 1
assets = ["pump-*"]
signals = ["flow", "heat", "pressure"]
artifact = "store:"
"""
KAFKA = KafkaSettings(bootstrap="127.0.0.1:1")


@pytest.fixture
def cold(tmp_path: Path) -> Plan:
    (tmp_path / "headrace.toml").write_text(PLAN)
    return load_plan(tmp_path / "headrace.toml")


class Counts:
    """What the metrics are told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.on: list[bool] = []

    def may_grow(self, detector: str) -> None:
        assert detector == "pumps"

    def growing(self, detector: str, on: bool) -> None:
        self.on.append(on)

    def grew(self, detector: str, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Plant:
    """A topic that holds so much, and a command in place of ``headrace`` that says what it is told to."""

    def __init__(self, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan, self.counts, self.promoted, self.owns = plan, Counts(), 0, True
        self.held: tuple[int, int] | None = (0, 0)
        self.young = True
        monkeypatch.setattr(under_test, "held_from_to", lambda *_: self.held)

    def holds(self, seconds: float) -> None:
        self.held = (0, round(1000 * seconds))

    def growing(self, script: str) -> Growing:
        file = self.plan.folder / "headrace.py"
        file.write_text(script)

        def note() -> None:
            self.promoted += 1

        return Growing(
            self.plan, self.plan.folder / "headrace.toml", KAFKA, after_s=100, metrics=self.counts,
            young=lambda _: self.young, owns=lambda: self.owns, promoted=note, command=(sys.executable, str(file)),
        )  # fmt: skip


@pytest.fixture
def plant(cold: Plan, monkeypatch: pytest.MonkeyPatch) -> Plant:
    return Plant(cold, monkeypatch)


def says(outcome: str, version: str = "") -> str:
    return f"print('noise'); print({json.dumps(json.dumps({'outcome': outcome, 'why': 'so', 'version': version, 'exam': None}))})"  # noqa: E501 (a script)


async def test_it_waits_for_enough_then_tries_and_tries_again_when_there_is_twice_as_much(plant: Plant) -> None:
    growing = plant.growing(says("no_better", "abc"))
    plant.holds(99)
    assert await growing.look() == 5.0
    assert plant.counts.outcomes == []
    plant.holds(110)
    await growing.look()
    assert plant.counts.outcomes == ["no_better"]
    assert plant.counts.on == [True, False]
    plant.holds(219)
    await growing.look()
    assert plant.counts.outcomes == ["no_better"]
    plant.holds(220)
    await growing.look()
    assert plant.counts.outcomes == ["no_better"] * 2
    assert not plant.promoted


async def test_who_has_not_the_first_partition_or_is_grown_up_grows_nothing(plant: Plant) -> None:
    growing = plant.growing(says("promoted", "abc"))
    plant.holds(1000)
    plant.owns = False
    await growing.look()
    plant.owns, plant.young = True, False
    await growing.look()
    assert plant.counts.outcomes == []
    plant.young = True
    await growing.look()
    assert (plant.counts.outcomes, plant.promoted) == (["promoted"], 1)


async def test_a_process_that_dies_is_a_line_in_the_log_and_a_count_and_is_tried_again_later(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    script = "import os, signal, sys; sys.stderr.write('one\\nno memory left\\n'); sys.stderr.flush()\n"
    growing = plant.growing(script + "os.kill(os.getpid(), signal.SIGKILL)")
    plant.holds(150)
    with caplog.at_level(logging.ERROR):
        await growing.look()
    assert "ended by signal 9: no memory left" in caplog.text
    assert "tried again in 60 s" in caplog.text
    await growing.look()  # not at once
    assert plant.counts.outcomes == ["failed"]
    growing._rest["pumps"] = (0.0, 60.0)
    with caplog.at_level(logging.ERROR):
        await growing.look()
    assert "tried again in 120 s" in caplog.text


async def test_a_broker_that_is_away_stops_nothing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any) -> None:
        raise BrokerError("away")

    monkeypatch.setattr(under_test, "held_from_to", away)
    assert await plant.growing(says("promoted")).look() == 30.0
    assert "away" in caplog.text


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 (another process is waited for)
            await asyncio.sleep(0.05)


LASTS = (
    "import os, time, pathlib; pathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
async def test_the_process_ends_with_the_task_and_when_the_partition_goes(plant: Plant) -> None:
    growing = plant.growing(LASTS)
    plant.holds(150)
    file = plant.plan.folder / "pid"
    look = asyncio.create_task(growing.look())
    await until(lambda: file.exists() and bool(file.read_text()))
    look.cancel()
    await asyncio.gather(look, return_exceptions=True)
    await until(lambda: not is_there(int(file.read_text())))
    assert plant.counts.on == [True, False]
    file.unlink()
    growing._tried.clear()
    look = asyncio.create_task(growing.look())
    await until(lambda: file.exists() and bool(file.read_text()))
    plant.owns = False
    await look
    await until(lambda: not is_there(int(file.read_text())))
    assert plant.counts.outcomes == ["stopped"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
async def test_the_process_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import os, pathlib, time\nfrom stream.commands.grow import _stay_below\n_stay_below(4096)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(f'{{os.getpid()}} {{os.nice(0)}}')\ntime.sleep(600)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, {str(script)!r}], stdin=subprocess.PIPE); "
        "time.sleep(600)",
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    file = tmp_path / "pid"
    await until(lambda: file.exists() and " " in file.read_text())
    pid, nice = map(int, file.read_text().split())
    assert nice == 19
    parent.kill()  # no chance to say goodbye
    await parent.wait()
    await until(lambda: not is_there(pid))


def test_what_a_process_says_is_believed_only_if_it_ended_well() -> None:
    line = b'{"outcome": "promoted", "why": "so", "version": "v", "exam": {"made": 1}}\n'
    assert read_told(b"noise\n" + line, b"", 0) == Told("promoted", "so", "v")
    assert read_told(line, b"Traceback\nKilled\n", -9).outcome == "failed"
    assert read_told(line, b"headrace: no broker\n", 2).why == "the process ended with status 2: headrace: no broker"
    assert read_told(b"", b"", 0).why == "the process ended with status 0: it said nothing"
    assert read_told(b'{"outcome": "who knows", "why": ""}', b"", 0).outcome == "failed"


def marks(kind: str, made: int, found: int = 0, repeated: int = 0, false_alarms: int = 0) -> Marks:
    return Marks(kind, "v", made, found, repeated, false_alarms)


@pytest.mark.parametrize(
    ("grown", "accepted", "passes"),
    [
        (marks("mset", 11, 2, 1, 3), 0.0, True),  # one made-up fault more
        (marks("mset", 10, 2, 1, 2), 0.0, True),  # one false alarm less
        (marks("mset", 10, 3, 1, 3), 0.0, True),  # one labelled fault more
        (marks("mset", 10, 2, 0, 3), 0.0, True),  # one labelled false alarm less
        (marks("mset", 10, 2, 1, 3), 0.0, False),  # no better
        (marks("mset", 9, 2, 1, 0), 0.0, False),  # blind and silent
        (marks("mset", 18, 2, 1, 4), 0.0, False),  # finds all, and cries wolf
        (marks("mset", 18, 2, 1, 4), 4.0, True),  # as the plan accepts
        (marks("mset", 18, 1, 1, 0), 0.0, False),  # misses what people have labelled
        (marks("mset", 18, 2, 2, 0), 0.0, False),  # raises again what people called false
    ],
)
def test_no_worse_in_anything_and_better_in_something(grown: Marks, accepted: float, passes: bool) -> None:
    passed, why = verdict(marks("novelty", 10, 2, 1, 3), grown, accepted)
    assert passed is passes
    assert why


class Topics:
    """Stands for the broker: what the readings topic holds, and what was sent to the models topic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recordings: list[Recording] = []
        self.sent: list[Any] = []
        monkeypatch.setattr(command, "read_newest", lambda *_: self.recordings)
        monkeypatch.setattr(command, "read_past", lambda *_: [])
        monkeypatch.setattr(command, "send", lambda *args: self.sent.append(args[2]))


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    return Topics(monkeypatch)


def examined(plan: Plan, recording: Recording, monkeypatch: pytest.MonkeyPatch, *, passed: bool) -> str:
    """Let the exam be passed, or not; the version that sits it."""
    artifact = train([recording], detector="mset", signals=plan.detectors["pumps"].signals)
    young = begun("pumps", plan.detectors["pumps"])
    exam = Exam(0, 5000, 1500, 0, 1.0, 18, 0, 0, 0.0, marks("novelty", 9), marks("mset", 11), passed, "why so")
    monkeypatch.setattr(command, "_examined", lambda *_: (artifact, exam))
    assert young.version != artifact.version
    return artifact.version


def grown(plan: Plan) -> command.Grown:
    return command.grow(plan, "pumps", KAFKA, ModelsSettings())


def test_what_passes_is_promoted_with_its_exam_and_a_roll_back_finds_what_was_before(
    cold: Plan, topics: Topics, make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.recordings = [make_recording("pump-1", rows=1500)]
    version = examined(cold, topics.recordings[0], monkeypatch, passed=True)
    assert grown(cold).told == Told("promoted", "why so", version)
    store = cold.open_store()
    ((_, young),) = Shelf(load_plan(cold.folder / "headrace.toml")).serving()
    assert young.version == version
    assert [decision.action for decision in store.history("pumps")] == ["promote", "promote"]
    assert store.origin("pumps", version)["exam"]["grown"]["made_found"] == 11
    assert [(message.action, message.serving) for message in topics.sent] == [("promote", version)]
    assert grown(cold).told.outcome == "not_needed"  # one is enough
    before = store.before("pumps")
    assert store.load("pumps", before).detector.name == "novelty"
    store.decide("pumps", "rollback", serving=before, by="anna")
    assert "anna went back" in why_not(cold, "pumps", store)
    assert grown(cold).told.outcome == "not_needed"  # what a person has decided stands


def test_what_fails_is_kept_and_does_not_serve_and_is_known_after_a_restart(
    cold: Plan, topics: Topics, make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.recordings = [make_recording("pump-1", rows=1500)]
    version = examined(cold, topics.recordings[0], monkeypatch, passed=False)
    store = cold.open_store()
    assert tried(store, "pumps") is None
    assert grown(cold).told == Told("no_better", "why so", version)
    assert store.now("pumps").serving == ""
    assert store.versions("pumps") == [version]
    assert tried(store, "pumps") == (0, 5000)
    assert not topics.sent


def test_too_little_and_a_store_that_takes_nothing_are_said(
    cold: Plan, topics: Topics, make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has shown all signals" in grown(cold).told.why
    topics.recordings = [make_recording("pump-1", rows=60)]
    told = grown(cold).told
    assert (told.outcome, "give more history" in told.why) == ("too_little", True)
    topics.recordings = [make_recording("pump-1", rows=1500)]
    examined(cold, topics.recordings[0], monkeypatch, passed=True)

    def full(*_: Any, **__: Any) -> str:
        raise StoreError("versions: Read-only file system; nothing was changed")

    monkeypatch.setattr("models.store.Store.add", full)
    assert grown(cold).told == Told("store", "versions: Read-only file system; nothing was changed")
    assert not topics.sent


def test_a_model_of_something_else_fails_the_exam(
    cold: Plan, make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.commands.exam._SIZES", (1.0,))
    other = make_recording("pump-1", rows=700, seed=5)
    other.values[:] = other.values * 40 + 1000  # never seen here: all is strange
    signals = cold.detectors["pumps"].signals
    model = train([other], detector="ewma", signals=signals)
    recording = make_recording("pump-1", rows=800)
    young = begun("pumps", cold.detectors["pumps"])
    held_back_from_ms = int(recording.at_ms[600])
    exam = sit(cold, "pumps", young, model, [recording], [], held_back_from_ms=held_back_from_ms)
    assert (exam.made, exam.passed) == (6, False)
    assert exam.young.made_found > exam.grown.made_found
    assert (exam.rows, exam.held_back_s) == (800, 199.0)


def test_side_by_side_is_as_one_after_the_other(cold: Plan, make_recording: Any) -> None:
    recordings = [make_recording(f"pump-{number}", rows=150, seed=number) for number in range(3)]

    def scores(run: Any) -> dict[tuple[str, int], float]:
        found = {}
        for output in run(Pipeline(cold, Shelf(cold)), recordings):
            for part in output.scores:
                for asset, at_ms, score in zip(part.asset, part.at_ms, part.score, strict=True):
                    found[part.names[asset], int(at_ms)] = float(score)
        return found

    assert scores(side_by_side) == pytest.approx(scores(backtest), nan_ok=True)
    assert len(scores(side_by_side)) == 3 * 101


def test_of_many_assets_those_with_most_rows_are_learnt_from(make_recording: Any) -> None:
    recordings = [make_recording(f"pump-{number}", rows=100 + number) for number in range(5)]
    chosen = limited(recordings, 90, 30)
    assert [(held.asset, len(held.at_ms)) for held in chosen] == [("pump-4", 30), ("pump-3", 30), ("pump-2", 30)]
    assert chosen[0].at_ms[-1] == recordings[4].at_ms[-1]
    assert [len(held.at_ms) for held in limited(recordings, 10_000, 30)] == [104, 103, 102, 101, 100]
