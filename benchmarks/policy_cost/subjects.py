"""What is measured: policies and latent loops, and observations for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.config import BackboneConfig, LatentConfig, PolicyConfig, preset
from avavla_ray.policy.latent_loop import LatentLoop
from avavla_ray.policy.openvla.backbone import OpenVlaBackbone
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.precision import dtype_of
from avavla_ray.policy.types import PolicyInputs
from benchmarks.policy_cost.models import random_model

MAX_DEPTH = 10  # of the fixed depths; early exit has the configured K, the papers' 5
# Of OpenVLA's prompt around an instruction of LIBERO's usual length, 10 words.
PROMPT_TOKENS, WORDS = 30, 10
PROPRIO_DEVIATION = 5.0
# Scores of an untrained gate are moved so that this share of the samples leaves after the first step at the
# configured threshold, the others later or not at all.
LEAVING_AT_ONCE = 0.4


def make_policy(name: str, checkpoint: Path | None, device: str, precision: str) -> AvaVlaPolicy:
    """The policy to measure. Without a checkpoint its weights are random; an OpenVLA's are made on the device."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint, device=device, dtype=dtype_of(precision)).policy
    config, backbone = preset(name), None
    if not isinstance(config.backbone, BackboneConfig):
        backbone = OpenVlaBackbone(random_model(config.backbone, device, dtype_of(precision)))
    with torch.device(device):
        policy = AvaVlaPolicy(config, backbone).eval()
    policy.set_precision(precision)
    if policy.loop is not None:
        _stir(policy.loop)
    return policy


def deepened(policy: AvaVlaPolicy) -> AvaVlaPolicy:
    """The same policy, on the same weights, with up to 10 latent steps: no weight depends on K."""
    latent = dataclasses.replace(policy.config.latent, max_steps=MAX_DEPTH)
    with torch.device(policy.device):
        deep = AvaVlaPolicy(dataclasses.replace(policy.config, latent=latent), policy.backbone).eval()
    deep.load_state_dict(policy.state_dict(), assign=True)
    return deep


def make_loop(config: LatentConfig, device: str) -> LatentLoop:
    """A latent loop alone, with random weights and up to 10 steps."""
    with torch.device(device):
        loop = LatentLoop(dataclasses.replace(config, max_steps=MAX_DEPTH)).eval()
    _stir(loop)
    return loop


def make_inputs(config: PolicyConfig, batch: int, device: str) -> PolicyInputs:
    """Noise observations with an instruction of 10 words. Images of noise look alike to a policy, so that it is by wide
    proprioception that they differ."""
    backbone = config.backbone
    size = backbone.image_size
    if isinstance(backbone, BackboneConfig):
        text = torch.zeros(batch, backbone.max_text_tokens, dtype=torch.int64)
        text[:, :WORDS] = torch.randint(1, 100, (WORDS,))
    else:
        text = torch.randint(3, backbone.words - backbone.bins, (batch, PROMPT_TOKENS))
    images = torch.randint(0, 256, (batch, backbone.num_cameras, size, size, 3), dtype=torch.uint8)
    proprio = PROPRIO_DEVIATION * torch.randn(batch, config.proprio_dim)
    return PolicyInputs(*(part.to(device) for part in (images, text, proprio)))


def decider(policy: AvaVlaPolicy, batch: int, device: str, queries: int) -> list[Callable[..., Tensor]]:
    """Functions that decide for `batch` observations, with the options of `decide`, and return steps taken (B,)."""
    deep = deepened(policy)

    def query() -> Callable[..., Tensor]:
        inputs = make_inputs(policy.config, batch, device)
        belief = policy.decide(inputs, policy.initial_belief(batch, device)).belief

        def decide(depth: int | None = None, **options: Any) -> Tensor:
            return (policy if depth is None else deep).decide(inputs, belief, depth=depth, **options).trace.steps

        return decide

    return [query() for _ in range(queries)]


def thinker(loop: LatentLoop, batch: int, device: str, queries: int, most: int) -> list[Callable[..., Tensor]]:
    """The same for a latent loop alone, psi and z_0 being noise; with early exit it takes at most `most` steps."""

    def query() -> Callable[..., Tensor]:
        context = loop.context(torch.randn(batch, loop.config.encoding_width, device=device))
        z0 = torch.tanh(torch.randn(batch, loop.config.width, device=device))

        @torch.no_grad()
        def think(depth: int = most, exit_threshold: float | None = None) -> Tensor:
            return loop.think(context, z0, steps=depth, exit_threshold=exit_threshold).steps

        return think

    return [query() for _ in range(queries)]


@torch.no_grad()
def _stir(loop: LatentLoop) -> None:
    """Random gate and update means, which start at zero, so that samples differ in when they leave."""
    for module in (loop.exit_gate, loop.update_policy.mean):
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    device = loop.exit_gate.enter.weight.device
    trace = _first_steps(loop, device)
    logits = loop.exit_gate(trace)
    last: Any = loop.exit_gate.leave[1]
    last.weight.div_(logits.std())
    last.bias.div_(logits.std())
    threshold = math.log(loop.config.exit_threshold / (1 - loop.config.exit_threshold))
    last.bias.add_(threshold - (logits / logits.std()).quantile(1 - LEAVING_AT_ONCE))


def _first_steps(loop: LatentLoop, device: torch.device) -> Tensor:
    """States (256, Z) after the first step, from noise."""
    encoding = torch.randn(256, loop.config.encoding_width, device=device)
    z0 = torch.tanh(torch.randn(256, loop.config.width, device=device))
    return loop.unroll(loop.context(encoding), z0, 1)[:, 1]
