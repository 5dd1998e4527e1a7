"""cluster/kuberay against the schemas of those who read it, and proof that these find a mistake wherever it is."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kuberay_fields import known
from tests.support.kubernetes_files import (
    FOLDER,
    at,
    complaints,
    definition_schema,
    groups,
    kubernetes_complaint,
    load,
    places,
    pod_complaint,
    ray_cluster,
    ray_job,
    services,
)  # fmt: skip

VERSIONS = ("1.30", "1.37")  # of Kubernetes
OWN = {"RayCluster": ray_cluster, "RayJob": ray_job}

own_kinds = pytest.mark.parametrize("kind", OWN)
kubernetes_versions = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def definitions() -> Callable[[str], dict[str, Any]]:
    folder = os.environ.get("KUBERAY_CRDS", "")
    if not folder:
        pytest.skip(
            "KUBERAY_CRDS names no folder with KubeRay's definitions: `helm pull kuberay/kuberay-operator --untar` "
            "leaves them in kuberay-operator/crds"
        )
    cache: dict[str, dict[str, Any]] = {}

    def of(kind: str) -> dict[str, Any]:
        if kind not in cache:
            cache[kind] = definition_schema(Path(folder), kind)
        return cache[kind]

    return of


@own_kinds
def test_kuberay_takes_it(kind: str, definitions: Callable[[str], dict[str, Any]]) -> None:
    assert complaints(OWN[kind](), definitions(kind)) == []


@own_kinds
def test_an_unknown_field_is_found_wherever_it_is(kind: str, definitions: Callable[[str], dict[str, Any]]) -> None:
    schema, found = definitions(kind), 0
    for path in places(OWN[kind]()):
        if path != ("metadata",):  # which is Kubernetes' own
            document = OWN[kind]()
            at(document, path)["surprise"] = {"x": 1}
            assert complaints(document, schema), path
            found += 1
    assert found > 90


@own_kinds
def test_our_list_of_fields_has_none_that_kuberay_does_not_know(
    kind: str, definitions: Callable[[str], dict[str, Any]]
) -> None:
    def compare(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> None:
        if "items" in ours:
            return compare(ours["items"], theirs["items"], path)
        for name, field in ours.get("properties", {}).items():
            assert name in theirs["properties"], f"{path}.{name}"
            compare(field, theirs["properties"][name], f"{path}.{name}")
        assert set(theirs.get("required", ())) <= set(ours.get("required", theirs.get("required", ()))), path
        return None

    spec = definitions(kind)["properties"]["spec"]
    compare(known(kind)["properties"]["spec"], spec, "spec")


@own_kinds
def test_its_fields_are_those_that_are_known(kind: str) -> None:
    assert complaints(OWN[kind](), known(kind)) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("spec", "rayVersionn"), "2.60.0", "'rayVersionn' was unexpected"),
        (("spec", "autoscalerOptions", "idleTimeoutMinutes"), 5, "'idleTimeoutMinutes' was unexpected"),
        (("spec", "workerGroupSpecs", 1, "maxReplica"), 8, "'maxReplica' was unexpected"),
        (("spec", "workerGroupSpecs", 1, "resources", "simulator"), 15, "15 is not of type 'string'"),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), "none", "'none' is not of type 'integer'"),
        (("spec", "authOptions", "mode"), "disabled", "'disabled' is not one of"),
    ],
)
def test_a_mistake_in_the_cluster_is_named(path: tuple[Any, ...], value: Any, complaint: str) -> None:
    document = ray_cluster()
    at(document, path[:-1])[path[-1]] = value
    assert any(complaint in each for each in complaints(document, known("RayCluster")))


@kubernetes_versions
@pytest.mark.parametrize("group", groups(ray_cluster()))
def test_pods_are_what_kubernetes_takes(group: str, version: str) -> None:
    assert pod_complaint(groups(ray_cluster())[group]["template"], version) is None


def test_an_unknown_field_is_found_wherever_it_is_in_a_pod() -> None:
    template = groups(ray_cluster())["simulator"]["template"]
    found = 0
    for path in places(template):
        wrong = copy.deepcopy(template)
        at(wrong, path)["surprise"] = {"x": 1}
        assert pod_complaint(wrong, VERSIONS[-1]) is not None, path
        found += 1
    assert found > 20


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "terminationGracePeriodSeconds"), "60"),
        (("spec", "containers", 0, "lifecycle", "preStop", "exec", "command"), "python -m actors.hand_in"),
        (("spec", "containers", 0, "ports", 0, "containerPort"), "metrics"),
        (("spec", "securityContext", "runAsNonRoot"), "yes"),
    ],
)
def test_a_wrong_type_in_a_pod_is_found(path: tuple[Any, ...], value: Any) -> None:
    template = copy.deepcopy(groups(ray_cluster())["simulator"]["template"])
    assert pod_complaint(template, VERSIONS[-1]) is None
    at(template, path[:-1])[path[-1]] = value
    assert pod_complaint(template, VERSIONS[-1]) is not None


@kubernetes_versions
@pytest.mark.parametrize("kind", services())
def test_services_are_what_kubernetes_takes(kind: str, version: str) -> None:
    document = services()[kind]
    assert kubernetes_complaint(document, version) is None
    assert kubernetes_complaint({**document, "surprise": 1}, version) is not None


def test_kustomize_builds_what_the_other_tests_look_at() -> None:
    """Names of places and namespace apart, which are its to add."""
    tool = next(filter(None, map(shutil.which, ("kubectl", "kustomize"))), None)
    if tool is None:
        pytest.skip("neither kubectl nor kustomize is here to build cluster/kuberay")
    build = [tool, "kustomize"] if tool.endswith("kubectl") else [tool, "build"]

    def built(folder: str) -> dict[str, Any]:
        text = subprocess.run([*build, str(FOLDER / folder)], check=True, capture_output=True, text=True).stdout
        documents = list(yaml.safe_load_all(text))
        assert {document["metadata"].pop("namespace", "avavla") for document in documents} == {"avavla"}
        plain = json.loads(json.dumps(documents).replace("CHANGE-ME/avavla_ray", "avavla_ray"))
        return {document["kind"]: document for document in plain}

    expected = {"RayJob": ray_job()}
    assert built("job") == expected, "the job and nothing beside it"
    assert built("cluster") == {"RayCluster": ray_cluster()}
    found = built("services")
    assert found.pop("ServiceAccount")["metadata"]["name"] == services()["ServiceAccount"]["metadata"]["name"]
    # The bucket is still to be named in them.
    assert found == {kind: document for kind, document in services().items() if kind != "ServiceAccount"}
    monitoring = built("monitoring")
    assert set(monitoring) == {"ConfigMap", "PodMonitor"}
    dashboard = json.loads(monitoring["ConfigMap"]["data"]["avavla.json"])
    assert dashboard == json.loads((FOLDER.parent / "grafana/avavla.json").read_text(encoding="utf-8"))
    label = load("monitoring/prometheus_values.yaml")[0]["grafana"]["sidecar"]["dashboards"]["label"]
    assert label in monitoring["ConfigMap"]["metadata"]["labels"]
