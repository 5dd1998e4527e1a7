import dataclasses

import pytest
import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.attention import log_bias, prune
from avavla_ray.policy.config import LoraConfig
from avavla_ray.policy.lora import add_lora
from avavla_ray.policy.openvla.backbone import OpenVlaBackbone
from avavla_ray.policy.openvla.config import OpenVlaConfig, check_config, preset
from avavla_ray.policy.openvla.key_map import unused_shapes
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.openvla.sequence import TextBatch
from avavla_ray.policy.openvla.shapes import build_on_meta
from tests.support.openvla_policies import openvla_model


@pytest.fixture(scope="module")
def oft() -> OpenVla:
    return openvla_model("openvla_oft_tiny")


@pytest.fixture(scope="module")
def plain() -> OpenVla:
    return openvla_model("openvla_tiny")


def _observation(config: OpenVlaConfig) -> tuple[Tensor, TextBatch, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (2, config.images, config.image_size, config.image_size, 3)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    ids = torch.randint(3, 290, (2, 9), generator=generator)
    present = torch.ones(2, 9, dtype=torch.bool)
    present[1, :4] = False
    return images, TextBatch(ids, present), torch.randn(2, 8, generator=generator)


def _inputs(model: OpenVla) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    images, text, proprio = _observation(model.config)
    with torch.no_grad():
        visual, words = model.encode_images(images), model.embed_text(text.ids)
        return visual, words, text.present, model.embed_proprio(proprio)


@pytest.mark.parametrize("name", ["openvla_7b", "openvla_oft_7b"])
def test_full_sizes_build_without_memory_and_count_as_published(name: str) -> None:
    model = build_on_meta(preset(name))
    assert all(parameter.is_meta for parameter in model.parameters())
    built = sum(parameter.numel() for parameter in model.parameters())
    unused = sum(torch.Size(shape).numel() for shape in unused_shapes(model.config).values())
    class_position = model.config.dino.width
    added = sum(p.numel() for part in (model.proprio, model.head) if part is not None for p in part.parameters())
    # openvla/openvla-7b holds 15,082,474,368 bytes of bfloat16.
    assert built - added - class_position + unused == 15_082_474_368 // 2
    assert (added > 0) == model.config.parallel


@torch.no_grad()
def test_pruned_tokens_are_the_same_as_weightless_ones(oft: OpenVla) -> None:
    visual, text, present, proprio = _inputs(oft)
    weights = torch.rand(visual.shape[:2], generator=torch.Generator().manual_seed(3)) + 0.5
    gone = weights < weights.median(dim=1, keepdim=True).values
    silent = oft.decode(visual, text, present, proprio=proprio, visual_bias=log_bias(weights.masked_fill(gone, 0.0)))
    ratio = 1 - int(gone[0].sum()) / visual.shape[1]
    short, kept, index = prune(visual, weights, ratio, sink_tokens=0)
    pruned = oft.decode(short, text, present, proprio=proprio, visual_bias=log_bias(kept), visual_index=index)
    assert short.shape[1] < visual.shape[1]
    for a, b in zip(silent, pruned, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_of_a_batch_do_not_feel_each_other(oft: OpenVla, plain: OpenVla) -> None:
    for model in (oft, plain):
        images, text, proprio = _observation(model.config)
        together = model.act(images, text, proprio)
        for row, length in ((0, 9), (1, 5)):
            alone_text = TextBatch(text.ids[row, -length:][None], None)
            alone = model.act(images[row : row + 1], alone_text, proprio[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_empty_action_tokens_are_zeros_and_others_matter(oft: OpenVla) -> None:
    visual, text, present, proprio = _inputs(oft)
    zeros, push = torch.zeros(2, 56, 64), torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(4))
    empty = oft.decode(visual, text, present, proprio=proprio)
    given = oft.decode(visual, text, present, proprio=proprio, actions=zeros)
    torch.testing.assert_close(empty.last, given.last, rtol=0, atol=0)
    pushed = oft.decode(visual, text, present, proprio=proprio, actions=zeros + push)
    assert (pushed.last - empty.last).abs().max() > 1e-2


def test_gradients_reach_the_bias_the_text_and_the_action_tokens(oft: OpenVla) -> None:
    visual, text, present, proprio = _inputs(oft)
    bias = torch.zeros(visual.shape[:2], requires_grad=True)
    actions, words = torch.zeros(2, 56, 64, requires_grad=True), text.clone().requires_grad_()
    decoded = oft.decode(visual, words, present, proprio=proprio, actions=actions, visual_bias=bias)
    oft.read_actions(decoded.last).abs().sum().backward()
    for part in (bias, actions, words):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    assert decoded.before.shape == decoded.last.shape == (2, 56, 64)


@pytest.mark.parametrize("name", ["oft", "plain"])
def test_gradient_checkpointing_recomputes_activations_and_changes_no_gradient(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    images, text, proprio = _observation(model.config)
    actions = torch.randn(2, model.config.action_tokens, 64, generator=torch.Generator().manual_seed(6))
    layers = model.language.model.layers
    watched = [layers[1], model.vision.dino.encoder.layer[0], model.vision.siglip.encoder.layers[1]]
    weights = [
        layers[0].mlp.up_proj.weight,
        watched[1].mlp.fc1.weight,
        model.vision.siglip.encoder.layers[0].mlp.fc1.weight,
    ]
    gradients, runs = [], []
    model.train()
    for checkpointing in (False, True):
        model.set_gradient_checkpointing(checkpointing)
        counts = [0] * len(watched)

        def count(module: torch.nn.Module, _: object) -> None:
            counts[[block.mlp for block in watched].index(module)] += 1  # noqa: B023

        hooks = [block.mlp.register_forward_pre_hook(count) for block in watched]
        visual, words = model.encode_images(images), model.embed_text(text.ids)
        decoded = model.decode(visual, words, text.present, proprio=model.embed_proprio(proprio), actions=actions)
        gradients.append(torch.autograd.grad(decoded.last.square().sum(), weights))
        runs.append(counts)
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        assert not model.embed_text(text.ids).requires_grad
    if not model.config.parallel:
        with pytest.raises(InputError, match=r"call eval\(\) or set_gradient_checkpointing\(False\)"):
            model.generate(visual, words, text.present)
    model.set_gradient_checkpointing(False)
    model.eval()
    assert runs == [[1, 1, 1], [2, 2, 2]]
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed, rtol=1e-6, atol=1e-6)
        assert kept.abs().sum() > 0


def test_gradient_checkpointing_reaches_adapters_over_a_frozen_model() -> None:
    model = openvla_model("openvla_oft_tiny")
    add_lora(OpenVlaBackbone(model), LoraConfig(rank=2, alpha=4))
    weights = [parameter for name, parameter in model.named_parameters() if "lora_A" in name]
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    images, text, proprio = _observation(model.config)
    gradients = []
    model.train()
    for checkpointing in (False, True):
        model.set_gradient_checkpointing(checkpointing)
        token = model.embed_proprio(proprio)
        decoded = model.decode(model.encode_images(images), model.embed_text(text.ids), text.present, proprio=token)
        gradients.append(torch.autograd.grad(model.read_actions(decoded.last).sum(), weights))
    assert len(weights) == 3 + 7 * model.config.language.layers
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed, rtol=1e-6, atol=1e-6)
        assert kept.abs().sum() > 0


def test_generated_tokens_can_be_pushed_and_see_only_the_kept_visual_tokens(plain: OpenVla) -> None:
    visual, text, present, _ = _inputs(plain)
    A, generator = plain.config.action_dim, torch.Generator().manual_seed(7)
    bias, index = torch.randn(2, 9, generator=generator), torch.tensor([[0, 2, 3, 5, 7, 8, 9, 12, 15]] * 2)
    kept = visual.gather(1, index[..., None].expand(-1, -1, 64))
    push = torch.randn(2, A, 64, generator=generator, requires_grad=True)
    options = {"visual_bias": bias, "visual_index": index}
    generated = plain.generate(kept, text, present, actions=push, **options)
    assert generated.ids.shape == (2, A)
    # What was generated, fed as the actions of one pass, reads the same hidden states.
    actions = plain.embed_text(generated.ids) + push
    decoded = plain.decode(kept, text, present, actions=actions, **options)
    for by_token, one_pass in ((generated.before, decoded.before), (generated.last, decoded.last)):
        torch.testing.assert_close(by_token, one_pass, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(generated.logits, plain.logits(decoded.last), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(generated.last.square().sum(), push)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).tolist() == [True] * (A - 1) + [False]
    unpushed = plain.generate(kept, text, present, **options)
    torch.testing.assert_close(unpushed.last[:, 0], generated.last[:, 0])
    assert (unpushed.last[:, 1] - generated.last[:, 1]).abs().max() > 1e-2
    with pytest.raises(InputError, match=rf"actions: expected \(2, {A}, 64\), got \(2, 1, 64\)"):
        plain.generate(kept, text, present, actions=push[:, :1])


def test_causal_model_sees_no_later_token_and_oft_does(oft: OpenVla, plain: OpenVla) -> None:
    for model, later_matters in ((oft, True), (plain, False)):
        visual, text, present, proprio = _inputs(model)
        actions = torch.randn(2, model.config.action_tokens, 64, generator=torch.Generator().manual_seed(5))
        changed = actions.clone()
        changed[:, -1] += 1.0
        with torch.no_grad():
            a, b = (model.decode(visual, text, present, proprio=proprio, actions=x).last for x in (actions, changed))
        assert bool((a - b).abs().max() > 1e-4) == later_matters


def test_missing_inputs_and_inconsistent_sizes_are_refused(oft: OpenVla, plain: OpenVla) -> None:
    visual, text, present, _ = _inputs(oft)
    with pytest.raises(InputError, match="proprio: this model needs the token"):
        oft.decode(visual, text, present)
    for wrong, got in ((None, "none"), (torch.zeros(2, 7), r"shape \(2, 7\)")):
        with pytest.raises(InputError, match=rf"proprio: expected normalised \(B, 8\), got {got}"):
            oft.embed_proprio(wrong)
    for images in (torch.zeros(1, 2, 56, 56, 3), torch.zeros(1, 2, 3, 56, 56, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"images: expected \(B, 2, 56, 56, 3\) torch.uint8, got \(1, 2,"):
            oft.encode_images(images)
    visual, text, present, _ = _inputs(plain)
    with pytest.raises(InputError, match="one token at a time"):
        plain.decode(visual, text, present)
    tiny = preset("openvla_oft_tiny")
    with pytest.raises(InputError, match=r"dino\.width 65"):
        check_config(dataclasses.replace(tiny, dino=dataclasses.replace(tiny.dino, width=65)))
    with pytest.raises(InputError, match="max_text_tokens"):
        check_config(dataclasses.replace(tiny, chunk=64))
    with pytest.raises(InputError, match="set parallel"):
        check_config(dataclasses.replace(tiny, parallel=False))
    with pytest.raises(InputError, match="did you mean 'openvla_7b'"):
        preset("openvla_7")
