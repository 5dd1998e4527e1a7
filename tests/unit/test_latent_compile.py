"""A fixed depth through torch.compile: the same trace, few graphs, and nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from avavla_ray.errors import InputError
from avavla_ray.policy.latent_loop import LatentLoop
from tests.support.policies import tiny

K = 5


@pytest.fixture(scope="module")
def loop() -> LatentLoop:
    torch.manual_seed(3)
    made = LatentLoop(tiny().latent).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        made.exit_gate.leave[1].weight.mul_(4)
    return made


@pytest.fixture
def counter():
    """Counts graphs, which PyTorch itself runs after they were traced as for a compiler: that takes seconds less."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


@torch.no_grad()
def think(loop, batch, *, steps=K, threshold=None, sample=False):
    generator = torch.Generator().manual_seed(batch)
    context = loop.context(torch.randn(batch, loop.config.encoding_width, generator=generator))
    z0 = torch.tanh(torch.randn(batch, loop.config.width, generator=generator))
    noise = torch.randn(batch, K, loop.config.update_dim, generator=generator) if sample else None
    return loop.think(context, z0, steps=steps, exit_threshold=threshold, noise=noise)


def assert_same(one, other):
    for name, part in one._asdict().items():
        torch.testing.assert_close(part, getattr(other, name), atol=1e-5, rtol=0, msg=name)


def test_compiled_depths_give_the_same_trace_from_few_graphs(loop, counter):
    compiled = copy.deepcopy(loop)
    compiled.compile(2, backend=counter)
    for batch in (1, 2, 3, 7, 16):
        for sample in (False, True):
            assert_same(think(compiled, batch, sample=sample, steps=2), think(loop, batch, sample=sample, steps=2))
    assert counter.frame_count == 4  # a batch of one or of more, of means or of draws
    assert_same(think(compiled, 8, steps=2, threshold=1.0), think(loop, 8, steps=2))  # no score exceeds 1
    assert counter.frame_count == 4


def test_depths_that_are_not_compiled_and_early_exit_keep_working(loop, counter):
    compiled = copy.deepcopy(loop)
    compiled.compile(2, backend=counter)
    threshold = float(think(loop, 9).exit_score.median())
    for options in ({"steps": 3}, {}, {"threshold": threshold}, {"threshold": threshold, "sample": True}):
        one, other = think(compiled, 9, **options), think(loop, 9, **options)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert counter.frame_count == 0


def test_compiled_depths_follow_the_weights_and_copies_have_their_own(loop):
    torch._dynamo.reset()
    compiled = copy.deepcopy(loop)
    compiled.compile(1, backend="aot_eager")
    before = think(compiled, 4, steps=1)
    copied = copy.deepcopy(compiled)
    with torch.no_grad():
        compiled.transition.norm.bias.add_(1.0)
    torch.testing.assert_close(think(compiled, 4, steps=1).z[:, 1], before.z[:, 1] + 1.0, atol=1e-5, rtol=0)
    assert_same(think(copied, 4, steps=1), before)


@pytest.mark.parametrize("steps", [0, K + 1])
def test_depths_outside_the_loop_are_refused(loop, steps):
    with pytest.raises(InputError, match=f"steps {steps} to compile: expected 1..{K}"):
        copy.deepcopy(loop).compile(steps)
