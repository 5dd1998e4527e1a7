"""The files of cluster/kuberay as Kubernetes gets them, and what is wrong with a document, field by field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster/kuberay"


def load(name: str) -> list[dict[str, Any]]:
    """The documents of a file of cluster/kuberay."""
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def ray_cluster() -> dict[str, Any]:
    return load("cluster/raycluster.yaml")[0]


def ray_job() -> dict[str, Any]:
    """The job with the cluster's specification in it, as kustomize puts it there."""
    job = load("job/rayjob.yaml")[0]
    job["spec"]["rayClusterSpec"] = ray_cluster()["spec"]
    return job


def services() -> dict[str, dict[str, Any]]:
    """What outlives clusters, by kind."""
    listed = load("services/kustomization.yaml")[0]["resources"]
    return {document["kind"]: document for name in listed for document in load(f"services/{name}")}


ENVIRONMENT: dict[str, str] = services()["ConfigMap"]["data"]  # of every Ray pod


def groups(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The head and the worker groups by name."""
    spec = cluster["spec"]
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


def definition_schema(folder: Path, kind: str, version: str = "v1") -> dict[str, Any]:
    """JSON schema of a kind from the CustomResourceDefinitions in `folder`; it refuses fields that they do not name."""
    for place in sorted(folder.glob("**/*.yaml")):
        for document in yaml.load_all(place.read_text(encoding="utf-8"), yaml.CSafeLoader):
            if (
                document
                and document["kind"] == "CustomResourceDefinition"
                and document["spec"]["names"]["kind"] == kind
            ):
                versions = {each["name"]: each["schema"]["openAPIV3Schema"] for each in document["spec"]["versions"]}
                schema = strict(versions[version])
                schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
                return schema
    raise FileNotFoundError(f"no definition of {kind} in {folder}")


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """As JSON schema, of the OpenAPI schema of a CustomResourceDefinition, which Kubernetes prunes or refuses by."""
    schema = copy.deepcopy(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if isinstance(schema.get("items"), dict):
        schema["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "properties" in schema:
        schema["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    return schema


def complaints(document: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong, each with its place: "spec.headGroupSpec: Additional properties are not allowed ..."."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def pod_complaint(template: dict[str, Any], version: str) -> str | None:
    """What Kubernetes' own schema of that version has against a pod template."""
    return kubernetes_complaint({"apiVersion": "v1", "kind": "Pod", **template}, version)


def kubernetes_complaint(document: dict[str, Any], version: str) -> str | None:
    """What Kubernetes' own schema of that version has against a document; None for nothing."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return None


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every mapping in a document, as the keys that lead to it."""
    if isinstance(document, dict):
        yield path
    children = document.items() if isinstance(document, dict) else enumerate(document)
    for key, child in children:
        if isinstance(child, dict | list):
            yield from places(child, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
