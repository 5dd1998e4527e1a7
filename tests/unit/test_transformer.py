"""The attention bias means what the paper says: multiply the attention by w, renormalise."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.policy.attention import log_bias
from avavla_ray.policy.transformer import Block, MultiHeadAttention, Transformer


def explicit_attention(attention: MultiHeadAttention, x, source, weights):
    """Softmax, times w, renormalised, written out."""
    B, Q, width = x.shape
    heads, S = attention.heads, source.shape[1]
    split = lambda t, n: t.view(B, n, heads, width // heads).transpose(1, 2)  # noqa: E731
    keys, values = attention.key_value(source).chunk(2, dim=-1)
    q, k, v = split(attention.query(x), Q), split(keys, S), split(values, S)
    shares = (q @ k.transpose(2, 3) / (width // heads) ** 0.5).softmax(-1) * weights[:, None, None]
    shares = shares / shares.sum(-1, keepdim=True)
    return attention.output((shares @ v).transpose(1, 2).reshape(B, Q, width))


def test_log_bias_equals_multiplying_and_renormalising():
    torch.manual_seed(0)
    attention = MultiHeadAttention(16, 4)
    x, weights = torch.randn(3, 11, 16), torch.rand(3, 11) * 1.8 + 0.1
    expected = explicit_attention(attention, x, x, weights)
    torch.testing.assert_close(attention(x, x, log_bias(weights)), expected, atol=1e-5, rtol=0)
    with torch.no_grad():  # the fused kernel, which runs without gradients
        torch.testing.assert_close(attention(x, x, log_bias(weights)), expected, atol=1e-5, rtol=0)


def test_weight_one_is_plain_attention():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, source_width=12)
    x, source = torch.randn(2, 3, 8), torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(x, source, torch.zeros(2, 5)), attention(x, source))


def test_weight_zero_equals_a_removed_token_in_every_layer():
    torch.manual_seed(0)
    transformer = Transformer(16, layers=3, heads=2, mlp_ratio=2.0)
    x, weights = torch.randn(2, 10, 16), torch.rand(2, 10) + 0.5
    weights[:, [1, 4]] = 0.0
    kept = [0, 2, 3, 5, 6, 7, 8, 9]
    hidden, output = transformer(x, log_bias(weights), last=3)
    hidden_without, output_without = transformer(x[:, kept], log_bias(weights[:, kept]), last=3)
    torch.testing.assert_close(hidden, hidden_without, atol=1e-5, rtol=0)
    torch.testing.assert_close(output, output_without, atol=1e-5, rtol=0)


def test_gradients_of_the_weights_are_finite_at_zero():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    weights = torch.tensor([[0.0, 1e-12, 0.5, 2.0]], requires_grad=True)
    x = torch.randn(1, 4, 8)
    attention(x, x, log_bias(weights)).square().sum().backward()
    assert torch.isfinite(weights.grad).all()
    assert weights.grad[0, 2:].all()


def test_last_positions_alone_equal_the_whole_layer():
    torch.manual_seed(0)
    block = Block(16, 2, mlp_ratio=2.0)
    x, bias = torch.randn(2, 9, 16), torch.randn(2, 9)
    torch.testing.assert_close(block(x, bias, last=4), block(x, bias)[:, -4:])


def test_hidden_states_are_those_of_the_last_but_one_layer():
    torch.manual_seed(0)
    transformer = Transformer(8, layers=3, heads=2, mlp_ratio=2.0)
    x = torch.randn(2, 6, 8)
    hidden, output = transformer(x, None, last=2)
    expected = transformer.blocks[1](transformer.blocks[0](x))
    torch.testing.assert_close(hidden, expected[:, -2:])
    torch.testing.assert_close(output, transformer.norm(transformer.blocks[2](expected))[:, -2:])


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    block = Block(8, 2, mlp_ratio=2.0, dropout=0.5)
    x = torch.randn(2, 6, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_a_bias_that_learns_is_the_mask_that_does_not():
    """On the CPU it is a feature of the keys while gradients are taken, since masks have no fused kernel there then."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(12, 2)
    x, source = torch.randn(3, 5, 12), torch.randn(3, 7, 12)
    bias = torch.randn(3, 7)
    bias[:, 2] = -torch.inf  # padding, and a token that was pruned away
    learning = bias.clone().requires_grad_()
    torch.testing.assert_close(attention(x, source, learning), attention(x, source, bias), atol=1e-6, rtol=0)

    attention(x, source, learning).square().sum().backward()
    assert torch.isfinite(learning.grad).all()
    assert not learning.grad[:, 2].any()
    with torch.no_grad():
        step = torch.zeros_like(bias)
        step[0, 4] = 1e-2
        above, below = (attention(x, source, each).square().sum() for each in (bias + step, bias - step))
    assert learning.grad[0, 4].item() == pytest.approx(float(above - below) / 2e-2, rel=0.02)
