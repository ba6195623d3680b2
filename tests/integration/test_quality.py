"""The bars of detection on public recordings; the quick suites, so that a change that costs quality is seen in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.suites.running import SUITES, run

DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["skab", "asd"])  # seconds each; the others train networks or take minutes
def test_the_bars_of_a_public_benchmark_are_met(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there: set HEADRACE_DATA")
    figures = run(SUITES[name], DATA / name).figures
    assert not [figure for figure in figures if figure.met is False]
