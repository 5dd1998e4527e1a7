"""Random weights under the names and shapes of a published OpenVLA checkpoint, at test sizes. NumPy only.

`RandomState` streams are frozen, so a seed means the same numbers in every NumPy: the golden values of
tests/unit/data/openvla_*.npz were computed from these weights by the reference implementation, in its own
environment (tests/support/openvla_reference.py).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Of a test checkpoint. Towers have `tower_layers` blocks of `width`, the language model `layers` of it."""

    width: int = 64
    tower_layers: int = 3
    layers: int = 2
    heads: int = 4
    mlp_width: int = 96
    vocabulary: int = 32064
    image_size: int = 224
    action_dim: int = 7
    proprio_dim: int = 8

    @property
    def patches(self) -> int:
        return (self.image_size // 14) ** 2


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _tower(name: str, sizes: Sizes, hidden: int, scaled: bool) -> Shapes:
    D = sizes.width
    shapes: Shapes = {f"{name}.pos_embed": (1, sizes.patches, D)}
    shapes |= {f"{name}.patch_embed.proj.weight": (D, 3, 14, 14), f"{name}.patch_embed.proj.bias": (D,)}
    for i in range(sizes.tower_layers):
        block = f"{name}.blocks.{i}"
        shapes |= _norm(f"{block}.norm1", D) | _norm(f"{block}.norm2", D)
        shapes |= _linear(f"{block}.attn.qkv", 3 * D, D) | _linear(f"{block}.attn.proj", D, D)
        shapes |= _linear(f"{block}.mlp.fc1", hidden, D) | _linear(f"{block}.mlp.fc2", D, hidden)
        if scaled:
            shapes |= {f"{block}.ls1.scale_factor": (D,), f"{block}.ls2.scale_factor": (D,)}
    return shapes | _norm(f"{name}.norm", D)


def model_shapes(sizes: Sizes) -> Shapes:
    """Of the tensors in the safetensors files."""
    D, dino, siglip = sizes.width, "vision_backbone.featurizer", "vision_backbone.fused_featurizer"
    hidden = int(D * 3.7362)
    shapes = {f"{dino}.cls_token": (1, 1, D), f"{dino}.reg_token": (1, 4, D)}
    shapes |= _tower(dino, sizes, 4 * D, scaled=True) | _tower(siglip, sizes, hidden, scaled=False)
    pool = f"{siglip}.attn_pool"
    shapes |= {f"{pool}.latent": (1, 1, D)} | _norm(f"{pool}.norm", D)
    shapes |= _linear(f"{pool}.q", D, D) | _linear(f"{pool}.kv", 2 * D, D) | _linear(f"{pool}.proj", D, D)
    shapes |= _linear(f"{pool}.mlp.fc1", hidden, D) | _linear(f"{pool}.mlp.fc2", D, hidden)
    shapes |= _linear("projector.fc1", 8 * D, 2 * D) | _linear("projector.fc2", D, 8 * D)
    shapes |= _linear("projector.fc3", D, D)
    shapes |= {"language_model.model.embed_tokens.weight": (sizes.vocabulary, D)}
    for i in range(sizes.layers):
        layer = f"language_model.model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{x}_proj.weight": (D, D) for x in "qkvo"}
        shapes |= {f"{layer}.mlp.{x}_proj.weight": (sizes.mlp_width, D) for x in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (D, sizes.mlp_width)}
        shapes |= {f"{layer}.input_layernorm.weight": (D,), f"{layer}.post_attention_layernorm.weight": (D,)}
    return shapes | {
        "language_model.model.norm.weight": (D,),
        "language_model.lm_head.weight": (sizes.vocabulary, D),
    }


def proprio_shapes(sizes: Sizes) -> Shapes:
    """Of proprio_projector--N_checkpoint.pt."""
    return _linear("fc1", sizes.width, sizes.proprio_dim) | _linear("fc2", sizes.width, sizes.width)


def head_shapes(sizes: Sizes) -> Shapes:
    """Of action_head--N_checkpoint.pt."""
    D, wide = sizes.width, sizes.width * sizes.action_dim
    shapes = _norm("model.layer_norm1", wide) | _linear("model.fc1", D, wide)
    for i in range(2):
        shapes |= _norm(f"model.mlp_resnet_blocks.{i}.ffn.0", D) | _linear(f"model.mlp_resnet_blocks.{i}.ffn.1", D, D)
    return shapes | _norm("model.layer_norm2", D) | _linear("model.fc2", sizes.action_dim, D)


def weights(shapes: Shapes, seed: int = 7) -> dict[str, np.ndarray]:
    """float32 numbers of a size that keeps activations near 1; each tensor has a stream of its own."""
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    numbers = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if name.endswith("scale_factor"):
        numbers = 0.5 + 0.1 * numbers
    elif name.endswith("bias"):
        numbers = 0.1 * numbers
    elif len(shape) == 1:
        numbers = 1 + 0.1 * numbers
    elif name.endswith(("pos_embed", "_token", "latent", "embed_tokens.weight")):
        numbers = 0.5 * numbers
    else:
        numbers = numbers / np.sqrt(np.prod(shape[1:]))
    if name.endswith("lm_head.weight"):
        # So that action tokens win now and then, as they always do in trained weights.
        numbers[-320:-64] *= 2
    return numbers.astype(np.float32)


def statistics() -> dict[str, dict[str, object]]:
    """A `dataset_statistics.json` with two data sets; the gripper is not normalised."""
    low, high = np.linspace(-0.9, -0.3, 7).tolist(), np.linspace(0.4, 1.0, 7).tolist()
    action = {"mean": low, "std": high, "min": low, "max": high, "q01": low, "q99": high}
    low, high = np.linspace(-2.0, -1.0, 8).tolist(), np.linspace(0.5, 3.0, 8).tolist()
    proprio = {"mean": low, "std": high, "min": low, "max": high, "q01": low, "q99": high}
    one = {
        "action": action | {"mask": [True] * 6 + [False]}, "proprio": proprio,
        "num_transitions": 120, "num_trajectories": 3,
    }  # fmt: skip
    return {"golden": one, "other": one}


def golden_inputs(sizes: Sizes, images: int, seed: int = 11) -> dict[str, np.ndarray]:
    """Two decisions: images (2, V, H, W, 3) uint8, prompts of 19 and 12 token ids with BOS and without the empty
    token, proprio (2, P) in data units."""
    random = np.random.RandomState(seed)
    pictures = random.randint(0, 256, (2, images, sizes.image_size, sizes.image_size, 3)).astype(np.uint8)
    prompts = random.randint(3, 29000, (2, 19))
    prompts[:, 0] = 1
    return {
        "images": pictures, "prompt_0": prompts[0], "prompt_1": prompts[1, :12],
        "proprio": random.uniform(-2.5, 3.0, (2, sizes.proprio_dim)),
    }  # fmt: skip
