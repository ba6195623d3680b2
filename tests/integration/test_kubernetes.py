"""The manifests, as kustomize builds them: valid, restricted, and at one with the code and with each other."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typescript import MODULES, compiled, need_modules

from dashboards import ROOT
from stream.bridge.settings import BridgeSettings, MqttSettings
from stream.plan import TopicSettings
from stream.settings import KafkaSettings, WorkerSettings
from stream.sinks.alertmanager import AlertmanagerSettings
from stream.sinks.influxdb import InfluxSettings
from stream.topics import topic_configs

Resource = dict[str, Any]

KUBERNETES = "1.32"
OVERLAYS = ("dev", "production")
#: What production refers to and others make: Strimzi for the user and its cluster, whoever deploys for the rest.
MADE_BY_OTHERS = {("Secret", "headrace-influxdb"), ("Secret", "headrace"), ("Secret", "plant-cluster-ca-cert")}
#: Custom resources whose types are on npm: kind -> where.
TYPED = {
    "ScaledObject": "keda/keda.sh/v1alpha1",
    "TriggerAuthentication": "keda/keda.sh/v1alpha1",
    "PodMonitor": "prometheus-operator/monitoring.coreos.com/v1",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
}


def _object(required: str = "", **properties: Any) -> Resource:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


_TEXT: Resource = {"type": "string"}
_METADATA = _object("name", name=_TEXT, namespace=_TEXT, labels={"type": "object", "required": ["strimzi.io/cluster"]})
_OPERATIONS = "Read Write Create Delete Alter Describe ClusterAction AlterConfigs DescribeConfigs IdempotentWrite All"
_ACL = _object(
    "resource operations",
    type={"enum": ["allow", "deny"]},
    resource=_object(
        "type",
        type={"enum": ["topic", "group", "cluster", "transactionalId"]},
        name=_TEXT,
        patternType={"enum": ["literal", "prefix"]},
    ),
    host=_TEXT,
    operations={"type": "array", "items": {"enum": _OPERATIONS.split()}},
)
#: After Strimzi's own definitions of version v1, which no registry at hand has: what of them is used here.
STRIMZI = {
    "KafkaTopic": _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "kafka.strimzi.io/v1"},
        kind=_TEXT,
        metadata=_METADATA,
        spec=_object(
            partitions={"type": "integer", "minimum": 1},
            replicas={"type": "integer", "minimum": 1, "maximum": 32767},
            config={"type": "object"},
            topicName=_TEXT,
        ),
    ),
    "KafkaUser": _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "kafka.strimzi.io/v1"},
        kind=_TEXT,
        metadata=_METADATA,
        spec=_object(
            "authentication",
            authentication=_object("type", type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
            authorization=_object("type acls", type={"const": "simple"}, acls={"type": "array", "items": _ACL}),
        ),
    ),
}


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Resource]]:
    """(name, resources), built by kustomize."""
    return request.param, built(request.param)


def built(name: str) -> list[Resource]:
    """The resources of an overlay, anew each time."""
    return [held for held in yaml.safe_load_all(_built(name)) if held]


@cache
def _built(name: str) -> str:
    return _kustomized(ROOT / "k8s" / "overlays" / name)


def _kustomized(folder: Path) -> str:
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def of(resources: list[Resource], kind: str) -> list[Resource]:
    return [held for held in resources if held["kind"] == kind]


def one(resources: list[Resource], kind: str, name: str = "headrace") -> Resource:
    (found,) = [held for held in of(resources, kind) if held["metadata"]["name"] == name]
    return found


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource, Resource]]:
    """(name, its template, the resource) of all that makes pods."""
    for held in resources:
        if "template" in held.get("spec", {}) and "spec" in held["spec"]["template"]:
            yield f"{held['kind']}/{held['metadata']['name']}", held["spec"]["template"], held


def test_every_resource_is_valid_by_a_schema_and_none_is_left_out(overlay: tuple[str, list[Resource]]) -> None:
    _, resources = overlay
    for held in resources:
        where = f"{held['kind']}/{held['metadata']['name']}"
        if held["kind"] in STRIMZI:
            jsonschema.validate(held, STRIMZI[held["kind"]])
        elif held["kind"] not in TYPED:
            kubernetes_validate.validate(held, KUBERNETES, strict=True)
        assert held["kind"] == "Namespace" or held["metadata"]["namespace"], where


def test_a_wrong_field_is_found() -> None:
    worker = one(built("production"), "StatefulSet")
    worker["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessprobe"):
        kubernetes_validate.validate(worker, KUBERNETES, strict=True)
    user = one(built("production"), "KafkaUser")
    user["spec"]["authorization"]["acls"][0]["operation"] = "Read"
    with pytest.raises(jsonschema.ValidationError, match="operation"):
        jsonschema.validate(user, STRIMZI["KafkaUser"])


def test_what_keda_and_the_prometheus_operator_read_has_only_what_they_know(tmp_path: Path) -> None:
    need_modules()
    found = [held for held in built("production") if held["kind"] in TYPED]
    assert {held["kind"] for held in found} == TYPED.keys()
    lines = []
    for number, held in enumerate(found):
        kind = held["kind"]
        lines.append(
            f'import type {{ I{kind} as T{number} }} from "{MODULES}/@kubernetes-models/{TYPED[kind]}/{kind}";'
        )
        lines.append(f"const r{number}: T{number} = {json.dumps(held)};")
    assert compiled(tmp_path, "\n".join(lines)) == ""
    wrong = "\n".join(lines).replace('"pollingInterval"', '"pollInterval"')
    assert "pollInterval" in compiled(tmp_path, wrong)


def test_every_pod_keeps_to_the_restricted_standard(overlay: tuple[str, list[Resource]]) -> None:
    _, resources = overlay
    (namespace,) = of(resources, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    names = []
    for name, template, _ in pods(resources):
        names.append(name)
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            mine = container["securityContext"]
            assert mine["allowPrivilegeEscalation"] is False, name
            assert mine["capabilities"] == {"drop": ["ALL"]}, name
            assert container["image"].startswith(("headrace", "registry.example/headrace")) <= mine.get(
                "readOnlyRootFilesystem", False
            ), f"{name}: ours write to no root"
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
        kinds = {key for volume in spec.get("volumes", ()) for key in volume if key != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}, name
    assert "StatefulSet/headrace" in names


def test_every_reference_leads_somewhere(overlay: tuple[str, list[Resource]]) -> None:
    name, resources = overlay
    there = {(held["kind"], held["metadata"]["name"]) for held in resources}
    there |= MADE_BY_OTHERS if name == "production" else set()
    wanted: set[tuple[str, str]] = set()
    for _, template, held in pods(resources):
        spec = template["spec"]
        if "serviceAccountName" in spec:
            wanted.add(("ServiceAccount", spec["serviceAccountName"]))
        if "serviceName" in held["spec"]:
            wanted.add(("Service", held["spec"]["serviceName"]))
        mounts, claims = set(), {claim["metadata"]["name"] for claim in held["spec"].get("volumeClaimTemplates", ())}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            mounts |= {mount["name"] for mount in container.get("volumeMounts", ())}
            wanted |= {("ConfigMap", source["configMapRef"]["name"]) for source in container.get("envFrom", ())}
            for variable in container.get("env", ()):
                if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                    wanted.add(("Secret", key["name"]))
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                wanted.add(("ConfigMap", volume["configMap"]["name"]))
            if "secret" in volume:
                wanted.add(("Secret", volume["secret"]["secretName"]))
            if "persistentVolumeClaim" in volume:
                wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        assert mounts == {volume["name"] for volume in spec.get("volumes", ())} | claims
    for held in of(resources, "TriggerAuthentication"):
        wanted |= {("Secret", ref["name"]) for ref in held["spec"]["secretTargetRef"]}
        wanted |= {("ConfigMap", ref["name"]) for ref in held["spec"]["configMapTargetRef"]}
    for held in of(resources, "ScaledObject"):
        wanted.add((held["spec"]["scaleTargetRef"]["kind"], held["spec"]["scaleTargetRef"]["name"]))
        wanted |= {("TriggerAuthentication", t["authenticationRef"]["name"]) for t in held["spec"]["triggers"]}
    assert wanted <= there, wanted - there


def test_selectors_find_their_pods(overlay: tuple[str, list[Resource]]) -> None:
    _, resources = overlay
    labels = [template["metadata"]["labels"] for _, template, _ in pods(resources)]

    def found(selector: dict[str, str]) -> bool:
        return any(selector.items() <= held.items() for held in labels)

    for kind, path in (("Service", "selector"), ("PodDisruptionBudget", "selector"), ("PodMonitor", "selector")):
        for held in of(resources, kind):
            selector = held["spec"][path]
            assert found(selector.get("matchLabels", selector)), f"{kind}/{held['metadata']['name']}"
    for _, template, held in pods(resources):
        assert held["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_workers_are_told_what_they_read_and_may_reach_what_they_are_told(
    overlay: tuple[str, list[Resource]],
) -> None:
    name, resources = overlay
    kinds = (KafkaSettings, WorkerSettings, InfluxSettings, AlertmanagerSettings)
    known = {f"{kind.model_config['env_prefix']}{field}".upper() for kind in kinds for field in kind.model_fields}
    (container,) = one(resources, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    (config,) = [
        c
        for c in of(resources, "ConfigMap")
        if c["metadata"]["name"] == container["envFrom"][0]["configMapRef"]["name"]
    ]
    given = config["data"] | {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert given.keys() <= known, given.keys() - known
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for variable, value in given.items():
        if variable.endswith("_FILE"):
            assert any(value.startswith(f"{mount}/") for mount in mounts), f"{variable}: {value} is not mounted"
    assert container["ports"][0]["containerPort"] == WorkerSettings.model_fields["web_port"].default
    policy = one(resources, "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    for variable in ("HEADRACE_KAFKA_BOOTSTRAP", "HEADRACE_INFLUX_URL", "HEADRACE_ALERTMANAGER_URLS"):
        if address := given.get(variable):
            assert int(address.rsplit(":", 1)[1]) in ports, f"{name}: no way to {address}"
    grace = one(resources, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > WorkerSettings.model_fields["grace_s"].default + 10


def test_scaling_ends_at_the_partitions_and_goes_in_slowly() -> None:
    resources = built("production")
    scaled = one(resources, "ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    topics = {held["metadata"]["name"]: held["spec"] for held in of(resources, "KafkaTopic")}
    (config,) = [c for c in of(resources, "ConfigMap") if "HEADRACE_KAFKA_PARTITIONS" in c["data"]]
    readings = TopicSettings().readings
    assert trigger["metadata"]["topic"] == readings
    assert trigger["metadata"]["consumerGroup"] == KafkaSettings.model_fields["group"].default
    assert trigger["metadata"]["bootstrapServers"] == config["data"]["HEADRACE_KAFKA_BOOTSTRAP"]
    assert (
        scaled["maxReplicaCount"] == topics[readings]["partitions"] == int(config["data"]["HEADRACE_KAFKA_PARTITIONS"])
    )
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 600
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]
    assert "replicas" not in one(resources, "StatefulSet")["spec"], "KEDA has the say"
    # a lag of one worker that keeps up is what came since its last snapshot
    assert (
        int(trigger["metadata"]["lagThreshold"]) >= 10 * 2_500 * WorkerSettings.model_fields["snapshot_every_s"].default
    )


def test_topics_are_as_the_worker_would_make_them_and_it_may_use_each() -> None:
    resources = built("production")
    names = TopicSettings(scores="plant.scores.v1")
    made = topic_configs(KafkaSettings(), names)
    topics = {held["metadata"]["name"]: held["spec"] for held in of(resources, "KafkaTopic")}
    assert topics.keys() == made.keys()
    for name, config in made.items():
        given = {key: str(value) for key, value in topics[name]["config"].items()}
        assert config.items() <= given.items(), name
        assert topics[name]["replicas"] == 3
    assert topics[names.state]["partitions"] == topics[names.readings]["partitions"]
    acls = one(resources, "KafkaUser")["spec"]["authorization"]["acls"]
    may = {(acl["resource"]["type"], acl["resource"]["name"]): set(acl["operations"]) for acl in acls}
    for name in made:
        assert "Describe" in may["topic", name], name
        assert ("Write" in may["topic", name]) == (name != names.readings), name  # of models they report
    assert {key for key, operations in may.items() if "Read" in operations} == {
        *(("topic", name) for name in (names.readings, names.state, names.actions, names.labels, names.models)),
        ("topic", names.alerts),  # with lines in the plan
        ("group", KafkaSettings.model_fields["group"].default)
    }  # fmt: skip


def test_rules_and_scripts_are_those_of_deploy() -> None:
    resources = built("production")
    rules = yaml.safe_load((ROOT / "deploy/prometheus/headrace.rules.yaml").read_text())
    assert one(resources, "PrometheusRule")["spec"] == rules, "run: python deploy/prometheus/rule.py"
    monitor = one(resources, "PodMonitor")["spec"]
    labels = one(resources, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert labels[monitor["jobLabel"]] == "headrace"  # the job that the rules look for
    script = (ROOT / "deploy/influxdb/10-dbrp.sh").read_text()
    assert (ROOT / "k8s/overlays/dev/10-dbrp.sh").read_text() == script


@pytest.fixture
def bridged(tmp_path: Path) -> list[Resource]:
    """The dev overlay with the component that a bridge is."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "dev" / "kustomization.yaml"
    file.write_text(file.read_text() + "\ncomponents: [../../components/bridge]\n")
    return [held for held in yaml.safe_load_all(_kustomized(file.parent)) if held]


def test_a_bridge_beside_the_workers_is_valid_restricted_and_told_what_it_reads(bridged: list[Resource]) -> None:
    deployment = one(bridged, "Deployment", "headrace-bridge")
    policy = one(bridged, "NetworkPolicy", "headrace-bridge")
    for held in (deployment, policy):
        kubernetes_validate.validate(held, KUBERNETES, strict=True)
    test_every_pod_keeps_to_the_restricted_standard(("dev", bridged))
    test_selectors_find_their_pods(("dev", bridged))
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}, "never two with one client id"
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    maps = {held["metadata"]["name"]: held["data"] for held in of(bridged, "ConfigMap")}
    ours = [maps[source["configMapRef"]["name"]] for source in container["envFrom"]]
    given = ours[0] | ours[1] | {held["name"]: held.get("value", "") for held in container["env"]}
    kinds = (KafkaSettings, WorkerSettings, InfluxSettings, AlertmanagerSettings, BridgeSettings, MqttSettings)
    known = {f"{kind.model_config['env_prefix']}{field}".upper() for kind in kinds for field in kind.model_fields}
    assert given.keys() <= known, given.keys() - known
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in template["spec"]["volumes"]}
    assert given["HEADRACE_MQTT_PASSWORD_FILE"] == f"{mounts['mqtt']}/password"
    assert container["ports"][0]["containerPort"] == BridgeSettings.model_fields["web_port"].default
    open_ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert {int(given["HEADRACE_MQTT_PORT"]), int(given["HEADRACE_KAFKA_BOOTSTRAP"].rsplit(":", 1)[1])} <= open_ports
    assert template["spec"]["terminationGracePeriodSeconds"] > BridgeSettings.model_fields["grace_s"].default + 10
