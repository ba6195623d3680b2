from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from stream.errors import ConfigError
from stream.plan import check_together, load_plan, parse_plan
from stream.settings import KafkaSettings, WorkerSettings, from_environment, unknown_variables
from stream.sinks.influxclient import InfluxSettings

GOOD = {"kind": "ewma", "artifact": "artifacts/a"}


def test_defaults_are_a_complete_plan() -> None:
    plan = parse_plan({"detectors": {"pumps": GOOD}}, folder=Path("plant"))
    assert plan.topics.readings == "plant.readings.v1"
    assert plan.detectors["pumps"].watches("anything")
    assert plan.artifact_path("pumps") == Path("plant/artifacts/a")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hopp": 3}, r"detectors\.pumps\.hopp: unknown key"),
        ({"hop": 0}, r"detectors\.pumps\.hop: .*greater than or equal to 1"),
        ({"hop": "many"}, r"detectors\.pumps\.hop: .*integer"),
        ({"kind": "lstm_forcaster"}, r"kind: no detector 'lstm_forcaster'; there are .*lstm_forecaster"),
        ({"false_alarms_per_day": 0}, r"detectors\.pumps\.false_alarms_per_day"),
        ({"gaps": {"policy": "guess"}}, r"detectors\.pumps\.gaps\.policy: .*'keep'"),
        ({"critical_at": 1.2}, r"critical_at must be above major_at"),
        ({"assets": []}, r"assets: name at least one pattern"),
    ],
)
def test_a_wrong_key_stops_the_start_and_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_plan({"detectors": {"pumps": {**GOOD, **change}}})


@pytest.mark.parametrize(
    ("thinning", "named"),
    [
        ({"every_s": -1}, r"thinning\.every_s: .*greater than or equal to 0"),
        ({"every_s": 0.0001}, r"thinning: every_s: at least 0\.001"),
        ({"change": 0.1}, r"thinning: change needs every_s"),
        ({"every_s": 10, "change": 0}, r"thinning\.change"),
        ({"every": 10}, r"thinning\.every: unknown key"),
    ],
)
def test_thinning_names_its_keys(thinning: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_plan({"detectors": {"pumps": GOOD}, "thinning": thinning})


def test_all_findings_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_plan({"sight": "x", "detectors": {"pumps": {**GOOD, "hop": -1}}})
    assert "plan: sight: unknown key" in str(error.value)
    assert "detectors.pumps.hop" in str(error.value)


def test_a_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such plan"):
        load_plan(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("detectors = [")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_plan(tmp_path / "bad.toml")


@pytest.mark.parametrize("asset", ["..", "a/b", "", "a\\b", "a\0b"])
def test_an_assets_name_cannot_leave_the_artifacts_folder(asset: str) -> None:
    plan = parse_plan({"detectors": {"pumps": {**GOOD, "artifact": "artifacts/{asset}/a"}}})
    assert plan.artifact_path("pumps", "pump-1") == Path("artifacts/pump-1/a")
    with pytest.raises(ConfigError, match="cannot be a folder's name"):
        plan.artifact_path("pumps", asset)


def test_a_wrong_variable_is_named_and_its_value_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKER_WEB_PORT", "s3cret")
    with pytest.raises(ConfigError, match="HEADRACE_WORKER_WEB_PORT") as error:
        from_environment(WorkerSettings)
    assert "s3cret" not in str(error.value)


def test_sasl_wants_a_user_and_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    with pytest.raises(ConfigError, match="HEADRACE_KAFKA_PASSWORD"):
        from_environment(KafkaSettings)
    settings = from_environment(KafkaSettings, username="me", password="s3cret")
    assert "s3cret" not in repr(settings)
    options = settings.client_options()
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "s3cret")
    assert "ssl_context" not in options


@pytest.mark.parametrize(
    ("kind", "variable"), [(KafkaSettings, "HEADRACE_KAFKA_PASSWORD"), (InfluxSettings, "HEADRACE_INFLUX_TOKEN")]
)
def test_a_secret_may_come_from_a_file(
    kind: type[BaseSettings], variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv(f"{variable}_FILE", str(file))
    with pytest.raises(ConfigError, match=f"{variable}_FILE: No such file"):
        from_environment(kind)
    file.write_text("\n")
    with pytest.raises(ConfigError, match=f"{variable}_FILE: the file is empty"):
        from_environment(kind)
    file.write_text("s3cret\n")
    settings = from_environment(kind)
    assert getattr(settings, variable.rsplit("_", 1)[1].lower()).get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)
    assert unknown_variables(kind) == []
    monkeypatch.setenv(variable, "s3cret")
    with pytest.raises(ConfigError, match=f"set {variable} or {variable}_FILE, not both") as error:
        from_environment(kind)
    assert "s3cret" not in str(error.value)


def test_tls_reaches_the_clients_and_missing_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = from_environment(KafkaSettings, security_protocol="SSL", bootstrap="a:1, b:2")
    context = settings.client_options()["ssl_context"]
    assert context.check_hostname
    assert settings.servers == ["a:1", "b:2"]
    with pytest.raises(ConfigError, match="ca_file: there is no file"):
        from_environment(KafkaSettings, security_protocol="SSL", ca_file=tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match="HEADRACE_KAFKA_CA_FILE"):
        from_environment(KafkaSettings, security_protocol="SSL", ca_file=tmp_path / "ca.pem").ssl_context()


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAPS", "x")
    assert "HEADRACE_KAFKA_BOOTSTRAPS" in unknown_variables(KafkaSettings, WorkerSettings)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"input": {"lateness_s": 90}}, r"silent_s must not be below lateness_s"),
        ({"input": {"ahead_s": 0}}, r"input\.ahead_s: .*greater than or equal to 1"),
        ({"signals": {"heat": {}}}, r"signals\.heat: give low, high or both"),
        ({"signals": {"heat": {"low": 2, "high": 1}}}, r"signals\.heat: low must be below high"),
        ({"quality": {"stale_after_periods": 1}}, r"quality\.stale_after_periods: .*greater than or equal to 3"),
        ({"detectors": {"stale": GOOD}}, r"detectors\.stale: .*choose another"),
    ],
)
def test_what_a_plan_asks_of_its_data_is_checked(section: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_plan({"detectors": {"pumps": GOOD}, **section})


def test_a_lateness_asks_for_snapshots() -> None:
    plan = parse_plan({"detectors": {"pumps": GOOD}, "input": {"lateness_s": 5}})
    check_together(plan, WorkerSettings())
    with pytest.raises(ConfigError, match="SNAPSHOT_EVERY_S"):
        check_together(plan, WorkerSettings(snapshot_every_s=0))
