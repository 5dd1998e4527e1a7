"""What one update learns from: fragments turned into tensors, with advantages and the likelihoods that it starts from.

A decision is a chain of links: one for every latent step taken and, where chunks are trained, one for the chunk that
was drawn in the final latent state. Letters: N decisions of all fragments end to end, K latent steps, W links at most
(K, or K + 1 with chunks), C chunk length, Z, U, E, O widths as in avavla_ray/policy/config.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actors.settings import PPOSettings
from avavla_ray.learning.fragment import Fragment, Seen, chain_ends, concatenate
from avavla_ray.learning.gae import semi_markov_gae, valid_steps
from avavla_ray.learning.group_advantage import group_advantages, group_differences
from avavla_ray.learning.normalise import normalise_advantages
from avavla_ray.learning.rewards import composite_reward
from avavla_ray.learning.vtrace import semi_markov_vtrace
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.reasoning import exit_log_prob
from avavla_ray.policy.types import Belief, PolicyInputs

# Sum of a small tensor over all ranks.
Reduce = Callable[[Tensor], Tensor]


class Likelihoods(NamedTuple):
    """Log-probabilities of what was drawn: latent (N, K), updates and exits; action (N, C), the chunk's steps.

    Entries of steps that were not taken, or of a chunk that nobody trains, are zero.
    """

    latent: Tensor
    action: Tensor


class Witnessed(NamedTuple):
    """What the policy was given and drew, see `fragment.Seen`; belief before the decision."""

    inputs: PolicyInputs
    belief: Belief
    chunk: Tensor


class Batch(NamedTuple):
    """N decisions; `rows` takes a minibatch of them.

    u (N, K, U), encoding (N, E), tokens (N, O, Z), steps (N,), duration (N,): as stored by the rollout. z (N, K+1, Z):
    so as well, or as the weights that this update starts from see them, where chunks are trained.
    witnessed: None where only latent steps are trained.
    behaviour: when they were drawn. proximal: under the weights that this update starts from.
    values, advantages, returns (N, W); mask (N, W) bool: links that there are. taken (N, K) bool: latent steps taken.
    executed (N, C) bool: steps of the chunk that ran.
    """

    z: Tensor
    u: Tensor
    encoding: Tensor
    tokens: Tensor
    steps: Tensor
    duration: Tensor
    witnessed: Witnessed | None
    behaviour: Likelihoods
    proximal: Likelihoods
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor
    taken: Tensor
    executed: Tensor

    @property
    def decisions(self) -> int:
        """N."""
        return len(self.steps)

    def rows(self, index: Tensor) -> Batch:
        return Batch(*(_take(part, index) for part in self))


def _take(part: Any, index: Tensor) -> Any:
    if part is None or isinstance(part, Tensor):
        return None if part is None else part[index]
    return type(part)(*(_take(each, index) for each in part))


class Outlook(NamedTuple):
    """A policy's present view of stored decisions: their likelihoods, values (N, W) and latent states (N, K+1, Z)."""

    likelihoods: Likelihoods
    values: Tensor
    z: Tensor


# A policy's view of a batch, in the one place where its weights are whole.
Look = Callable[[Batch], Outlook]


def look_again(policy: AvaVlaPolicy, batch: Batch, settings: PPOSettings, *, uniform: bool = False) -> Outlook:
    """What `policy` makes of stored decisions, differentiable.

    Without chunks the latent states are the stored ones (arXiv 2606.15099: ratios are computed on them), so that only
    the update policy, the gate and the critic are asked. With chunks everything is recomputed from what was seen. The
    critic reads latent states, and does not shape them. `uniform`: see `LatentLoop.retrace`.
    """
    taken, K = batch.taken, batch.u.shape[1]
    seen = batch.witnessed
    if seen is None:
        z = batch.z
        encodings = batch.encoding[:, None].expand(-1, K, -1)
        drawn, _ = policy.log_prob_entropy(z[:, :-1][taken], batch.u[taken], encodings[taken])
        latent = torch.zeros_like(taken, dtype=drawn.dtype).masked_scatter(taken, drawn)
        logit = policy.gate_logit(z[:, 1:]) if settings.exit_actions else None
        action = latent.new_zeros(batch.executed.shape)
    else:
        replay = policy.replay(seen.inputs, seen.belief, batch.u, batch.steps, seen.chunk, uniform=uniform)
        z, logit = replay.z, replay.exit_logit
        latent = replay.log_prob.where(taken, 0.0)
        action = replay.action_log_prob.where(batch.executed, 0.0)
    if settings.exit_actions and logit is not None:
        latent = latent + exit_log_prob(logit, batch.steps)
    values = policy.value(z[:, : batch.mask.shape[1]].detach())
    return Outlook(Likelihoods(latent, action), values, z)


@torch.no_grad()
def make_batch(
    fragments: list[Fragment],
    policy: AvaVlaPolicy,
    settings: PPOSettings,
    reduce: Reduce,
    look: Look | None = None,
    parts: int | None = None,
) -> tuple[Batch, dict[str, Tensor]]:
    """Rewards, values and advantages under the present critic, and likelihoods under the present policy.

    Args:
        policy: in evaluation mode, so that the first ratio of the update is 1 to rounding.
        reduce: sums over ranks; advantages are normalised over all of them.
        look: `look_again` through an engine that shards the policy's weights; None asks the policy itself.
        parts: that pictures are looked at in, the same number on every rank; None: of a minibatch's size.

    Returns:
        The batch, and sums (not means) over this rank's links and decisions, for metrics.
    """
    joined, device = concatenate(fragments), next(policy.parameters()).device

    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=device)

    steps, u, duration = tensor(joined.steps), tensor(joined.u), tensor(joined.duration)
    seen = joined.seen if settings.train_actions else None
    if settings.train_actions and seen is None:
        raise ValueError("chunks are trained, and the fragments do not say what the policy saw")
    taken = valid_steps(steps, u.shape[1])
    executed = valid_steps(duration, policy.config.chunk)
    behaviour = tensor(joined.log_prob)
    if settings.exit_actions:
        behaviour = behaviour + tensor(joined.exit_log_prob)
    action = executed.new_zeros(executed.shape, dtype=torch.float32)
    behaved = Likelihoods(behaviour, action if seen is None else tensor(seen.action_log_prob).where(executed, 0.0))
    links = steps if seen is None else steps + 1
    mask = taken if seen is None else valid_steps(links, u.shape[1] + 1)
    blank = torch.zeros_like(mask, dtype=torch.float32)
    batch = Batch(
        tensor(joined.z), u, tensor(joined.encoding), tensor(joined.tokens), steps, duration,
        None if seen is None else witnessed(seen, tensor), behaved, behaved, blank, blank, blank,
        mask, taken, executed,
    )  # fmt: skip
    outlook = _look_in_parts(look or (lambda part: look_again(policy, part, settings)), batch, settings, parts)
    ends = tensor(chain_ends(fragments))
    entropy = tensor(joined.entropy)
    rewards = link_rewards(tensor(joined.reward), batch.z, entropy, steps, settings, chunks=seen is not None)
    # What follows a decision is the next row's start, in the present policy's eyes; past a cut, as the rollout saw it.
    next_z = tensor(joined.next_z)
    next_z[:-1] = torch.where(ends[:-1, None], next_z[:-1], outlook.z[1:, 0])
    values, next_value = outlook.values, policy.value(next_z)
    if settings.group_size:
        advantages = _against_their_groups(tensor(joined.reward), settings.compute_cost * steps, mask, joined)
        returns = torch.zeros_like(values)
    else:
        chain = (rewards, values, links, next_value, duration, tensor(joined.terminated), ends)
        rates = {"gamma": settings.gamma, "lambda_": settings.gae_lambda, "latent_discount": settings.latent_discount}
        if settings.correction == "vtrace":
            advantages, returns = semi_markov_vtrace(*chain, _log_ratio(outlook.likelihoods, behaved, batch), **rates)
        else:
            advantages, returns = semi_markov_gae(*chain, **rates)
    over = "none" if settings.group_size else settings.normalise  # a group's advantages are at one scale already
    batch = batch._replace(
        z=outlook.z, proximal=outlook.likelihoods, values=values, returns=returns,
        advantages=normalise_advantages(advantages, mask, over, reduce),
    )  # fmt: skip
    valid_returns, residual = returns[mask].double(), (returns - values)[mask].double()
    sums = {
        "latent_steps": taken.sum(), "links": mask.sum(), "decisions": tensor(np.array(len(joined))),
        "entropy": entropy[taken].sum(), "reward": rewards.sum(), "env_steps": duration.sum(),
        "returns": valid_returns.sum(), "returns_squared": valid_returns.square().sum(),
        "residual": residual.sum(), "residual_squared": residual.square().sum(),
    }  # fmt: skip
    return batch, sums


def link_rewards(
    task_reward: Tensor, z: Tensor, entropy: Tensor, steps: Tensor, settings: PPOSettings, *, chunks: bool
) -> Tensor:
    """Reward of every link (N, W): the task's at the decision's last one, the penalties at each latent step."""
    weights = {
        "lambda_entropy": settings.lambda_entropy, "lambda_delta": settings.lambda_delta,
        "compute_cost": settings.compute_cost,
    }  # fmt: skip
    if not chunks:
        return composite_reward(task_reward, z, entropy, steps, **weights)
    thought = composite_reward(torch.zeros_like(task_reward), z, entropy, steps.clamp_min(1), **weights)
    thought = torch.where((steps > 0)[:, None], thought, 0.0)
    return F.pad(thought, (0, 1)).scatter_add(1, steps[:, None], task_reward[:, None])


def witnessed(seen: Seen, tensor: Callable[[np.ndarray], Tensor]) -> Witnessed:
    """What was seen, as tensors."""
    inputs = PolicyInputs(tensor(seen.images), tensor(seen.text), tensor(seen.proprio))
    return Witnessed(inputs, Belief(tensor(seen.hidden), tensor(seen.history)), tensor(seen.chunk))


def _look_in_parts(look: Look, batch: Batch, settings: PPOSettings, parts: int | None) -> Outlook:
    """In parts where pictures are looked at: all at once may not fit the memory."""
    if batch.witnessed is None:
        return look(batch)
    count = math.ceil(batch.decisions / settings.minibatch_decisions) if parts is None else parts
    rows = torch.arange(batch.decisions, device=batch.steps.device).tensor_split(count)
    # A rank with fewer decisions than parts looks as often as the others, at one of them for nothing.
    looked = [look(batch.rows(index if len(index) else index.new_zeros(1))) for index in rows]
    seen = [outlook for index, outlook in zip(rows, looked, strict=True) if len(index)]
    likelihoods = Likelihoods(*(torch.cat(each) for each in zip(*(part.likelihoods for part in seen), strict=True)))
    return Outlook(likelihoods, torch.cat([part.values for part in seen]), torch.cat([part.z for part in seen]))


def _log_ratio(proximal: Likelihoods, behaviour: Likelihoods, batch: Batch) -> Tensor:
    """(N, W): of everything that was drawn at a link; a chunk's steps are one link's."""
    latent = proximal.latent - behaviour.latent
    if batch.witnessed is None:
        return latent
    chunk = (proximal.action - behaviour.action).sum(1, keepdim=True)
    return F.pad(latent, (0, 1)).scatter(1, batch.steps[:, None], chunk)


def _against_their_groups(reward: Tensor, cost: Tensor, mask: Tensor, joined: Fragment) -> Tensor:
    """(N, W): how an episode compares with those from the same start, at all of its links.

    Args:
        reward: (N,), of the task; brought to one scale. cost: (N,), of thinking; it is not, or it would be all that
            counts where all episodes did equally well. The penalties on the latent steps would too, and are left out.
    """
    episodes = torch.as_tensor(joined.episode, device=reward.device)
    number = len(joined.episode_ids)
    groups = torch.zeros(number, dtype=torch.int64, device=reward.device)
    groups[episodes] = torch.as_tensor(joined.group, device=reward.device)
    scores, costs = (reward.new_zeros(number).index_add_(0, episodes, each.to(reward.dtype)) for each in (reward, cost))
    compared = group_advantages(scores, groups) - group_differences(costs, groups)
    return torch.where(mask, compared[episodes][:, None], 0.0)


def explained_variance(sums: dict[str, float]) -> float:
    """1 - Var(returns - values) / Var(returns), from the sums of all ranks; 0 where returns don't vary."""
    n = sums["links"]
    variance = sums["returns_squared"] / n - (sums["returns"] / n) ** 2
    unexplained = sums["residual_squared"] / n - (sums["residual"] / n) ** 2
    return 1.0 - unexplained / variance if variance > 1e-12 else 0.0


def deal(lots: list[tuple[object, int]], world: int) -> list[list[object]]:
    """Share out (item, size) lots over `world` ranks, about the same total size each, none without."""
    shares: list[list[object]] = [[] for _ in range(world)]
    totals = [0] * world
    for item, size in sorted(lots, key=lambda lot: -lot[1]):
        rank = min(range(world), key=lambda r: (totals[r], len(shares[r])))
        shares[rank].append(item)
        totals[rank] += size
    return shares
