"""``headrace tune`` as it is typed: found, gone on with, kept, and served by the plan it prints."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from models.artifact import load
from models.datasets import Recording

PLAN = """
[detectors.pumps]
kind = "innovations"
assets = ["pump-*"]
artifact = "artifacts/pumps"
"""


def headrace(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.timeout(240)
def test_a_search_is_gone_on_with_and_its_best_is_served(
    tmp_path: Path, make_recording: Callable[..., Recording], write_csv: Callable[[Recording, Path], Path]
) -> None:
    (tmp_path / "headrace.toml").write_text(PLAN)
    (tmp_path / "history").mkdir()
    write_csv(make_recording("pump-1", rows=900), tmp_path / "history")
    command = ("tune", "history", "--detector", "pumps", "--trials", "2")
    said = headrace(tmp_path, *command)
    assert said.startswith("2 trials; judged by faults made up: ")
    best = tmp_path / "studies" / "pumps" / "best"
    assert load(best).detector.name == "innovations"
    again = headrace(tmp_path, *command)
    assert again.startswith("4 trials, 2 of them from before")
    config = next((line for line in again.splitlines() if line.startswith("config = ")), "config = {}")
    served = PLAN.replace('"artifacts/pumps"', f'"{best}"') + config + "\n"
    (tmp_path / "tuned.toml").write_text(served)
    assert dict(tomllib.loads(config)["config"]).keys() <= {"window", "memory"}
    headrace(tmp_path, "backtest", "history", "--plan", "tuned.toml")

    write_csv(make_recording("pump-1", rows=900, seed=5), tmp_path / "history")
    refused = headrace(tmp_path, *command, code=2)
    assert "another data" in refused
    assert "--study" in refused


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, make_recording: Callable[..., Recording], write_csv: Callable[[Recording, Path], Path]
) -> None:
    (tmp_path / "headrace.toml").write_text(PLAN)
    write_csv(make_recording("pump-1", rows=900), tmp_path)
    (tmp_path / "optuna.py").write_text("raise ImportError('not here')\n")
    said = headrace(tmp_path, "tune", "pump-1.csv", "--detector", "pumps", code=2, PYTHONPATH=str(tmp_path))
    assert "pip install 'headrace[tune]'" in said
