"""Behaviour cloning on Ray Train, Ray Data and DeepSpeed: it learns, and refuses what cannot be learned from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import LoraConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.tracking import find_runs, track
from avavla_ray.training.behaviour_cloning import CHECKPOINT, check_fit, train
from avavla_ray.training.objective import CloningObjective
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from avavla_ray.training.settings import CloningSettings, parse_stages, recipe
from avavla_ray.training.validation import held_out_errors
from tests.support.demonstration_data import make_dataset
from tests.support.openvla_folder import write_tokenizer
from tests.support.policies import some_statistics, stirred_policy

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("cloning") / "demos", episodes=8)


@pytest.mark.timeout(180)
@pytest.mark.long
def test_adapters_of_an_openvla_checkpoint_are_cloned_and_its_weights_stay(ray_cluster, demos, tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", preset("openvla_oft_tiny").backbone.language.empty)
    text = (tmp_path / "tokenizer.json").read_text()
    start = stirred_policy(replace(preset("openvla_oft_tiny"), tokenizer=text))
    start.set_precision("bfloat16")  # as published weights are
    start.set_precision("float32")
    save_checkpoint(tmp_path / "start", start, some_statistics(), stage="import", provenance={})
    policy = replace(start.config, gripper="signed", lora=LoraConfig(rank=4))
    settings = recipe("tiny", steps=30, workers=1, streams=4, validations=1)
    stages = parse_stages("cloning=0.8@3e-3", "latent_warm_up=0.2")
    settings = replace(settings, precision="bfloat16", recompute=True, stages=stages)
    result = train(settings, policy, demos, tmp_path / "bc", initial=tmp_path / "start", provenance={"seed": 0})
    trained = load_checkpoint(result.checkpoint).policy
    assert trained.config == policy
    before, after = start.state_dict(), trained.state_dict()
    kept = [name for name in after if name.endswith("base_layer.weight")]
    assert len(kept) == 2 * 7 + 3
    for name in kept:
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(before[name.replace(".base_layer", "")], after[name].float())
    for name in ("backbone.model.vision.dino.embeddings.cls_token", "backbone.model.language.lm_head.weight"):
        assert torch.equal(before[name], after[name].float())
    for name in ("backbone.model.head.fc2.weight", "action_tokens.initialise.3.weight", "attention.head.weight"):
        assert not torch.equal(before[name], after[name])
    assert all(after[name].abs().max() > 0 for name in after if ".lora_B." in name)
    reader, encode = EpisodeReader(read_metadata(demos)), lambda text: start.preparation.text(text).numpy()
    untrained, cloned = (
        held_out_errors(CloningObjective(each.eval()), reader, encode, range(2), latent_steps=0).mean()
        for each in (start, trained)
    )
    assert cloned < 0.8 * untrained


@pytest.mark.timeout(180)
def test_two_workers_learn_in_two_stages_and_leave_a_policy(ray_cluster, demos, tmp_path):
    settings = recipe("tiny", steps=200, workers=2, streams=8, validations=4, zero_stage=2)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with track("test", kind="bc", uri=uri) as run:
        result = train(
            settings, preset("tiny"), demos, tmp_path / "bc", provenance={"seed": 0}, tracking=(uri, run.run_id)
        )
    checkpoint = load_checkpoint(result.checkpoint)
    assert result.checkpoint == tmp_path / "bc" / CHECKPOINT
    assert checkpoint.stage == "bc"
    assert checkpoint.extra["training"]["step"] == 200
    assert checkpoint.extra["training"]["stage"] == 1
    assert checkpoint.provenance["demonstrations"][0]["episodes"] == 8
    assert checkpoint.provenance["cloning"]["workers"] == 2
    assert checkpoint.statistics.name == "libero_object"
    (found,) = find_runs(uri=uri, kind="bc")
    assert {"train/l1", "train/decisions_per_s", "val/l1", "val/l1_gripper", "val/l1_x"} <= set(found.data.metrics)
    reader = EpisodeReader(read_metadata(demos))
    tokenizer = make_tokenizer(checkpoint.policy.config)

    def error(policy: AvaVlaPolicy) -> float:
        """Of the first action dimension, which follows from what is seen."""
        encode = lambda text: tokenizer.encode(text).numpy()  # noqa: E731
        return held_out_errors(CloningObjective(policy.eval()), reader, encode, range(8), latent_steps=5)[0]

    torch.manual_seed(0)
    assert error(checkpoint.policy) < 0.6 * error(AvaVlaPolicy(preset("tiny")))
    newest, best = RunCheckpoints(tmp_path / "bc" / CHECKPOINTS).newest(), load_checkpoint(result.best)
    assert newest.step == 200
    assert best.extra["validation"]["val_l1"] == result.metrics["val_l1"] or best.extra["training"]["step"] < 200
    (held_out,) = checkpoint.extra["held_out"].values()
    assert set(held_out) < {episode.episode for episode in read_metadata(demos).episodes}
    assert result.metrics["data_wait_share"] < 0.5


def test_demonstrations_must_fit_the_policy(demos):
    metadata = read_metadata(demos)
    check_fit(metadata, preset("tiny"))
    with pytest.raises(InputError, match="actions of 7 numbers, the policy takes 6"):
        check_fit(metadata, replace(preset("tiny"), action_dim=6))
    long = replace(metadata.episodes[0], instruction="word " * 40)
    with pytest.raises(InputError, match="40 words"):
        check_fit(replace(metadata, episodes=(long,)), preset("tiny"))


def test_wrong_input_ends_before_anything_starts(demos, tmp_path):
    settings = CloningSettings(steps=5, workers=1)
    with pytest.raises(InputError, match="no demonstrations at"):
        train(settings, preset("tiny"), tmp_path / "nowhere", tmp_path / "bc")
    with pytest.raises(InputError, match="no checkpoint at"):
        train(settings, preset("tiny"), demos, tmp_path / "bc", initial=tmp_path / "nothing")
    with pytest.raises(InputError, match="recompute: preset tiny"):
        train(replace(settings, recompute=True), preset("tiny"), demos, tmp_path / "bc")
    assert not (tmp_path / "bc").exists()
    assert json.loads((demos / "dataset.json").read_text())["episodes"] == 8
