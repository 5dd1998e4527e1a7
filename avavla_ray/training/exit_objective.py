"""The loss of exit calibration (stage 4 of arXiv 2606.15099) on demonstrations.

Letters: B streams, T decisions, C chunk length, A action dimension, K latent steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.errors import check_known
from avavla_ray.learning.exit_labels import exit_labels, exit_loss
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.reasoning import ExitGate
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.training.objective import CloningObjective, fresh_belief, row_weight
from avavla_ray.training.settings import EXIT_TARGETS

# Smallest gain that is worth thinking on for. Of value: the paper's. Of the action: a four-hundredth of the range of a
# normalised action, on average over its dimensions.
DELTAS = {"value": 0.05, "imitation": 0.005}


class ExitObjective(nn.Module):
    """Cross-entropy between the exit gate and whether thinking on still pays.

    A decision is thought about to full depth with mean updates, as evaluation acts, and what each depth is worth is
    compared with what `lookahead` steps more make of it (learning/exit_labels.py):

        "value"       V(z_k), the paper's target. The value head must have been trained by PPO.
        "imitation"   minus the L1 between the demonstrated chunk and the one that z_k leads to. Needs no reward: the
                      same question, asked of the stage's own demonstrations.

    The gradient reaches the gate alone. Between decisions goes the belief of the action that the policy would take now,
    at the depth where its gate stops at its own threshold.

    Attributes:
        SHARED_METRICS: see `CloningObjective`.
        actions: the error of the policy's actions.
    """

    SHARED_METRICS = frozenset({"gate_loss", "exit_share", "accuracy", "mean_depth"})

    def __init__(
        self,
        policy: AvaVlaPolicy,
        target: str,
        delta: float | None = None,
        lookahead: int = 3,
        *,
        replicas: int = 1,
        streams: int | None = None,
    ) -> None:
        """
        Args:
            delta: smallest gain that is worth it, of value or of L1 in normalised units; None takes that of `DELTAS`.
            replicas, streams: see `CloningObjective`.

        Raises:
            InputError: there is no such target.
        """
        super().__init__()
        check_known("exit target", target, EXIT_TARGETS)
        self.policy, self.target, self.lookahead = policy, target, lookahead
        self.delta = DELTAS[target] if delta is None else delta
        self.replicas, self.streams = replicas, streams
        self.actions = CloningObjective(policy)

    def train(self, mode: bool = True) -> ExitObjective:
        """Stay in evaluation mode whatever the engine asks for: labels are about the policy that acts."""
        return super().train(False)

    def forward(
        self,
        batch: Mapping[str, Tensor],
        belief: Belief,
        *,
        temperature: float | None = None,
        latent_steps: int | None = None,
    ) -> tuple[Tensor, Belief, dict[str, Tensor]]:
        """
        Args:
            batch: a window of demonstrations/windows.py. belief: of each stream before it.
            temperature: see `AvaVlaPolicy.clone`.
            latent_steps: the error of the actions at this depth is wanted instead, as `actions` gives it: through here,
                because ZeRO 3 gathers weights for its own module only.

        Returns:
            loss; belief after the window; metrics, over all decisions: "gate_loss"; "exit_share" of labels that say
            exit; "accuracy", how often the gate says the same at the policy's threshold; "mean_depth" that it stops at.
        """
        self.eval()
        if latent_steps is not None:
            return self.actions(batch, belief, latent_steps=latent_steps, temperature=temperature)
        found: list[Tensor] = []
        for t in range(batch["mask"].shape[1]):
            belief = fresh_belief(belief, batch["starts"][:, t])
            inputs = PolicyInputs(batch["images"][:, t], batch["text"][:, t], batch["proprio"][:, t])
            numbers, belief = self._decision(inputs, belief, batch["actions"][:, t], batch["mask"][:, t], temperature)
            found.append(numbers)
        weight = row_weight(len(batch["mask"]), self.replicas, self.streams)
        loss, *others = torch.stack(found).mean(0) * weight
        names = ("gate_loss", "exit_share", "accuracy", "mean_depth")
        metrics = {name: number.detach() for name, number in zip(names, (loss, *others), strict=True)}
        return loss, belief, metrics

    def _decision(
        self, inputs: PolicyInputs, belief: Belief, actions: Tensor, mask: Tensor, temperature: float | None
    ) -> tuple[Tensor, Belief]:
        """Loss, share of exits, accuracy and mean depth (4,) of one decision of every stream; the belief after it."""
        policy = self.policy
        states, act = policy.at_every_depth(inputs, belief, temperature=temperature)
        logits = policy.gate_logit(states[:, 1:])[:, :-1]
        exits = ExitGate.score(logits.detach()) > policy.config.latent.exit_threshold
        # The last step ends the loop, and nobody asks the gate there.
        depth = 1 + F.pad(exits, (0, 1), value=True).int().argmax(dim=1)
        rows = torch.arange(len(depth), device=depth.device)
        if self.target == "value":
            with torch.no_grad():
                values = policy.value(states)
            _, after = act(states[rows, depth])
        else:
            decided = [act(z) for z in states.unbind(dim=1)]
            values = torch.stack([-_errors(chunk, actions, mask) for chunk, _ in decided], dim=1)
            after = Belief(
                *(torch.stack(parts)[depth, rows] for parts in zip(*(left for _, left in decided), strict=True))
            )
        labels = exit_labels(values, self.delta, self.lookahead)
        loss, exit_share = exit_loss(logits, labels)
        right = (exits == labels.bool()).float()
        accuracy = right.mean() if right.numel() else right.new_ones(())
        return torch.stack([loss, exit_share, accuracy, depth.float().mean()]), after


def _errors(chunk: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """L1 of each row: chunk and actions (B, C, A), mask (B, C) -> (B,)."""
    sums = ((chunk - actions).abs() * mask[..., None]).sum(dim=(1, 2))
    return sums / (chunk.shape[-1] * mask.sum(dim=1)).clamp_min(1)
