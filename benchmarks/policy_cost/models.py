"""Models of a published size with random weights: what they compute means nothing, what they cost is real."""

from __future__ import annotations

import dataclasses

import torch

from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.openvla.shapes import build_on_meta, fill_buffers, model_shapes


@torch.no_grad()
def random_model(config: OpenVlaConfig, device: torch.device | str, dtype: torch.dtype) -> OpenVla:
    """In eval mode, built at its place and in its precision: nothing beyond the model is allocated."""
    model = build_on_meta(config).eval()
    weights = {}
    for name, shape in model_shapes(config).items():
        tensor = torch.empty(shape, device=device, dtype=dtype)
        weights[name] = tensor.normal_(std=shape[-1] ** -0.5) if len(shape) > 1 else tensor.fill_(1.0)
    model.load_state_dict(weights, assign=True)
    fill_buffers(model, device)
    return model


def with_layers(config: OpenVlaConfig, layers: int) -> OpenVlaConfig:
    """The same model with fewer layers in its language model; all of them are alike."""
    return dataclasses.replace(config, language=dataclasses.replace(config.language, layers=layers))


def language_only(config: OpenVlaConfig) -> OpenVlaConfig:
    """The same language layers in a model without the weight of vision, vocabulary and L1 head, for measurements that
    begin at visual tokens and end at hidden states."""
    replace = dataclasses.replace
    small = {"width": 16, "layers": 2, "heads": 1, "mlp_width": 16}
    return replace(
        config,
        dino=replace(config.dino, **small),
        siglip=replace(config.siglip, **small),
        language=replace(config.language, vocabulary=config.bins + 128, padding_rows=64, padding=320, empty=3),
        head_blocks=0,
    )
