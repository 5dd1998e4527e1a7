import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.attention import log_bias
from avavla_ray.policy.openvla.attention import KERNELS, explicit_attention, flash_attention, flex_attention
from avavla_ray.policy.openvla.model import Decoded, OpenVla
from avavla_ray.policy.openvla.sequence import attention_mask
from tests.support.openvla_policies import openvla_model

# On a processor it is not compiled, which is what it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")

# positive, negative and bias of the two published settings; the second one reaches w = 0, a pruned token.
LIBERO, CALVIN = (1.9, 0.1, 0.0), (1.0, -1.0, 1.0)
FUSED = [kernel for kernel in KERNELS if kernel != "explicit"]


@pytest.fixture(scope="module")
def models() -> dict[str, OpenVla]:
    """Bidirectional, and causal with two query heads a key head."""
    return {"oft": openvla_model("openvla_oft_tiny"), "plain": openvla_model("openvla_tiny", key_value_heads=2)}


def _weights(rows: int, tokens: int, scores: tuple[float, float, float], sinks: int) -> Tensor:
    positive, negative, bias = scores
    p = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(1))
    p[:, 5], p[:, 6] = 0.0, 1.0
    weights = bias + p * positive + (1 - p) * negative
    weights[:, :sinks].clamp_(min=1.0)
    return weights


def _inputs(model: OpenVla, scores: tuple[float, float, float] = LIBERO, sinks: int = 2) -> dict[str, Any]:
    """Two prompts of different lengths, and weights on every visual token."""
    config, generator = model.config, torch.Generator().manual_seed(2)
    D = config.language.width
    present = torch.ones(2, 9, dtype=torch.bool)
    present[1, :4] = False
    return {
        "visual": torch.randn(2, config.visual_tokens, D, generator=generator),
        "text": torch.randn(2, 9, D, generator=generator),
        "present": present,
        "proprio": torch.randn(2, 1, D, generator=generator) if config.proprio_dim else None,
        "actions": torch.randn(2, config.action_tokens, D, generator=generator),
        "visual_bias": log_bias(_weights(2, config.visual_tokens, scores, sinks)),
    }


def _decode(model: OpenVla, kernel: str, **inputs: Any) -> Decoded:
    model.set_attention(kernel)
    with torch.no_grad():
        return model.decode(**inputs)


def _assert_close(a: tuple[Tensor, ...], b: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", FUSED)
@pytest.mark.parametrize("name", ["oft", "plain"])
def test_every_kernel_equals_multiplying_and_renormalising(models: dict[str, OpenVla], kernel: str, name: str) -> None:
    model = models[name]
    for scores in (LIBERO, CALVIN):
        inputs = _inputs(model, scores)
        assert bool(inputs["visual_bias"].isinf().any()) == (scores == CALVIN)
        reference = _decode(model, "explicit", **inputs)
        _assert_close(_decode(model, kernel, **inputs), reference)
        unweighted = _decode(model, kernel, **{**inputs, "visual_bias": None, "present": None})
        assert (unweighted.last - reference.last).abs().max() > 1e-2


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_without_a_bias_are_plain_attention(models: dict[str, OpenVla], kernel: str) -> None:
    for model in models.values():
        inputs = {**_inputs(model), "visual_bias": None, "present": None}
        _assert_close(_decode(model, kernel, **inputs), _decode(model, "sdpa", **inputs))


@pytest.mark.parametrize("kernel", KERNELS)
def test_token_by_token_equals_one_pass(models: dict[str, OpenVla], kernel: str) -> None:
    model = models["plain"]
    inputs = _inputs(model, CALVIN)
    actions = inputs.pop("actions")
    inputs.pop("proprio")
    model.set_attention(kernel)
    with torch.no_grad():
        generated = model.generate(**inputs, actions=actions)
        fed = model.embed_text(generated.ids) + actions
    _assert_close((generated.before, generated.last), _decode(model, "explicit", **inputs, actions=fed))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_dropped_token_equals_a_weightless_one_in_a_really_shorter_sequence(
    models: dict[str, OpenVla], kernel: str
) -> None:
    for model in models.values():
        inputs = _inputs(model)
        N = model.config.visual_tokens
        order = torch.rand(2, N, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
        index, gone = order[:, : N // 2].sort(dim=1).values, order[:, N // 2 :]
        silent = {**inputs, "visual_bias": inputs["visual_bias"].scatter(1, gone, -torch.inf)}
        places = index[..., None].expand(-1, -1, inputs["visual"].shape[2])
        short = {
            **inputs,
            "visual": inputs["visual"].gather(1, places),
            "visual_bias": inputs["visual_bias"].gather(1, index),
        }
        lengths: list[int] = []
        hook = model.language.model.layers[0].mlp.register_forward_pre_hook(
            lambda _, given, lengths=lengths: lengths.append(given[0].shape[1])
        )
        _assert_close(_decode(model, kernel, **short, visual_index=index), _decode(model, kernel, **silent))
        hook.remove()
        assert lengths[1] - lengths[0] == N - N // 2


def test_gradients_of_the_weights_agree(models: dict[str, OpenVla]) -> None:
    for model in models.values():
        inputs, gradients = _inputs(model, CALVIN), {}
        for kernel in ("explicit", "sdpa", "flash"):
            model.set_attention(kernel)
            bias = inputs["visual_bias"].clone().requires_grad_()
            last = model.decode(**{**inputs, "visual_bias": bias}).last
            direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(5))
            (gradients[kernel],) = torch.autograd.grad((last * direction).sum(), bias)
        for kernel in ("sdpa", "flash"):
            torch.testing.assert_close(gradients[kernel], gradients["explicit"], rtol=1e-4, atol=1e-4)
        assert gradients["flash"].abs().max() > 0.1


class _Layer(torch.nn.Module):
    num_key_value_groups = 1


def _attend(kernel: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, causal: bool) -> Tensor:
    scaling = query.shape[-1] ** -0.5
    if kernel == "sdpa":
        mask = attention_mask(bias, query.shape[2], causal, query.dtype)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return mixed.transpose(1, 2)
    function = {"explicit": explicit_attention, "flash": flash_attention, "flex": flex_attention}[kernel]
    return function(_Layer(), query, key, value, None, scaling=scaling, is_causal=causal, key_bias=bias)[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    keys=st.integers(2, 40),
    width=st.sampled_from([4, 7, 16]),
    weights=st.lists(st.sampled_from([0.0, 1e-8, 0.1, 1.0, 1.9, 2.0]) | st.floats(0.01, 2.0), min_size=1, max_size=39),
    causal=st.booleans(),
    last_only=st.booleans(),
)
def test_any_weights_give_the_same_attention(
    seed: int, keys: int, width: int, weights: list[float], causal: bool, last_only: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (3 * torch.randn(2, 3, keys, width, generator=generator) for _ in range(3))
    query = query[:, :, -1:] if last_only else query
    # The first key stands for BOS.
    row = torch.tensor([1.0, *weights, *[1.0] * keys])[:keys]
    bias = torch.stack([log_bias(row), log_bias(torch.cat([row[:1], row[1:].flip(0)]))])
    reference = _attend("explicit", query, key, value, bias, causal)
    for kernel in ("sdpa", "flash"):
        torch.testing.assert_close(_attend(kernel, query, key, value, bias, causal), reference, rtol=1e-5, atol=2e-5)


def test_bfloat16_flash_keeps_the_weights_to_float32() -> None:
    generator = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(4, 4, 200, 64, generator=generator).bfloat16() for _ in range(3))
    # Keys that all look alike: what is left of the attention are the weights.
    key = key[:, :, :1].expand_as(key).contiguous()
    bias = log_bias(0.1 + 1.8 * torch.rand(4, 200, generator=generator))
    exact = _attend("explicit", query.float(), key.float(), value.float(), bias, False)
    error = {k: (_attend(k, query, key, value, bias, False).float() - exact).abs().mean() for k in ("sdpa", "flash")}
    assert error["flash"] < 2e-3
    assert error["flash"] < error["sdpa"]


def test_flash_hands_the_fused_kernel_no_mask(models: dict[str, OpenVla], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = torch.nn.functional.scaled_dot_product_attention, []

    def watched(*tensors: Tensor, **options: Any) -> Tensor:
        seen.append((options.get("attn_mask"), tensors[0].shape[-1]))
        return plain(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model = models["oft"]
    _decode(model, "flash", **_inputs(model))
    assert seen == [(None, 24)] * model.config.language.layers


def test_unknown_and_missing_kernels_are_refused(models: dict[str, OpenVla], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["oft"]
    model.set_attention("explicit")
    with pytest.raises(InputError, match="unknown attention 'flesh': did you mean 'flash'"):
        model.set_attention("flesh")
    monkeypatch.setitem(sys.modules, "torch.nn.attention.flex_attention", None)
    with pytest.raises(InputError, match="attention 'flex': this PyTorch has no FlexAttention: choose 'sdpa'"):
        model.set_attention("flex")
    assert model.attention == "explicit"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_decision_compiles_as_one_graph(models: dict[str, OpenVla], kernel: str) -> None:
    inputs = _inputs(models["oft"])
    plain = _decode(models["oft"], kernel, **inputs)
    compiled = torch.compile(models["oft"].decode, fullgraph=True, backend="eager")
    with torch.no_grad():
        _assert_close(compiled(**inputs), plain)
