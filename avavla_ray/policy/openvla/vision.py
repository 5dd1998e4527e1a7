"""The fused vision backbone: DINOv2 with registers and SigLIP see the same image, and their patches are joined."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.config import OpenVlaConfig, TowerConfig


def _dino(config: OpenVlaConfig) -> nn.Module:
    tower = config.dino
    model = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=tower.width, num_hidden_layers=tower.layers - 1, num_attention_heads=tower.heads,
            mlp_ratio=tower.mlp_width // tower.width, image_size=config.image_size, patch_size=config.patch_size,
            num_register_tokens=tower.registers, hidden_act="gelu", attn_implementation="sdpa",
        )
    )  # fmt: skip
    model.layernorm = nn.Identity()
    # Only masked pre-training reads it, and no checkpoint of ours holds it.
    del model.embeddings.mask_token
    # timm has no class position: it is part of the class token. Ours must start, and usually stays, at zero.
    with torch.no_grad():
        model.embeddings.position_embeddings[:, :1].zero_()
    return model


def _siglip(config: OpenVlaConfig) -> nn.Module:
    tower = config.siglip
    model = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=tower.width, num_hidden_layers=tower.layers - 1, num_attention_heads=tower.heads,
            intermediate_size=tower.mlp_width, image_size=config.image_size, patch_size=config.patch_size,
            # The reference runs timm's default, the exact GELU, not SigLIP's own tanh form.
            hidden_act="gelu", vision_use_head=False, attn_implementation="sdpa",
        )
    )  # fmt: skip
    model.post_layernorm = nn.Identity()
    return model


def normalise(images: Tensor, tower: TowerConfig) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 by the tower's mean and std."""
    values = images.float() / 255
    # Numbers instead of tensors: nothing to copy to the device, which a captured CUDA graph would not allow.
    channels = [(values[..., c] - tower.mean[c]) / tower.std[c] for c in range(3)]
    return torch.stack(channels, dim=-3)


class FusedVision(nn.Module):
    """Images to patch features: each tower's second-to-last block, without its final norm or prefix tokens."""

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        self.config = config
        self.dino = _dino(config)
        self.siglip = _siglip(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, V, H, W, 3) uint8 -> (B, N, dino width + siglip width), image by image in row-major order.

        Raises:
            InputError: images of another number, size, channel order or type.
        """
        config = self.config
        expected = (config.images, config.image_size, config.image_size, 3)
        if images.dtype != torch.uint8 or images.shape[1:] != expected:
            got = f"{tuple(images.shape)} {images.dtype}"
            raise InputError(f"images: expected (B, {', '.join(map(str, expected))}) torch.uint8, got {got}")
        flat = images.flatten(0, 1)
        dino = self.dino(normalise(flat, config.dino)).last_hidden_state[:, 1 + config.dino.registers :]
        siglip = self.siglip(normalise(flat, config.siglip)).last_hidden_state
        return torch.cat([dino, siglip], dim=-1).unflatten(0, images.shape[:2]).flatten(1, 2)


class Projector(nn.Module):
    """Patch features into the language model's space."""

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        features, D = config.dino.width + config.siglip.width, config.language.width
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2 = nn.Linear(4 * features, D)
        self.fc3 = nn.Linear(D, D)
        self.activation = nn.GELU()

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, features) -> (B, N, D)."""
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(features)))))
