"""TLS and passwords against a broker that has both: what is right works everywhere, what is wrong is told at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_record import Fault
from oracle import judge
from secure_kafka import PASSWORD, SecureKafka, secure_kafka
from servers import free_port
from worker_process import Worker, write_plan

from models.datasets import Recording
from stream.plan import Plan, TopicSettings, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

_WITHIN_S = 28.0  # a process starts in one, many under load; the clients by themselves take thirty to give up


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    held = secure_kafka(tmp_path_factory.mktemp("secure"))
    try:
        held.server.start()
        yield held
    finally:
        held.server.stop()


@pytest.fixture
def new_plan(plan: Plan, tmp_path: Path) -> Path:
    """The plan with topics of the test's own, which nobody has created."""
    mine = uuid.uuid4().hex[:8]
    names = {name: f"{mine}.{name}" for name in TopicSettings.model_fields if name != "scores"}
    return write_plan(
        plan.folder / "headrace.toml", TopicSettings(**names), tmp_path, artifacts=plan.folder / "artifacts"
    )


def headrace(environment: dict[str, str], *arguments: str) -> tuple[int, str, float]:
    """A command of ours: exit status, all it said, and how long that took."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        env={**plain, **environment}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


@pytest.mark.fault(22, "TLS with a password, and with a certificate: worker, replay, alerts, train, dlq")
def test_what_is_right_works_everywhere_and_no_secret_is_told(
    fault: Fault,
    secure: SecureKafka,
    new_plan: Path,
    make_recording: Callable[..., Recording],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    fault.broker = "apache"
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        write_csv(make_recording(f"pump-{number}", rows=1200, seed=number, fault=(900, 930)), data)
    to_train = tmp_path / "trained"  # beside the artifacts that serve
    to_train.mkdir()
    learn = Path(shutil.copy(new_plan, to_train))
    learn.write_text(re.sub(r'artifact = "[^"]*/(\w+)"', r'artifact = "\1"', learn.read_text()))
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    kafka = KafkaSettings(bootstrap=secure.plain, group=f"g-{uuid.uuid4().hex[:8]}")
    by_file = secure.environment(PASSWORD="", PASSWORD_FILE=str(tmp_path / "password"))
    log = tmp_path / "worker.log"
    worker = Worker(new_plan, kafka, log, **by_file, HEADRACE_WORKER_LOG_LEVEL="DEBUG")
    certificate = {"CERT_FILE": str(secure.folder / "client.pem"), "KEY_FILE": str(secure.folder / "client.key")}
    ways = {
        "PLAIN": secure.environment(SASL_MECHANISM="PLAIN"),
        "SCRAM-SHA-256": secure.environment(SASL_MECHANISM="SCRAM-SHA-256"),
        "certificate": secure.environment(
            BOOTSTRAP=secure.mutual, SECURITY_PROTOCOL="SSL", SASL_MECHANISM="", USERNAME="", PASSWORD="", **certificate
        ),
    }
    try:
        worker.start(free_port())
        said = []
        for way, plan, *arguments in (
            ("PLAIN", new_plan, "replay", str(data)),
            ("SCRAM-SHA-256", new_plan, "check"),
            ("certificate", learn, "train", "--from-topic", "--detector", "slow"),
            ("PLAIN", new_plan, "dlq", "list"),
        ):
            status, out, _ = headrace(ways[way], *arguments, "--plan", str(plan))
            assert status == 0, out
            said.append(out)
        assert (to_train / "slow" / "manifest.json").is_file()
        worker.has_read(3600)
        status, out, _ = headrace(ways["certificate"], "alerts", "--until-end", "--plan", str(new_plan))
        assert status == 0, out
        assert "pump-1" in out
        served = [worker.get(path) or "" for path in ("/", "/metrics", "/health/live", "/health/ready")]
        assert worker.stop() == 0
    finally:
        worker.kill()
    fault.tried(judge(kafka, load_plan(new_plan)).must_hold(), tries=5)
    for text in (*said, out, *served, log.read_text()):
        assert PASSWORD not in text


@pytest.mark.fault(22, "wrong certificate, host name, password, protocol: refused in a line")
def test_what_is_wrong_is_told_at_once_and_in_a_line(
    fault: Fault, secure: SecureKafka, new_plan: Path, write_csv: Callable[..., Path],
    make_recording: Callable[..., Recording], tmp_path: Path,
) -> None:  # fmt: skip
    fault.broker = "apache"
    recording = str(write_csv(make_recording("pump-1", rows=10), tmp_path))
    wrong_password = "wr0ng-p4ssw0rd-of-the-tests"
    cases = (
        ("its certificate is not trusted", secure.environment(CA_FILE=str(secure.folder / "other-ca.pem"))),
        (
            "its certificate is not for this host name",
            secure.environment(BOOTSTRAP=secure.sasl.replace("localhost", "127.0.0.1")),
        ),
        ("it refuses user or password", secure.environment(PASSWORD=wrong_password)),
        ("it refuses user or password", secure.environment(PASSWORD=wrong_password, SASL_MECHANISM="PLAIN")),
        (
            "it refuses our certificate, or wants one",
            secure.environment(BOOTSTRAP=secure.mutual, SECURITY_PROTOCOL="SSL", USERNAME="", PASSWORD=""),
        ),
        ("HEADRACE_KAFKA_SECURITY_PROTOCOL", secure.environment(SECURITY_PROTOCOL="PLAINTEXT")),
    )
    commands = (("worker",), ("train", "--from-topic"), ("replay", recording), ("alerts",), ("dlq", "list"))
    slowest_s = 0.0
    for number, (reason, environment) in enumerate(cases):
        # each command with one of the cases, and the worker with all
        for command in {commands[0], commands[1 + number % (len(commands) - 1)]}:
            status, said, took_s = headrace(environment, *command, "--plan", str(new_plan))
            assert status == 2, (command, said)
            assert reason in said, (command, said)
            *before, line = said.splitlines()
            assert line.startswith("headrace: "), (command, said)
            assert all(other.startswith("sending ") for other in before), (command, said)  # replay's bar
            assert wrong_password not in said
            assert took_s < _WITHIN_S, (command, took_s)
            slowest_s = max(slowest_s, took_s)
            fault.tried(recovery_s=slowest_s)
