"""What cluster/kuberay says: who runs where, that pods wait for their runners, that names meet, that nothing leaks."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.utils import parse_quantity

from actors.ppo_job import Settings
from actors.termination import check_source
from avavla_ray.command_line import switch_values
from avavla_ray.machines import LEARNERS_ON, SIMULATORS_ON, for_learners, for_simulators
from tests.support.kubernetes_files import ENVIRONMENT, FOLDER, ROOT, groups, load, ray_cluster, ray_job, services

GROUPS = groups(ray_cluster())
WORKERS = [name for name in GROUPS if name != "head"]
DEPLOYMENT = services()["Deployment"]["spec"]["template"]
MARGIN_S = 10  # of a pod, to end what is left
SECRET = re.compile(r"(?i)(key_?id|secret|password|token|credential)")

each_group = pytest.mark.parametrize("group", GROUPS)


def container(template: dict[str, Any]) -> dict[str, Any]:
    (only,) = template["spec"]["containers"]
    return only


def bytes_of(quantity: str) -> int:
    return int(parse_quantity(quantity))


@pytest.fixture(scope="module")
def understood() -> dict[str, Any]:
    """The kinds of machines as Ray's own autoscaler reads them from the cluster."""
    cluster = ray_cluster()
    cluster["metadata"]["namespace"] = "avavla"
    return _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]


# Who runs where


def test_the_head_runs_no_actor(understood: dict[str, Any]) -> None:
    assert understood["headgroup"]["resources"]["CPU"] == 0
    assert not {"GPU", "simulator", "learner"} & set(understood["headgroup"]["resources"])


def test_each_kind_of_actor_has_machines_of_its_own(understood, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SIMULATORS_ON, LEARNERS_ON):
        monkeypatch.setenv(name, ENVIRONMENT[name])

    def offering(wanted: dict[str, float]) -> set[str]:
        return {
            kind for kind, machine in understood.items()
            if all(machine["resources"].get(name, 0) >= amount for name, amount in wanted.items())
        }  # fmt: skip

    assert offering({"CPU": 1, **for_simulators()}) == {"simulator"}
    assert offering({"CPU": 1, **for_learners()}) == {"learner"}
    assert offering({"GPU": 1}) == {"learner"}
    simulator = understood["simulator"]["resources"]
    assert simulator["simulator"] == simulator["CPU"], "one for each processor"


def test_machines_come_and_go_with_the_work(understood: dict[str, Any]) -> None:
    for name in WORKERS:
        assert understood[name]["min_workers"] == 0 < understood[name]["max_workers"]
        assert understood[name]["labels"] == {"kind": name}
    spec = ray_cluster()["spec"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] > 60


def test_simulators_are_on_spot_machines_and_nothing_else_is() -> None:
    places = {name: group["template"]["spec"] for name, group in GROUPS.items()}
    assert {place.get("nodeSelector", {}).get("avavla") for place in places.values()} == {None, *WORKERS}
    tolerated = {name: {each["key"] for each in place.get("tolerations", ())} for name, place in places.items()}
    assert {"avavla", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated["simulator"]
    assert tolerated["learner"] == {"nvidia.com/gpu"}
    assert not tolerated["head"]
    for name in ("head", "learner"):
        annotations = GROUPS[name]["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert "metadata" not in GROUPS["simulator"]["template"]


@each_group
def test_a_pod_gets_what_ray_believes_it_has(group: str) -> None:
    has, asked = container(GROUPS[group]["template"])["resources"], GROUPS[group]["resources"]
    assert bytes_of(has["requests"]["memory"]) == bytes_of(has["limits"]["memory"]), "none is evicted for memory"
    assert float(asked["CPU"]) <= float(has["requests"]["cpu"])
    assert asked.get("GPU") == has["limits"].get("nvidia.com/gpu") == has["requests"].get("nvidia.com/gpu")
    volumes = {volume["name"]: volume["emptyDir"] for volume in GROUPS[group]["template"]["spec"]["volumes"]}
    store = int(GROUPS[group]["rayStartParams"]["object-store-memory"])
    shared = bytes_of(volumes["shm"]["sizeLimit"])
    assert volumes["shm"]["medium"] == "Memory"
    assert store < shared < bytes_of(has["limits"]["memory"]) / 2


# Being told to end


def test_a_simulator_pod_waits_for_the_runners_of_the_job_that_we_submit(tmp_path: Path) -> None:
    template = GROUPS["simulator"]["template"]
    command = container(template)["lifecycle"]["preStop"]["exec"]["command"]
    place = command[3]
    assert settings().spot == f"file:{place}"
    check_source(settings().spot)
    here = [sys.executable, *(part.replace(place, str(tmp_path / "leaving")) for part in command[1:])]
    done = subprocess.run(here, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "leaving").exists()
    hook = float(command[command.index("--seconds") + 1])
    others = float(ENVIRONMENT["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert template["spec"]["terminationGracePeriodSeconds"] >= hook + others + MARGIN_S


# The job


def settings() -> Settings:
    """What the job makes of its command line."""
    python, script, *options = shlex.split(ray_job()["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / Path(script).relative_to("/opt/avavla")).is_file()
    assert Path(script).name == "ppo_libero.py"
    return tyro.cli(Settings, args=switch_values(options, Settings))


def test_an_attempt_that_follows_a_failed_one_goes_on_with_its_run() -> None:
    job = ray_job()
    assert settings().run_id == job["metadata"]["name"]
    assert job["spec"]["backoffLimit"] > 0


def test_the_job_fits_its_cluster_and_ends_with_it(understood: dict[str, Any]) -> None:
    simulator = understood["simulator"]
    assert settings().num_runners <= simulator["max_workers"] * simulator["resources"]["simulator"]
    # Learner and server share what there is.
    assert settings().server_gpus > 0
    assert settings().learner_gpus > 0
    assert settings().learner_gpus + settings().server_gpus <= understood["learner"]["resources"]["GPU"]
    assert ray_job()["spec"]["shutdownAfterJobFinishes"]
    environment = yaml.safe_load(ray_job()["spec"]["runtimeEnvYAML"])
    assert set(environment) <= {"env_vars", "working_dir"}
    assert all(isinstance(value, str) for value in environment["env_vars"].values())


# Names that meet


def test_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    held = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
        if re.fullmatch(r"[\w-]+==\S+", line)
    )
    ray = ray_cluster()["spec"]["rayVersion"]
    assert held["ray"] == ray
    assert any(
        each.startswith("ray[") and each.endswith(f"=={ray}") for each in project["optional-dependencies"]["cluster"]
    )
    kinds = {"head": "cpu", "learner": "cuda", "simulator": "cpu"}
    for name, kind in kinds.items():
        assert container(GROUPS[name]["template"])["image"] == f"avavla_ray:{project['version']}-{kind}"
    assert container(DEPLOYMENT)["image"] == f"avavla_ray:{project['version']}-cpu"


@each_group
def test_what_a_pod_names_exists(group: str) -> None:
    pod, ray = GROUPS[group]["template"]["spec"], container(GROUPS[group]["template"])
    assert pod["serviceAccountName"] == services()["ServiceAccount"]["metadata"]["name"]
    settings_, secret = ray["envFrom"]
    assert settings_ == {"configMapRef": {"name": services()["ConfigMap"]["metadata"]["name"]}}
    assert secret["secretRef"]["optional"], "identities of a cloud need none"
    mounted = {mount["name"]: mount["mountPath"] for mount in ray["volumeMounts"]}
    assert mounted == {"shm": "/dev/shm", "cache": "/cache"}
    assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
    assert all(ENVIRONMENT[name].startswith("/cache/") for name in ("AVAVLA_CACHE", "NUMBA_CACHE_DIR"))


def test_simulators_draw_without_a_screen() -> None:
    assert ENVIRONMENT["MUJOCO_GL"] == ENVIRONMENT["PYOPENGL_PLATFORM"] == "egl"


def test_mlflow_answers_under_the_name_that_jobs_call() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    service, ray = services()["Service"], container(DEPLOYMENT)
    port = service["spec"]["ports"][0]["port"]
    assert ENVIRONMENT["MLFLOW_TRACKING_URI"] == f"http://{service['metadata']['name']}:{port}"
    assert ray["ports"][0]["containerPort"] == port == int(ray["command"][ray["command"].index("--port") + 1])
    assert service["spec"]["selector"] == DEPLOYMENT["metadata"]["labels"]
    values = {each["name"]: each.get("value") for each in ray["env"]}
    allowed = values["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in ("mlflow", "mlflow.avavla", "mlflow.avavla.svc", "localhost"):
        assert is_allowed_host_header(allowed, f"{host}:{port}"), host
    assert is_allowed_host_header(allowed, "localhost:8000")
    for host in ("evil.example", "mlflow.evil.example", f"mlflow.evil.example:{port}", "mlflow.avavla.evil.example"):
        assert not is_allowed_host_header(allowed, host), host
    assert values["MLFLOW_BACKEND_STORE_URI"].startswith(f"sqlite:///{ray['volumeMounts'][0]['mountPath']}/")
    keys = [each["valueFrom"]["configMapKeyRef"]["key"] for each in ray["env"] if "valueFrom" in each]
    assert set(keys) <= set(ENVIRONMENT)


def test_prometheus_looks_where_pods_answer() -> None:
    monitors = {monitor["metadata"]["name"]: monitor["spec"] for monitor in load("monitoring/pod_monitors.yaml")}
    assert {monitor["selector"]["matchLabels"]["ray.io/node-type"] for monitor in monitors.values()} == {
        "head",
        "worker",
    }
    for monitor in monitors.values():
        kind = monitor["selector"]["matchLabels"]["ray.io/node-type"]
        for name in ["head"] if kind == "head" else WORKERS:
            ports = {port["name"] for port in container(GROUPS[name]["template"])["ports"]}
            assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports


# Nothing leaks


def test_pods_have_no_rights_that_they_need_not() -> None:
    for template in (*(group["template"] for group in GROUPS.values()), DEPLOYMENT):
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        assert template["spec"]["securityContext"]["runAsUser"] == 1000
        assert container(template)["securityContext"] == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
    for template in (*(GROUPS[name]["template"] for name in WORKERS), DEPLOYMENT):
        assert template["spec"]["automountServiceAccountToken"] is False, "only the autoscaler talks to Kubernetes"
    assert ray_cluster()["spec"]["authOptions"] == {"mode": "token"}


def test_there_is_no_secret_in_a_file_and_no_door_to_the_world() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.glob("**/*.yaml")]
    assert len(texts) > 10
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    assert "Secret" not in {document.get("kind") for document in documents}
    assert not re.search(r"type: *(LoadBalancer|NodePort)|kind: *Ingress|hostNetwork|hostPath", "\n".join(texts))
    assert [name for document in documents for name in secrets_in(document)] == []


def secrets_in(value: Any) -> Iterator[str]:
    """Settings that are named as secrets are, and have a value of their own."""
    if isinstance(value, dict):
        found = {name: text for name, text in value.items() if isinstance(text, str)}
        if "value" in value:
            found[value.get("name", "")] = value["value"]
        known = ("userKey", "passwordKey", "existingSecret")  # names of secrets
        yield from (name for name in found if SECRET.search(name) and name not in known)
        for each in value.values():
            yield from secrets_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from secrets_in(each)


def test_a_secret_would_be_found() -> None:
    variable = {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}
    assert list(secrets_in({"env": [variable, {"name": "MODE", "value": "x"}]})) == ["AWS_SECRET_ACCESS_KEY"]
    assert list(secrets_in({"data": {"MLFLOW_TRACKING_PASSWORD": "x"}})) == ["MLFLOW_TRACKING_PASSWORD"]
