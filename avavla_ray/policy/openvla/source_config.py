"""A published checkpoint's JSON files and tensor shapes, read as an `OpenVlaConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.policy.config_json import build
from avavla_ray.policy.openvla.config import LanguageConfig, OpenVlaConfig, TowerConfig, check_config
from avavla_ray.policy.openvla.key_map import DINO, SIGLIP
from avavla_ray.policy.openvla.prompt import empty_token
from avavla_ray.policy.tensors import Shape

# timm's vit_large_patch14_reg4_dinov2 and vit_so400m_patch14_siglip_224 both have 16 heads; shapes cannot tell.
_TOWER_HEADS = 16
# OpenVLA-OFT decides by the robot how actions are scaled, and no file of a checkpoint says it.
_ACTION_DIM = 7
# What transformers 4.40.1 takes for a text_config that leaves a field out, as the published ones do.
_LLAMA = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
    "vocab_size": 32000, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def read_config(
    config: Any,
    preprocessor: Any,
    tokenizer: Path,
    shapes: Mapping[str, Shape],
    components: Mapping[str, Mapping[str, Shape]],
    *,
    images: int | None,
    chunk: int | None,
) -> OpenVlaConfig:
    """Sizes of a checkpoint; where a JSON file does not say, the tensors' shapes do.

    Args:
        shapes: of the safetensors files. components: of the proprioception projector and action head, if any.

    Raises:
        InputError: a geometry that this package does not build, or a file that is not what it should be.
    """
    _check_kind(config)
    text = _LLAMA | {key: value for key, value in config["text_config"].items() if value is not None}
    means, stds = _normalisation(preprocessor)
    head, proprio = components.get("action_head"), components.get("proprio_projector")
    if proprio is not None and head is None:
        raise InputError("the folder holds a proprio_projector but no action_head: download the missing file")
    action_dim = _ACTION_DIM if head is None else _shape(head, "model.fc2.weight")[0]
    if action_dim != _ACTION_DIM:
        raise InputError(
            f"action_head: expected {_ACTION_DIM} action dimensions, got {action_dim}: only the form of LIBERO and "
            "Bridge, scaled by q01 and q99, is supported; ALOHA's are scaled by minimum and maximum"
        )
    sizes = config.get("image_sizes") or [224, 224]
    if len(set(sizes)) != 1:
        raise InputError(f"config.json: image_sizes {sizes} differ between the towers: not supported")
    result = OpenVlaConfig(
        preset="openvla" if head is None else "openvla_oft",
        dino=_tower(DINO, shapes, means[0], stds[0]),
        siglip=_tower(SIGLIP, shapes, means[1], stds[1]),
        language=LanguageConfig(
            width=text["hidden_size"], layers=text["num_hidden_layers"], heads=text["num_attention_heads"],
            key_value_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
            mlp_width=text["intermediate_size"], vocabulary=text["vocab_size"],
            padding_rows=config.get("pad_to_multiple_of", 64), norm_eps=float(text["rms_norm_eps"]),
            rope_theta=float(text["rope_theta"]), max_positions=text["max_position_embeddings"],
            bos=text["bos_token_id"], stop=text["eos_token_id"],
            padding=config.get("pad_token_id", text.get("pad_token_id", 32000)), empty=empty_token(tokenizer),
        ),
        image_size=sizes[0],
        patch_size=_shape(shapes, f"{DINO}.patch_embed.proj.weight")[-1],
        images=images or (1 if head is None else 2),
        bins=config.get("n_action_bins", 256),
        chunk=chunk or (1 if head is None else 8),
        action_dim=action_dim,
        proprio_dim=0 if proprio is None else _shape(proprio, "fc1.weight")[1],
        parallel=head is not None,
        head_blocks=0 if head is None else len({name for name in head if name.endswith(".ffn.1.weight")}),
    )  # fmt: skip
    # The fields came from a file: one of another type is said to be so.
    checked = build(OpenVlaConfig, dataclasses.asdict(result), "config.json")
    check_config(checked)
    return checked


def _check_kind(config: Any) -> None:
    if not isinstance(config, dict) or not isinstance(config.get("text_config"), dict):
        raise InputError("config.json has no text_config: it is not an OpenVLA checkpoint")
    text = config["text_config"]
    backbone = str(config.get("vision_backbone_id"))
    for wrong, said in (
        (not backbone.startswith("dinosiglip-vit-so"), f"vision_backbone_id {backbone!r}, only DINOv2 with SigLIP is"),
        (config.get("arch_specifier", "fused").find("fused") < 0, f"arch_specifier {config.get('arch_specifier')!r},"),
        (
            config.get("image_resize_strategy", "resize-naive") != "resize-naive",
            f"image_resize_strategy {config.get('image_resize_strategy')!r}, only 'resize-naive' is",
        ),
        (
            text.get("model_type", "llama") != "llama",
            f"text_config.model_type {text.get('model_type')!r}, only llama is",
        ),
        (text.get("rope_scaling") is not None, "text_config.rope_scaling,"),
        (bool(text.get("attention_bias")), "text_config.attention_bias,"),
        (any(config.get("timm_override_act_layers") or ()), "timm_override_act_layers,"),
    ):
        if wrong:
            raise InputError(f"config.json asks for {said} not supported: import an OpenVLA checkpoint")


def _normalisation(preprocessor: Any) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    try:
        means, stds = ([tuple(float(x) for x in row) for row in preprocessor[key]] for key in ("means", "stds"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("preprocessor_config.json has no means and stds for two towers: download it again") from error
    if [len(row) for row in means + stds] != [3] * 4:
        raise InputError("preprocessor_config.json has no means and stds for two towers: download it again")
    return means, stds


def _shape(shapes: Mapping[str, Shape], name: str) -> Shape:
    if name not in shapes:
        raise InputError(f"{name} is missing: download the whole checkpoint folder")
    return shapes[name]


def _tower(name: str, shapes: Mapping[str, Shape], mean: tuple[float, ...], std: tuple[float, ...]) -> TowerConfig:
    blocks = {key.split(".")[3] for key in shapes if key.startswith(f"{name}.blocks.")}
    registers = shapes.get(f"{name}.reg_token")
    return TowerConfig(
        width=_shape(shapes, f"{name}.patch_embed.proj.weight")[0], layers=len(blocks), heads=_TOWER_HEADS,
        mlp_width=_shape(shapes, f"{name}.blocks.0.mlp.fc1.weight")[0],
        registers=registers[1] if registers else 0, mean=mean, std=std,
    )  # fmt: skip
