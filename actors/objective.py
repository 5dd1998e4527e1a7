"""The loss of a PPO minibatch as the module that a DeepSpeed engine wraps."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from actors.batch import Batch, look_again
from actors.cloning_stream import Demonstration
from actors.settings import PPOSettings
from actors.successes import Imitation
from avavla_ray.learning.exit_labels import exit_labels, exit_loss
from avavla_ray.learning.ppo import PolicyLoss, masked_mean, policy_loss, value_loss
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, LatentContext
from avavla_ray.training.objective import CloningObjective, train_only


class PPOObjective(nn.Module):
    """Holds the policy; its forward is the joint loss of stage 3 (arXiv 2606.15099, section 3.3).

        PPO over latent steps (updates, and exits where they are drawn) + PPO over the steps of drawn chunks
        + value loss + exit-gate cross-entropy + weight * behaviour cloning + weight * self-imitation

    Likelihoods are computed in evaluation mode. The gate's cross-entropy reads detached states, so it moves the gate
    alone. The cloning loss keeps the action head in step with a latent loop that PPO changes.
    """

    def __init__(self, policy: AvaVlaPolicy, settings: PPOSettings) -> None:
        super().__init__()
        self.policy, self.settings = policy, settings

    def train(self, mode: bool = True) -> PPOObjective:
        """Stay in evaluation mode whatever the engine asks for: ratios compare like with like."""
        return super().train(False)

    def optimizer_groups(self, *, cloning: bool) -> list[dict[str, Any]]:
        """Groups for the optimizer; parameters without a loss are frozen and left out.

        Latent steps alone move the update policy, the value and the gate only: their states are stored ones, so nothing
        before them is in the graph. Trained chunks and demonstrations reach everything.
        """
        parts, settings = self.policy.parameter_groups(), self.settings
        del parts["frozen"]
        critic, gate, noise = parts.pop("value"), parts.pop("gate"), parts.pop("noise")
        whole = cloning or settings.train_actions
        trained = [parameter for part in parts.values() for parameter in part] if whole else parts["reasoner"]
        if settings.train_actions and settings.learn_action_std:
            trained = trained + noise
        groups: list[dict[str, Any]] = [
            {"name": "policy", "params": trained, "lr": settings.policy_lr},
            {"name": "critic", "params": critic, "lr": settings.critic_lr},
        ]
        if settings.train_gate or settings.exit_actions:
            groups.append({"name": "gate", "params": gate, "lr": settings.gate_lr})
        train_only(self.policy, (parameter for group in groups for parameter in group["params"]))
        return groups

    def forward(
        self,
        batch: Batch,
        demonstration: Demonstration | None = None,
        imitation: Imitation | None = None,
        *,
        train_policy: bool = True,
        train_gate: bool = False,
        whole: bool = False,
        look: bool = False,
    ) -> Any:
        """Loss of a minibatch; its parts, detached; beliefs of the streams after it, by the name of the argument.

        Args:
            look: only look at the decisions again, and return the `Outlook`.
            train_policy: False leaves the critic, and the gate where it has a loss of its own.
            whole: every learning parameter has a part in the loss, if need be times zero, since the engine would step
                those that have none with an old gradient (ZeRO 3, or an optimizer on the CPU); and every part of the
                policy is called as often on every rank (ZeRO 3).
        """
        settings = self.settings
        if look:
            return look_again(self.policy, batch, settings, uniform=whole)
        metrics: dict[str, Tensor] = {}
        beliefs: dict[str, Belief] = {}
        if train_policy or whole:
            outlook = look_again(self.policy, batch, settings, uniform=whole)
            loss, values = self._policy_loss(batch, outlook, metrics if train_policy else {}), outlook.values
        if not train_policy:
            # The critic goes on with the states as they were when the update began, whatever the engine.
            loss = 0.0 * loss if whole else torch.zeros((), device=batch.z.device)
            values = self.policy.value(batch.z[:, : batch.mask.shape[1]])
        critic = value_loss(
            values, batch.returns, batch.mask, old_values=batch.values, value_clip=settings.value_clip
        )  # fmt: skip
        loss = loss + (0.0 if settings.group_size else settings.value_coefficient) * critic
        metrics["value_loss"] = critic.detach()
        if train_gate or (whole and settings.train_gate):
            gate_loss, exitable = self._gate_loss(batch)
            loss = loss + (settings.gate_coefficient if train_gate else 0.0) * gate_loss
            if train_gate:
                metrics |= {"gate_loss": gate_loss.detach(), "exit_label_mean": exitable}
        if imitation is not None and train_policy:  # it reaches nothing that the decisions looked at again do not
            imitated, beliefs["imitation"] = self._imitation_loss(imitation)
            loss = loss + settings.imitation_weight * imitation.weight * imitated
            metrics["imitation_loss"] = imitated.detach()
        if demonstration is None or not (train_policy or whole):
            return loss, metrics, beliefs
        cloning, belief, _ = self._cloning_loss(demonstration)
        if not train_policy:
            return loss + 0.0 * cloning, metrics, beliefs
        metrics["cloning_loss"], beliefs["demonstration"] = cloning.detach(), belief
        return loss + demonstration.weight * cloning, metrics, beliefs

    def _policy_loss(self, batch: Batch, outlook: Any, metrics: dict[str, Tensor]) -> Tensor:
        """Clipped surrogates of what was drawn; adds what they tell to `metrics`."""
        settings = self.settings
        K, new = batch.u.shape[1], outlook.likelihoods
        latent = policy_loss(
            new.latent, batch.proximal.latent, batch.behaviour.latent, batch.advantages[:, :K], batch.taken,
            clip=settings.clip, correction=settings.correction, max_weight=settings.importance_limit,
        )  # fmt: skip
        loss, kl = settings.latent_coefficient * latent.loss, latent.approx_kl
        metrics |= _told(latent)
        if batch.witnessed is not None:
            # A chunk is one link, and its steps are clipped one by one: their likelihoods are of a few dimensions each.
            advantages = batch.advantages.gather(1, batch.steps[:, None]).expand_as(batch.executed)
            action = policy_loss(
                new.action, batch.proximal.action, batch.behaviour.action, advantages, batch.executed,
                clip=settings.clip, correction=settings.correction, max_weight=settings.importance_limit,
            )  # fmt: skip
            loss = loss + settings.action_coefficient * action.loss
            # What a latent update means depends on all that is learned around it, and the clone has made its deviation
            # small: it moves by hundreds where the chunks hardly do. Exits are told by the latent likelihoods alone.
            kl = torch.maximum(kl, action.approx_kl) if settings.exit_actions else action.approx_kl
            metrics |= _told(action, "action_")
        metrics["kl"] = kl
        return loss

    def _cloning_loss(self, demonstration: Demonstration) -> tuple[Tensor, Belief, dict[str, Tensor]]:
        """Of this rank's demonstration streams, with drawn updates; its average over the ranks is that of all."""
        world = dist.get_world_size() if dist.is_initialized() else 1
        rows, decisions = demonstration.window["mask"].shape[:2]
        shape = (rows, decisions, demonstration.latent_steps, self.policy.config.latent.update_dim)
        objective = CloningObjective(self.policy, replicas=world, streams=self.settings.demonstration_streams)
        return objective(
            demonstration.window, demonstration.belief, latent_steps=demonstration.latent_steps,
            noise=torch.randn(shape, device=demonstration.window["mask"].device),
        )  # fmt: skip

    def _imitation_loss(self, imitation: Imitation) -> tuple[Tensor, Belief]:
        """Negative log-likelihood of a step of the drawn chunks, on average, after drawn updates; belief after them."""
        policy, seen = self.policy, imitation.witnessed
        shape = (len(seen.chunk), imitation.latent_steps, policy.config.latent.update_dim)
        chunk, belief, _ = policy.clone(
            seen.inputs, seen.belief, latent_steps=imitation.latent_steps,
            noise=torch.randn(shape, device=seen.chunk.device),
        )  # fmt: skip
        return -masked_mean(policy.action_log_prob(chunk, seen.chunk), imitation.executed), belief

    def _gate_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of the gate on a full-depth unroll with mean updates, as evaluation acts."""
        policy, settings = self.policy, self.settings
        with torch.no_grad():
            states = policy.unroll(LatentContext(batch.encoding, batch.tokens), batch.z[:, 0], batch.u.shape[1])
            labels = exit_labels(policy.value(states), settings.gate_delta, settings.gate_lookahead)
        return exit_loss(policy.gate_logit(states[:, 1:])[:, :-1], labels)


def _told(loss: PolicyLoss, prefix: str = "") -> dict[str, Tensor]:
    """Of a policy loss, as metrics; latent steps have no prefix."""
    return {
        f"{prefix}policy_loss": loss.loss.detach(), f"{prefix}clip_fraction": loss.clip_fraction,
        f"{prefix}importance_weight": loss.weight, f"{prefix}kl_mean": loss.approx_kl,
    }  # fmt: skip
