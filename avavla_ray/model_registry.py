"""Checkpoints as versions of registered models: who looks for the policy that a number is of finds it by a name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError


def check_name(name: str | None) -> None:
    """Refuse a name that MLflow's addresses can't hold; None is none.

    Raises:
        InputError: says what it may be made of.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"registered model {name!r}: give letters, digits, '.', '_' and '-', no blank, slash or colon")


def check_checkpoint(folder: str | Path, name: str) -> str:
    """Refuse what can't be registered, before anything is sent; the checkpoint's digest.

    Raises:
        InputError: no whole checkpoint, or a name that MLflow's addresses can't hold.
    """
    from avavla_ray.policy.folder import open_folder

    check_name(name)
    return open_folder(folder, verify=False).digest


def register(client: Any, run_id: str, folder: Path, name: str, digest: str | None = None) -> Any:
    """Keep a copy of a checkpoint with a run, and make it the newest version of a registered model.

    A run registers the same weights once: told twice, it gives the version that there is.

    Args:
        digest: of the checkpoint that is meant; None takes what is there.

    Returns:
        MLflow's ModelVersion. Its tags name the checkpoint's digest and stage.

    Raises:
        InputError: there is no whole checkpoint any more, or another one.
    """
    from mlflow.exceptions import MlflowException

    from avavla_ray.policy.folder import open_folder

    opened = open_folder(folder, verify=False)
    if digest is not None and opened.digest != digest:
        raise InputError(f"{folder} holds another checkpoint than when it was to be registered")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get("checkpoint") == opened.digest:
            return version
    place = f"checkpoints/{opened.digest[:12]}"
    client.log_artifacts(run_id, str(folder), place)
    tags = {"checkpoint": opened.digest, "stage": opened.stage}
    return client.create_model_version(name, source=f"runs:/{run_id}/{place}", run_id=run_id, tags=tags)
