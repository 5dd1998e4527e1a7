"""Checkpoints come back as they were, or not at all and with the reason."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import preset
from tests.support.checkpoints import seal
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
    assert torch.equal(checkpoint.policy.decide(inputs, belief).chunk, policy.decide(inputs, belief).chunk)


def test_digest_names_the_content_and_nothing_else(folder, tmp_path):
    same = tmp_path / "same"
    save_checkpoint(same, stirred_policy(tiny()), some_statistics(), stage="ppo", provenance={"seed": 8})
    other = tmp_path / "other"
    save_checkpoint(other, stirred_policy(tiny(), seed=1), some_statistics(), stage="bc", provenance={"seed": 7})
    assert load_checkpoint(folder).digest == load_checkpoint(same).digest
    assert load_checkpoint(folder).digest != load_checkpoint(other).digest


def test_all_files_have_the_same_rights(folder):
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1


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
    with pytest.raises(InputError, match=r"config.json is missing; model.safetensors has 0 bytes"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "holds no manifest.json"),
        ("{", "is not JSON"),
        ("[]", "was not written by this project"),
        ('{"format": "other"}', "was not written by this project"),
        ('{"format": "avavla_ray.policy", "version": 99}', "has version 99.*update"),
        ('{"format": "avavla_ray.policy", "version": 1}', "has version 1, .*train the policy or import .* again"),
        ('{"format": "avavla_ray.openvla", "version": 1}', "has version 1, .*train the policy or import .* again"),
        ('{"format": "avavla_ray.policy", "version": 2}', "lacks stage, provenance, extra, files"),
    ],
)
def test_harmed_manifests(folder, content, complaint):
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=complaint):
        load_checkpoint(folder)


def edit_manifest(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_manifest_that_forgets_a_file(folder):
    edit_manifest(folder, lambda manifest: manifest["files"].pop("model.safetensors"))
    with pytest.raises(InputError, match=r"lacks files\['model.safetensors'\]"):
        load_checkpoint(folder)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret"])
def test_manifest_that_leads_out_of_the_folder(folder, place):
    (folder.parent / "secret").write_text("x")
    edit_manifest(folder, lambda manifest: manifest["files"].update({place: {"size": 1, "sha256": ""}}))
    with pytest.raises(InputError, match="lacks files"):
        load_checkpoint(folder)


def test_several_shards_hold_what_one_does(folder, tmp_path):
    policy = stirred_policy(tiny())
    sharded = tmp_path / "sharded"
    save_checkpoint(sharded, policy, some_statistics(), stage="bc", provenance={}, shard_bytes=100_000)
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert max(path.stat().st_size for path in shards) < 130_000
    assert not (sharded / "model.safetensors").exists()
    assert not (folder / "model.safetensors.index.json").exists()
    one, many = (load_checkpoint(place).policy.state_dict() for place in (folder, sharded))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda places: places.update(dict.fromkeys(places, "../model.safetensors")), "are not in the manifest"),
        (lambda places: places.popitem(), "does not match its model.safetensors.index.json"),
        (lambda places: places.update({"stranger": next(iter(places.values()))}), r"does not match .*\(stranger\)"),
    ],
)
def test_index_of_other_shards(tmp_path, change, complaint):
    folder = tmp_path / "sharded"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="bc", provenance={}, shard_bytes=100_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    change(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    seal(folder)
    with pytest.raises(InputError, match=complaint):
        load_checkpoint(folder)


def test_without_verification_sizes_still_count(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    load_checkpoint(folder, verify=False)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="bytes instead of"):
        load_checkpoint(folder, verify=False)


def test_statistics_of_several_data_sets(tmp_path):
    first = some_statistics()
    known = {"first": dataclasses.replace(first, name="first"), "arm": dataclasses.replace(first, name="arm")}
    known["other"] = dataclasses.replace(some_statistics(action_dim=5), name="other")
    save_checkpoint(tmp_path / "many", stirred_policy(tiny()), known, stage="bc", provenance={})
    checkpoint = load_checkpoint(tmp_path / "many")
    assert checkpoint.policy.statistics.keys() == checkpoint.all_statistics.keys() == known.keys()
    np.testing.assert_array_equal(checkpoint.statistics_of("arm").proprio.mean, first.proprio.mean)
    with pytest.raises(InputError, match="3 data sets: name one of arm, first, other"):
        _ = checkpoint.statistics
    with pytest.raises(InputError, match="did you mean 'first'"):
        checkpoint.statistics_of("frist")
    with pytest.raises(InputError, match=r"'other': expected action statistics of shape \(7,\), got \(5,\)"):
        checkpoint.statistics_of("other")


def test_statistics_that_say_nothing(folder):
    for content, complaint in (("{}", "does not hold"), ('{"x": {"action": {"q01": [0]}}}', "x has no usable")):
        (folder / "dataset_statistics.json").write_text(content)
        seal(folder)
        with pytest.raises(InputError, match=complaint):
            load_checkpoint(folder)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "nowhere")


def test_weights_of_another_shape_are_listed(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["backbone.word_positions"]
    tensors["backbone.head.layers.0.bias"] = torch.zeros(3)
    tensors["stranger"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)
    with pytest.raises(InputError) as refusal:
        load_checkpoint(folder)
    for part in (
        "word_positions is missing",
        "stranger is unknown",
        "backbone.head.layers.0.bias has shape (3,) instead of (32,)",
    ):
        assert part in str(refusal.value)


def test_configuration_of_another_policy(folder):
    config = json.loads((folder / "config.json").read_text())
    config["latent"]["width"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)
    with pytest.raises(InputError, match=r"has shape .*and \d+ more"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("widths", "complaint"),
    [
        ({"action_dim": 5}, r"'noise': expected action statistics of shape \(7,\), got \(5,\)"),
        ({"proprio_dim": 7}, r"'noise': expected proprio statistics of shape \(8,\), got \(7,\)"),
    ],
)
def test_statistics_of_another_robot_load_but_are_not_used(folder, widths, complaint):
    some_statistics(**widths).save(folder)
    seal(folder)
    checkpoint = load_checkpoint(folder)  # to be cloned, say
    with pytest.raises(InputError, match=complaint):
        _ = checkpoint.statistics
    with pytest.raises(InputError, match=complaint):
        picture = np.zeros((32, 32, 3), np.uint8)
        checkpoint.policy.act([picture, picture], "pick up the bowl", np.zeros(8))


def test_a_backbone_of_half_precision_is_refused_unless_a_precision_is_given(tmp_path):
    policy = stirred_policy(preset("openvla_oft_tiny"))
    policy.backbone.half()
    save_checkpoint(tmp_path / "half", policy, some_statistics(), stage="bc", provenance={})
    with pytest.raises(InputError, match=r"holds torch.float16, neither of float32, bfloat16"):
        load_checkpoint(tmp_path / "half")
    loaded = load_checkpoint(tmp_path / "half", dtype=torch.float32).policy
    weight = loaded.backbone.model.projector.fc1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, policy.backbone.model.projector.fc1.weight.float())


def test_a_pickle_in_disguise_is_not_run(folder):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('the checkpoint ran code')",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    seal(folder)
    with pytest.raises(InputError, match="does not hold weights"):
        load_checkpoint(folder)


def test_weights_that_are_no_numbers_with_a_point(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["value_head.layers.0.bias"] = torch.zeros_like(tensors["value_head.layers.0.bias"], dtype=torch.int64)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)
    with pytest.raises(InputError, match=r"value_head.layers.0.bias holds torch.int64"):
        load_checkpoint(folder)
