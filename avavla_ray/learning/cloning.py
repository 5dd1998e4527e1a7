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
