"""A robot's call: `AvaVlaPolicy.act`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.robot import Request, act_batch, decide_prepared, prepare
from avavla_ray.policy.types import Belief, PolicyInputs
from tests.support.openvla_folder import write_tokenizer
from tests.support.policies import some_statistics, stirred_policy, tiny

INSTRUCTION = "pick up the bowl"


def with_tokenizer(name: str, folder: Path) -> PolicyConfig:
    """A tiny OpenVLA preset that can read."""
    config = preset(name)
    write_tokenizer(folder / "tokenizer.json", config.backbone.language.empty)
    return dataclasses.replace(config, tokenizer=(folder / "tokenizer.json").read_text())


@pytest.fixture(params=["tiny", "openvla_oft_tiny", "openvla_tiny"])
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> AvaVlaPolicy:
    config = tiny() if request.param == "tiny" else with_tokenizer(request.param, tmp_path)
    made = stirred_policy(config).eval()
    made.statistics = {"noise": some_statistics()}
    return made


def observation(policy: AvaVlaPolicy, seed: int = 0, size: int = 64) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures and proprioception, in the data's units."""
    random = np.random.default_rng(seed)
    count = policy.config.backbone.num_cameras
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)], random.normal(size=8)


def test_act_is_decide_in_a_robots_terms(policy: AvaVlaPolicy) -> None:
    images, proprio = observation(policy)
    statistics = policy.statistics["noise"]
    first = policy.act(images, INSTRUCTION, proprio, depth=3)
    config, preparation = policy.config, policy.preparation
    inputs = [
        torch.from_numpy(preparation.images(images))[None], preparation.text(INSTRUCTION)[None],
        torch.from_numpy(preparation.proprio(proprio, statistics))[None],
    ]  # fmt: skip
    expected = policy.decide(PolicyInputs(*inputs), policy.initial_belief(1), depth=3)
    assert first.actions.shape == (config.chunk, config.action_dim)
    np.testing.assert_array_equal(first.actions, statistics.action.unnormalise(expected.chunk[0].numpy()))
    assert first.latent_steps == 3
    np.testing.assert_array_equal(first.exit_scores, expected.trace.exit_score[0, :3].numpy())
    assert first.milliseconds > 0
    for mine, theirs in zip(first.belief, expected.belief, strict=True):
        assert torch.equal(mine, theirs)
    second = policy.act(images, INSTRUCTION, proprio, first.belief, depth=3)
    assert not np.array_equal(second.belief.history, first.belief.history)


def test_robots_in_one_batch_get_what_they_would_get_alone(policy: AvaVlaPolicy) -> None:
    requests = []
    for seed, words in enumerate([INSTRUCTION, "put the bowl in it", "pick up the bowl and put it in the bowl"]):
        images, proprio = observation(policy, seed, size=48 + 16 * seed)
        belief = None if seed == 0 else policy.act(images, words, proprio).belief
        requests.append(Request(images, words, proprio, belief))
    together = act_batch(policy, requests, exit_threshold=0.5)
    for request, decision in zip(requests, together, strict=True):
        alone = act_batch(policy, [request], exit_threshold=0.5)[0]
        assert alone.latent_steps == decision.latent_steps
        np.testing.assert_allclose(decision.actions, alone.actions, atol=2e-5)
        np.testing.assert_allclose(decision.exit_scores, alone.exit_scores, atol=1e-5)


def test_the_data_set_whose_units_are_meant_must_be_clear(policy: AvaVlaPolicy) -> None:
    images, proprio = observation(policy)
    other = dataclasses.replace(some_statistics(), name="other")
    policy.statistics["other"] = dataclasses.replace(
        other, action=dataclasses.replace(other.action, q01=2 * other.action.q01, q99=2 * other.action.q99)
    )
    with pytest.raises(InputError, match=r"unnorm_key: the checkpoint knows 2 data sets, name one of .*noise.*other"):
        policy.act(images, INSTRUCTION, proprio)
    with pytest.raises(InputError, match="unknown unnorm_key 'nois': did you mean 'noise'"):
        policy.act(images, INSTRUCTION, proprio, unnorm_key="nois")
    a, b = (policy.act(images, INSTRUCTION, proprio, unnorm_key=key).actions for key in ("noise", "other"))
    np.testing.assert_allclose(2 * a[:, :6], b[:, :6], rtol=1e-5)
    with pytest.raises(InputError, match="unnorm_key: expected the name of a data set, got int"):
        policy.act(images, INSTRUCTION, proprio, unnorm_key=3)
    policy.statistics = {}
    with pytest.raises(InputError, match="no statistics: load it with AvaVlaPolicy.from_checkpoint"):
        policy.act(images, INSTRUCTION, proprio)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda x: None, "images: expected a list of arrays, one a camera, got NoneType"),
        (lambda x: x[:-1], r"images: expected \d, one a camera, got \d"),
        (lambda x: [x[0].astype(np.float32) / 255, *x[1:]], r"images\[0\]: expected uint8 in 0..255, got float32"),
        (lambda x: [x[0].transpose(2, 0, 1), *x[1:]], r"images\[0\]: expected channels last, .* got channels first"),
        (lambda x: [x[0][..., :1], *x[1:]], r"images\[0\]: expected RGB of shape \(H, W, 3\), got \(64, 64, 1\)"),
        (lambda x: [x[0][None], *x[1:]], r"images\[0\]: expected RGB of shape \(H, W, 3\), got \(1, 64, 64, 3\)"),
        (lambda x: [x[0][:4], *x[1:]], r"images\[0\]: expected at least 16 pixels a side, got \(4, 64\)"),
        (lambda x: ["front.png", *x[1:]], r"images\[0\]: expected an array .* got str"),
    ],
)
def test_pictures_of_another_kind_are_refused(policy: AvaVlaPolicy, change, complaint: str) -> None:
    images, proprio = observation(policy)
    with pytest.raises(InputError, match=complaint):
        policy.act(change(images), INSTRUCTION, proprio)


@pytest.mark.parametrize(
    ("instruction", "complaint"),
    [
        ("  ", "no words"),
        ("go " * 2000, "reads at most"),
        (None, "instruction: expected text, got NoneType"),
        ("pick up \ud800", "instruction: expected text, got half a character at 8"),
    ],
)
def test_instructions_that_cannot_be_read_are_refused(policy: AvaVlaPolicy, instruction, complaint: str) -> None:
    images, proprio = observation(policy)
    with pytest.raises(InputError, match=complaint):
        policy.act(images, instruction, proprio)


@pytest.mark.parametrize(
    ("proprio", "complaint"),
    [
        (None, "proprio: expected 8 numbers, got none"),
        (np.zeros((1, 8)), r"proprio: expected 8 numbers, got shape \(1, 8\)"),
        (np.zeros(7), r"proprio: expected 8 numbers, got shape \(7,\)"),
        (np.array([0, 1, 2, np.nan, 4, 5, 6, 7]), "proprio: expected finite numbers, got nan at index 3"),
        ("home", "proprio: expected numbers, got str"),
    ],
)
def test_proprioception_of_another_kind_is_refused(tmp_path: Path, proprio, complaint: str) -> None:
    for config in (tiny(), with_tokenizer("openvla_oft_tiny", tmp_path)):
        policy = AvaVlaPolicy(config).eval()
        policy.statistics = {"noise": some_statistics()}
        images, _ = observation(policy)
        with pytest.raises(InputError, match=complaint):
            policy.act(images, INSTRUCTION, proprio)


def test_statistics_of_another_robot_are_refused() -> None:
    policy = AvaVlaPolicy(tiny()).eval()
    policy.statistics = {"arm": dataclasses.replace(some_statistics(proprio_dim=6), name="arm")}
    images, proprio = observation(policy)
    with pytest.raises(InputError, match=r"unnorm_key 'arm': expected proprio statistics of shape \(8,\), got \(6,\)"):
        policy.act(images, INSTRUCTION, proprio)
    policy.statistics = {"arm": dataclasses.replace(some_statistics(action_dim=1), name="arm")}
    with pytest.raises(InputError, match=r"expected action statistics of shape \(7,\), got \(1,\)"):
        policy.act(images, INSTRUCTION, proprio)


def test_a_belief_of_another_policy_is_refused(policy: AvaVlaPolicy) -> None:
    images, proprio = observation(policy)
    good = policy.initial_belief(1)
    for wrong, complaint in (
        (Belief(good.hidden[:, :-1], good.history), r"belief.hidden: expected shape \(1, \d+, \d+\), got"),
        (Belief(good.hidden, good.history.long()), "belief.history: expected float32, got torch.int64"),
        (Belief(good.hidden, good.history + float("nan")), "belief.history: expected finite numbers"),
        (
            Belief(good.hidden, good.history + 3e38),
            r"belief.history: expected what a policy returns, got .* over 1e\+06",
        ),
        (Belief(good.hidden.numpy(), good.history), "belief.hidden: expected a tensor, got ndarray"),
        (good.hidden, "belief: expected what the previous decision returned, got Tensor"),
    ):
        with pytest.raises(InputError, match=complaint):
            policy.act(images, INSTRUCTION, proprio, wrong)


def test_actions_that_are_no_numbers_never_reach_the_robot() -> None:
    policy = AvaVlaPolicy(tiny()).eval()
    policy.statistics = {"noise": some_statistics()}
    images, proprio = observation(policy)
    with torch.no_grad():
        policy.backbone.head.layers[0].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="no numbers"):
        policy.act(images, INSTRUCTION, proprio)


def test_a_robot_whose_decision_fails_does_not_disturb_the_others() -> None:
    policy = stirred_policy(tiny()).eval()
    policy.statistics = {"noise": some_statistics()}
    images, proprio = observation(policy)
    good = prepare(policy, Request(images, INSTRUCTION, proprio))
    bad = good._replace(belief=Belief(good.belief.hidden + 3e38, good.belief.history))
    first, failed, last = decide_prepared(policy, [good, bad, good], depth=1)
    assert isinstance(failed, InputError)
    alone = policy.act(images, INSTRUCTION, proprio, depth=1)
    for decision in (first, last):
        assert not isinstance(decision, InputError)
        np.testing.assert_allclose(decision.actions, alone.actions, atol=1e-5)


def test_a_policy_without_proprioception_takes_any(tmp_path: Path) -> None:
    policy = stirred_policy(with_tokenizer("openvla_tiny", tmp_path)).eval()
    policy.statistics = {"noise": some_statistics()}
    images, _ = observation(policy)
    actions = [policy.act(images, INSTRUCTION, given).actions for given in (None, [0.0] * 8, np.ones(3))]
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[0], actions[2])


def test_depth_is_a_whole_number() -> None:
    policy = AvaVlaPolicy(tiny()).eval()
    policy.statistics = {"noise": some_statistics()}
    images, proprio = observation(policy)
    with pytest.raises(InputError, match="latent depth 1.5 is no whole number"):
        policy.act(images, INSTRUCTION, proprio, depth=1.5)


def test_a_policy_without_its_tokenizer_says_so() -> None:
    policy = AvaVlaPolicy(preset("openvla_oft_tiny"))
    policy.statistics = {"noise": some_statistics()}
    images, proprio = observation(policy)
    with pytest.raises(InputError, match="no tokenizer"):
        policy.act(images, INSTRUCTION, proprio)
