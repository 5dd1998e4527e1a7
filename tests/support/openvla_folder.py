"""A published checkpoint folder at test size: shards with their index, JSON files, tokenizer, OFT's separate files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from avavla_ray.policy.checkpoint import Checkpoint, load_checkpoint
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.openvla.exchange import import_checkpoint, policy_of
from avavla_ray.policy.openvla.source import Source, open_source
from tests.support.openvla_weights import Sizes, head_shapes, model_shapes, proprio_shapes, statistics, weights

SMALL = Sizes(vocabulary=704, image_size=56)
WORDS = ["In:", "What", "action", "should", "the", "robot", "take", "to", "Out:", "pick", "up", "bowl", "place", "it"]


def write_tokenizer(path: Path, empty: int) -> None:
    """Whole words of Llama's kind: '▁' in front, BOS by template, and the lone space at id `empty`."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": empty}
    vocabulary |= {f"▁{word}": 10 + index for index, word in enumerate(WORDS)}
    vocabulary |= {"bowl?": 40, "▁bowl?": 41, "▁it?": 42, "▁bowl?\nOut:": 43, "▁it?\nOut:": 44}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(path))


def write_published(
    folder: Path, sizes: Sizes = SMALL, *, oft: bool = False, shards: int = 3, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Write the folder; the tensors of its safetensors files come back by name."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: torch.from_numpy(v).to(dtype) for k, v in weights(model_shapes(sizes)).items()}
    names = sorted(tensors)
    places = {
        name: f"model-{1 + i * shards // len(names):05d}-of-{shards:05d}.safetensors" for i, name in enumerate(names)
    }
    for file in sorted(set(places.values())):
        save_file({n: tensors[n] for n in names if places[n] == file}, folder / file, metadata={"format": "pt"})
    _json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": places})
    _json(folder / "config.json", published_config(sizes))
    _json(folder / "preprocessor_config.json", {
        "means": [[0.484375, 0.455078125, 0.40625], [0.5, 0.5, 0.5]],
        "stds": [[0.228515625, 0.2236328125, 0.224609375], [0.5, 0.5, 0.5]],
    })  # fmt: skip
    write_tokenizer(folder / "tokenizer.json", 29871 if sizes.vocabulary > 29871 else 300)
    (folder / "modeling_prismatic.py").write_text("raise SystemExit('nothing of a checkpoint is run')\n")
    if oft:
        _json(folder / "dataset_statistics.json", statistics())
        for name, shapes in (("proprio_projector", proprio_shapes(sizes)), ("action_head", head_shapes(sizes))):
            state = {f"module.{k}": torch.from_numpy(v) for k, v in weights(shapes).items()}
            torch.save(state, folder / f"{name}--150000_checkpoint.pt")
    return tensors


def tiny_policy(source: Source) -> PolicyConfig:
    """With the adaptive parts at test size."""
    sizes = preset("openvla_tiny")
    return policy_of(source, attention=sizes.attention, latent=sizes.latent)


def import_and_load(published: Path, output: Path) -> Checkpoint:
    """What a published folder becomes, with the adaptive parts at test size."""
    source = open_source(published)
    import_checkpoint(source, tiny_policy(source), output, provenance={})
    return load_checkpoint(output)


def published_config(sizes: Sizes) -> dict[str, Any]:
    """config.json with the fields that the published ones have; rms_norm_eps and the like are left out there too."""
    text = {
        "model_type": "llama", "pad_token_id": sizes.vocabulary - 64, "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width, "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp_width,
    }  # fmt: skip
    return {
        "architectures": ["OpenVLAForActionPrediction"], "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "vision_backbone_id": "dinosiglip-vit-so-224px", "llm_backbone_id": "llama2-7b-pure",
        "image_resize_strategy": "resize-naive", "image_sizes": [sizes.image_size] * 2, "n_action_bins": 256,
        "timm_override_act_layers": [None, None], "use_fused_vision_backbone": True, "pad_to_multiple_of": 64,
        "pad_token_id": sizes.vocabulary - 64, "text_config": text, "norm_stats": statistics(),
    }  # fmt: skip


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2))
