"""Tiny OpenVLA models, policies on one, and decisions for them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from avavla_ray.policy.config import LoraConfig, PolicyConfig, preset
from avavla_ray.policy.openvla import config as openvla
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import PolicyInputs
from tests.support.policies import stirred_policy


def openvla_model(name: str, **language: int) -> OpenVla:
    """The named geometry, with fields of its language model replaced."""
    torch.manual_seed(0)
    config = openvla.preset(name)
    model = OpenVla(dataclasses.replace(config, language=dataclasses.replace(config.language, **language))).eval()
    with torch.no_grad():  # transformers starts weights so small that nothing would depend on anything
        for parameter in model.language.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


def openvla_config(lora: LoraConfig | None = None) -> PolicyConfig:
    """The `openvla_oft_tiny` preset, with adapters."""
    return dataclasses.replace(preset("openvla_oft_tiny"), lora=lora)


def openvla_policy(lora: LoraConfig | None = None, seed: int = 0) -> AvaVlaPolicy:
    """All parameters are off their initial values, the adapters' B as well."""
    return stirred_policy(openvla_config(lora), seed).eval()


def openvla_inputs(config: PolicyConfig, batch: int, seed: int = 1) -> PolicyInputs:
    """Noise images and proprioception; prompts of 6 tokens, in every second row padded to it from 4."""
    backbone = config.backbone
    assert isinstance(backbone, OpenVlaConfig)
    generator = torch.Generator().manual_seed(seed)
    size = (batch, backbone.images, backbone.image_size, backbone.image_size, 3)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    text = torch.randint(3, 290, (batch, 6), generator=generator)
    text[1::2, :2] = backbone.language.padding
    return PolicyInputs(images, text, torch.randn(batch, config.proprio_dim, generator=generator))


@torch.no_grad()
def chunk_of(policy: AvaVlaPolicy, inputs: PolicyInputs) -> Tensor:
    """The chunk (B, C, A) of an episode's first decision, at a fixed depth."""
    return policy.decide(inputs, policy.initial_belief(len(inputs.images)), depth=2).chunk
