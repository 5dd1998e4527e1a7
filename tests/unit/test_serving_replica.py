"""A policy behind the server: what it answers, and how its failures are told. Without a cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

import numpy as np
import pytest
import torch
from ray.exceptions import ActorDiedError, RayTaskError
from torch._dynamo.utils import counters

from actors.serving.faults import Fault
from actors.serving.messages import Ask, BeliefArrays
from actors.serving.replica import PolicyReplica
from actors.serving.start import remote_decide
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.openvla_folder import write_tokenizer
from tests.support.policies import some_statistics, stirred_policy, tiny
from tests.support.serving import policy_plan, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("serving") / "policy")


def asks_of(replica, count):
    facts = replica.facts()
    size = facts.config.backbone.image_size
    for seed in range(count):
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (facts.config.backbone.num_cameras, size, size, 3), dtype=np.uint8)
        text = AvaVlaPolicy(facts.config).preparation.text("pick up the block").numpy()
        yield Ask(images, text, random.normal(size=8).astype(np.float32), None, next(iter(facts.statistics)))


def test_a_robot_whose_belief_makes_nan_is_refused_alone(checkpoint):
    replica = PolicyReplica(policy_plan(checkpoint))
    facts = replica.facts()
    asks = list(asks_of(replica, 4))
    alone = [replica.decide([ask])[0] for ask in asks]
    huge = BeliefArrays(*(np.full(shape, 3e38, np.float32) for shape in (facts.hidden, facts.history)))
    asks[2] = dataclasses.replace(asks[2], belief=huge)
    together = replica.decide(asks)
    assert isinstance(together[2], InputError)
    for row in (0, 1, 3):
        np.testing.assert_allclose(together[row].actions, alone[row].actions, atol=1e-5)


def broken_checkpoint(folder):
    policy = stirred_policy(tiny())
    with torch.no_grad():
        policy.encoder.start.bias.fill_(torch.nan)
    save_checkpoint(folder, policy, some_statistics(7, 8), stage="bc", provenance={})
    return folder


def test_a_policy_whose_first_decision_fails_is_told_not_raised(tmp_path):
    problem = PolicyReplica(policy_plan(broken_checkpoint(tmp_path / "policy"))).problem()
    assert "no numbers" in problem
    assert "\n" not in problem


def test_a_policy_that_raises_in_its_first_decision_is_told_in_one_line(checkpoint):
    plan = policy_plan(checkpoint, unheard_of=3)
    problem = PolicyReplica(plan).problem()
    assert "can't decide here: TypeError" in problem
    assert "unheard_of" in problem
    assert "\n" not in problem


def test_a_policy_without_a_tokenizer_is_told_not_raised(tmp_path):
    place = write_checkpoint(tmp_path / "policy", preset("openvla_oft_tiny"))
    assert "has no tokenizer" in PolicyReplica(policy_plan(place)).problem()


def test_a_checkpoint_of_another_robots_units_only_is_told(tmp_path):
    policy = stirred_policy(tiny())
    statistics = {name: dataclasses.replace(some_statistics(9, 8), name=name) for name in ("a", "b")}
    save_checkpoint(tmp_path / "policy", policy, statistics, stage="bc", provenance={})
    assert "no data set has 7 actions" in PolicyReplica(policy_plan(tmp_path / "policy")).problem()


def test_precisions_that_files_may_have_are_named(checkpoint):
    replica = PolicyReplica(policy_plan(checkpoint))
    replica._policy.backbone.half()
    assert replica.facts().precision == "float16"


def test_a_compiled_policy_compiles_before_the_first_robot_asks(checkpoint, monkeypatch):
    # Traced but not translated, which takes a minute; tests of the latent loop have the whole compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain = PolicyReplica(policy_plan(checkpoint, depth=2))
    fast = PolicyReplica(dataclasses.replace(policy_plan(checkpoint, depth=2), compiled=True, max_batch=3))
    assert fast.problem() is None
    assert (plain.facts().compiled, fast.facts().compiled) == (False, True)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    asks = list(asks_of(plain, 3))
    for count in (1, 2, 3):
        for one, other in zip(plain.decide(asks[:count]), fast.decide(asks[:count]), strict=True):
            np.testing.assert_allclose(one.actions, other.actions, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == compiled


@pytest.mark.parametrize("kernel", ["explicit", "flex"])
def test_the_attention_kernel_of_an_openvla(tmp_path, kernel):
    write_tokenizer(tmp_path / "tokenizer.json", 300)
    config = dataclasses.replace(preset("openvla_oft_tiny"), tokenizer=(tmp_path / "tokenizer.json").read_text())
    plan = policy_plan(write_checkpoint(tmp_path / "policy", config))
    replica = PolicyReplica(dataclasses.replace(plan, attention=kernel))
    assert replica.problem() is None
    assert replica.facts().attention == kernel
    assert PolicyReplica(plan).facts().attention == "sdpa"


class Handle:
    """Of Serve, to a policy that fails."""

    def __init__(self, error):
        self.error, self.decide = error, self

    async def remote(self, asks):
        raise self.error


def told(error):
    """What a batch gets for it."""
    with pytest.raises((Fault, InputError)) as caught:
        asyncio.run(remote_decide(Handle(error))([]))
    return caught.value


def task_error(cause):
    trace = f"\x1b[36mray::policy\x1b[39m (pid=4711, ip=10.0.0.7)\n{type(cause).__name__}: {cause}"
    return RayTaskError("decide", trace, cause).as_instanceof_cause()


def test_a_refusal_by_the_policy_is_told_in_its_own_words():
    error = told(task_error(InputError("attention 'flash' needs bfloat16")))
    assert type(error) is InputError
    assert str(error) == "attention 'flash' needs bfloat16"


def test_a_failure_of_the_policy_is_logged_and_told_without_internals(caplog):
    error = told(task_error(RuntimeError("secret shape")))
    assert (error.status, str(error)) == (500, "the policy failed to decide: the server's log says why")
    assert "secret shape" in caplog.text


def test_a_dead_policy_is_told_as_such():
    error = told(ActorDiedError())
    assert error.status == 503
    assert "send the request once more" in str(error)
