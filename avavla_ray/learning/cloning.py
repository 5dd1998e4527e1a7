"""Losses of behaviour cloning and latent warm-up (stages 1 and 2 of arXiv 2606.15099)."""

from __future__ import annotations

from torch import Tensor

from avavla_ray.learning.rewards import latent_change


def chunk_l1(prediction: Tensor, target: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean absolute error of (..., C, A) actions over the steps in mask (..., C) bool; 0 when there are none.

    Args:
        count: of the steps that the mean is over, where those here are only some of them: the sum of all parts' results
            is then the mean. None: those here.
    """
    errors = ((prediction - target).abs() * mask[..., None]).sum()
    return errors / (prediction.shape[-1] * (mask.sum() if count is None else count).clamp_min(1))


def latent_smoothness(z: Tensor) -> Tensor:
    """Mean of (z_{k+1} - z_k)^2 over (B, K + 1, Z), the warm-up's regulariser; K is at least 1."""
    return latent_change(z).mean()


def update_noise(normals: Tensor) -> Tensor:
    """Standard normals (B, ..., U) for the latent updates of B streams that are cloned, zero in every second stream.

    Rollouts draw their updates; evaluations take the means, and hand on the belief that comes of these. A policy that
    has learned with drawn ones alone may do something else there: of two clones from two demonstrations a task, one did
    a task in 3 of 50 evaluations and in two of three rollouts. So half of the streams think as evaluations do.
    """
    normals = normals.clone()
    normals[1::2] = 0.0
    return normals
