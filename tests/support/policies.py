"""Policies and inputs that several test files need."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from avavla_ray.normalisation import FieldStatistics, Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import PointSimulator, point_statistics


def tiny(**changes: object) -> PolicyConfig:
    """The `tiny` preset, changed."""
    return changed(preset("tiny"), **changes)


def changed(config: PolicyConfig, **changes: object) -> PolicyConfig:
    """A config with top-level fields, or fields of its parts ("latent__max_steps"), replaced."""
    for name, value in changes.items():
        part, _, member = name.partition("__")
        if member:
            value = dataclasses.replace(getattr(config, part), **{member: value})
        config = dataclasses.replace(config, **{part: value})
    return config


def stirred_policy(config: PolicyConfig, seed: int = 0) -> AvaVlaPolicy:
    """A policy whose parameters were all moved off their initial values, so that no zero hides a connection."""
    torch.manual_seed(seed)
    policy = AvaVlaPolicy(config)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def random_inputs(config: PolicyConfig, batch: int, seed: int = 1) -> PolicyInputs:
    """Noise images and proprioception; instructions of 3 to 8 words."""
    generator = torch.Generator().manual_seed(seed)
    size = config.backbone.image_size
    text = torch.zeros(batch, config.backbone.max_text_tokens, dtype=torch.int64)
    for row in range(batch):
        words = 3 + row % 6
        text[row, :words] = torch.randint(1, 100, (words,), generator=generator)
    images = torch.randint(
        0, 256, (batch, config.backbone.num_cameras, size, size, 3), dtype=torch.uint8, generator=generator
    )
    return PolicyInputs(images, text, torch.randn(batch, config.proprio_dim, generator=generator))


def random_belief(policy: AvaVlaPolicy, batch: int, seed: int = 2) -> Belief:
    """A belief as if decisions had been made before."""
    generator = torch.Generator().manual_seed(seed)
    return Belief(*(torch.randn(part.shape, generator=generator) for part in policy.initial_belief(batch)))


def some_statistics(action_dim: int = 7, proprio_dim: int = 8) -> Statistics:
    """Statistics of noise, the gripper left alone."""
    generator = np.random.default_rng(0)
    mask = np.ones(action_dim, bool)
    mask[-1] = False
    return Statistics(
        "noise",
        FieldStatistics.of(generator.normal(size=(64, action_dim)), mask),
        FieldStatistics.of(generator.normal(size=(64, proprio_dim))),
        episodes=4,
        steps=64,
    )


def responsive_policy(max_steps: int = 1) -> AvaVlaPolicy:
    """An untrained tiny policy whose latent updates move its actions visibly, around standing still.

    Fresh weights answer to the latent by a hundredth of an action only, so there would be nothing for PPO to find
    within seconds. Weights on the way from the update action to the action chunk are scaled up instead of cloned.
    """
    torch.manual_seed(0)
    config = preset("tiny")
    latent = dataclasses.replace(config.latent, action_scale=4.0, max_steps=max_steps, early_exit=False)
    policy = AvaVlaPolicy(dataclasses.replace(config, latent=latent)).eval()
    simulator = PointSimulator(SimulatorConfig(suite="point", image_size=32))
    inputs = Agent(policy, point_statistics()).inputs([simulator.reset(0, seed=seed) for seed in range(256)])
    with torch.no_grad():
        for weights, factor in (
            (policy.backbone.head.layers[2].weight, 10.0),
            (policy.loop.transition.hidden.weight, 4.0),
            (policy.loop.transition.delta.weight, 4.0),
        ):
            weights.mul_(factor)
        noise = torch.Generator().manual_seed(0)
        chunk = policy.decide(inputs, policy.initial_belief(256), draws=policy.draws(256, noise)).chunk
        policy.backbone.head.layers[2].bias.sub_(chunk.mean((0, 1)))
    return policy
