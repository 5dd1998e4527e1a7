"""Tensor names of the published checkpoints (timm's for the towers) against this package's, and the changes of form.

    vision_backbone.featurizer.*        DINOv2      -> vision.dino.*
    vision_backbone.fused_featurizer.*  SigLIP      -> vision.siglip.*
    projector.*, language_model.*                   -> projector.*, language.*
    proprio_projector--N_checkpoint.pt, fc1..fc2    -> proprio.*
    action_head--N_checkpoint.pt, model.*           -> head.*

timm keeps query, key and value in one matrix, DINOv2's positions without one for the class token (it is part of the
token itself; ours is a row of zeros), and SigLIP's positions with a leading axis. The towers' last blocks and final
norms and SigLIP's pooling are in the checkpoints, but no forward pass reads them: `unused_shapes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avavla_ray.policy.openvla.config import OpenVlaConfig, TowerConfig
from avavla_ray.policy.tensors import Shape

DINO, SIGLIP = "vision_backbone.featurizer", "vision_backbone.fused_featurizer"
DINO_POSITIONS = "vision.dino.embeddings.position_embeddings"
PARTS = ("weight", "bias")
Form = Literal["same", "fused", "table", "positions", "class_token"]


@dataclass(frozen=True)
class Entry:
    """One source tensor and the tensors of ours that it becomes.

    Attributes:
        form: "same"; "fused", cut into equal parts; "table", (1, N, D) as (N, D); "positions", a row of zeros put in
            front; "class_token", same, but on the way back the positions' first row is added to it.
    """

    source: str
    targets: tuple[str, ...]
    form: Form = "same"

    def source_shape(self, ours: Mapping[str, Shape]) -> Shape:
        """Shape that the source must have, given the shapes of our model."""
        first, *rest = ours[self.targets[0]]
        if self.form == "fused":
            return (len(self.targets) * first, *rest)
        if self.form == "table":
            return (1, first, *rest)
        if self.form == "positions":
            return (first, rest[0] - 1, *rest[1:])
        return (first, *rest)

    def convert(self, tensor: Tensor) -> dict[str, Tensor]:
        """A source tensor as ours, by name. Views where that is possible."""
        if self.form == "fused":
            return dict(zip(self.targets, tensor.chunk(len(self.targets)), strict=True))
        if self.form == "table":
            tensor = tensor[0]
        elif self.form == "positions":
            tensor = torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)
        return {self.targets[0]: tensor}

    def restore(self, read: Callable[[str], Tensor]) -> Tensor:
        """The source tensor from ours, which `read` fetches by name."""
        if self.form == "fused":
            return torch.cat([read(name) for name in self.targets])
        tensor = read(self.targets[0])
        if self.form == "table":
            return tensor[None]
        if self.form == "positions":
            return tensor[:, 1:].contiguous()
        if self.form == "class_token":
            own_position = read(DINO_POSITIONS)[:, :1]
            return tensor + own_position if bool(own_position.any()) else tensor
        return tensor


def _pairs(source: str, target: str) -> list[Entry]:
    return [Entry(f"{source}.{part}", (f"{target}.{part}",)) for part in PARTS]


def _block(source: str, target: str, attention: str, output: str, norms: tuple[str, str]) -> list[Entry]:
    entries = [
        Entry(f"{source}.attn.qkv.{part}", tuple(f"{target}.{attention}.{x}_proj.{part}" for x in "qkv"), "fused")
        for part in PARTS
    ]
    for ours, theirs in (
        (f"{attention}.{output}", "attn.proj"), (norms[0], "norm1"), (norms[1], "norm2"),
        ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
    ):  # fmt: skip
        entries += _pairs(f"{source}.{theirs}", f"{target}.{ours}")
    return entries


def _vision(config: OpenVlaConfig) -> list[Entry]:
    dino, siglip = "vision.dino.embeddings", "vision.siglip.embeddings"
    entries = [
        Entry(f"{DINO}.cls_token", (f"{dino}.cls_token",), "class_token"),
        Entry(f"{DINO}.reg_token", (f"{dino}.register_tokens",)),
        Entry(f"{DINO}.pos_embed", (DINO_POSITIONS,), "positions"),
        *_pairs(f"{DINO}.patch_embed.proj", f"{dino}.patch_embeddings.projection"),
        Entry(f"{SIGLIP}.pos_embed", (f"{siglip}.position_embedding.weight",), "table"),
        *_pairs(f"{SIGLIP}.patch_embed.proj", f"{siglip}.patch_embedding"),
    ]
    for i in range(config.dino.layers - 1):
        source, target = f"{DINO}.blocks.{i}", f"vision.dino.encoder.layer.{i}"
        entries += _block(source, target, "attention", "o_proj", ("norm1", "norm2"))
        entries += [Entry(f"{source}.ls{n}.scale_factor", (f"{target}.layer_scale{n}.lambda1",)) for n in (1, 2)]
    for i in range(config.siglip.layers - 1):
        target = f"vision.siglip.encoder.layers.{i}"
        norms = ("layer_norm1", "layer_norm2")
        entries += _block(f"{SIGLIP}.blocks.{i}", target, "self_attn", "out_proj", norms)
    return entries


def model_entries(config: OpenVlaConfig) -> list[Entry]:
    """Of the safetensors files, without the unused ones."""
    entries = _vision(config)
    for i in (1, 2, 3):
        entries += _pairs(f"projector.fc{i}", f"projector.fc{i}")
    names = ["model.embed_tokens", "model.norm", "lm_head"]
    for i in range(config.language.layers):
        layer = f"model.layers.{i}"
        names += [f"{layer}.self_attn.{x}_proj" for x in "qkvo"]
        names += [f"{layer}.mlp.{x}_proj" for x in ("gate", "up", "down")]
        names += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
    return entries + [Entry(f"language_model.{name}.weight", (f"language.{name}.weight",)) for name in names]


def component_entries(config: OpenVlaConfig) -> dict[str, list[Entry]]:
    """Of OFT's separate files, by the word that their names begin with; empty for OpenVLA."""
    components = {}
    if config.proprio_dim:
        components["proprio_projector"] = _pairs("fc1", "proprio.fc1") + _pairs("fc2", "proprio.fc2")
    if config.head_blocks:
        entries = _pairs("model.layer_norm1", "head.norm1") + _pairs("model.fc1", "head.fc1")
        for i in range(config.head_blocks):
            entries += _pairs(f"model.mlp_resnet_blocks.{i}.ffn.0", f"head.blocks.{i}.norm")
            entries += _pairs(f"model.mlp_resnet_blocks.{i}.ffn.1", f"head.blocks.{i}.linear")
        components["action_head"] = (
            entries + _pairs("model.layer_norm2", "head.norm2") + _pairs("model.fc2", "head.fc2")
        )
    return components


def _linear(name: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _last_block(name: str, tower: TowerConfig) -> dict[str, Shape]:
    D, block = tower.width, f"{name}.blocks.{tower.layers - 1}"
    shapes: dict[str, Shape] = {
        f"{x}.{part}": (D,) for x in (f"{block}.norm1", f"{block}.norm2", f"{name}.norm") for part in PARTS
    }
    shapes |= _linear(f"{block}.attn.qkv", 3 * D, D) | _linear(f"{block}.attn.proj", D, D)
    return shapes | _linear(f"{block}.mlp.fc1", tower.mlp_width, D) | _linear(f"{block}.mlp.fc2", D, tower.mlp_width)


def unused_shapes(config: OpenVlaConfig) -> dict[str, Shape]:
    """Source tensors that are kept for export only."""
    dino, siglip = config.dino, config.siglip
    shapes = _last_block(DINO, dino) | _last_block(SIGLIP, siglip)
    shapes |= {f"{DINO}.blocks.{dino.layers - 1}.ls{n}.scale_factor": (dino.width,) for n in (1, 2)}
    D, pool = siglip.width, f"{SIGLIP}.attn_pool"
    shapes |= {f"{pool}.latent": (1, 1, D)} | {f"{pool}.norm.{part}": (D,) for part in PARTS}
    shapes |= _linear(f"{pool}.q", D, D) | _linear(f"{pool}.kv", 2 * D, D) | _linear(f"{pool}.proj", D, D)
    return shapes | _linear(f"{pool}.mlp.fc1", siglip.mlp_width, D) | _linear(f"{pool}.mlp.fc2", D, siglip.mlp_width)
