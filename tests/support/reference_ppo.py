"""Synchronous PPO in one process, written down once more as loops over single numbers.

What the algorithm on a cluster must equal when nothing is stale. Of the platform it takes the policy (what the network
says) and the settings; rewards, advantages, their normalisation, losses, the order of minibatches, the stop and the
optimizer are here again, in float64 where they are numbers, without a thought for speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actors.settings import PPOSettings
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.training.engine import EngineSettings

LARGEST_LOGIT = 30.0  # of the exit gate


@dataclass
class Link:
    """One latent step, or the chunk that was drawn after the last: what it earned, and what the update makes of it.

    behaviour, proximal: log-probabilities of what was drawn, one of a latent step, one of each executed chunk step.
    """

    reward: float
    behaviour: list[float]
    proximal: list[float] = field(default_factory=list)
    value: float = 0.0
    advantage: float = 0.0
    target: float = 0.0
    normalised: float = 0.0


@dataclass
class Decided:
    """One decision as a rollout stored it, and its links. `states`: z_0 to z_n, each (Z,)."""

    states: Tensor
    u: Tensor
    encoding: Tensor
    steps: int
    next_z: Tensor
    duration: int
    terminated: bool
    chain_ends: bool
    seen: dict[str, Tensor]
    links: list[Link] = field(default_factory=list)


class View(NamedTuple):
    """What the policy makes of a decision: log-probabilities as in `Link`, for every link, and states (n + 1, Z)."""

    log_probs: list[Tensor]
    states: Tensor


@dataclass
class Progress:
    """What an update did: divergence before each step of the policy, or what kept it from one; and steps taken."""

    divergences: list[float] = field(default_factory=list)
    minibatches: int = 0
    policy_minibatches: int = 0


class ReferencePPO:
    """Trains `policy`, in place, with a critic, without demonstrations and without a loss of the gate's own.

    Args:
        seed: of the run; decides the order of minibatches.
    """

    def __init__(self, policy: AvaVlaPolicy, settings: PPOSettings, engine: EngineSettings, seed: int) -> None:
        if (
            settings.group_size
            or settings.train_gate
            or settings.imitation_weight
            or settings.correction != "decoupled"
        ):
            raise ValueError("groups, a calibrated gate, imitation and other corrections are not written down here")
        self.policy, self.settings, self.engine, self.seed = policy.eval(), settings, engine, seed
        parts = policy.parameter_groups()
        trained = list(parts["reasoner"])
        if settings.train_actions:
            trained = [p for name in parts if name not in ("frozen", "value", "gate", "noise") for p in parts[name]]
            trained += parts["noise"] if settings.learn_action_std else []
        self._rates = {"policy": settings.policy_lr, "critic": settings.critic_lr}
        groups = [{"name": "policy", "params": trained}, {"name": "critic", "params": parts["value"]}]
        if settings.exit_actions:
            self._rates["gate"] = settings.gate_lr
            groups.append({"name": "gate", "params": parts["gate"]})
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        policy.requires_grad_(False)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            groups, lr=0.0, betas=engine.betas, eps=engine.epsilon, weight_decay=engine.weight_decay
        )

    def update(self, fragments: list[Fragment], version: int) -> Progress:
        """Learn from the fragments in their order; `version` is that of the weights which made them."""
        decisions = [decided for fragment in fragments for decided in self._read(fragment)]
        self._judge(decisions)
        settings, progress, going = self.settings, Progress(), True
        self._pace = 1.0
        if settings.warm_up_updates and version < settings.warm_up_updates:
            self._pace = version / settings.warm_up_updates
        if settings.decay_updates:
            self._pace = max(0.0, min(self._pace, (settings.decay_updates - version) / settings.decay_updates))
        torch.manual_seed(int(np.random.SeedSequence([self.seed, 0, version]).generate_state(1)[0]))
        number = max(1, len(decisions) // settings.minibatch_decisions)
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(decisions)).tensor_split(number):
                minibatch = [decisions[int(row)] for row in rows]
                states = [decided.states for decided in minibatch]
                surrogate = torch.zeros((), dtype=torch.float64)
                if going:
                    views = self._look(minibatch)
                    surrogate, divergence = self._surrogate(minibatch, views)
                    progress.divergences.append(divergence)
                    going = divergence <= settings.target_kl
                if going:
                    states = [view.states.detach() for view in views]
                loss = settings.value_coefficient * self._value_loss(minibatch, states)
                self._step(loss + surrogate if going else loss, only_critic=not going)
                progress.minibatches += 1
                progress.policy_minibatches += going
        return progress

    # What the fragments say, and what the present policy makes of it

    def _read(self, fragment: Fragment) -> list[Decided]:
        settings, decisions = self.settings, []
        for t in range(len(fragment)):
            n, duration = int(fragment.steps[t]), int(fragment.duration[t])
            ended = bool(fragment.terminated[t] or fragment.truncated[t])
            seen = {}
            if settings.train_actions:
                seen = {part.name: torch.tensor(getattr(fragment.seen, part.name)[t]) for part in fields(Seen)}
            decided = Decided(
                states=torch.tensor(fragment.z[t, : n + 1]), u=torch.tensor(fragment.u[t]), steps=n,
                encoding=torch.tensor(fragment.encoding[t]), next_z=torch.tensor(fragment.next_z[t]),
                duration=duration, terminated=bool(fragment.terminated[t]),
                chain_ends=ended or t == len(fragment) - 1, seen=seen,
            )  # fmt: skip
            for k in range(n):
                z, after = fragment.z[t, k].astype(float), fragment.z[t, k + 1].astype(float)
                movement = sum((b - a) ** 2 for a, b in zip(z, after, strict=True)) / len(z)
                penalty = settings.lambda_entropy * float(fragment.entropy[t, k]) + settings.lambda_delta * movement
                behaviour = float(fragment.log_prob[t, k])
                if settings.exit_actions:
                    behaviour += float(fragment.exit_log_prob[t, k])
                decided.links.append(Link(-penalty - settings.compute_cost, [behaviour]))
            if settings.train_actions:
                decided.links.append(Link(0.0, seen["action_log_prob"][:duration].tolist()))
            decided.links[-1].reward += float(fragment.reward[t])
            decisions.append(decided)
        return decisions

    def _look(self, decisions: list[Decided]) -> list[View]:
        """With chunks everything from the observation on; without, latent steps on their stored states."""
        if self.settings.train_actions:
            return self._look_from_the_observation(decisions)
        here = torch.cat([decided.states[:-1] for decided in decisions])
        there = torch.cat([decided.states[1:] for decided in decisions])
        u = torch.cat([decided.u[: decided.steps] for decided in decisions])
        encodings = torch.cat([decided.encoding.expand(decided.steps, -1) for decided in decisions])
        log_prob, _ = self.policy.log_prob_entropy(here, u, encodings)
        logit = self.policy.gate_logit(there)
        views, at = [], 0
        for decided in decisions:
            mine = slice(at, at + decided.steps)
            views.append(View(self._of_steps(decided, log_prob[mine], logit[mine]), decided.states))
            at += decided.steps
        return views

    def _look_from_the_observation(self, decisions: list[Decided]) -> list[View]:
        seen = {name: torch.stack([decided.seen[name] for decided in decisions]) for name in decisions[0].seen}
        replay = self.policy.replay(
            PolicyInputs(seen["images"], seen["text"], seen["proprio"]), Belief(seen["hidden"], seen["history"]),
            torch.stack([decided.u for decided in decisions]),
            torch.tensor([decided.steps for decided in decisions]), seen["chunk"],
        )  # fmt: skip
        views = []
        for row, decided in enumerate(decisions):
            log_probs = self._of_steps(decided, replay.log_prob[row], replay.exit_logit[row])
            executed = replay.action_log_prob[row, : decided.duration].double()
            views.append(View([*log_probs, executed], replay.z[row, : decided.steps + 1]))
        return views

    def _of_steps(self, decided: Decided, log_prob: Tensor, logit: Tensor) -> list[Tensor]:
        """Of each latent step, (1,): of its update and, where exits are drawn, of having stayed or left after it."""
        drawn = []
        for k in range(decided.steps):
            both = log_prob[k].double()
            asked = self.settings.exit_actions and k + 1 < len(decided.u)  # nobody is asked after the last possible
            if asked:
                leave = logit[k].double().clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
                both = both + F.logsigmoid(leave if k + 1 == decided.steps else -leave)
            drawn.append(both[None])
        return drawn

    @torch.no_grad()
    def _judge(self, decisions: list[Decided]) -> None:
        """Values, proximal log-probabilities, advantages, returns, and normalised advantages."""
        settings = self.settings
        for decided, view in zip(decisions, self._look(decisions), strict=True):
            decided.states = view.states.clone()
            for link, state, log_probs in zip(decided.links, view.states, view.log_probs, strict=False):
                link.value, link.proximal = self.policy.value(state).item(), log_probs.tolist()
        later = following = 0.0  # the advantage of the link that follows in time, and its value
        for decided in reversed(decisions):
            if decided.chain_ends:
                later, following = 0.0, self.policy.value(decided.next_z).item()
            discount = 0.0 if decided.terminated else settings.gamma**decided.duration
            for link in reversed(decided.links):
                delta = link.reward + discount * following - link.value
                link.advantage = delta + discount * settings.gae_lambda * later
                link.target = link.advantage + link.value
                later, following, discount = link.advantage, link.value, settings.latent_discount
        votes = [  # every decision has one, which its links share
            (link.advantage, 1 / len(decided.links) if settings.normalise == "decisions" else 1.0)
            for decided in decisions
            for link in decided.links
        ]
        mean, deviation = 0.0, 1.0
        if settings.normalise != "none":
            total = sum(weight for _, weight in votes)
            mean = sum(weight * advantage for advantage, weight in votes) / total
            deviation = math.sqrt(sum(weight * (advantage - mean) ** 2 for advantage, weight in votes) / total) + 1e-8
        for decided in decisions:
            for link in decided.links:
                link.normalised = (link.advantage - mean) / deviation

    # Losses

    def _surrogate(self, minibatch: list[Decided], views: list[View]) -> tuple[Tensor, float]:
        """Of latent steps and of chunk steps, a mean each; and how far the policy has moved, by its chunks if any."""
        drawn: dict[str, list[tuple[Tensor, float, float, float]]] = {"latent": [], "action": []}
        for decided, view in zip(minibatch, views, strict=True):
            for number, (link, log_probs) in enumerate(zip(decided.links, view.log_probs, strict=True)):
                kind = "latent" if number < decided.steps else "action"
                for new, proximal, behaviour in zip(log_probs, link.proximal, link.behaviour, strict=True):
                    drawn[kind].append((new, proximal, behaviour, link.normalised))
        coefficients = {"latent": self.settings.latent_coefficient, "action": self.settings.action_coefficient}
        loss, divergences = torch.zeros((), dtype=torch.float64), dict[str, float]()
        for kind, entries in drawn.items():
            if entries:
                part, divergences[kind] = self._clipped(entries)
                loss = loss + coefficients[kind] * part
        if self.settings.exit_actions:
            return loss, max(divergences.values())
        return loss, divergences.get("action", divergences["latent"])

    def _clipped(self, drawn: list[tuple[Tensor, float, float, float]]) -> tuple[Tensor, float]:
        settings, loss, divergence = self.settings, torch.zeros((), dtype=torch.float64), 0.0
        for new, proximal, behaviour, advantage in drawn:
            ratio = (new - proximal).exp()
            weight = min(math.exp(proximal - behaviour), settings.importance_limit)
            inside = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            loss = loss - weight * torch.minimum(ratio * advantage, inside * advantage) / len(drawn)
            divergence += (ratio.item() - 1 - (new.item() - proximal)) / len(drawn)
        return loss, divergence

    def _value_loss(self, minibatch: list[Decided], states: list[Tensor]) -> Tensor:
        settings = self.settings
        links = [link for decided in minibatch for link in decided.links]
        inputs = [z[: len(decided.links)] for decided, z in zip(minibatch, states, strict=True)]
        loss = torch.zeros((), dtype=torch.float64)
        for value, link in zip(self.policy.value(torch.cat(inputs)).double(), links, strict=True):
            square = (value - link.target) ** 2
            if settings.value_clip is not None:
                near = link.value + (value - link.value).clamp(-settings.value_clip, settings.value_clip)
                square = torch.maximum(square, (near - link.target) ** 2)
            loss = loss + square / len(links)
        return loss

    def _step(self, loss: Tensor, *, only_critic: bool) -> None:
        """A step of AdamW with the gradient clipped to its length. What is held has rate 0; its moments fade."""
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss.backward()
        length = math.sqrt(sum(float(parameter.grad.double().square().sum()) for parameter in self._parameters))
        if length > self.engine.gradient_clip > 0:
            for parameter in self._parameters:
                parameter.grad *= self.engine.gradient_clip / length
        for group in self._optimizer.param_groups:
            held = only_critic and group["name"] != "critic"
            pace = 1.0 if group["name"] == "critic" else self._pace
            group["lr"] = 0.0 if held else pace * self._rates[group["name"]]
        self._optimizer.step()
