"""Prometheus' rules and Alertmanager's routes, by their own tools: promtool and amtool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from servers import need

from dashboards import ROOT

pytestmark = pytest.mark.servers

RULES = ROOT / "deploy" / "prometheus" / "headrace.rules.yaml"
ROUTES = ROOT / "deploy" / "alertmanager" / "alertmanager.yaml"


def said(*command: str | Path) -> str:
    """What a tool prints; fails the test unless it ends well."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_rules_and_their_tests_pass() -> None:
    need("promtool", package="prometheus")
    assert "SUCCESS" in said("promtool", "check", "rules", "--lint-fatal", RULES)
    assert "SUCCESS" in said("promtool", "test", "rules", RULES.with_suffix(".test.yaml"))


def test_a_rule_that_is_changed_fails_its_test(tmp_path: Path) -> None:
    need("promtool", package="prometheus")
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("> 0.01", "> 0.10"))
    held = yaml.safe_load(RULES.with_suffix(".test.yaml").read_text())
    held["tests"] = [test for test in held["tests"] if test["name"] == "a producer sends rubbish"]
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump(held))
    done = subprocess.run(["promtool", "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "HeadraceDeadLettersRising" in done.stdout + done.stderr


def test_promtool_takes_the_configuration() -> None:
    need("promtool", package="prometheus")
    assert "SUCCESS" in said("promtool", "check", "config", RULES.parent / "prometheus.yaml")


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=HeadraceAlert", "severity=major", "asset=pump-1"), "operators"),
        (("alertname=HeadraceAlert", "severity=critical", "asset=pump-1"), "operators-urgent"),
        (("alertname=HeadraceWorkerDown", "severity=warning"), "reliability"),
        (("alertname=HeadraceNoWorker", "severity=critical"), "reliability-urgent"),
    ],
)
def test_each_alert_reaches_those_it_is_for(labels: tuple[str, ...], receiver: str) -> None:
    need("amtool", package="prometheus-alertmanager")
    assert "SUCCESS" in said("amtool", "check-config", ROUTES)
    said("amtool", "config", "routes", "test", f"--config.file={ROUTES}", f"--verify.receivers={receiver}", *labels)
