"""Compute tests/unit/data/openvla_*.npz with the reference implementation. Not a test; run by hand, once a flavour.

It runs beside the project, in an environment of its own, and nothing of the reference is kept but these numbers:

    git clone https://github.com/openvla/openvla; git clone https://github.com/moojink/openvla-oft
    pip install torch==2.13.0 timm==0.9.16 transformers==4.40.1 tokenizers==0.19.1 numpy==1.26.4 pillow einops
    PYTHONPATH=openvla python tests/support/openvla_reference.py openvla tests/unit/data/openvla_golden.npz
    # OFT needs its fork of transformers (bidirectional Llama) before the stock one:
    PYTHONPATH=openvla-oft:transformers-openvla-oft/src python tests/support/openvla_reference.py oft \
        tests/unit/data/openvla_oft_golden.npz

Weights and inputs are those of openvla_weights.py: towers of 3 blocks, a Llama of 2 layers, width 64, float32. The
reference loads them strictly by name. What it makes of them is kept whole where it is small; of logits the 256 action
tokens are kept (every eighth position of OFT's), and the largest of all.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from openvla_weights import Sizes, golden_inputs, head_shapes, model_shapes, proprio_shapes, statistics, weights

SIZES = Sizes()


def _package(name: str, folder: Path | None = None) -> None:
    """Register a package without running its __init__, which would import data loaders and simulators."""
    module = types.ModuleType(name)
    module.__path__ = [] if folder is None else [str(folder)]  # type: ignore[attr-defined]
    sys.modules[name] = module


def _reference(flavour: str) -> tuple[Any, Any, Any]:
    # A torchvision without its compiled operators will do: only its Python transforms are used.
    with mock.patch.object(torch.library, "register_fake", return_value=lambda function: function):
        importlib.import_module("torchvision")
    root = next(Path(p) for p in sys.path if (Path(p) / "prismatic").is_dir())
    folders = ["", "/extern", "/extern/hf", "/models", "/training", "/vla"]
    for folder in folders:
        _package(("prismatic" + folder).replace("/", "."), root / ("prismatic" + folder))
    if flavour == "oft":
        for name in ("diffusers", "diffusers.schedulers"):
            _package(name)
        scheduler = types.ModuleType("diffusers.schedulers.scheduling_ddim")
        scheduler.DDIMScheduler = object  # type: ignore[attr-defined]
        sys.modules[scheduler.__name__] = scheduler
        heads = importlib.import_module("prismatic.models.action_heads")
        projectors = importlib.import_module("prismatic.models.projectors")
    else:
        heads = projectors = None
    return importlib.import_module("prismatic.extern.hf.modeling_prismatic"), heads, projectors


def _model(modeling: Any) -> Any:
    text = {
        "hidden_size": SIZES.width, "num_hidden_layers": SIZES.layers, "num_attention_heads": SIZES.heads,
        "num_key_value_heads": SIZES.heads, "intermediate_size": SIZES.mlp_width, "vocab_size": SIZES.vocabulary,
        "pad_token_id": 32000,
    }  # fmt: skip
    config = modeling.OpenVLAConfig(
        vision_backbone_id="dinosiglip-vit-so-224px", llm_backbone_id="llama2-7b-pure", text_config=text,
        image_resize_strategy="resize-naive", norm_stats=statistics(),
    )  # fmt: skip
    create = functools.partial(modeling.timm.create_model, embed_dim=SIZES.width, depth=SIZES.tower_layers)
    config._attn_implementation = "sdpa"
    with mock.patch.object(modeling.timm, "create_model", create):
        model = modeling.OpenVLAForActionPrediction(config).eval()
    model.load_state_dict({name: torch.from_numpy(x) for name, x in weights(model_shapes(SIZES)).items()}, strict=True)
    return model


def _pixels(images: np.ndarray) -> torch.Tensor:
    """(V, H, W, 3) uint8 -> (1, 6 V, H, W) by the reference's own image processor with the published statistics."""
    from PIL import Image

    processing = importlib.import_module("prismatic.extern.hf.processing_prismatic")
    processor = processing.PrismaticImageProcessor(
        use_fused_vision_backbone=True, image_resize_strategy="resize-naive",
        input_sizes=[(3, 224, 224)] * 2, interpolations=["bicubic"] * 2,
        means=[(0.484375, 0.455078125, 0.40625), (0.5, 0.5, 0.5)],
        stds=[(0.228515625, 0.2236328125, 0.224609375), (0.5, 0.5, 0.5)],
    )  # fmt: skip
    parts = [processor(Image.fromarray(image), return_tensors="pt")["pixel_values"] for image in images]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def main(flavour: str, output: str) -> None:
    modeling, heads, projectors = _reference(flavour)
    model = _model(modeling)
    inputs = golden_inputs(SIZES, images=2 if flavour == "oft" else 1)
    extra: dict[str, Any] = {}
    if flavour == "oft":
        model.vision_backbone.set_num_images_in_input(2)
        head = heads.L1RegressionActionHead(SIZES.width, SIZES.width, SIZES.action_dim).eval()
        projector = projectors.ProprioProjector(SIZES.width, SIZES.proprio_dim).eval()
        head.load_state_dict({k: torch.from_numpy(v) for k, v in weights(head_shapes(SIZES)).items()})
        projector.load_state_dict({k: torch.from_numpy(v) for k, v in weights(proprio_shapes(SIZES)).items()})
    kept: dict[str, list[np.ndarray]] = {}

    def keep(name: str, value: Any) -> None:
        kept.setdefault(name, []).append(np.asarray(value, np.float64 if name == "actions" else None))

    outputs: list[Any] = []
    model.language_model.register_forward_hook(lambda module, args, result: outputs.append(result))
    for row in range(2):
        prompt = torch.from_numpy(inputs[f"prompt_{row}"])[None]
        pixels = _pixels(inputs["images"][row])
        features = model.vision_backbone(pixels)
        keep("features", features[0, ::16])
        keep("visual", model.projector(features)[0, ::16])
        arguments = {"pixel_values": pixels, "attention_mask": torch.ones_like(prompt), "unnorm_key": "golden"}
        outputs.clear()
        if flavour == "openvla":
            keep("actions", model.predict_action(prompt, do_sample=False, **arguments))
            logits = torch.stack([result.logits[0, -1] for result in outputs])
        else:
            stats = statistics()["golden"]["proprio"]
            low, high = np.array(stats["q01"]), np.array(stats["q99"])  # type: ignore[index]
            # What normalize_proprio of experiments/robot/openvla_utils.py computes, which imports TensorFlow.
            proprio = np.clip(2 * (inputs["proprio"][row] - low) / (high - low + 1e-8) - 1, -1, 1)
            extra = {"proprio": proprio, "proprio_projector": projector, "action_head": head}
            actions, hidden = model.predict_action(prompt, **arguments, **extra)
            keep("actions", actions)
            first = 512 + 1 + prompt.shape[1]
            read = slice(first, first + 56)
            keep("hidden", hidden[0])
            keep("before", outputs[0].hidden_states[-2][0, read])
            logits = outputs[0].logits[0, read]
            tokens, _ = model.predict_action(prompt, **arguments, **{**extra, "action_head": None})
            keep("token_actions", tokens)
        keep("logits", logits[:: 8 if flavour == "oft" else 1, 31744:32000])
        keep("largest", logits.argmax(-1))
        keep("largest_logit", logits.max(-1).values)
    np.savez_compressed(output, **{name: np.stack(values) for name, values in kept.items()})
    print({name: np.stack(values).shape for name, values in kept.items()}, Path(output).stat().st_size, "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
