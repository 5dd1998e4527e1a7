"""Active visual attention: the weights, their schedule, and pruning."""

from __future__ import annotations

import math

import pytest
import torch

from avavla_ray.policy.attention import ActiveVisualAttention, log_bias, prune, temperature_at
from tests.support.policies import tiny


def module(seed: int = 0, **changes):
    config = tiny(**{f"attention__{name}": value for name, value in changes.items()})
    torch.manual_seed(seed)
    made = ActiveVisualAttention(config.attention, config.backbone)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def arguments(B: int = 3, N: int = 8, D: int = 32):
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(B, *shape, generator=generator) for shape in ((N, D), (D,), (8, D)))


def test_starts_as_plain_attention():
    config = tiny()
    fresh = ActiveVisualAttention(config.attention, config.backbone)
    visual, text, hidden = arguments()
    torch.testing.assert_close(fresh(visual, text, hidden, 0.1), torch.ones(3, 8))


@pytest.mark.parametrize(("positive", "negative", "bias", "low", "high"), [(1.9, 0.1, 0, 0.1, 1.9), (1, -1, 1, 0, 2)])
def test_weights_span_the_published_ranges(positive, negative, bias, low, high):
    made = module(positive=positive, negative=negative, bias=float(bias), sink_tokens=0)
    weights = made(*arguments(), temperature=1e-4)
    assert weights.min() >= low - 1e-6
    assert weights.max() <= high + 1e-6
    near = torch.minimum((weights - low).abs(), (weights - high).abs())
    assert (near < 1e-3).float().mean() > 0.9  # a cold softmax decides
    assert weights.unique().numel() > 1


def test_temperature_flattens():
    made = module(sink_tokens=0)
    visual, text, hidden = arguments()
    cold, warm = (made(visual, text, hidden, t) for t in (0.1, 10.0))
    assert (warm - 1).abs().max() < (cold - 1).abs().max()


def test_sinks_keep_a_weight_of_at_least_one():
    visual, text, hidden = arguments()
    free = module(sink_tokens=0)(visual, text, hidden, 0.1)
    held = module(sink_tokens=8)(visual, text, hidden, 0.1)
    assert (free < 1).any()
    torch.testing.assert_close(held, free.clamp_min(1.0))


def test_belief_text_and_image_all_matter():
    made = module(sink_tokens=0)
    visual, text, hidden = arguments()
    weights = made(visual, text, hidden, 1.0)
    for changed in ((visual.flip(0), text, hidden), (visual, text.flip(0), hidden), (visual, text, hidden.flip(0))):
        assert not torch.allclose(made(*changed, 1.0)[0], weights[0])


def test_zero_belief_gives_finite_weights_and_gradients():
    made = module()
    visual, text, hidden = arguments()
    visual.requires_grad_()
    weights = made(visual, text, torch.zeros_like(hidden), 0.1)
    assert torch.isfinite(weights).all()
    log_bias(weights).square().sum().backward()
    assert torch.isfinite(visual.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_temperature_falls_exponentially_over_the_first_share_and_stays():
    config = tiny().attention
    assert temperature_at(config, 0.0) == 1.0
    assert math.isclose(temperature_at(config, 0.4), math.sqrt(0.1))
    assert math.isclose(temperature_at(config, 0.8), 0.1)
    assert math.isclose(temperature_at(config, 1.0), 0.1)


def test_pruning_keeps_the_heaviest_in_order_and_shortens_the_sequence():
    tokens = torch.arange(6.0)[None, :, None].expand(2, -1, 3)
    weights = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.7, 0.3], [0.9, 0.1, 0.1, 0.2, 0.8, 0.7]])
    kept, kept_weights, index = prune(tokens, weights, 0.5, sink_tokens=0)
    assert index is not None
    assert kept[..., 0].tolist() == index.tolist() == [[1, 3, 4], [0, 4, 5]]
    torch.testing.assert_close(kept_weights, torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]))


def test_pruning_never_drops_sinks():
    tokens, weights = torch.arange(6.0)[None, :, None], torch.tensor([[0.0, 0.0, 0.9, 0.8, 0.7, 0.6]])
    assert prune(tokens, weights, 0.5, sink_tokens=2)[0].flatten().tolist() == [0, 1, 2]
    assert prune(tokens, weights, 0.0, sink_tokens=2)[0].flatten().tolist() == [0, 1]


def test_keep_ratio_one_changes_nothing():
    tokens, weights = torch.randn(2, 6, 3), torch.rand(2, 6)
    same, same_weights, index = prune(tokens, weights, 1.0, sink_tokens=1)
    assert index is None
    assert same is tokens
    assert same_weights is weights


def test_of_equal_weights_every_region_keeps_its_share():
    tokens, weights = torch.zeros(1, 512, 1), torch.ones(1, 512)
    for ratio in (0.1, 0.3, 0.5, 0.7):
        *_, index = prune(tokens, weights, ratio, sink_tokens=4)
        assert index is not None
        per_region = torch.histc(index.float(), bins=8, min=0, max=511)
        assert per_region.min() >= per_region.max() - 4, (ratio, per_region)
    weights[0, 100:150] = 2.0
    *_, index = prune(tokens, weights, 0.2, sink_tokens=4)
    assert set(range(100, 150)) <= set(index[0].tolist())
