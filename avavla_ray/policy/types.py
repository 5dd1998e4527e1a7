"""What goes into and comes out of one decision. Shape letters: see policy/config.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class PolicyInputs(NamedTuple):
    """A batch of observations, ready for the policy.

    images (B, V, H, W, 3) uint8; text (B, L) int64, padded; proprio (B, P) float32, normalised.
    """

    images: Tensor
    text: Tensor
    proprio: Tensor


class Belief(NamedTuple):
    """What an episode carries from decision to decision: zeros before its first.

    hidden (B, M, D) float32: r, hidden states of the action tokens at the last-but-one layer.
    history (B, Z) float32: the last decision's final latent.
    """

    hidden: Tensor
    history: Tensor


class LatentContext(NamedTuple):
    """Everything the latent loop reads of an observation, so that it can be replayed without images.

    encoding (B, E) float32: psi. tokens (B, O, Z) float32: projected observation tokens.
    """

    encoding: Tensor
    tokens: Tensor


class LatentTrace(NamedTuple):
    """The latent trajectory of a batch of decisions, padded to K; entries at or past `steps` are zero.

    z (B, K+1, Z): z[:, 0] is the start, z[:, k+1] follows u[:, k]. u (B, K, U).
    log_prob, entropy (B, K): of u under the Gaussian, summed; entropy as avavla.md (clamped at 0, averaged).
    exit_score (B, K): g(z_{k+1}). steps (B,) int64: latent steps taken.
    """

    z: Tensor
    u: Tensor
    log_prob: Tensor
    entropy: Tensor
    exit_score: Tensor
    steps: Tensor


class DecisionBatch(NamedTuple):
    """Result of `AvaVlaPolicy.decide`, for B samples.

    chunk (B, C, A) float32 in the normalised action space. belief: to hand to the next decision.
    visual_weights (B, N): AVA weights, ones where AVA is off.
    """

    chunk: Tensor
    belief: Belief
    context: LatentContext
    trace: LatentTrace
    visual_weights: Tensor


class Decision(NamedTuple):
    """Result of `AvaVlaPolicy.act`: one decision in a robot's terms.

    actions (C, A) float32 in the units of the data the policy was trained on. belief: of batch 1, to hand to the next
    decision of the episode. exit_scores (latent_steps,) float32. milliseconds: of wall time, the whole call.
    """

    actions: np.ndarray
    belief: Belief
    latent_steps: int
    exit_scores: np.ndarray
    milliseconds: float


def stack_beliefs(beliefs: list[Belief]) -> Belief:
    """Join beliefs of batch size 1 into one batch."""
    return Belief(*(torch.cat(parts) for parts in zip(*beliefs, strict=True)))
