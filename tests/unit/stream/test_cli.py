import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from models.datasets import Recording
from stream.cli import main
from stream.deadletters import Letter
from stream.plan import Plan

COMMANDS = ["demo", "check", "train", "worker", "replay", "backtest", "alerts", "evaluate", "choose", "tune", "augment"]


def test_help_comes_in_under_a_second_and_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['headrace', '--help']\nfrom stream.cli import main\n"
    code += (
        "try:\n    main()\nfinally:\n    print(sorted({'tensorflow', 'keras', 'faust', 'polars'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time: what a machine with nothing else to do takes
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_examples(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0
    assert f"  headrace {command}" in done.output.split("Examples:")[1]


def test_evaluate_offers_every_suite() -> None:
    from models.suites.running import SUITES

    (suites,) = [option for option in main.commands["evaluate"].params if option.name == "suites"]
    assert isinstance(suites.type, click.Choice)
    assert set(suites.type.choices) == set(SUITES)


def test_a_plan_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["worker", "--plan", str(tmp_path / "none.toml")])
    assert done.exit_code == 2
    assert "there is no such plan" in done.output


def test_train_wants_files_or_the_topic() -> None:
    done = CliRunner().invoke(main, ["train"])
    assert done.exit_code == 2
    assert "--from-topic" in done.output


def test_check_shows_what_would_run(plan: Plan) -> None:
    done = CliRunner().invoke(main, ["check", "--no-connect", "--plan", str(plan.folder / "headrace.toml")])
    assert done.exit_code == 0, done.output
    for word in ("quick", "slow", "ewma", "pump-*"):
        assert word in done.output


@pytest.mark.parametrize(("folder", "said"), [("", "a crash loses it"), ("/spool", "on disk in /spool")])
def test_check_says_where_messages_to_people_wait(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, folder: str, said: str
) -> None:
    for variable, value in (("URLS", "https://chat.example/hook"), ("SECRET", "x" * 32), ("SPOOL_DIR", folder)):
        monkeypatch.setenv(f"HEADRACE_WEBHOOK_{variable}", value)
    done = CliRunner().invoke(main, ["check", "--no-connect", "--plan", str(plan.folder / "headrace.toml")])
    assert said in " ".join(done.output.split())


def test_check_finds_what_is_wrong(plan: Plan, tmp_path: Path) -> None:
    broken = tmp_path / "headrace.toml"
    text = (plan.folder / "headrace.toml").read_text()
    broken.write_text(
        text.replace('"artifacts/', f'"{plan.folder}/artifacts/').replace('["heat", "pressure"]', '["cold"]')
    )
    done = CliRunner().invoke(main, ["check", "--no-connect", "--plan", str(broken)])
    assert done.exit_code == 2
    assert "detectors.slow.signals: cold" in done.output


def test_train_and_backtest_write_what_they_say(
    make_recording: Callable[..., Recording], write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "headrace.toml").write_text('[detectors.quick]\nkind = "ewma"\nartifact = "artifacts/{asset}"\n')
    plan = str(tmp_path / "headrace.toml")
    file = write_csv(make_recording("pump-1", rows=1000, seed=1, fault=(900, 930)), tmp_path)
    done = CliRunner().invoke(main, ["train", str(file), "--plan", plan, "--first", "800"])
    assert done.exit_code == 0, done.output
    assert "pump-1" in done.output
    out = [str(tmp_path / name) for name in ("s.csv", "a.jsonl")]
    done = CliRunner().invoke(
        main, ["backtest", str(file), "--plan", plan, "--skip", "800", "--scores", out[0], "--alerts", out[1]]
    )
    assert done.exit_code == 0, done.output
    rows = Path(out[0]).read_text().splitlines()
    assert rows[0] == "time,asset,detector,score,threshold,anomalous"
    assert len(rows) == 201, "one row a reading"
    assert sum(row.endswith(",,,0") for row in rows) == 31, "the first window fills without scores"
    assert {json.loads(line)["state"] for line in Path(out[1]).read_text().splitlines()} >= {"open", "resolved"}


def test_a_detector_the_plan_does_not_have_is_named(plan: Plan, tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path), "--plan", str(plan.folder / "headrace.toml"), "--detector", "fast"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--detector fast: the plan has quick, slow" in done.output


def test_letters_are_shown_as_they_are_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hostile record may hold markup, and escapes that a terminal would obey."""
    letter = Letter(
        at=(0, 1), origin=("readings", 0, 7), written_ms=0, stage="decode", reason="not_json",
        error="not_json: [/bold]", key=None, headers=(), truncated=None,
        value=b"[/red]\x1b]0;owned\x07\x1b[2J\r\n[bold]x",
    )  # fmt: skip
    monkeypatch.setattr("stream.commands.dlq.letters", lambda *_, **__: iter([letter]))
    done = CliRunner().invoke(main, ["dlq", "list", "--plan", str(tmp_path / "none.toml")])
    assert done.exit_code == 0, done.output
    assert "[/red]\\x1b]0;owned\\x07\\x1b[2J\\r\\n[bold]x" in done.output
    assert "[/bold]" in done.output
    assert not {"\x1b", "\x07", "\r"} & set(done.output)
