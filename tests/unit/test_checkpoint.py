"""Checkpoints come back as they were, or not at all and with the reason."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avavla_ray.errors import InputError
from avavla_ray.files import sha256
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from tests.support.policies import random_belief, random_inputs, some_statistics, stirred_policy, tiny


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "checkpoint"
    save_checkpoint(
        folder, stirred_policy(tiny()), some_statistics(), stage="bc", provenance={"seed": 7}, extra={"step": 40}
    )
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def seal(folder: Path) -> None:
    """Make the manifest agree with the files again, as a foreign writer would have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_round_trip(folder):
    checkpoint = load_checkpoint(folder)
    policy = stirred_policy(tiny())
    assert checkpoint.stage == "bc"
    assert checkpoint.provenance == {"seed": 7}
    assert checkpoint.extra == {"step": 40}
    assert checkpoint.path == folder
    assert checkpoint.policy.config == policy.config
    np.testing.assert_array_equal(checkpoint.statistics.action.q99, some_statistics().action.q99)
    inputs, belief = random_inputs(policy.config, 2), random_belief(policy, 2)
    assert torch.equal(checkpoint.policy.act(inputs, belief).chunk, policy.act(inputs, belief).chunk)


def test_digest_names_the_content_and_nothing_else(folder, tmp_path):
    same = tmp_path / "same"
    save_checkpoint(same, stirred_policy(tiny()), some_statistics(), stage="ppo", provenance={"seed": 8})
    other = tmp_path / "other"
    save_checkpoint(other, stirred_policy(tiny(), seed=1), some_statistics(), stage="bc", provenance={"seed": 7})
    assert load_checkpoint(folder).digest == load_checkpoint(same).digest
    assert load_checkpoint(folder).digest != load_checkpoint(other).digest


def test_saving_replaces_the_old_one_and_leaves_nothing_beside_it(folder):
    policy = stirred_policy(tiny(), seed=9)
    save_checkpoint(folder, policy, some_statistics(), stage="ppo", provenance={})
    assert load_checkpoint(folder).stage == "ppo"
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_failed_save_leaves_the_old_one(folder):
    with pytest.raises(TypeError):
        save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="x", provenance={"bad": object()})
    assert load_checkpoint(folder).stage == "bc"
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "dataset_statistics.json"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_harmed_files_are_named(folder, name, harm):
    path = folder / name
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    expected = {"missing": "is missing", "truncated": "bytes instead of", "altered": "was altered"}[harm]
    with pytest.raises(InputError, match=f"{name} .*{expected}|{name} {expected}") as refusal:
        load_checkpoint(folder)
    assert "\n" not in str(refusal.value)


def test_all_harmed_files_are_listed_at_once(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"model.safetensors has 0 bytes.*config.json is missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "holds no manifest.json"),
        ("{", "is not JSON"),
        ("[]", "was not written by this project"),
        ('{"format": "other"}', "was not written by this project"),
        ('{"format": "avavla_ray.policy", "version": 99}', "has version 99"),
        ('{"format": "avavla_ray.policy", "version": 1}', "lacks stage, provenance, extra, files"),
    ],
)
def test_harmed_manifests(folder, content, complaint):
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=complaint):
        load_checkpoint(folder)


def test_manifest_that_forgets_a_file(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"lacks files\['model.safetensors'\]"):
        load_checkpoint(folder)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "nowhere")


def test_weights_of_another_shape_are_listed(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["backbone.word_positions"]
    tensors["head.layers.0.bias"] = torch.zeros(3)
    tensors["stranger"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)
    with pytest.raises(InputError) as refusal:
        load_checkpoint(folder)
    for part in (
        "word_positions is missing",
        "stranger is unknown",
        "head.layers.0.bias has shape (3,) instead of (32,)",
    ):
        assert part in str(refusal.value)


def test_configuration_of_another_policy(folder):
    config = json.loads((folder / "config.json").read_text())
    config["latent"]["width"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)
    with pytest.raises(InputError, match=r"has shape .*and \d+ more"):
        load_checkpoint(folder)


def test_statistics_of_another_robot(folder):
    some_statistics(action_dim=5).save(folder)
    seal(folder)
    with pytest.raises(InputError, match=r"action statistics of shape \[\(5,\)\], the policy needs \(7,\)"):
        load_checkpoint(folder)


def test_a_pickle_in_disguise_is_not_run(folder):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('the checkpoint ran code')",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    seal(folder)
    with pytest.raises(InputError, match="does not hold weights"):
        load_checkpoint(folder)
