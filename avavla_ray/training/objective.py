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


def to_tensors(batch: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """A numpy batch of demonstrations/windows.py as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


class CloningObjective(nn.Module):
    """L1 between the policy's chunks and the demonstrated ones, decision after decision.

    The belief comes from the real previous decision; no gradient crosses the decision boundary (arXiv 2511.18960).

    Attributes:
        SHARED_METRICS: metrics that, like the loss, are this batch's share of a number over all streams.
    """

    SHARED_METRICS = frozenset({"l1", "smoothness"})

    def __init__(
        self, policy: AvaVlaPolicy, smoothness: float = 1.0, *, replicas: int = 1, streams: int | None = None
    ) -> None:
        """
        Args:
            smoothness: weight of mean((z_{k+1} - z_k)^2), where the latent loop is unrolled.
            replicas: parts that the streams of an optimizer step are split into, however unevenly: workers times
                accumulated batches. An engine averages their losses, so that each is scaled for the average to be the
                loss over all streams.
            streams: of all parts together; None: a batch holds all of them.
        """
        super().__init__()
        self.policy = policy
        self.smoothness = smoothness
        self.replicas, self.streams = replicas, streams

    def forward(
        self,
        batch: Mapping[str, Tensor],
        belief: Belief,
        *,
        latent_steps: int = 0,
        temperature: float | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Belief, dict[str, Tensor]]:
        """
        Args:
            batch: a window of demonstrations/windows.py; without "counts" it is averaged on its own.
            belief: of each stream before it.
            latent_steps: 0 conditions on z_0 (stage 1); more unrolls the latent loop and adds its smoothness
                (stage 2). temperature: see `AvaVlaPolicy.clone`.
            noise: (B, T, latent_steps or more, U) standard normals of the update actions; None takes their means.

        Returns:
            loss; belief after the window, detached; metrics: "l1" over all dimensions, "l1_dimensions" (A,), sums of
            absolute errors over the valid steps and their number ("error_sums" (A,), "error_count"), and in stage 2
            "smoothness".
        """
        losses, errors, movements = [], [], []
        mask, counts = batch["mask"], batch.get("counts")
        for t in range(mask.shape[1]):
            belief = fresh_belief(belief, batch["starts"][:, t])
            inputs = PolicyInputs(batch["images"][:, t], batch["text"][:, t], batch["proprio"][:, t])
            chunk, belief, z = self.policy.clone(
                inputs, belief, latent_steps=latent_steps, temperature=temperature,
                noise=None if noise is None else noise[:, t],
            )  # fmt: skip
            target = batch["actions"][:, t]
            losses.append(chunk_l1(chunk, target, mask[:, t], None if counts is None else counts[t]))
            with torch.no_grad():
                errors.append(((chunk - target).abs() * mask[:, t, :, None]).sum(dim=(0, 1)))
            if latent_steps:
                movements.append(latent_smoothness(z))
        l1 = torch.stack(losses).mean() * (1 if counts is None else self.replicas)
        count = mask.sum().clamp_min(1)
        sums = torch.stack(errors).sum(0)
        metrics = {"l1": l1.detach(), "error_sums": sums, "error_count": count, "l1_dimensions": sums / count}
        loss = l1
        if movements:
            smoothness = torch.stack(movements).mean() * row_weight(len(mask), self.replicas, self.streams)
            metrics["smoothness"] = smoothness.detach()
            loss = loss + self.smoothness * smoothness
        return loss, belief, metrics


def fresh_belief(belief: Belief, starts: Tensor) -> Belief:
    """The belief before a decision: zeros where starts (B,) bool says that it is an episode's first."""
    return Belief(*(part.masked_fill(starts.reshape(-1, *([1] * (part.ndim - 1))), 0.0) for part in belief))


def row_weight(rows: int, replicas: int, streams: int | None) -> float:
    """What the mean over `rows` streams counts, for the average over all `replicas` to be the mean over all `streams`;
    see `CloningObjective`."""
    return 1.0 if streams is None else rows * replicas / streams


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
