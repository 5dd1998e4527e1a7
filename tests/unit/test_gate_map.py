"""Maps of the gate's logits: they rise, they are where scores are, and nothing changes without them."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.policy.gate_map import GateMap, temperature_map
from avavla_ray.policy.latent_loop import LatentLoop
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.reasoning import ExitGate, LogitMap, exit_log_prob
from avavla_ray.policy.weights import flatten, load_flat
from avavla_ray.training.gate_training import with_gate_maps
from tests.support.policies import random_belief, random_inputs, some_statistics, stirred_policy, tiny

K, B = 5, 12
ISOTONIC = GateMap("isotonic", (-1.0, -0.2, 0.1, 0.9), (-3.0, -0.5, 0.0, 2.5))
BY_STEP = tuple(temperature_map(value) for value in (0.3, 0.8, 1.5, 4.0))
MAPS = {"temperature": (temperature_map(0.5),), "isotonic": (ISOTONIC,), "by step": BY_STEP}


@pytest.fixture(scope="module")
def policy() -> AvaVlaPolicy:
    """Its gate stops some samples and not others."""
    made = stirred_policy(tiny(latent__max_steps=K), seed=1).eval()
    with torch.no_grad():
        for parameter in made.loop.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def asked(policy):
    return random_inputs(policy.config, B), random_belief(policy, B)


def rising(values: list[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.unique(np.float32(values)))


numbers = st.floats(-30, 30, width=32)


@given(
    st.lists(numbers, min_size=1, max_size=12), st.lists(numbers, min_size=12, max_size=40), st.floats(0.05, 20),
    st.lists(numbers, min_size=2, max_size=60),
)  # fmt: skip
def test_a_map_rises_to_the_last_bit_and_goes_through_its_knots(knots, values, slope, logits):
    x, y = rising(knots), rising(values)
    count = min(len(x), len(y))
    x, y = x[:count], y[:count]
    apply = LogitMap(GateMap("isotonic", x, y, slope))
    at = np.float32(x)
    near = [np.nextafter(at, np.float32(side), dtype=np.float32) for side in (-np.inf, np.inf)]
    points = np.unique(np.concatenate([np.float32(logits), at, *near]))
    mapped = apply(torch.from_numpy(points)).numpy()
    assert (np.diff(mapped) >= 0).all()
    np.testing.assert_allclose(apply(torch.from_numpy(at)).numpy(), np.float32(y), rtol=1e-5, atol=1e-5)
    outside = points[points < at[0]]
    expected = y[0] + slope * (outside.astype(float) - x[0])
    np.testing.assert_allclose(apply(torch.from_numpy(outside)).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_a_temperature_divides_and_lets_gradients_through():
    logits = torch.tensor([-7.0, -0.5, 0.0, 2.0, 11.0], requires_grad=True)
    mapped = LogitMap(temperature_map(2.5))(logits)
    torch.testing.assert_close(mapped, logits / 2.5)
    mapped.sum().backward()
    torch.testing.assert_close(logits.grad, torch.full((5,), 0.4))
    slopes = torch.tensor([-2.0, -0.6, 0.5, 4.0], requires_grad=True)
    LogitMap(ISOTONIC)(slopes).sum().backward()
    torch.testing.assert_close(slopes.grad, torch.tensor([1.0, 2.5 / 0.8, 2.5 / 0.8, 1.0]))


def test_without_maps_nothing_is_written_or_changed(policy, asked, tmp_path):
    assert "gate_maps" not in to_json(policy.config)["latent"]
    assert not list(policy.loop.exit_gate.buffers())
    gate, z = policy.loop.exit_gate, torch.randn(7, policy.config.latent.width)
    x = gate.enter(z)
    assert torch.equal(gate(z), gate.leave(x + gate.residual(x)).squeeze(-1))
    same = with_gate_maps(with_gate_maps(policy, (ISOTONIC,)), ())
    assert same.config == policy.config
    for name, one in (("a", policy), ("b", same)):
        save_checkpoint(tmp_path / name, one, some_statistics(), stage="ppo", provenance={})
    assert load_checkpoint(tmp_path / "a").digest == load_checkpoint(tmp_path / "b").digest


@pytest.mark.parametrize("kind", list(MAPS))
def test_a_checkpoint_keeps_maps_and_is_another_one(policy, asked, tmp_path, kind):
    mapped = with_gate_maps(policy, MAPS[kind])
    assert mapped.state_dict().keys() == policy.state_dict().keys()
    for name, one in (("plain", policy), ("mapped", mapped)):
        save_checkpoint(tmp_path / name, one, some_statistics(), stage="calibrated", provenance={})
    loaded = load_checkpoint(tmp_path / "mapped")
    assert loaded.policy.config == mapped.config
    assert loaded.digest != load_checkpoint(tmp_path / "plain").digest
    one, other = (each.decide(*asked, depth=K).trace for each in (mapped, loaded.policy))
    assert torch.equal(one.exit_score, other.exit_score)
    plain = policy.decide(*asked, depth=K).trace
    assert torch.equal(plain.z, one.z)
    assert not torch.allclose(plain.exit_score, one.exit_score, atol=1e-3)
    assert from_json(json.loads(json.dumps(to_json(mapped.config)))) == mapped.config
    fresh = AvaVlaPolicy(mapped.config)
    load_flat(fresh, flatten(mapped))  # as runners get their weights
    assert torch.equal(fresh.decide(*asked, depth=K).trace.exit_score, one.exit_score)


@pytest.mark.parametrize("kind", list(MAPS))
def test_scores_are_mapped_wherever_they_are_computed_and_thresholds_mean_the_same(policy, asked, kind):
    mapped = with_gate_maps(policy, MAPS[kind])
    full = mapped.decide(*asked, depth=K)
    raw = policy.gate_logit(full.trace.z[:, 1:])
    maps = [LogitMap(each) for each in MAPS[kind]]
    maps = maps * K if len(maps) == 1 else [*maps, maps[-1]]
    expected = torch.stack([each(raw[:, k]) for k, each in enumerate(maps)], dim=1)
    torch.testing.assert_close(mapped.gate_logit(full.trace.z[:, 1:]), expected)
    torch.testing.assert_close(full.trace.exit_score, ExitGate.score(expected), atol=1e-5, rtol=1e-5)
    threshold = float(full.trace.exit_score[:, 0].median())
    steps = mapped.decide(*asked, exit_threshold=threshold).trace.steps
    exits = full.trace.exit_score[:, :-1] > threshold
    slow = [next((k + 1 for k in range(K - 1) if row[k]), K) for row in exits.tolist()]
    assert steps.tolist() == slow
    assert len(set(slow)) > 1
    assert mapped.decide(*asked, exit_threshold=1.0).trace.steps.tolist() == [K] * B
    assert mapped.decide(*asked, exit_threshold=0.0).trace.steps.tolist() == [1] * B


def test_a_map_for_all_steps_renames_thresholds_and_nothing_else(policy, asked):
    mapped = with_gate_maps(policy, (ISOTONIC,))
    scores = policy.decide(*asked, depth=K).trace.exit_score[:, :-1].flatten().sort().values
    for index in (5, 20, 40):
        own = float((scores[index] + scores[index + 1]) / 2)
        logit = torch.tensor(own).logit()
        renamed = float(torch.sigmoid(LogitMap(ISOTONIC)(logit)))
        steps = policy.decide(*asked, exit_threshold=own).trace.steps
        assert torch.equal(mapped.decide(*asked, exit_threshold=renamed).trace.steps, steps)


@pytest.mark.parametrize("kind", list(MAPS))
def test_drawn_exits_are_replayed_with_their_likelihood_and_the_gate_learns_from_them(policy, asked, kind):
    mapped = copy.deepcopy(with_gate_maps(policy, MAPS[kind]))
    noise = torch.Generator().manual_seed(3)
    trace = (decision := mapped.decide(*asked, draws=mapped.draws(B, noise, exits=True))).trace
    assert len(set(trace.steps.tolist())) > 1
    _, _, _, logit = mapped.loop.retrace(decision.context, trace.z[:, 0], trace.u, trace.steps)
    now = exit_log_prob(logit, trace.steps)
    torch.testing.assert_close(now, trace.exit_log_prob, atol=1e-5, rtol=1e-4)
    now.sum().backward()
    gradients = [parameter.grad for parameter in mapped.loop.exit_gate.parameters()]
    assert all(torch.isfinite(each).all() and each.abs().sum() > 0 for each in gradients)


@pytest.mark.parametrize("kind", ["isotonic", "by step"])
def test_a_compiled_loop_has_them(policy, kind):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    plain: LatentLoop = with_gate_maps(policy, MAPS[kind]).loop
    compiled = copy.deepcopy(plain)
    compiled.compile(3, backend=counter)
    with torch.no_grad():
        context = plain.context(torch.randn(4, plain.config.encoding_width))
        z0 = torch.tanh(torch.randn(4, plain.config.width))
        one, other = (each.think(context, z0, steps=3, exit_threshold=None) for each in (plain, compiled))
    assert counter.frame_count == 1
    torch.testing.assert_close(one.exit_score, other.exit_score, atol=1e-6, rtol=0)
    torch._dynamo.reset()


def test_maps_by_step_want_to_know_the_step(policy):
    gate = with_gate_maps(policy, BY_STEP).loop.exit_gate
    z = torch.randn(3, K, policy.config.latent.width)
    together = gate(z)
    for step in range(1, K + 1):
        torch.testing.assert_close(gate(z[:, step - 1], step), together[:, step - 1])
    for part in (z[:, 0], z[:, 1:], z[0, 0]):
        with pytest.raises(InputError, match="calibrated for each latent step"):
            gate(part)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ((ISOTONIC, ISOTONIC), "holds 2 maps: give none, one, or 4"),
        ((dataclasses.replace(ISOTONIC, kind="platt"),), "unknown kind of gate map 'platt'"),
        ((dataclasses.replace(ISOTONIC, calibrated=(0.0,)),), "as many calibrated logits as logits"),
        ((GateMap("isotonic", (), ()),), "at least one"),
        ((dataclasses.replace(ISOTONIC, logits=(-1.0, 0.2, 0.1, 0.9)),), "do not rise"),
        ((dataclasses.replace(ISOTONIC, calibrated=(-3.0, 0.0, 1e-60, 2.5)),), "do not rise"),
        ((dataclasses.replace(ISOTONIC, calibrated=(-3.0, 0.0, 1.0, float("inf"))),), "do not rise"),
        ((temperature_map(-1.0),), "not positive"),
    ],
)
def test_maps_that_no_gate_can_apply_are_refused(maps, message):
    with pytest.raises(InputError, match=message):
        AvaVlaPolicy(tiny(latent__max_steps=K, latent__gate_maps=maps))
