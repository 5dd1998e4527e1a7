"""Offline error on demonstrations that were held out of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.windows import Encode, held_out_batches
from avavla_ray.policy.types import Belief
from avavla_ray.training.objective import CloningObjective, to_tensors


@torch.no_grad()
def held_out_errors(
    objective: CloningObjective,
    reader: EpisodeReader,
    encode: Encode,
    episodes: Sequence[int],
    latent_steps: int,
    forward: Callable[..., tuple[Tensor, Belief, dict[str, Tensor]]] | None = None,
) -> np.ndarray:
    """(A,) mean absolute error of each normalised action dimension, over every demonstrated step of `episodes`.

    The policy decides every chunk's length along the episode, carrying its belief, at a fixed latent depth.

    Args:
        forward: called in place of the objective: the engine that shards it.
    """
    forward = objective if forward is None else forward
    policy, training = objective.policy, objective.training
    device = next(policy.parameters()).device
    objective.eval()
    sums, count, belief = np.zeros(policy.config.action_dim), 0, None
    prepare = policy.preparation.pictures
    for batch in held_out_batches(reader, encode, episodes, policy.config.chunk, prepare=prepare):
        if belief is None or batch["starts"].all():
            belief = policy.initial_belief(len(batch["starts"]), device)
        _, belief, metrics = forward(to_tensors(batch, device), belief, latent_steps=latent_steps)
        sums += metrics["error_sums"].double().cpu().numpy()
        count += int(batch["mask"].sum())
    objective.train(training)
    return sums / count
