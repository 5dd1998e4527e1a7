"""A job that says what it was given: files, environment of its driver and of an actor, commit. One line of JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ray

import avavla_ray
from actors.cluster import connect
from avavla_ray.provenance import git_commit
from avavla_ray.simulators.opengl import choose_renderer

RENDERING = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID")


def rendering() -> dict[str, str]:
    return {name: os.environ.get(name, "") for name in RENDERING}


@ray.remote(num_cpus=1)
def look() -> dict[str, object]:
    told = rendering()
    choose_renderer()  # as every simulator of ours does
    return {
        "told": told, "renders": rendering(), "commit": git_commit(), "threads": os.environ.get("OMP_NUM_THREADS"),
        "code": str(Path(avavla_ray.__file__).parents[1]),
    }  # fmt: skip


def main() -> None:
    here = Path.cwd()
    files = {str(path.relative_to(here)): path.stat().st_size for path in here.rglob("*") if path.is_file()}
    connect(cpus=1)
    found = {
        "files": files,
        "code": str(Path(avavla_ray.__file__).parents[1]),
        "here": str(here),
        "commit": git_commit(),
    }
    print("FOUND " + json.dumps({**found, "actor": ray.get(look.remote())}))


if __name__ == "__main__":
    main()
