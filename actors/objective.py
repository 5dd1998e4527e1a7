"""The loss of a PPO minibatch as the module that a DeepSpeed engine wraps."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from actors.batch import LatentBatch, replay
from actors.cloning_stream import Demonstration
from actors.settings import PPOSettings
from avavla_ray.learning.exit_labels import exit_labels
from avavla_ray.learning.ppo import masked_mean, ppo_loss
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, LatentContext
from avavla_ray.training.objective import CloningObjective, train_only


class PPOObjective(nn.Module):
    """Holds the policy; its forward is the joint loss of stage 3 (arXiv 2606.15099, section 3.3).

        decoupled PPO over latent steps + value loss + exit-gate cross-entropy + weight * behaviour cloning

    Likelihoods are computed in evaluation mode on the stored latent states. The gate's loss reads detached states, so
    it moves the gate alone. The cloning loss keeps the action head in step with a latent loop that PPO changes.
    """

    def __init__(self, policy: AvaVlaPolicy, settings: PPOSettings) -> None:
        super().__init__()
        self.policy, self.settings = policy, settings

    def train(self, mode: bool = True) -> PPOObjective:
        """Stay in evaluation mode whatever the engine asks for: ratios compare like with like."""
        return super().train(False)

    def optimizer_groups(self, *, cloning: bool) -> list[dict[str, Any]]:
        """Groups for the optimizer; parameters without a loss are frozen and left out.

        Without demonstrations the gradient reaches the update policy, the value and the gate only: the latent states
        are stored ones, so nothing before them is in the graph.
        """
        parts, settings = self.policy.parameter_groups(), self.settings
        del parts["frozen"]
        critic, gate = parts.pop("value"), parts.pop("gate")
        trained = [parameter for part in parts.values() for parameter in part] if cloning else parts["reasoner"]
        groups: list[dict[str, Any]] = [
            {"name": "policy", "params": trained, "lr": settings.policy_lr},
            {"name": "critic", "params": critic, "lr": settings.critic_lr},
        ]
        if settings.train_gate:
            groups.append({"name": "gate", "params": gate, "lr": settings.gate_lr})
        train_only(self.policy, (parameter for group in groups for parameter in group["params"]))
        return groups

    def forward(
        self,
        batch: LatentBatch,
        demonstration: Demonstration | None = None,
        *,
        train_policy: bool = True,
        train_gate: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor], Belief | None]:
        """Loss of a minibatch; its parts, detached; belief of the demonstration streams after it.

        Args:
            train_policy: False leaves critic and gate alone in the loss.
        """
        settings = self.settings
        values = self.policy.value(batch.z[:, :-1])
        if train_policy:
            ppo = ppo_loss(
                replay(self.policy, batch.z, batch.u, batch.encoding, batch.mask),
                batch.proximal_log_prob, batch.behaviour_log_prob, batch.advantages, values, batch.returns, batch.mask,
                clip=settings.clip, value_coefficient=settings.value_coefficient, max_weight=settings.importance_limit,
            )  # fmt: skip
            loss = ppo.total
            metrics = {
                "policy_loss": ppo.policy, "value_loss": ppo.value, "kl": ppo.approx_kl,
                "clip_fraction": ppo.clip_fraction, "importance_weight": ppo.weight,
            }  # fmt: skip
        else:
            value_loss = masked_mean((values - batch.returns).square(), batch.mask)
            loss, metrics = settings.value_coefficient * value_loss, {"value_loss": value_loss.detach()}
        if train_gate:
            gate_loss, exitable = self._gate_loss(batch)
            loss = loss + settings.gate_coefficient * gate_loss
            metrics |= {"gate_loss": gate_loss.detach(), "exit_label_mean": exitable}
        if demonstration is None or not train_policy:
            return loss, metrics, None
        cloning, belief, _ = self._cloning_loss(demonstration)
        metrics["cloning_loss"] = cloning.detach()
        return loss + demonstration.weight * cloning, metrics, belief

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

    def _gate_loss(self, batch: LatentBatch) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of the gate on a full-depth unroll with mean updates, as evaluation acts."""
        policy, settings = self.policy, self.settings
        with torch.no_grad():
            states = policy.unroll(LatentContext(batch.encoding, batch.tokens), batch.z[:, 0], batch.u.shape[1])
            labels = exit_labels(policy.value(states), settings.gate_delta, settings.gate_lookahead)
        logits = policy.gate_logit(states[:, 1:])
        return F.binary_cross_entropy_with_logits(logits, labels), labels.mean()
