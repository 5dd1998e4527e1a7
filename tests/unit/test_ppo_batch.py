"""From fragments to tensors: rewards, advantages, proximal log-probabilities, checked against slow loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from actors.batch import Batch, Outlook, explained_variance, link_rewards, look_again, make_batch
from actors.learner import _minibatches
from actors.settings import PPOSettings
from avavla_ray.learning.fragment import concatenate
from tests.support.drawn_fragments import drawn_fragments
from tests.support.fragments import rollout_fragments
from tests.support.policies import stirred_policy, tiny

SETTINGS = PPOSettings(
    gamma=0.97, gae_lambda=0.9, latent_discount=0.98, lambda_entropy=0.02, lambda_delta=0.05, normalise="steps"
)  # fmt: skip
WHOLE = replace(SETTINGS, train_actions=True, exit_actions=True, compute_cost=0.03)


def alone(values: Tensor) -> Tensor:
    """The sum over the ranks of a world of one."""
    return values


@pytest.fixture(scope="module")
def policy():
    return stirred_policy(tiny()).eval()


@pytest.fixture(scope="module")
def fragments(policy):
    return rollout_fragments(policy)


@pytest.fixture(scope="module")
def drawing():
    """A policy that draws its chunks and exits, and fragments that it made so."""
    policy = stirred_policy(tiny(action_noise=0.3)).eval()
    return policy, drawn_fragments(policy, exits=True)


def chain_advantages(fragment, policy, settings: PPOSettings) -> list[list[float]]:
    """Advantages of one fragment by walking its links one after another, as avavla.md words it."""

    def value(z) -> float:
        return policy.value(torch.as_tensor(z)[None]).item()

    links = []  # (decision, link, reward, value, discount, value of what follows, whether the chain goes on)
    for t in range(len(fragment)):
        taken = int(fragment.steps[t])
        last = taken if settings.train_actions else taken - 1
        for k in range(last + 1):
            reward = 0.0
            if k < taken:
                change = float(((fragment.z[t, k + 1] - fragment.z[t, k]) ** 2).mean())
                reward = -settings.lambda_entropy * float(fragment.entropy[t, k]) - settings.lambda_delta * change
                reward -= settings.compute_cost
            if k < last:
                follows, discount, goes_on = value(fragment.z[t, k + 1]), settings.latent_discount, True
            else:
                reward += float(fragment.reward[t])
                discount = settings.gamma ** int(fragment.duration[t])
                follows = 0.0 if fragment.terminated[t] else value(fragment.next_z[t])
                ended = fragment.terminated[t] or fragment.truncated[t] or t == len(fragment) - 1
                goes_on = not ended
            links.append((t, k, reward, value(fragment.z[t, k]), discount, follows, goes_on))
    width = fragment.u.shape[1] + settings.train_actions
    advantages = [[0.0] * width for _ in range(len(fragment))]
    running = 0.0
    for t, k, reward, here, discount, follows, goes_on in reversed(links):
        running = reward + discount * follows - here + (discount * settings.gae_lambda * running if goes_on else 0.0)
        advantages[t][k] = running
    return advantages


def test_drawn_chunks_are_one_more_link_of_the_chain(drawing) -> None:
    policy, fragments = drawing
    batch, sums = make_batch(fragments, policy, WHOLE, alone)
    slow = torch.tensor([row for fragment in fragments for row in chain_advantages(fragment, policy, WHOLE)])
    assert torch.equal(batch.mask.sum(1), batch.steps + 1)
    torch.testing.assert_close((batch.returns - batch.values)[batch.mask], slow[batch.mask], atol=1e-4, rtol=1e-4)
    assert int(sums["links"]) == int(sums["latent_steps"]) + int(sums["decisions"])


def test_a_rank_with_little_looks_as_often_as_the_others(drawing) -> None:
    policy, fragments = drawing
    whole, _ = make_batch(fragments, policy, WHOLE, alone)
    parts, sizes = whole.decisions + 3, []

    def look(part: Batch) -> Outlook:
        sizes.append(part.decisions)
        return look_again(policy, part, WHOLE)

    batch, _ = make_batch(fragments, policy, WHOLE, alone, look=look, parts=parts)
    assert sizes == [1] * parts, "three of them for nothing"
    torch.testing.assert_close(batch.advantages, whole.advantages, atol=1e-5, rtol=1e-4)


def test_minibatches_are_as_many_as_the_others_have() -> None:
    for decisions, count in ((10, 3), (3, 3), (2, 7)):
        rows = _minibatches(decisions, count)
        assert len(rows) == count
        assert min(map(len, rows)) > 0
        assert set(torch.cat(rows).tolist()) == set(range(decisions))


def test_what_was_drawn_has_the_same_likelihood_before_any_update(drawing) -> None:
    policy, fragments = drawing
    batch, _ = make_batch(fragments, policy, WHOLE, alone)
    assert bool((batch.duration < policy.config.chunk).any()), "no chunk ended early: the mask is not tested"
    for name in ("latent", "action"):
        torch.testing.assert_close(
            getattr(batch.proximal, name), getattr(batch.behaviour, name), atol=2e-4, rtol=0, msg=name
        )
    assert not batch.behaviour.action[~batch.executed].any()
    assert not batch.behaviour.latent[~batch.taken].any()


def test_v_trace_of_fresh_data_is_gae(drawing) -> None:
    policy, fragments = drawing
    plain, _ = make_batch(fragments, policy, WHOLE, alone)
    traced, _ = make_batch(fragments, policy, replace(WHOLE, correction="vtrace"), alone)
    torch.testing.assert_close(traced.returns, plain.returns, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(traced.advantages, plain.advantages, atol=1e-2, rtol=1e-2)


def test_v_trace_trusts_stale_data_less(drawing) -> None:
    """A policy that has moved on gives the same fragments other targets, as the links' own ratios say."""
    policy, fragments = drawing
    moved = stirred_policy(tiny(action_noise=0.3), seed=1).eval()
    settings = replace(WHOLE, correction="vtrace")
    fresh, _ = make_batch(fragments, policy, settings, alone)
    stale, _ = make_batch(fragments, moved, settings, alone)
    improbable = (stale.proximal.action - stale.behaviour.action).sum(1) < -5
    assert improbable.any()
    last = stale.steps[improbable]
    rows = improbable.nonzero()[:, 0]
    torch.testing.assert_close(stale.returns[rows, last], stale.values[rows, last], atol=0.05, rtol=0)
    assert not torch.allclose(fresh.returns, stale.returns, atol=0.05)


def test_v_trace_weighs_each_link_by_what_was_drawn_at_it(drawing) -> None:
    """The last latent step and the chunk after it, checked against the targets' definition."""
    _, fragments = drawing
    moved = stirred_policy(tiny(action_noise=0.3)).eval()
    with torch.no_grad():
        for parameter in moved.loop.update_policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    batch, _ = make_batch(fragments, moved, replace(WHOLE, correction="vtrace"), alone)
    latent = batch.proximal.latent - batch.behaviour.latent
    assert latent[batch.taken].abs().max() > 0.05
    checked = 0
    rewards = link_rewards(*_reward_parts(fragments), WHOLE, chunks=True)
    for n in range(batch.decisions):
        k = int(batch.steps[n]) - 1
        rho = latent[n, k].exp().clamp_max(1).item()
        here, after = batch.values[n, k].item(), batch.values[n, k + 1].item()
        delta = rewards[n, k].item() + WHOLE.latent_discount * after - here
        correction = WHOLE.latent_discount * WHOLE.gae_lambda * rho * (batch.returns[n, k + 1].item() - after)
        assert batch.returns[n, k].item() == pytest.approx(here + rho * delta + correction, abs=2e-3)
        checked += rho < 0.99
    assert checked, "no link was less likely than when it was drawn"


def _reward_parts(fragments) -> tuple:
    joined = concatenate(fragments)
    return tuple(torch.tensor(part) for part in (joined.reward, joined.z, joined.entropy, joined.steps))


def test_an_episode_is_compared_with_those_of_its_group(drawing) -> None:
    policy, _ = drawing
    fragments = drawn_fragments(policy, exits=True, group_size=3)
    batch, _ = make_batch(fragments, policy, replace(WHOLE, group_size=3), alone)
    start = 0
    for fragment in fragments:
        rewards, costs = [0.0] * 3, [0.0] * 3
        for t in range(len(fragment)):
            rewards[int(fragment.episode[t])] += float(fragment.reward[t])
            costs[int(fragment.episode[t])] += WHOLE.compute_cost * int(fragment.steps[t])
        values, prices = torch.tensor(rewards), torch.tensor(costs)
        expected = (values - values.mean()) / (values.std(unbiased=False) + 1e-6) - (prices - prices.mean())
        for t in range(len(fragment)):
            row = batch.advantages[start + t]
            links = int(fragment.steps[t]) + 1
            wanted = expected[int(fragment.episode[t])].expand(links)
            torch.testing.assert_close(row[:links], wanted, atol=1e-3, rtol=1e-3)
            assert not row[links:].any()
        start += len(fragment)


def test_a_group_that_failed_throughout_learns_of_the_price_of_thinking_alone(drawing) -> None:
    policy, _ = drawing
    fragments = drawn_fragments(policy, exits=True, group_size=3)
    for fragment in fragments:
        fragment.reward[:] = 0.0
    free, _ = make_batch(fragments, policy, replace(WHOLE, group_size=3, compute_cost=0.0), alone)
    assert not free.advantages.any()
    priced, _ = make_batch(fragments, policy, replace(WHOLE, group_size=3, compute_cost=0.002), alone)
    assert 0 < priced.advantages.abs().max() < 0.05


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
    torch.testing.assert_close(batch.proximal.latent, batch.behaviour.latent, atol=1e-4, rtol=0)
    assert (batch.proximal.latent[~batch.taken] == 0).all()


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


def test_rows_take_the_same_decisions_of_everything(drawing) -> None:
    policy, fragments = drawing
    batch, _ = make_batch(fragments, policy, WHOLE, alone)
    index = torch.tensor([5, 0, 17])

    def compare(taken, whole) -> int:
        if isinstance(whole, Tensor):
            assert torch.equal(taken, whole[index])
            return 1
        return sum(compare(*pair) for pair in zip(taken, whole, strict=True))

    assert compare(batch.rows(index), batch) == 22
