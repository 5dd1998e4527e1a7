"""semi_markov_gae against the definition, followed one latent step at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.learning.gae import semi_markov_gae, valid_steps


def reference(rewards, values, steps, next_value, duration, terminated, chain_end, gamma, lam, latent_discount):
    """Lay every chain out as one list of latent steps and apply the textbook recursion to it, backwards."""
    T, K = len(rewards), len(rewards[0])
    advantages = [[0.0] * K for _ in range(T)]
    start = 0
    while start < T:
        end = start
        while not chain_end[end]:
            end += 1
        links = []  # (row, step, reward, value, discount to what follows, value of what follows)
        for t in range(start, end + 1):
            for k in range(steps[t]):
                if k + 1 < steps[t]:
                    links.append((t, k, rewards[t][k], values[t][k], latent_discount, values[t][k + 1]))
                else:
                    discount = 0.0 if terminated[t] else gamma ** duration[t]
                    links.append((t, k, rewards[t][k], values[t][k], discount, next_value[t]))
        after = 0.0
        for t, k, reward, value, discount, following in reversed(links):
            delta = reward + discount * following - value
            after = delta + discount * lam * after
            advantages[t][k] = after
        start = end + 1
    return advantages


@st.composite
def chains(draw):
    T, K = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    number = st.floats(-3, 3, width=32)
    rows = lambda: [[draw(number) for _ in range(K)] for _ in range(T)]  # noqa: E731
    terminated = [draw(st.booleans()) and draw(st.booleans()) for _ in range(T)]
    truncated_or_cut = [draw(st.booleans()) and draw(st.booleans()) for _ in range(T)]
    chain_end = [a or b for a, b in zip(terminated, truncated_or_cut, strict=True)]
    chain_end[-1] = True
    return {
        "rewards": rows(),
        "values": rows(),
        "steps": [draw(st.integers(1, K)) for _ in range(T)],
        "next_value": [draw(number) for _ in range(T)],
        "duration": [draw(st.integers(1, 8)) for _ in range(T)],
        "terminated": terminated,
        "chain_end": chain_end,
    }


@settings(max_examples=200, deadline=None)
@given(chains(), st.floats(0.8, 1.0), st.floats(0.0, 1.0), st.floats(0.9, 1.0))
def test_agrees_with_the_recursion_step_by_step(chain, gamma, lam, latent_discount):
    tensors = {name: torch.tensor(value) for name, value in chain.items()}
    advantages, returns = semi_markov_gae(**tensors, gamma=gamma, lambda_=lam, latent_discount=latent_discount)
    expected = torch.tensor(reference(**chain, gamma=gamma, lam=lam, latent_discount=latent_discount))
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=1e-5)
    valid = valid_steps(tensors["steps"], advantages.shape[1])
    torch.testing.assert_close(returns[valid], (expected + tensors["values"])[valid], atol=1e-5, rtol=1e-5)
    assert not advantages[~valid].any()
    assert not returns[~valid].any()


def one_decision(**changes):
    arguments = {
        "rewards": torch.tensor([[0.0, 0.0, 1.0]]), "values": torch.tensor([[0.2, 0.3, 0.4]]),
        "steps": torch.tensor([3]), "next_value": torch.tensor([5.0]), "duration": torch.tensor([8]),
        "terminated": torch.tensor([False]), "chain_end": torch.tensor([True]),
    }  # fmt: skip
    return semi_markov_gae(**(arguments | changes), gamma=0.9, lambda_=1.0)


def test_no_bootstrap_past_success():
    _, returns = one_decision(terminated=torch.tensor([True]))
    torch.testing.assert_close(returns, torch.ones(1, 3))


def test_bootstrap_at_truncation_and_cut_discounts_by_the_steps_that_were_run():
    for duration in (1, 8):
        _, returns = one_decision(duration=torch.tensor([duration]))
        torch.testing.assert_close(returns, torch.full((1, 3), 1.0 + 0.9**duration * 5.0))


def test_nothing_flows_back_over_a_chain_end():
    rows = {
        "values": torch.zeros(2, 1), "steps": torch.tensor([1, 1]), "next_value": torch.zeros(2),
        "duration": torch.tensor([4, 4]), "terminated": torch.zeros(2, dtype=torch.bool),
    }  # fmt: skip
    rewards = torch.tensor([[0.0], [1.0]])
    joined, _ = semi_markov_gae(rewards, **rows, chain_end=torch.tensor([False, True]), gamma=0.9, lambda_=0.5)
    apart, _ = semi_markov_gae(rewards, **rows, chain_end=torch.tensor([True, True]), gamma=0.9, lambda_=0.5)
    torch.testing.assert_close(joined[0, 0], torch.tensor(0.9**4 * 0.5))
    assert apart[0, 0] == 0


def test_values_may_include_the_last_latent():
    wide, _ = one_decision(values=torch.tensor([[0.2, 0.3, 0.4, 99.0]]))
    narrow, _ = one_decision()
    torch.testing.assert_close(wide, narrow)


@pytest.mark.parametrize("steps", [0, 4])
def test_refuses_a_decision_outside_the_chain(steps):
    with pytest.raises(ValueError, match="latent steps"):
        one_decision(steps=torch.tensor([steps]))
