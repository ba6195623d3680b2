"""The compose file: against the published schema, and against everything of ours that it names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Group
from dockerfile import stages

from dashboards import ROOT
from stream.bridge.settings import BridgeSettings, MqttSettings
from stream.cli import main
from stream.settings import KafkaSettings, WorkerSettings
from stream.sinks.alertmanager import AlertmanagerSettings
from stream.sinks.influxdb import InfluxSettings

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file with the values of .env.example in it."""
    values = example()

    def value(match: re.Match[str]) -> str:
        return values[match[1]]

    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)[:?-][^}]*\}", value, COMPOSE.read_text()))
    return found


def example() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def services(compose: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from compose["services"].items()


def dclint(path: Path) -> subprocess.CompletedProcess[str]:
    linter = DEPLOY / "node_modules" / "dclint" / "bin" / "dclint.cjs"
    if shutil.which("node") is None or not linter.exists():
        pytest.skip("dclint is not installed: npm ci --prefix deploy (needs Node)")
    # an image that is built here has a name too, so that two services can run it
    command = ["node", str(linter), str(path), "--quiet", "--disable-rule", "no-build-and-image"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_published_schema_has_nothing_against_it(tmp_path: Path) -> None:
    done = dclint(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period:", "stop_graceperiod:"))
    assert "invalid-schema" in dclint(wrong).stdout


def test_the_example_has_every_variable_once_and_no_other() -> None:
    named = {match[0]: match[1] for match in re.findall(r"\$\{(\w+)([:?-][^}]*)\}", COMPOSE.read_text())}
    assert named.keys() == example().keys()
    for name, rest in named.items():
        if rest.startswith(":-"):
            assert rest[2:] == example()[name], f"{name}: the default is not the example's"
        else:
            assert "change-me" in example()[name], f"{name} is required: the example must ask for a change"


def test_services_start_in_an_order_that_exists_and_wait_for_health_that_is_checked(compose: dict[str, Any]) -> None:
    graph: dict[str, set[str]] = {}
    image_checks = "HEALTHCHECK" in dict(stages(DEPLOY / "Dockerfile")["worker"].instructions)
    for name, service in services(compose):
        needed = service.get("depends_on", {})
        graph[name] = set(needed)
        for other, how in needed.items():
            target = compose["services"][other]
            if how["condition"] == "service_healthy":
                ours = target["image"].startswith("headrace:") and image_checks
                assert ours or "test" in target.get("healthcheck", {}), f"{name} waits for {other}, which has no check"
            else:
                assert target["restart"] == "no", f"{name} waits for {other} to end"
            if "profiles" in target and "profiles" not in service:
                assert how["required"] is False, f"{other} is not always there"
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("kafka") < order.index("worker") < order.index("plant")


def test_nothing_is_published_beyond_this_machine_and_ours_cannot_write_their_root(compose: dict[str, Any]) -> None:
    for name, service in services(compose):
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
        assert "no-new-privileges:true" in service["security_opt"], name
        if name not in {"kafka", "influxdb"}:  # their images write to their root at the start
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        assert ":latest" not in service["image"] or service["image"].startswith("headrace"), name


def test_every_mount_and_volume_is_there(compose: dict[str, Any]) -> None:
    used = set()
    for name, service in services(compose):
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
                assert mount.endswith(":ro"), f"{name}: {mount}"
            else:
                used.add(source)
    assert used == compose["volumes"].keys()


def test_our_containers_are_given_commands_and_settings_that_exist(compose: dict[str, Any]) -> None:
    kinds = (KafkaSettings, WorkerSettings, InfluxSettings, AlertmanagerSettings, BridgeSettings, MqttSettings)
    known = {f"{kind.model_config['env_prefix']}{field}".upper() for kind in kinds for field in kind.model_fields}
    seen = 0
    for name, service in services(compose):
        if not service["image"].startswith("headrace"):
            continue
        given = {key for key in service.get("environment", {}) if key.startswith("HEADRACE_")}
        assert given <= known, f"{name}: nothing reads {given - known}"
        if "entrypoint" in service:
            continue
        words = service.get("command", ["worker"])
        command: Any = main
        while isinstance(command, Group):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(name, list(words), resilient_parsing=False).close()
        seen += 1
    assert seen == 4
    worker = compose["services"]["worker"]
    environment = {key: str(value) for key, value in worker["environment"].items()}
    InfluxSettings.model_validate(
        {key[16:].lower(): v for key, v in environment.items() if key.startswith("HEADRACE_INFLUX")}
    )
    bridge = compose["services"]["bridge"]
    port = BridgeSettings.model_fields["web_port"].default
    assert f"127.0.0.1:{port}/health/live" in bridge["healthcheck"]["test"][-1]
    assert float(bridge["stop_grace_period"].removesuffix("s")) > BridgeSettings.model_fields["grace_s"].default + 10
    grace = float(worker["stop_grace_period"].removesuffix("s"))
    assert grace > WorkerSettings.model_fields["grace_s"].default + 10


def test_prometheus_scrapes_the_workers_and_tells_alertmanager(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    (target,) = scrape["dns_sd_configs"]
    assert scrape["job_name"] == "headrace"  # the rules go by it
    assert set(target["names"]) <= compose["services"].keys()
    assert target["port"] == WorkerSettings.model_fields["web_port"].default
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]
    assert all((DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"])


def test_grafana_is_told_where_its_data_are(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "headrace.yaml").read_text())
    needed = set(re.findall(r"\$\{(\w+)\}", str(sources)))
    assert needed <= grafana["environment"].keys()
    assert {source["type"] for source in sources["datasources"]} == {"prometheus", "influxdb"}
    (provider,) = yaml.safe_load((folder / "dashboards" / "headrace.yaml").read_text())["providers"]
    mounts = [mount for mount in grafana["volumes"] if provider["options"]["path"] in mount]
    assert mounts == [f"./grafana/dashboards:{provider['options']['path']}:ro"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / home.rsplit("/", 1)[1]).is_file()


def test_the_mapping_script_is_plain_shell_and_uses_what_the_image_sets(compose: dict[str, Any]) -> None:
    script = DEPLOY / "influxdb" / "10-dbrp.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & 0o111
    used = set(re.findall(r"\$(\w+)", script.read_text()))
    given = compose["services"]["influxdb"]["environment"].keys()
    assert used - given == {"DOCKER_INFLUXDB_INIT_BUCKET_ID"}  # the image sets that one itself
