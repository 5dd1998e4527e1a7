"""The losses of PPO against loops over single latent steps, and against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import actors.settings
from avavla_ray.errors import InputError
from avavla_ray.learning.ppo import CORRECTIONS, masked_mean, policy_loss, value_loss

NUMBERS = st.floats(-2, 2, width=32)


def policy_reference(rows, clip, correction, max_weight):
    count = max(len(rows), 1)
    loss = kl = clipped = total_weight = 0.0
    for new, proximal, behaviour, advantage in rows:
        if correction == "naive":
            ratio, weight = math.exp(new - behaviour), 1.0
        else:
            ratio, weight = math.exp(new - proximal), min(math.exp(proximal - behaviour), max_weight)
        inside = min(max(ratio, 1 - clip), 1 + clip)
        loss -= weight * min(ratio * advantage, inside * advantage) / count
        kl += (
            min(math.exp(proximal - behaviour), max_weight) * (math.exp(new - proximal) - 1 - (new - proximal)) / count
        )
        clipped += (abs(ratio - 1) > clip) / count
        total_weight += weight / count
    return loss, kl, clipped, total_weight


def value_reference(rows, value_clip):
    total = 0.0
    for value, target, old in rows:
        square = (value - target) ** 2
        if value_clip is not None:
            near = old + min(max(value - old, -value_clip), value_clip)
            square = max(square, (near - target) ** 2)
        total += square / len(rows)
    return total


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[NUMBERS] * 4, st.booleans()), min_size=1, max_size=12),
    st.floats(0.05, 0.5),
    st.sampled_from(CORRECTIONS),
    st.floats(1.0, 4.0),
)
def test_policy_loss_agrees_with_a_loop_over_steps(rows, clip, correction, max_weight):
    *columns, mask = [torch.tensor(column) for column in zip(*rows, strict=True)]
    loss = policy_loss(*columns, mask, clip=clip, correction=correction, max_weight=max_weight)
    expected = policy_reference([row[:4] for row in rows if row[4]], clip, correction, max_weight)
    for got, want in zip(loss, expected, strict=True):
        assert math.isclose(float(got), want, rel_tol=1e-5, abs_tol=1e-6)
        assert got.dtype == torch.float32


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[NUMBERS] * 3, st.booleans()), min_size=1, max_size=12),
    st.none() | st.floats(0.05, 1.0),
)
def test_value_loss_agrees_with_a_loop_over_steps(rows, value_clip):
    values, returns, old, mask = [torch.tensor(column) for column in zip(*rows, strict=True)]
    loss = value_loss(values, returns, mask, old_values=old, value_clip=value_clip)
    assert math.isclose(
        float(loss), value_reference([row[:3] for row in rows if row[3]], value_clip), rel_tol=1e-5, abs_tol=1e-6
    )


def tensors(n=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_first_ratio_is_one_and_its_gradient_the_plain_policy_gradient(correction):
    log_prob, advantages = tensors()
    log_prob.requires_grad_()
    stored = log_prob.detach().clone()
    everywhere = torch.ones(32, dtype=torch.bool)
    loss = policy_loss(log_prob, stored, stored, advantages, everywhere, correction=correction)
    assert (loss.approx_kl, loss.clip_fraction, loss.weight) == (0, 0, 1)
    torch.testing.assert_close(loss.loss, -advantages.mean())
    loss.loss.backward()
    torch.testing.assert_close(log_prob.grad, -advantages / 32)


def test_clipping_stops_the_gradient_only_where_it_would_go_further():
    for correction in CORRECTIONS:
        log_prob = torch.tensor([1.0, 1.0, -1.0, -1.0], requires_grad=True)
        zero = torch.zeros(4)
        advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
        mask = torch.ones(4, dtype=torch.bool)
        policy_loss(log_prob, zero, zero, advantages, mask, correction=correction).loss.backward()
        assert (log_prob.grad != 0).tolist() == [False, True, True, False]


def one_stale_step(gap: float, correction: str, moved: float = 0.0):
    """Loss of one step of advantage 1 whose proximal policy is `gap` ahead of the policy that acted."""
    zero, one = torch.zeros(1), torch.ones(1)
    mask = torch.ones(1, dtype=torch.bool)
    return policy_loss(zero + moved, zero, zero - gap, one, mask, clip=0.2, correction=correction, max_weight=2.0)


@pytest.mark.parametrize("correction", ["decoupled", "vtrace"])
def test_stale_behaviour_scales_the_surrogate_up_to_the_truncation(correction):
    for gap, weight in ((0.0, 1.0), (0.5, math.exp(0.5)), (-1.0, math.exp(-1.0)), (9.0, 2.0)):
        loss = one_stale_step(gap, correction)
        assert float(loss.loss) == pytest.approx(-weight)
        assert float(loss.weight) == pytest.approx(weight)
        assert loss.clip_fraction == 0  # the policy has not moved since the update began


def test_naive_ppo_measures_the_ratio_from_the_policy_that_acted():
    # The policy acted at log 0.5 below where the update began: as if it had already moved by half.
    loss = one_stale_step(math.log(1.5), "naive")
    assert float(loss.loss) == pytest.approx(-1.2)
    assert (loss.clip_fraction, loss.weight, loss.approx_kl) == (1, 1, 0)
    assert float(one_stale_step(-1.0, "naive").loss) == pytest.approx(-math.exp(-1.0))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_divergence_is_that_of_this_update(correction):
    for gap, weight in ((0.0, 1.0), (0.5, math.exp(0.5)), (9.0, 2.0)):
        loss = one_stale_step(gap, correction, moved=0.5)
        assert float(loss.approx_kl) == pytest.approx(weight * (math.exp(0.5) - 1 - 0.5), rel=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_the_policy_would_no_longer_draw_says_nothing_about_its_divergence(correction):
    assert float(one_stale_step(-60.0, correction, moved=60.0).approx_kl) == pytest.approx(1.0)
    assert float(one_stale_step(-60.0, correction, moved=40.0).approx_kl) < 1e-8


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_divergence_from_older_draws_is_that_of_the_two_policies(correction):
    """Of Gaussians half a deviation apart, (mean difference)^2 / 2, whoever drew."""
    drawn = 0.3 * torch.ones(1) + torch.randn(200_000, generator=torch.Generator().manual_seed(0))

    def log_prob(mean: float) -> torch.Tensor:
        return -0.5 * (drawn - mean).square()

    everywhere = torch.ones(len(drawn), dtype=torch.bool)
    loss = policy_loss(
        log_prob(0.5), log_prob(0.0), log_prob(0.3), torch.zeros(len(drawn)), everywhere, correction=correction
    )
    assert float(loss.approx_kl) == pytest.approx(0.5**2 / 2, rel=0.03)


def test_a_divergence_far_below_rounding_is_still_one():
    """In float32 (ratio - 1) - log ratio of 1e-4 would be 5e-9 to one digit, or 0."""
    loss = one_stale_step(0.0, "decoupled", moved=1e-4)
    assert float(loss.approx_kl) == pytest.approx(0.5e-8, rel=1e-3)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_entries_outside_the_mask_count_for_nothing_even_if_they_are_not_numbers(correction, odd):
    mask = torch.tensor([[True, False], [False, True]])
    losses, gradients = [], []
    for filler in (0.0, odd):
        whole = [torch.tensor([[0.3, filler], [filler, -0.4]]) for _ in range(4)]
        whole[1] = 0.5 * whole[1]
        whole[0].requires_grad_()
        loss = policy_loss(*whole, mask, correction=correction)
        loss.loss.backward()
        losses.append(torch.stack(loss).detach())
        gradients.append(whole[0].grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not gradients[1][~mask].any()
    assert gradients[1][mask].any()


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("value_clip", [None, 0.2])
def test_values_outside_the_mask_count_for_nothing(odd, value_clip):
    values = torch.tensor([1.0, odd], requires_grad=True)
    returns, old = torch.tensor([3.0, odd]), torch.tensor([1.0, odd])
    loss = value_loss(values, returns, torch.tensor([True, False]), old_values=old, value_clip=value_clip)
    loss.backward()
    assert loss == 4.0
    torch.testing.assert_close(values.grad, torch.tensor([-4.0, 0.0]))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_is_no_number_inside_the_mask_is_seen(correction):
    whole = torch.zeros(4, 1)
    for row in range(4):
        parts = whole.clone()
        parts[row] = math.nan
        loss = policy_loss(*parts, torch.ones(1, dtype=torch.bool), correction=correction)
        used = correction != "naive" or row != 1  # naive reads the proximal policy for the divergence alone
        assert loss.loss.isnan() == used
        assert loss.approx_kl.isnan() == (row < 3)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize(("proximal", "behaviour"), [(-2000.0, -1.0), (-2000.0, -2000.0), (-2.0, -2000.0)])
def test_a_ratio_beyond_all_numbers_is_no_reason_to_refuse_an_update(correction, advantage, proximal, behaviour):
    """What an older policy drew and the proximal one never would may suddenly be likely: zero times infinity."""
    new = torch.tensor([0.0, 0.0], requires_grad=True)
    told = policy_loss(
        new, torch.tensor([proximal, 0.0]), torch.tensor([behaviour, 0.0]), torch.full((2,), advantage),
        torch.ones(2, dtype=torch.bool), correction=correction,
    )  # fmt: skip
    told.loss.backward()
    assert all(part.isfinite() for part in told)
    assert new.grad.isfinite().all()


def test_the_weight_of_what_is_far_from_the_proximal_policy_is_not_lost():
    """new / behaviour is e, and a loss: all of its gradient is there, however unlikely the proximal policy finds it."""
    new = torch.tensor([0.0], requires_grad=True)
    loss = policy_loss(
        new, torch.tensor([-2000.0]), torch.tensor([-1.0]), torch.tensor([-1.0]), torch.ones(1, dtype=torch.bool)
    )  # fmt: skip
    loss.loss.backward()
    assert float(loss.loss.detach()) == pytest.approx(math.e)
    assert float(new.grad[0]) == pytest.approx(math.e)


@pytest.mark.parametrize("odd", [math.inf, -math.inf])
def test_a_likelihood_beyond_all_numbers_shows_in_the_divergence(odd):
    loss = policy_loss(torch.tensor([odd, 0.0]), *torch.zeros(3, 2), torch.ones(2, dtype=torch.bool))
    assert not loss.approx_kl.isfinite()


def test_value_clip_by_hand():
    """Old value 0, clip 0.5: which square counts, and whether the critic may go on."""
    cases = [  # value, return, loss, gradient
        (0.3, 1.0, 0.49, -1.4),  # within the range: the plain square
        (0.8, 1.0, 0.25, 0.0),  # already 0.5 up: no further in that direction
        (0.8, -1.0, 3.24, 3.6),  # too far the wrong way: all the way back
        (-0.8, -1.0, 0.25, 0.0),
        (2.0, 1.0, 1.0, 2.0),  # past the return: the larger of both squares
    ]
    mask = torch.ones(1, dtype=torch.bool)
    for value, target, expected, slope in cases:
        values = torch.tensor([value], requires_grad=True)
        loss = value_loss(values, torch.tensor([target]), mask, old_values=torch.zeros(1), value_clip=0.5)
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert values.grad.item() == pytest.approx(slope, abs=1e-6)


def test_an_empty_mask_is_zero_with_a_gradient():
    values = torch.ones(2, 3, requires_grad=True)
    empty = torch.zeros(2, 3, dtype=torch.bool)
    for loss in (
        masked_mean(values, empty),
        value_loss(values, values.detach() + 1, empty),
        policy_loss(values, *[torch.ones(2, 3)] * 3, empty).loss,
    ):
        values.grad = None
        loss.backward()
        assert loss == 0
        assert not values.grad.any()


def test_sums_do_not_drown():
    """2 ** 24 float32 ones added one to another stay 2 ** 24; a mean must not lose what comes after a large number."""
    x = torch.ones(1001)
    x[0] = 2.0**30
    assert float(masked_mean(x, torch.ones(1001, dtype=torch.bool))) == pytest.approx((2.0**30 + 1000) / 1001, rel=1e-7)


def test_the_settings_offer_the_same_corrections():
    assert actors.settings.CORRECTIONS == CORRECTIONS


def test_refusals():
    one = torch.ones(1)
    with pytest.raises(InputError, match="correction"):
        policy_loss(one, one, one, one, one.bool(), correction="none")
    with pytest.raises(ValueError, match="old values"):
        value_loss(one, one, one.bool(), value_clip=0.2)
