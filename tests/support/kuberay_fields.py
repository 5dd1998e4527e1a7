"""The fields of KubeRay's kinds that cluster/kuberay uses, as a JSON schema: a misspelt one is none of them.

KubeRay's own definitions are not ours to copy. Where they are at hand, a test compares this list with them.
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
# A pod template is Kubernetes' own, and checked as such.
POD: dict[str, Any] = {"type": "object"}
# Ray takes text here, numbers too: an unquoted one is refused by Kubernetes.
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}


def fields(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


GROUP = {"resources": TEXTS, "labels": TEXTS, "rayStartParams": TEXTS, "template": POD}
CLUSTER = fields(
    "rayVersion", "headGroupSpec", "workerGroupSpecs",
    rayVersion=TEXT,
    authOptions=fields("mode", mode={"enum": ["token"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(version={"enum": ["v2"]}, idleTimeoutSeconds=COUNT),
    headGroupSpec=fields("template", **GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            "groupName", "minReplicas", "maxReplicas", "template",
            groupName=TEXT, minReplicas=COUNT, maxReplicas=COUNT, replicas=COUNT, **GROUP,
        ),
    },
)  # fmt: skip
JOB = fields(
    "entrypoint", "rayClusterSpec",
    entrypoint=TEXT, runtimeEnvYAML=TEXT, backoffLimit=COUNT, shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT, activeDeadlineSeconds=COUNT, rayClusterSpec=CLUSTER,
)  # fmt: skip


def known(kind: str) -> dict[str, Any]:
    """Schema of a RayCluster or a RayJob of this project."""
    return fields(
        "apiVersion", "kind", "metadata", "spec",
        apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata={"type": "object"},
        spec={"RayCluster": CLUSTER, "RayJob": JOB}[kind],
    )  # fmt: skip
