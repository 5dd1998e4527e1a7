import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.config import OpenVlaConfig, preset
from avavla_ray.policy.openvla.cost import decision_cost, layer_cost
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.openvla.shapes import build_on_meta
from benchmarks.policy_cost.layers import TEXT_TOKENS, measure_layers, prefill_speedup
from benchmarks.policy_cost.models import language_only, random_model, with_layers


def _grouped(config: OpenVlaConfig) -> OpenVlaConfig:
    """Sizes that no two parts share, and two query heads a key head."""
    language = dataclasses.replace(config.language, width=48, heads=4, key_value_heads=2, layers=3)
    return dataclasses.replace(config, language=language)


class _Decision(torch.nn.Module):
    """A plain decision, in one module so that the counter tells the layers apart."""

    def __init__(self, model: OpenVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, ids: Tensor, kept: int | None) -> Tensor:
        model = self.model
        visual, words = model.encode_images(images)[:, :kept], model.embed_text(ids)
        if not model.config.parallel:
            return model.generate(visual, words, None).ids
        proprio = model.embed_proprio(torch.zeros(1, model.config.proprio_dim))
        return model.read_actions(model.decode(visual, words, None, proprio=proprio).last)


@pytest.mark.parametrize("name", ["openvla_tiny", "openvla_oft_tiny"])
@pytest.mark.parametrize("kept", [None, 5])
@torch.no_grad()
def test_operations_are_those_that_run(name: str, kept: int | None) -> None:
    decision = _Decision(OpenVla(_grouped(preset(name)))).eval()
    config = decision.model.config
    images = torch.randint(0, 256, (1, config.images, 56, 56, 3), dtype=torch.uint8)
    # The counter knows no operations of the processor's fused kernel, so attention runs as products here.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decision(images, torch.randint(3, 290, (1, 7)), kept)
    counted = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    costs = decision_cost(config, text_tokens=7, visual_tokens=kept)
    places = {
        "dino": "vision.dino", "siglip": "vision.siglip", "vocabulary": "language.lm_head", "l1 head": "head",
        "embedding": "language.model.embed_tokens", **{f"layer {i}": f"language.model.layers.{i}" for i in range(3)},
    }  # fmt: skip
    for cost in costs:
        assert counted.get(f"_Decision.model.{places.get(cost.part, cost.part)}", 0) == cost.flops, cost.part
    assert counted["Global"] == sum(cost.flops for cost in costs)


@pytest.mark.parametrize("name", ["openvla_7b", "openvla_oft_7b", "openvla_tiny", "openvla_oft_tiny"])
def test_weights_are_those_of_the_model(name: str) -> None:
    config = preset(name)
    model = build_on_meta(config)
    parts = {cost.part: cost for cost in decision_cost(config, text_tokens=20)}
    held = {
        "dino": model.vision.dino, "siglip": model.vision.siglip, "projector": model.projector,
        "embedding": model.language.model.embed_tokens, "layer 0": model.language.model.layers[0],
        "proprio": model.proprio, "l1 head": model.head,
    }  # fmt: skip
    for part, module in held.items():
        assert (module is None) == (part not in parts)
        if module is not None:
            assert parts[part].weights == sum(p.numel() for p in module.parameters()), part
    assert sum(cost.weights for cost in parts.values()) == sum(p.numel() for p in model.parameters())


def test_a_token_by_token_decision_reads_the_language_model_once_a_token() -> None:
    config = preset("openvla_7b")
    layer, alone = decision_cost(config, text_tokens=20)[5], layer_cost(config, 1 + 256 + 20)
    assert (layer.part, layer.passes, layer.tokens) == ("layer 1", 7, 277 + 6)
    assert layer.weight_bytes(2) == 7 * alone.weight_bytes(2) == 7 * alone.weights * 2


def test_pruning_70_percent_at_two_images_more_than_halves_a_layer() -> None:
    config = preset("openvla_oft_7b")
    whole, pruned = (decision_cost(config, text_tokens=30, visual_tokens=n) for n in (512, 154))
    by_part = {cost.part: (cost.flops, other.flops) for cost, other in zip(whole, pruned, strict=True)}
    assert by_part["layer 0"][0] > 2 * by_part["layer 0"][1]
    assert by_part["dino"][0] == by_part["dino"][1]


@pytest.mark.parametrize("name", ["openvla_tiny", "openvla_oft_tiny"])
def test_benchmark_times_every_part_with_and_without_pruning(name: str) -> None:
    model = OpenVla(_grouped(preset(name))).eval()
    rows = {(row.part, row.keep): row for row in measure_layers(model, batch=2, keeps=(1.0, 0.3), seconds=0)}
    parts = [cost.part for cost in decision_cost(model.config, text_tokens=TEXT_TOKENS)]
    timed = [part for part in parts if part != "embedding" and (part != "vocabulary" or not model.config.parallel)]
    assert list(rows) == [(part, keep) for keep in (1.0, 0.3) for part in timed]
    assert all(row.milliseconds > 0 for row in rows.values())
    dropped = model.config.visual_tokens - math.ceil(0.3 * model.config.visual_tokens)
    for i in range(model.config.language.layers):
        whole, pruned = rows[f"layer {i}", 1.0], rows[f"layer {i}", 0.3]
        assert whole.tokens - pruned.tokens == 2 * dropped
        assert whole.gflops > pruned.gflops
    with pytest.raises(InputError, match=r"keep 1\.0 is outside"):
        prefill_speedup(1.0, 1.0)


def test_random_models_are_finite_and_what_they_say() -> None:
    config = language_only(with_layers(preset("openvla_oft_tiny"), 3))
    model = random_model(config, "cpu", torch.bfloat16)
    words = model.embed_text(torch.ones(1, 4, dtype=torch.int64))
    visual = torch.randn(1, config.visual_tokens, config.language.width).bfloat16()
    decoded = model.decode(visual, words, None, proprio=model.embed_proprio(torch.zeros(1, 8)))
    assert len(model.language.model.layers) == 3
    assert decoded.last.dtype == torch.bfloat16
    assert decoded.last.isfinite().all()
    assert decoded.last.std() > 0
