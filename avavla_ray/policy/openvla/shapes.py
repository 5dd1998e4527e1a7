"""A model that is not there yet: its shapes, and the constants that no checkpoint holds."""

from __future__ import annotations

import functools

import torch
from torch import nn

from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.tensors import Shape, shapes_of


def build_on_meta(config: OpenVlaConfig) -> OpenVla:
    """The model with shapes only: nothing is allocated, whatever its size."""
    with torch.device("meta"):
        return OpenVla(config)


@functools.lru_cache(maxsize=8)
def model_shapes(config: OpenVlaConfig) -> dict[str, Shape]:
    """Shape of every tensor of the model's state_dict."""
    return shapes_of(build_on_meta(config).state_dict().items())


def fill_buffers(model: OpenVla, device: torch.device | str) -> None:
    """Give a model that was built on `meta` the constants that no checkpoint holds, once it has its weights."""
    language = model.language.model
    language.rotary_emb = type(language.rotary_emb)(config=model.language.config).to(device)
    embeddings: nn.Module = model.vision.siglip.embeddings  # type: ignore[assignment]
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    model.special = model.special.to(device)
    left = [name for name, tensor in (*model.named_buffers(), *model.named_parameters()) if tensor.is_meta]
    if left:
        raise RuntimeError(f"transformers {', '.join(left)} have no values: this version keeps a constant of its own")
