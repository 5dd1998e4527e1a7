"""What a run is: commit, versions, machine, seed. Goes into every MLflow run and result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from avavla_ray.machines import chosen
from avavla_ray.storage.names import output_store

COMMIT = "AVAVLA_COMMIT"
PACKAGES = (
    "torch", "ray", "deepspeed", "transformers", "mlflow", "numpy", "pyarrow",
    "mujoco", "robosuite", "hf-libero", "bddl", "pybullet",
)  # fmt: skip


PACKAGE = "_ray_pkg_"  # how Ray names the folder of what `ray job submit` ships


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str:
    """Commit of the checkout, with "+changes" when the tree differs from it; "unknown" outside a checkout.

    On a cluster the code arrives without its .git: the submitting side hands the commit on in AVAVLA_COMMIT
    (avavla_ray/submission.py). Where it has not, the name that Ray gave the package says at least which runs had the
    same code: it is a hash of all that was shipped.
    """
    if COMMIT in os.environ:
        return os.environ[COMMIT]
    root = Path(__file__).resolve().parent.parent
    if root.name.startswith(PACKAGE):
        return f"unknown (package {root.name.removeprefix(PACKAGE)})"
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def machine() -> str:
    """Processor count and kind, and the accelerator if torch sees one."""
    import torch

    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} x {platform.machine()}, {accelerator}"


def provenance(*, seed: int, precision: str = "float32", **more: Any) -> dict[str, Any]:
    """Flat, JSON-ready description of this run, `store` being where its output is published; `more` adds the
    simulator's own."""
    store = {"store": uri} if (uri := output_store()) else {}
    machines = {"machines": placed} if (placed := chosen()) else {}
    return {
        "seed": seed, "commit": git_commit(), "precision": precision, "machine": machine(),
        "python": platform.python_version(), "packages": package_versions(), **machines, **store, **more,
    }  # fmt: skip
