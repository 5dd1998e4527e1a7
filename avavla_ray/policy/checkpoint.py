"""Checkpoints: a folder that is whole or absent, and that can be checked before it is believed.

    model.safetensors         weights, float32
    config.json               PolicyConfig
    dataset_statistics.json   units of actions and proprioception
    manifest.json             stage, provenance, and size and SHA-256 of the others; written last

Reading one never runs code from it: safetensors and JSON hold data only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from avavla_ray import normalisation
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, damage, fingerprint, write_json
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.tensors import save_tensors

FORMAT = "avavla_ray.policy"
VERSION = 1
WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
MEMBERS = (WEIGHTS, CONFIG, normalisation.FILE_NAME)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        policy: on the CPU, in evaluation mode.
        stage: what training made it, for instance "bc", "ppo".
        provenance: of the run that wrote it. extra: whatever else the writer kept.
        digest: SHA-256 over weights, configuration and statistics: equal digests act alike.
    """

    policy: AvaVlaPolicy
    statistics: Statistics
    stage: str
    provenance: dict[str, Any]
    extra: dict[str, Any]
    digest: str
    path: Path


def save_checkpoint(
    folder: str | Path,
    policy: AvaVlaPolicy,
    statistics: Statistics,
    *,
    stage: str,
    provenance: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint; `folder` holds the old one or the new one at any moment.

    Raises:
        InputError: the place cannot be written.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in policy.state_dict().items()}
        save_tensors(tensors, temporary / WEIGHTS)
        write_json(temporary / CONFIG, to_json(policy.config))
        statistics.save(temporary)
        files = {name: fingerprint(temporary / name) for name in MEMBERS}
        manifest = {"format": FORMAT, "version": VERSION, "stage": stage, "files": files}
        write_json(temporary / MANIFEST, manifest | {"provenance": provenance, "extra": extra or {}})


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint, verifying every file against the manifest first.

    Raises:
        InputError: one line that lists everything missing, truncated, altered, foreign, or of another shape.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    files = manifest["files"]
    problems = [problem for name in MEMBERS if (problem := damage(folder / name, files[name]))]
    if problems:
        raise InputError(f"checkpoint {folder} is damaged ({'; '.join(problems)}): copy or write it again")
    try:
        config = from_json(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        statistics = Statistics.load(folder)
    except (InputError, ValueError) as error:
        raise InputError(f"checkpoint {folder}: {error}") from error
    policy = _load_weights(folder / WEIGHTS, config)
    _check_widths(folder, config, statistics)
    content = "".join(f"{name} {files[name]['sha256']}\n" for name in MEMBERS)
    return Checkpoint(
        policy.eval(), statistics, manifest["stage"], manifest["provenance"], manifest["extra"],
        hashlib.sha256(content.encode()).hexdigest(), folder,
    )  # fmt: skip


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"there is no checkpoint at {folder}: give the folder that a training job wrote")
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no {MANIFEST}: it is not a checkpoint, or was copied before it was complete")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): copy or write the checkpoint again") from error
    expected = {"format": str, "version": int, "stage": str, "provenance": dict, "extra": dict, "files": dict}
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} was not written by this project: give the folder that a training job wrote")
    if manifest.get("version") != VERSION:
        raise InputError(f"{path} has version {manifest.get('version')}, this release reads {VERSION}: update")
    broken = [name for name, kind in expected.items() if not isinstance(manifest.get(name), kind)]
    entries = manifest["files"] if "files" not in broken else {}
    broken += [
        f"files[{name!r}]" for name in MEMBERS
        if not isinstance(entries.get(name), dict) or set(entries[name]) != {"size", "sha256"}
    ]  # fmt: skip
    if broken:
        raise InputError(f"{path} lacks {', '.join(broken)}: copy or write the checkpoint again")
    return manifest


def _load_weights(path: Path, config: PolicyConfig) -> AvaVlaPolicy:
    policy = AvaVlaPolicy(config)
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as stream:
            found = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} does not hold weights ({error}): copy or write the checkpoint again") from error
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} has shape {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    if problems:
        listed = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise InputError(f"{path} does not fit its {CONFIG} ({listed}): keep the two that were written together")
    policy.load_state_dict(load_file(path))
    return policy


def _check_widths(folder: Path, config: PolicyConfig, statistics: Statistics) -> None:
    for kind, field, width in (
        ("action", statistics.action, config.action_dim),
        ("proprio", statistics.proprio, config.proprio_dim),
    ):
        sizes = {array.shape for array in dataclasses.astuple(field)}
        if sizes != {(width,)}:
            raise InputError(
                f"checkpoint {folder}: {normalisation.FILE_NAME} has {kind} statistics of shape {sorted(sizes)}, "
                f"the policy needs ({width},): keep the files that were written together"
            )
