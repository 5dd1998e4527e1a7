"""Thinking with early exit: compaction changes cost, never results."""

from __future__ import annotations

import itertools

import pytest
import torch

from avavla_ray.policy.latent_loop import LatentLoop, final_latent
from avavla_ray.policy.reasoning import ExitGate, gaussian_log_prob
from tests.support.policies import tiny

B, K = 24, 5


@pytest.fixture
def loop() -> LatentLoop:
    """A loop whose gate disagrees from sample to sample."""
    torch.manual_seed(3)
    made = LatentLoop(tiny().latent)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        made.exit_gate.leave[1].weight.mul_(4)
    return made


def start(loop: LatentLoop):
    generator = torch.Generator().manual_seed(7)
    encoding = torch.randn(B, loop.config.encoding_width, generator=generator)
    z0 = torch.tanh(torch.randn(B, loop.config.width, generator=generator))
    return loop.context(encoding), z0


@torch.no_grad()
def think(loop, *, steps=K, threshold=None, sample=False, seed=0, rows=slice(None)):
    context, z0 = start(loop)
    context = type(context)(*(part[rows] for part in context))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(z0[rows]), K, loop.config.update_dim)
    noise = torch.randn(shape, generator=generator) if sample else None
    return loop.think(context, z0[rows], steps=steps, exit_threshold=threshold, noise=noise)


def rows_of_each_call(loop) -> dict[str, list[int]]:
    """Fills up as the loop thinks."""
    seen = {"update_policy": [], "transition": [], "exit_gate": []}
    for name, rows in seen.items():
        getattr(loop, name).register_forward_hook(lambda module, given, result, rows=rows: rows.append(len(given[0])))
    return seen


def middle_threshold(loop) -> float:
    return float(think(loop).exit_score.median())


@pytest.mark.parametrize("sample", [False, True])
def test_compacted_loop_equals_the_full_loop_cut_at_each_exit(loop, sample):
    threshold = middle_threshold(loop)
    full = think(loop, sample=sample)
    early = think(loop, threshold=threshold, sample=sample)
    assert len(early.steps.unique()) > 2  # the test would be empty otherwise
    for row in range(B):
        crossings = (full.exit_score[row] > threshold).nonzero().flatten().tolist()
        steps = crossings[0] + 1 if crossings else K
        assert early.steps[row] == steps
        torch.testing.assert_close(early.z[row, : steps + 1], full.z[row, : steps + 1], atol=1e-5, rtol=1e-5)
        for name in ("u", "log_prob", "entropy", "exit_score"):
            got, want = getattr(early, name)[row], getattr(full, name)[row]
            torch.testing.assert_close(got[:steps], want[:steps], atol=1e-4, rtol=1e-5)
            assert not got[steps:].any()
        assert not early.z[row, steps + 1 :].any()
        torch.testing.assert_close(final_latent(early)[row], early.z[row, steps])


def test_samples_that_have_left_cost_nothing(loop):
    threshold = middle_threshold(loop)
    seen = rows_of_each_call(loop)
    trace = think(loop, threshold=threshold)
    still_thinking = [int((trace.steps > k).sum()) for k in range(K)]
    for rows in seen.values():
        assert rows == [count for count in still_thinking if count]


@pytest.mark.parametrize("sample", [False, True])
def test_a_whole_batch_that_leaves_at_once_costs_one_step(loop, sample):
    seen = rows_of_each_call(loop)
    trace = think(loop, threshold=0.0, sample=sample)
    assert (trace.steps == 1).all()
    assert seen == {"update_policy": [B], "transition": [B], "exit_gate": [B]}
    torch.testing.assert_close(trace.z[:, 1], think(loop, steps=1, sample=sample).z[:, 1])


def test_threshold_one_never_exits_early(loop):
    with torch.no_grad():
        loop.exit_gate.leave[1].bias.fill_(1e6)
    assert (think(loop, threshold=1.0).steps == K).all()
    assert (think(loop, threshold=0.999).steps == 1).all()


def test_threshold_zero_exits_even_from_a_gate_that_is_sure_of_the_contrary(loop):
    with torch.no_grad():
        loop.exit_gate.leave[1].bias.fill_(-1e6)
    assert (think(loop, threshold=0.0).steps == 1).all()
    assert (think(loop, threshold=0.001).steps == K).all()


def test_a_sample_whose_score_is_no_number_leaves_and_spoils_nobody(loop):
    context, z0 = start(loop)
    context.encoding[3] = torch.nan
    with torch.no_grad():
        trace = loop.think(context, z0, steps=K, exit_threshold=0.999)
    plain = think(loop, threshold=0.999)
    others = torch.arange(B) != 3
    assert trace.steps[3] == 1
    assert torch.equal(trace.steps[others], plain.steps[others])
    torch.testing.assert_close(final_latent(trace)[others], final_latent(plain)[others], atol=1e-5, rtol=1e-5)


def test_higher_thresholds_never_think_less(loop):
    depths = [think(loop, threshold=t).steps for t in (0.0, 0.3, 0.5, 0.55, 0.8, 1.0)]
    for lower, higher in itertools.pairwise(depths):
        assert (lower <= higher).all()


@pytest.mark.parametrize("steps", range(K + 1))
def test_fixed_depth_takes_exactly_so_many_steps(loop, steps):
    trace = think(loop, steps=steps)
    assert (trace.steps == steps).all()
    context, z0 = start(loop)
    torch.testing.assert_close(final_latent(trace), loop.unroll(context, z0, steps)[:, -1].detach())
    assert not trace.z[:, steps + 1 :].any()
    assert not trace.log_prob[:, steps:].any()


def test_an_untrained_gate_does_not_exit_at_the_default_threshold():
    fresh = LatentLoop(tiny().latent)
    assert (think(fresh, threshold=tiny().latent.exit_threshold).steps == K).all()


@torch.no_grad()
def test_what_steps_share_is_computed_once_and_changes_nothing(loop):
    context, z = start(loop)
    transition, u = loop.transition, torch.randn(B, loop.config.update_dim, generator=torch.Generator().manual_seed(1))
    memory = torch.nn.GRUCell.forward(
        transition.cell, torch.cat([z, context.encoding], dim=-1), torch.tanh(transition.hidden(u))
    )
    delta = transition.delta(memory) + transition.cross_attention(z[:, None], context.tokens)[:, 0]
    expected = transition.norm(z + torch.sigmoid(transition.gate(u)) * delta)
    torch.testing.assert_close(transition(z, u, transition.surroundings(*context)), expected, atol=1e-5, rtol=1e-5)
    token = loop.update_policy.encoding(context.encoding)
    for part, other in zip(loop.update_policy(z, context.encoding), loop.update_policy(z, token=token), strict=True):
        assert torch.equal(part, other)


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1), slice(5, 12)])
def test_log_probs_replay_whatever_the_batch(loop, rows):
    trace = think(loop, threshold=middle_threshold(loop), sample=True)
    context, _ = start(loop)
    for k in range(K):
        taken = (trace.steps > k).nonzero().flatten()[rows]
        if len(taken) == 0:
            continue
        mean, log_std = loop.update_policy(trace.z[taken, k], context.encoding[taken])
        replayed = gaussian_log_prob(trace.u[taken, k], mean, log_std)
        torch.testing.assert_close(replayed, trace.log_prob[taken, k], atol=1e-5, rtol=0)


def test_log_prob_is_that_of_a_diagonal_gaussian():
    torch.manual_seed(0)
    u, mean, log_std = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, 4)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(-1)
    torch.testing.assert_close(gaussian_log_prob(u, mean, log_std), expected)


def test_sampling_follows_the_generator_alone(loop):
    one, same, other = (think(loop, sample=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.u, same.u)
    assert not torch.equal(one.u, other.u)


def test_updates_start_at_mean_zero_and_their_deviation_is_bounded():
    torch.manual_seed(0)
    config = tiny(latent__log_std_init=-1.0).latent
    policy = LatentLoop(config).update_policy
    z, encoding = torch.randn(3, config.width), torch.randn(3, config.encoding_width)
    mean, log_std = policy(z, encoding)
    assert not mean.any()
    assert (log_std == -1.0).all()
    with torch.no_grad():
        policy.log_std.bias[0], policy.log_std.bias[1] = 100.0, -100.0
    assert policy(z, encoding)[1][0, :2].tolist() == [2.0, -5.0]


def test_unroll_carries_gradients_through_every_step_and_sampling_reaches_the_deviation(loop):
    context, z0 = start(loop)
    z0 = z0.requires_grad_()
    loop.unroll(context, z0, 3, noise=torch.randn(len(z0), K, loop.config.update_dim))[:, -1].sum().backward()
    assert z0.grad.abs().sum() > 0
    reached = {name for name, parameter in loop.named_parameters() if parameter.grad is not None}
    assert "update_policy.log_std.weight" in reached
    assert not any(name.startswith("exit_gate") for name in reached)


def test_gate_scores_lie_between_their_ends():
    assert 0 < ExitGate.score(torch.tensor(-1e9)) < 1e-9
    assert ExitGate.score(torch.tensor(1e9)) == 1
