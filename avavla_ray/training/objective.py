"""The loss of behaviour cloning and latent warm-up, as a module that a DeepSpeed engine can wrap.

Letters: B streams, T decisions, C chunk length, A action dimension, K latent steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from avavla_ray.learning.cloning import chunk_l1, latent_smoothness
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs

# Parts that learn in each stage; the others are frozen (arXiv 2606.15099, section 3.4).
CLONING_PARTS = ("backbone", "attention", "action", "encoder")
WARM_UP_PARTS = ("reasoner", "transition")


def to_tensors(batch: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """A numpy batch of demonstrations/windows.py as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


class CloningObjective(nn.Module):
    """L1 between the policy's chunks and the demonstrated ones, decision after decision.

    The belief comes from the real previous decision; no gradient crosses the decision boundary (arXiv 2511.18960).
    """

    def __init__(self, policy: AvaVlaPolicy, smoothness: float = 1.0) -> None:
        super().__init__()
        self.policy = policy
        self.smoothness = smoothness

    def forward(
        self,
        batch: Mapping[str, Tensor],
        belief: Belief,
        *,
        latent_steps: int = 0,
        temperature: float | None = None,
        sample: bool = False,
    ) -> tuple[Tensor, Belief, dict[str, Tensor]]:
        """
        Args:
            batch: a window of demonstrations/windows.py. belief: of each stream before it.
            latent_steps: 0 conditions on z_0 (stage 1); more unrolls the latent loop and adds its smoothness
                (stage 2). temperature, sample: see `AvaVlaPolicy.clone`.

        Returns:
            loss; belief after the window, detached; metrics: "l1" over all dimensions, "l1_dimensions" (A,), sums of
            absolute errors over the valid steps and their number ("error_sums" (A,), "error_count"), and in stage 2
            "smoothness".
        """
        losses, errors, movements = [], [], []
        mask = batch["mask"]
        for t in range(mask.shape[1]):
            fresh = batch["starts"][:, t]
            belief = Belief(*(part.masked_fill(_like(fresh, part), 0.0) for part in belief))
            inputs = PolicyInputs(batch["images"][:, t], batch["text"][:, t], batch["proprio"][:, t])
            chunk, belief, z = self.policy.clone(
                inputs, belief, latent_steps=latent_steps, temperature=temperature, sample=sample
            )
            target = batch["actions"][:, t]
            losses.append(chunk_l1(chunk, target, mask[:, t]))
            with torch.no_grad():
                errors.append(((chunk - target).abs() * mask[:, t, :, None]).sum(dim=(0, 1)))
            if latent_steps:
                movements.append(latent_smoothness(z))
        l1 = torch.stack(losses).mean()
        count = mask.sum().clamp_min(1)
        sums = torch.stack(errors).sum(0)
        metrics = {"l1": l1.detach(), "error_sums": sums, "error_count": count, "l1_dimensions": sums / count}
        loss = l1
        if movements:
            smoothness = torch.stack(movements).mean()
            metrics["smoothness"] = smoothness.detach()
            loss = loss + self.smoothness * smoothness
        return loss, belief, metrics


def learning_parameters(policy: AvaVlaPolicy, parts: tuple[str, ...]) -> list[nn.Parameter]:
    """Freeze everything but `parts` (keys of `AvaVlaPolicy.parameter_groups`); return what learns."""
    groups = policy.parameter_groups()
    learning = [parameter for name in parts for parameter in groups[name]]
    train_only(policy, learning)
    return learning


def train_only(policy: AvaVlaPolicy, learning: Iterable[nn.Parameter]) -> None:
    """Freeze everything but `learning`, and hold that in float32 whatever the backbone's precision.

    Added to a bfloat16 weight, an update of 1e-4 is mostly lost; and ZeRO 3 takes learning parameters of one type only.
    What is frozen keeps its precision and with it its size.
    """
    policy.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
        parameter.data = parameter.data.float()


def _like(flags: Tensor, part: Tensor) -> Tensor:
    return flags.reshape(-1, *([1] * (part.ndim - 1)))
