"""What is refused before a server starts, and what a policy tells that can't be loaded."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from actors.serving.replica import PolicyReplica
from actors.serving.start import bind
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting, save_exit_preset
from avavla_ray.policy.checkpoint import save_checkpoint
from jobs.serve import Settings, main
from tests.support.policies import some_statistics, stirred_policy, tiny
from tests.support.serving import policy_plan, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("serving") / "policy")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"exit_threshold": 1.5}, r"--exit-threshold 1.5 is outside \[0, 1\]"),
        ({"exit_threshold": 0.5, "depth": 2}, "--exit-threshold and --depth exclude each other"),
        ({"depth": 9}, "latent depth 9 is outside 0..5"),
        ({"keep_ratio": -0.1}, "--keep-ratio"),
        ({"unnorm_key": "nois"}, "did you mean 'noise'?"),
        ({"compile": True}, "--compile needs a fixed --depth of at least 1, got None"),
        ({"compile": True, "depth": 0}, "--compile needs a fixed --depth of at least 1, got 0"),
        ({"attention": "flex"}, "--attention flex: a tiny policy has one kernel"),
        ({"gpu_share": 0.0}, "--gpu-share 0.0"),
        ({"max_batch": 0}, "--max-batch 0: expected at least 1"),
        ({"replicas": 0}, "--replicas 0"),
        ({"threads": 0}, "--threads 0"),
        ({"max_sessions": -1}, "--max-sessions -1"),
        ({"batch_wait_ms": float("nan")}, "--batch-wait-ms nan"),
        ({"session_minutes": 0.0}, "--session-minutes 0.0: expected more than 0"),
        ({"port": 70000}, "--port 70000"),
        ({"host": "192.0.2.77"}, "--host 192.0.2.77 --port 0: Cannot assign requested address"),
        ({"host": "no host"}, "--host no host"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_starts(checkpoint, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        main(dataclasses.replace(Settings(checkpoint, port=0), **changes))


@pytest.mark.parametrize(
    ("setting", "changes", "complaint"),
    [
        (ExitSetting(0.5), {"depth": 2}, "--exit-preset says how long to think"),
        (ExitSetting(0.5, families=(("open", 0.6),)), {}, "thresholds of task families, which only jobs/evaluate.py"),
        (ExitSetting((0.5, 0.6)), {}, "asks its gate after 4 latent steps"),
        (ExitSetting(fixed_depth=9), {}, "latent depth 9 is outside 0..5"),
    ],
)
def test_exit_presets_that_do_not_fit_are_refused(tmp_path, checkpoint, setting, changes, complaint):
    save_exit_preset(tmp_path / "exit.json", setting)
    with pytest.raises(InputError, match=complaint):
        main(dataclasses.replace(Settings(checkpoint, port=0, exit_preset=tmp_path / "exit.json"), **changes))


@pytest.mark.parametrize(
    ("sizes", "changes", "complaint"),
    [
        ({"latent__enabled": False}, {"exit_threshold": 0.5}, "--exit-threshold 0.5: this policy has no early exit"),
        ({"latent__early_exit": False}, {"exit_threshold": 0.5}, "--exit-threshold 0.5: this policy has no early exit"),
        ({"latent__enabled": False}, {"depth": 2}, "latent depth 2"),
        ({"attention__enabled": False}, {"keep_ratio": 0.5}, "--keep-ratio 0.5: this policy has no AVA"),
    ],
)
def test_options_that_the_policy_would_ignore_are_refused(tmp_path, sizes, changes, complaint):
    place = write_checkpoint(tmp_path / "policy", tiny(**sizes))
    with pytest.raises(InputError, match=complaint):
        main(Settings(place, port=0, **changes))


def test_units_of_another_robot_are_refused(tmp_path):
    statistics = {"own": some_statistics(7, 8), "other": dataclasses.replace(some_statistics(9, 8), name="other")}
    save_checkpoint(tmp_path / "policy", stirred_policy(tiny()), statistics, stage="bc", provenance={})
    with pytest.raises(InputError, match="unnorm_key 'other'"):
        main(Settings(tmp_path / "policy", port=0, unnorm_key="other"))


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint at"):
        main(Settings(tmp_path / "nowhere"))


def test_a_truncated_checkpoint_is_refused(tmp_path):
    place = write_checkpoint(tmp_path / "policy")
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="is damaged"):
        main(Settings(place))


def test_altered_weights_are_told_by_the_policy(tmp_path):
    place = write_checkpoint(tmp_path / "policy")
    weights = place / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    replica = PolicyReplica(policy_plan(place))
    assert "is damaged" in replica.problem()
    with pytest.raises(RuntimeError, match="is damaged"):
        replica.decide([])


def test_a_policy_that_is_started_again_is_the_same_one(tmp_path, checkpoint):
    plan = policy_plan(checkpoint)
    assert PolicyReplica(plan).problem() is None
    other = write_checkpoint(tmp_path / "policy", names=("other",))
    problem = PolicyReplica(dataclasses.replace(plan, checkpoint=str(other))).problem()
    assert "isn't the one that the server began with" in problem


def test_precision_is_the_backbones(checkpoint):
    replica = PolicyReplica(policy_plan(checkpoint, "bfloat16"))
    assert replica.problem() is None
    assert replica.facts().precision == "bfloat16"


def test_a_taken_port_is_refused_and_a_free_one_found():
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(InputError, match=f"--port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with bind("127.0.0.1", port) as again:
        assert again.family == socket.AF_INET
