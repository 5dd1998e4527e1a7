"""The float32 island: what learns from likelihoods computes alike under autocast and over a bfloat16 backbone."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.policy.types import LatentContext
from tests.support.policies import random_belief, random_inputs, stirred_policy, tiny

B, K = 5, 5


@pytest.fixture(scope="module")
def policy():
    return stirred_policy(tiny())


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def test_autocast_is_felt_outside_the_island(policy):
    config = policy.config.latent
    z = torch.randn(B, config.width, generator=torch.Generator().manual_seed(0))
    with autocast():
        assert policy.conditioning.mlp[0](z).dtype == torch.bfloat16  # the island's entry is forward, not its layers


@pytest.mark.parametrize("options", [{"depth": K}, {"exit_threshold": 0.5}, {"depth": K, "drawn": True}])
def test_a_trace_under_autocast_equals_one_without_bit_for_bit(policy, options):
    inputs, belief = random_inputs(policy.config, B), random_belief(policy, B)
    options = dict(options)
    draws = policy.draws(B, torch.Generator().manual_seed(3)) if options.pop("drawn", False) else None
    with autocast():
        decision = policy.decide(inputs, belief, draws=draws, **options)
    trace = decision.trace
    assert all(part.dtype == torch.float32 for part in (*trace[:-1], *decision.context))
    with torch.no_grad():
        plain = policy.loop.think(
            decision.context, trace.z[:, 0], steps=K, exit_threshold=options.get("exit_threshold"),
            noise=None if draws is None else draws.latent,
        )  # fmt: skip
    for name, part in trace._asdict().items():
        assert torch.equal(part, getattr(plain, name)), name


@torch.no_grad()
def test_every_entry_of_the_island_computes_in_float32(policy):
    config, generator = policy.config, torch.Generator().manual_seed(4)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    z, u, psi = (
        noise(B, config.latent.width),
        noise(B, config.latent.update_dim),
        noise(B, config.latent.encoding_width),
    )
    pooled, D = config.backbone.num_cameras * policy.backbone.pooled_width, config.backbone.width
    parts = {
        "encoder": lambda: torch.cat(
            policy.encoder(noise_pooled, noise_text, torch.ones(B, config.proprio_dim), z), dim=1
        ),
        "context": lambda: policy.loop.context(psi).tokens,
        "unroll": lambda: policy.unroll(policy.loop.context(psi), z, 3),
        "replay": lambda: torch.stack(policy.log_prob_entropy(z, u, psi)),
        "gate": lambda: policy.gate_logit(z),
        "value": lambda: policy.value(z),
    }
    noise_pooled, noise_text = noise(B, pooled), noise(B, D)
    for name, compute in parts.items():
        expected = compute()
        with autocast():
            got = compute()
        assert got.dtype == torch.float32, name
        assert torch.equal(got, expected), name


@torch.no_grad()
def test_features_of_a_bfloat16_backbone_are_cast_up_at_the_border(policy):
    config = policy.config.latent
    generator = torch.Generator().manual_seed(5)
    psi = torch.randn(B, config.encoding_width, generator=generator).bfloat16()
    z0 = torch.tanh(torch.randn(B, config.width, generator=generator)).bfloat16()
    tokens = policy.loop.context(psi).tokens
    assert tokens.dtype == torch.float32
    options = {"steps": K, "exit_threshold": None}
    low = policy.loop.think(LatentContext(psi, tokens.bfloat16()), z0, **options)
    high = policy.loop.think(LatentContext(psi.float(), tokens.bfloat16().float()), z0.float(), **options)
    assert torch.equal(low.z, high.z)
    assert torch.equal(policy.value(z0), policy.value(z0.float()))
    assert torch.equal(policy.gate_logit(z0), policy.gate_logit(z0.float()))
