"""Policies and inputs that several test files need."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from avavla_ray.normalisation import FieldStatistics, Statistics
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs


def tiny(**changes: object) -> PolicyConfig:
    """The `tiny` preset with top-level fields, or fields of its parts ("latent__max_steps"), replaced."""
    config = preset("tiny")
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
