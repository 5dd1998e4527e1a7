"""From fragments to tensors: rewards, advantages, proximal log-probabilities, checked against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.batch import explained_variance, make_batch
from actors.settings import PPOSettings
from tests.support.fragments import rollout_fragments
from tests.support.policies import stirred_policy, tiny

SETTINGS = PPOSettings(gamma=0.97, gae_lambda=0.9, latent_discount=0.98, lambda_entropy=0.02, lambda_delta=0.05)


def alone(values: Tensor) -> Tensor:
    """The sum over the ranks of a world of one."""
    return values


@pytest.fixture(scope="module")
def policy():
    return stirred_policy(tiny()).eval()


@pytest.fixture(scope="module")
def fragments(policy):
    return rollout_fragments(policy)


def chain_advantages(fragment, policy, settings: PPOSettings) -> list[list[float]]:
    """Advantages of one fragment by walking its latent steps one after another, as avavla.md words it."""

    def value(z) -> float:
        return policy.value(torch.tensor(z)[None]).item()

    links = []  # (decision, step, reward, value, discount, value of what follows, whether the chain goes on)
    for t in range(len(fragment)):
        taken = int(fragment.steps[t])
        for k in range(taken):
            change = float(((fragment.z[t, k + 1] - fragment.z[t, k]) ** 2).mean())
            reward = -settings.lambda_entropy * float(fragment.entropy[t, k]) - settings.lambda_delta * change
            if k < taken - 1:
                follows, discount, goes_on = value(fragment.z[t, k + 1]), settings.latent_discount, True
            else:
                reward += float(fragment.reward[t])
                discount = settings.gamma ** int(fragment.duration[t])
                follows = 0.0 if fragment.terminated[t] else value(fragment.next_z[t])
                ended = fragment.terminated[t] or fragment.truncated[t] or t == len(fragment) - 1
                goes_on = not ended
            links.append((t, k, reward, value(fragment.z[t, k]), discount, follows, goes_on))
    advantages = [[0.0] * fragment.u.shape[1] for _ in range(len(fragment))]
    running = 0.0
    for t, k, reward, here, discount, follows, goes_on in reversed(links):
        running = reward + discount * follows - here + (discount * settings.gae_lambda * running if goes_on else 0.0)
        advantages[t][k] = running
    return advantages


def test_advantages_are_those_of_a_walk_along_the_chain(policy, fragments) -> None:
    batch, _ = make_batch(fragments, policy, SETTINGS, alone)
    slow = torch.tensor([row for fragment in fragments for row in chain_advantages(fragment, policy, SETTINGS)])
    values = policy.value(batch.z[:, :-1]).detach()
    torch.testing.assert_close(batch.returns[batch.mask], (slow + values)[batch.mask], atol=1e-4, rtol=1e-4)
    valid = slow[batch.mask]
    normalised = (slow - valid.mean()) / (valid.std(unbiased=False) + 1e-8)
    torch.testing.assert_close(batch.advantages[batch.mask], normalised[batch.mask], atol=1e-4, rtol=1e-4)
    assert (batch.advantages[~batch.mask] == 0).all()


def test_the_proximal_policy_is_the_behaviour_policy_before_any_update(policy, fragments) -> None:
    batch, _ = make_batch(fragments, policy, SETTINGS, alone)
    torch.testing.assert_close(
        batch.proximal_log_prob[batch.mask], batch.behaviour_log_prob[batch.mask], atol=1e-4, rtol=0
    )
    assert (batch.proximal_log_prob[~batch.mask] == 0).all()


def test_advantages_are_normalised_over_all_ranks(policy, fragments) -> None:
    """Two ranks with different fragments get the numbers of one rank with all of them."""
    whole, _ = make_batch(fragments, policy, SETTINGS, alone)
    shares, seen = [fragments[:1], fragments[1:]], []
    # What the other rank adds to each sum, recorded in a first pass with its own sums alone.
    asked: list[list[Tensor]] = [[], []]
    for rank in (0, 1):
        make_batch(
            shares[rank], policy, SETTINGS, lambda values, rank=rank: asked[rank].append(values.clone()) or values
        )
    count, total = asked[0][0] + asked[1][0]
    mean = total / count
    for rank in (0, 1):
        batch, _ = make_batch(shares[rank], policy, SETTINGS, alone)
        raw = batch.returns - policy.value(batch.z[:, :-1]).detach()
        seen.append(((raw[batch.mask].double() - mean) ** 2).sum())
    answers = [[torch.stack([count, total]), seen[0] + seen[1]] for _ in (0, 1)]
    parts = []
    for rank in (0, 1):
        replies = iter(answers[rank])
        batch, _ = make_batch(shares[rank], policy, SETTINGS, lambda _, replies=replies: next(replies))
        parts.append(batch.advantages)
    torch.testing.assert_close(torch.cat(parts), whole.advantages, atol=1e-4, rtol=1e-4)


def test_sums_give_explained_variance(policy, fragments) -> None:
    batch, sums = make_batch(fragments, policy, SETTINGS, alone)
    returns = batch.returns[batch.mask].double()
    residual = (batch.returns - policy.value(batch.z[:, :-1]).detach())[batch.mask].double()
    expected = 1 - float(residual.var() / returns.var())
    assert explained_variance({name: float(value) for name, value in sums.items()}) == pytest.approx(expected, abs=1e-5)
    assert int(sums["decisions"]) == sum(map(len, fragments))
    assert int(sums["latent_steps"]) == sum(int(fragment.steps.sum()) for fragment in fragments)
    assert int(sums["env_steps"]) == sum(int(fragment.duration.sum()) for fragment in fragments)


def test_rows_take_the_same_decisions_of_everything(policy, fragments) -> None:
    batch, _ = make_batch(fragments, policy, SETTINGS, alone)
    index = torch.tensor([5, 0, 17])
    taken = batch.rows(index)
    for part, whole in zip(taken, batch, strict=True):
        np.testing.assert_array_equal(part, whole[index])
