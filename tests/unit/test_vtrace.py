"""semi_markov_vtrace against the definition of IMPALA: sums of products over one list of latent steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.learning.gae import semi_markov_gae, valid_steps
from avavla_ray.learning.vtrace import semi_markov_vtrace
from tests.unit.test_gae import chains


def reference(chain, log_ratio, gamma, lam, latent_discount, max_rho, max_c):
    """Each chain as a list of links; targets by v_s = V_s + sum_t (prod_{i<t} discount_i c_i) rho_t delta_t."""
    T, K = len(chain["rewards"]), len(chain["rewards"][0])
    advantages, targets = ([[0.0] * K for _ in range(T)] for _ in range(2))
    start = 0
    while start < T:
        end = start
        while not chain["chain_end"][end]:
            end += 1
        places = [(t, k) for t in range(start, end + 1) for k in range(chain["steps"][t])]
        discounts, nexts, deltas, ratios = [], [], [], []
        for t, k in places:
            if k + 1 < chain["steps"][t]:
                discount, following = latent_discount, chain["values"][t][k + 1]
            else:
                discount = 0.0 if chain["terminated"][t] else gamma ** chain["duration"][t]
                following = chain["next_value"][t]
            discounts.append(discount)
            nexts.append(following)
            deltas.append(chain["rewards"][t][k] + discount * following - chain["values"][t][k])
            ratios.append(math.exp(log_ratio[t][k]))
        corrections = []
        for s in range(len(places)):
            total, product = 0.0, 1.0
            for t in range(s, len(places)):
                total += product * min(ratios[t], max_rho) * deltas[t]
                product *= discounts[t] * lam * min(ratios[t], max_c)
            corrections.append(total)
        for s, (t, k) in enumerate(places):
            later = corrections[s + 1] if s + 1 < len(places) else 0.0
            targets[t][k] = chain["values"][t][k] + corrections[s]
            advantages[t][k] = deltas[s] + discounts[s] * lam * later
        start = end + 1
    return advantages, targets


@settings(max_examples=200, deadline=None)
@given(
    chains(), st.data(), st.floats(0.8, 1.0), st.floats(0.0, 1.0), st.floats(0.9, 1.0), st.floats(0.5, 2.0),
    st.floats(0.5, 2.0),
)  # fmt: skip
def test_agrees_with_the_definition(chain, data, gamma, lam, latent_discount, max_rho, max_c):
    number = st.floats(-2, 2, width=32)
    log_ratio = [[data.draw(number) for _ in row] for row in chain["rewards"]]
    tensors = {name: torch.tensor(value) for name, value in chain.items()}
    got = semi_markov_vtrace(
        **tensors, log_ratio=torch.tensor(log_ratio), gamma=gamma, lambda_=lam, latent_discount=latent_discount,
        max_rho=max_rho, max_c=max_c,
    )  # fmt: skip
    valid = valid_steps(tensors["steps"], len(log_ratio[0]))
    expected = reference(chain, log_ratio, gamma, lam, latent_discount, max_rho, max_c)
    for mine, slow in zip(got, expected, strict=True):
        slow = torch.tensor(slow)
        torch.testing.assert_close(mine[valid], slow[valid], atol=1e-4 * max(1, float(slow.abs().max())), rtol=1e-5)
        assert not mine[~valid].any()
        assert mine.dtype == torch.float32


@settings(max_examples=100, deadline=None)
@given(chains(), st.floats(0.8, 1.0), st.floats(0.0, 1.0), st.floats(0.9, 1.0))
def test_on_policy_it_is_gae(chain, gamma, lam, latent_discount):
    tensors = {name: torch.tensor(value) for name, value in chain.items()}
    discounts = {"gamma": gamma, "lambda_": lam, "latent_discount": latent_discount}
    plain = semi_markov_gae(**tensors, **discounts)
    same = semi_markov_vtrace(**tensors, log_ratio=torch.zeros_like(tensors["rewards"]), **discounts)
    torch.testing.assert_close(same, plain)


def two_decisions(log_ratio, **changes):
    """A chain of three links: two latent steps of 8 environment steps, then one that ends in success."""
    arguments = {
        "rewards": torch.tensor([[0.0, 1.0], [2.0, math.nan]]), "values": torch.tensor([[1.0, 2.0], [4.0, math.inf]]),
        "steps": torch.tensor([2, 1]), "next_value": torch.tensor([4.0, math.nan]),
        "duration": torch.tensor([2, 8]), "terminated": torch.tensor([False, True]),
        "chain_end": torch.tensor([False, True]),
    } | changes  # fmt: skip
    ratios = torch.tensor(log_ratio).log()
    return semi_markov_vtrace(**arguments, log_ratio=ratios, gamma=0.5, lambda_=1.0, latent_discount=1.0)


def test_by_hand():
    """Ratios 2, 1/2 and 1/4; what is stored past the last step is no number and counts for nothing."""
    # delta = 0 + 2 - 1, 1 + 1/4 * 4 - 2, 2 + 0 - 4 = 1, 0, -2; rho = 1, 1/2, 1/4.
    # v - V = 1 + (0 + 1/4 * 1/2 * -1/2), 0 + 1/4 * 1/2 * -1/2, -1/2 = 15/16, -1/16, -1/2
    # advantage = 0 + v_1 - 1, 1 + 1/4 * v_2 - 2, 2 - 4
    advantages, targets = two_decisions([[2.0, 0.5], [0.25, math.nan]])
    torch.testing.assert_close(targets, torch.tensor([[31 / 16, 31 / 16], [3.5, 0.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[15 / 16, -1 / 8], [-2.0, 0.0]]))


def test_nothing_comes_back_over_a_chain_end():
    advantages, targets = two_decisions([[2.0, 0.5], [0.25, 1.0]], chain_end=torch.tensor([True, True]))
    torch.testing.assert_close(targets, torch.tensor([[2.0, 2.0], [3.5, 0.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))


def test_what_the_present_policy_would_not_do_teaches_the_critic_nothing():
    _, targets = two_decisions([[1e-12, 1e-12], [1e-12, 1.0]])
    torch.testing.assert_close(targets, torch.tensor([[1.0, 2.0], [4.0, 0.0]]))


def test_refuses_a_decision_outside_the_chain():
    with pytest.raises(ValueError, match="latent steps"):
        two_decisions([[1.0, 1.0], [1.0, 1.0]], steps=torch.tensor([2, 0]))
