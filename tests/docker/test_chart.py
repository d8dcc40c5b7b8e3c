"""The Helm chart: rendered by Helm itself, checked against the schemas of who reads it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.metrics import definitions
from app.settings import SECRET, Settings
from app.worker.worker import LEAVE_S
from tests.docker import compose, dockerfile
from tests.docker.tools import ROOT, needed

CHART = ROOT / "docker" / "helm" / "nag-server"
SETS = ("minimal-cpu", "gpu-fleet", "gpu-groups", "locked-down")
#: The oldest that Chart.yaml admits and the newest whose schemas are known.
KUBERNETES = ("1.29", "1.37")
Manifest = dict[str, Any]


@cache
def custom_models() -> dict[str, Any]:
    """Imports the models of resources that are no part of Kubernetes, by kind. This takes seconds."""
    from cloudcoil.models.keda.v1alpha1 import ScaledObject
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

    return {model.__name__: model for model in (ScaledObject, PodMonitor, PrometheusRule, ServiceMonitor)}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([needed("helm"), *arguments], capture_output=True, text=True)


def render(*arguments: str) -> list[Manifest]:
    said = helm("template", "nag", str(CHART), "--namespace", "prod", *arguments)
    assert said.returncode == 0, said.stderr
    return [each for each in yaml.safe_load_all(said.stdout) if each]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    return {name: render("--values", str(CHART / "ci" / f"{name}-values.yaml")) for name in SETS}


@pytest.fixture(params=SETS)
def manifests(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return rendered[request.param]


def of(manifests: list[Manifest], kind: str, name: str = "") -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(name)]


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = of(manifests, kind, name)
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Each component, its pod and the one container; `rank` is what follows a worker on further nodes."""
    found = [
        (each["metadata"]["labels"]["app.kubernetes.io/component"], each["spec"]["template"])
        for each in of(manifests, "Deployment")
    ]
    for each in of(manifests, "LeaderWorkerSet"):
        group = each["spec"]["leaderWorkerTemplate"]
        found += [("worker", group["leaderTemplate"]), ("rank", group["workerTemplate"])]
    for component, template in found:
        (container,) = template["spec"]["containers"]
        yield component, template["spec"], container


def variables(container: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("name", SETS)
def test_helm_finds_nothing_wrong(name: str) -> None:
    said = helm("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{name}-values.yaml"))
    assert said.returncode == 0, said.stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_manifest_is_what_its_reader_expects(manifests: list[Manifest]) -> None:
    assert len(manifests) >= 4
    for each in manifests:
        if (custom := custom_models().get(each["kind"])) is not None:
            model = custom.model_validate(each)
            understood = json.loads(model.model_dump_json(by_alias=True, exclude_unset=True))
            assert unknown(each, understood) == []
        elif each["kind"] == "LeaderWorkerSet":  # its own fields are checked by a test
            group = each["spec"]["leaderWorkerTemplate"]
            for template in (group["leaderTemplate"], group["workerTemplate"]):
                selector = {"matchLabels": template["metadata"]["labels"]}
                spec = {"selector": selector, "template": template}
                check({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": each["metadata"], "spec": spec})
        else:
            check(each)


def check(manifest: Manifest) -> None:
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def unknown(written: Any, understood: Any, path: str = "") -> list[str]:
    """What was written and is not understood: models leave unknown fields out."""
    if isinstance(written, dict) and isinstance(understood, dict):
        gone = [f"{path}.{key}" for key in written if key not in understood]
        return gone + [
            each
            for key in written
            if key in understood
            for each in unknown(written[key], understood[key], f"{path}.{key}")
        ]
    if isinstance(written, list) and isinstance(understood, list):
        pairs = zip(written, understood, strict=True)
        return [each for n, (left, right) in enumerate(pairs) for each in unknown(left, right, f"{path}[{n}]")]
    return []


@pytest.mark.slow
def test_what_is_not_understood_is_seen(rendered: dict[str, list[Manifest]]) -> None:
    scaled = custom_models()["ScaledObject"]
    written = one(rendered["gpu-fleet"], "ScaledObject", "video")
    written = written | {"spec": written["spec"] | {"maxReplicas": 3}}
    understood = json.loads(scaled.model_validate(written).model_dump_json(by_alias=True, exclude_unset=True))
    assert unknown(written, understood) == [".spec.maxReplicas"]


def test_pods_fit_the_restricted_standard(manifests: list[Manifest]) -> None:
    for _, pod, container in pods(manifests):
        security = pod["securityContext"]
        user, group = map(int, dockerfile.load()["cpu"].user.split(":"))
        assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (user, group, group)
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert pod["automountServiceAccountToken"] is False
        assert {"requests", "limits"} <= set(container["resources"])
        kinds = {next(kind for kind in each if kind != "name") for each in pod["volumes"]}
        assert kinds <= {"emptyDir", "projected", "secret", "configMap", "persistentVolumeClaim"}


def test_what_the_image_writes_to_is_mounted(manifests: list[Manifest]) -> None:
    stage = dockerfile.load()["cpu"]
    for component, pod, container in pods(manifests):
        mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
        assert {each["name"] for each in mounts.values()} <= {each["name"] for each in pod["volumes"]}
        wanted = {"/tmp", stage.environment["NAG_DATA_DIR"]} | (set(stage.volumes) if component == "worker" else set())
        assert wanted <= {path for path, each in mounts.items() if not each.get("readOnly")}


def test_a_pod_is_given_the_time_to_drain(manifests: list[Manifest]) -> None:
    for component, pod, container in pods(manifests):
        drain_s = float(variables(container)["NAG_DRAIN_S"])
        before_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1]) if component == "api" else LEAVE_S
        assert pod["terminationGracePeriodSeconds"] >= drain_s + before_s + 10
        if component == "api":
            assert drain_s >= Settings().wait_max_s


def test_variables_are_settings_and_no_secret_is_one(manifests: list[Manifest]) -> None:
    for _, pod, container in pods(manifests):
        named = {name.removeprefix("NAG_").lower() for name in variables(container) if name.startswith("NAG_")}
        assert named <= set(Settings.model_fields)
        for volume in pod["volumes"]:
            for source in volume.get("projected", {}).get("sources", ()):
                for item in source["secret"]["items"]:
                    assert item["path"] == "hf_token" or item["path"].removeprefix("nag_") in Settings.model_fields
    assert of(manifests, "Secret") == []
    assert "valueFrom" not in json.dumps(manifests)


def test_what_the_chart_sets_nobody_else_can() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]
    refused = set(schema["propertyNames"]["allOf"][1]["not"]["enum"])
    secret = {f"NAG_{name.upper()}" for name in SECRET}
    fleet = [
        container
        for name in ("gpu-fleet", "gpu-groups")
        for _, _, container in pods(render("--values", str(CHART / "ci" / f"{name}-values.yaml")))
    ]
    chosen = {"NAG_RETENTION_S", "NAG_BATCH_SIZE"}
    assert secret | {name for each in fleet for name in variables(each)} - chosen <= refused


def test_numbers_arrive_as_they_were_written(rendered: dict[str, list[Manifest]]) -> None:
    for _, _, container in pods(rendered["minimal-cpu"]):
        assert variables(container)["NAG_BODY_MAX_BYTES"] == "20000000"


def test_the_ports_are_those_of_the_image_and_of_compose(manifests: list[Manifest]) -> None:
    worker = compose.load()["services"]["worker"]["environment"]
    for component, _, container in pods(manifests):
        if component == "rank":
            assert "ports" not in container
            continue
        (port,) = container["ports"]
        if component == "api":
            assert (port["containerPort"],) == dockerfile.load()["cpu"].ports
        else:
            assert str(port["containerPort"]) == variables(container)["NAG_METRICS_PORT"] == worker["NAG_METRICS_PORT"]


def test_services_and_monitors_find_their_pods(manifests: list[Manifest]) -> None:
    labels = {
        component: each["spec"]["template"]["metadata"]["labels"]
        for each in of(manifests, "Deployment")
        for component in [each["metadata"]["labels"]["app.kubernetes.io/component"]]
    }
    for kind, component in (("Service", "api"), ("PodMonitor", "worker"), ("NetworkPolicy", "api")):
        for each in of(manifests, kind, component):
            chosen = each["spec"].get("selector") or each["spec"]["podSelector"]
            assert (chosen.get("matchLabels") or chosen).items() <= labels[component].items()
    for each in of(manifests, "ServiceMonitor"):
        assert (
            each["spec"]["selector"]["matchLabels"].items() <= one(manifests, "Service")["metadata"]["labels"].items()
        )
    for each in of(manifests, "Deployment"):
        assert each["spec"]["selector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
    owners = [each["spec"]["selector"]["matchLabels"] for each in of(manifests, "Deployment")]
    assert len({json.dumps(each, sort_keys=True) for each in owners}) == len(owners)


def test_the_api_serves_what_the_workers_do(rendered: dict[str, list[Manifest]]) -> None:
    fleet = rendered["gpu-fleet"]
    by_name = {each["metadata"]["name"]: each for each in of(fleet, "Deployment")}
    served = {
        name: variables(each["spec"]["template"]["spec"]["containers"][0])["NAG_MODELS"]
        for name, each in by_name.items()
    }
    assert served == {
        "nag-nag-server-api": "flux-schnell,my-style,z-image-turbo,wan22-lightning",
        "nag-nag-server-worker-images": "flux-schnell,my-style,z-image-turbo",
        "nag-nag-server-worker-video": "wan22-lightning",
    }


def test_a_gpu_is_asked_for_by_its_worker_alone(rendered: dict[str, list[Manifest]]) -> None:
    for component, _, container in pods(rendered["gpu-fleet"]):
        limits = container["resources"]["limits"]
        assert limits.get("nvidia.com/gpu") == (None if component == "api" else "1")
        assert container["image"].endswith("-cpu" if component == "api" else "-cuda")
        assert limits["memory"] == ("1Gi" if component == "api" else "64Gi")


def test_a_worker_over_several_gpus_has_them_all(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["gpu-groups"]
    (one_pod,) = [
        (pod, container) for component, pod, container in pods(of(manifests, "Deployment")) if component == "worker"
    ]
    assert one_pod[1]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert variables(one_pod[1])["NAG_DEVICES"] == "0,1,2,3"
    assert "NAG_NODES" not in variables(one_pod[1])
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}} in one_pod[0]["volumes"]


def test_a_worker_over_several_nodes_starts_and_ends_as_one(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["gpu-groups"]
    group = one(manifests, "LeaderWorkerSet", "video")
    assert (group["apiVersion"], set(group["spec"])) == (
        "leaderworkerset.x-k8s.io/v1", {"leaderWorkerTemplate", "rolloutStrategy"},
    )  # fmt: skip
    template = group["spec"]["leaderWorkerTemplate"]
    assert set(template) == {"size", "restartPolicy", "leaderTemplate", "workerTemplate"}
    assert (template["size"], template["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    target = one(manifests, "ScaledObject", "video")["spec"]["scaleTargetRef"]
    assert target == {key: group[key] for key in ("apiVersion", "kind")} | {"name": group["metadata"]["name"]}
    leader, rank = (template[name]["spec"]["containers"][0] for name in ("leaderTemplate", "workerTemplate"))
    # The controller puts its own variables ahead of these.
    given = {"NAG_NODES": "2", "NAG_NODE": "$(LWS_WORKER_INDEX)", "NAG_RENDEZVOUS": "tcp://$(LWS_LEADER_ADDRESS):29500"}
    assert given.items() <= variables(leader).items()
    assert variables(leader) == variables(rank)
    # Only the leader has metrics to be asked for.
    assert {name for name in leader if name not in rank} == {"startupProbe", "livenessProbe", "readinessProbe", "ports"}
    policy = one(manifests, "NetworkPolicy", "worker")["spec"]
    labels = template["workerTemplate"]["metadata"]["labels"]
    for peers in (policy["ingress"][-1]["from"], policy["egress"][0]["to"]):
        assert peers[0]["podSelector"]["matchLabels"].items() <= labels.items()


def test_workers_go_to_zero_by_the_jobs_that_wait_or_run(rendered: dict[str, list[Manifest]]) -> None:
    fleet = rendered["gpu-fleet"]
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in of(fleet, "ScaledObject")}
    workers = {name: each for each in of(fleet, "Deployment") if "worker" in (name := each["metadata"]["name"])}
    assert set(scaled) == set(workers)
    assert all("replicas" not in each["spec"] for each in workers.values())
    video = scaled["nag-nag-server-worker-video"]
    assert (video["minReplicaCount"], scaled["nag-nag-server-worker-images"]["minReplicaCount"]) == (0, 1)
    (trigger,) = video["triggers"]
    asked = trigger["metadata"]["query"]
    declared = {metric.name: metric for metric in definitions.ALL}
    for name, labels in re.findall(r"max by \(([^)]*)\) \((\w+)", asked):
        assert set(name.split(", ")) == set(declared[labels].labels)
    assert set(re.findall(r"nag_\w+", asked)) == {"nag_queue_depth", "nag_jobs_running"}
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # no answer is not the answer 0
    assert video["fallback"]["replicas"] >= 1
    # Ready without a worker: else nobody could send the job that brings one.
    (api,) = [container for component, _, container in pods(fleet) if component == "api"]
    assert api["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_an_api_whose_workers_stay_is_ready_with_them(rendered: dict[str, list[Manifest]]) -> None:
    for name in ("minimal-cpu", "locked-down"):
        (api,) = [container for component, _, container in pods(rendered[name]) if component == "api"]
        assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert api["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_workers_readiness_is_a_loaded_model(manifests: list[Manifest]) -> None:
    """By the name of the event that app/worker counts."""
    (metric,) = [each for each in definitions.ALL if each.name == "nag_model_events_total"]
    assert "event" in metric.labels
    for component, _, container in pods(manifests):
        if component == "worker":
            assert 'event="loaded"' in container["readinessProbe"]["exec"]["command"][-1]


def test_the_network_is_closed_but_for_what_is_named(rendered: dict[str, list[Manifest]]) -> None:
    locked = rendered["locked-down"]
    api, worker = (one(locked, "NetworkPolicy", each)["spec"] for each in ("api", "worker"))
    assert api["policyTypes"] == worker["policyTypes"] == ["Ingress", "Egress"]
    assert len(api["ingress"][0]["from"]) == 2  # the ingress, and who measures
    assert [port["port"] for port in worker["ingress"][0]["ports"]] == [9100]
    open_to_all = [rule["ports"] for rule in worker["egress"] if "to" not in rule]
    assert [port["port"] for ports in open_to_all for port in ports] == [53, 53]


def test_rules_and_dashboards_are_those_of_docker(rendered: dict[str, list[Manifest]]) -> None:
    written = [
        rule
        for file in ("alerts", "recording")
        for group in yaml.safe_load((ROOT / "docker" / "prometheus" / f"{file}.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    for name, without in (("gpu-fleet", {"NagNoWorker"}), ("locked-down", {"NagRedisMemoryHigh"})):
        groups = one(rendered[name], "PrometheusRule")["spec"]["groups"]
        carried = [rule for group in groups for rule in group["rules"]]
        assert carried == [rule for rule in written if rule.get("alert") not in without]
    boards = one(rendered["gpu-fleet"], "ConfigMap", "dashboards")["data"]
    folder = ROOT / "docker" / "grafana" / "dashboards"
    assert {name: json.loads(text) for name, text in boards.items()} == {
        f"nag-{path.name}": json.loads(path.read_text()) for path in folder.glob("*.json")
    }
    assert of(rendered["locked-down"], "ConfigMap", "dashboards") == []
    jobs = {
        monitor["kind"]: endpoint["relabelings"][0]["replacement"]
        for monitor in (one(rendered["gpu-fleet"], each) for each in ("ServiceMonitor", "PodMonitor"))
        for endpoint in monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    }
    read = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    assert set(jobs.values()) == {job["job_name"] for job in read["scrape_configs"]}


@pytest.mark.parametrize(
    ("redis", "keys", "more", "said"),
    [
        (True, False, "", "apiKeys.existingSecret is needed"),
        (False, True, "", "redis.existingSecret or redis.url is needed"),
        (True, True, "workers[0].name=a", "serves no models"),
        (True, True, "workers[0].name=A_b", "/workers/0/name"),
        (True, True, "workers[0].devise=cuda", "devise"),
        (True, True, "settings.NAG_DRAIN_S=1", "NAG_DRAIN_S"),
        (True, True, "artifacts.url=s3://a,links.answeredBy=api", "links.existingSecret is needed"),
    ],
)
def test_values_that_cannot_work_are_refused(redis: bool, keys: bool, more: str, said: str) -> None:
    given = ["redis.url=redis://r"] * redis + ["apiKeys.insecure=true"] * keys + [more] * bool(more)
    answer = helm("template", str(CHART), *(part for each in given for part in ("--set", each)))
    assert answer.returncode != 0
    assert said in answer.stderr


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def update() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_update", ROOT / "docker" / "helm" / "update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_make_chart_makes_is_what_is_there() -> None:
    made = update()
    there = {str(path.relative_to(CHART)) for path in (CHART / "files").rglob("*") if path.is_file()}
    assert there == set(made.COPIES)
    for target, source in made.COPIES.items():
        assert (CHART / target).read_text() == (ROOT / "docker" / source).read_text(), "make chart"
    assert f"<!-- values -->\n\n{made.table()}\n\n<!-- end -->" in (CHART / "README.md").read_text(), "make chart"


def test_every_value_is_in_the_schema() -> None:
    def check(node: Any, schema: Any, path: str) -> None:
        if isinstance(node, dict) and "properties" in schema:
            assert set(node) <= set(schema["properties"]), path
            assert schema["additionalProperties"] is False, path
            for key, value in node.items():
                check(value, schema["properties"][key], f"{path}.{key}")

    check(
        yaml.safe_load((CHART / "values.yaml").read_text()), json.loads((CHART / "values.schema.json").read_text()), ""
    )


def test_the_links_of_its_readme_lead_to_files() -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", (CHART / "README.md").read_text()):
        assert Path(CHART, link).exists()
