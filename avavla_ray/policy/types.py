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


class Draws(NamedTuple):
    """The randomness of sampled decisions. Whoever asks for a decision brings it, so that a decision is a pure function
    of what is given, whoever is decided for beside it, and wherever.

    latent (B, K, U): standard normals of the update actions. action (B, C, A): those of the executed chunk; None
    executes the chunk's mean. exit (B, K): uniforms in [0, 1), leave after latent step k where exit[:, k] < g(z_{k+1});
    None leaves by the threshold.
    """

    latent: Tensor
    action: Tensor | None = None
    exit: Tensor | None = None


class LatentTrace(NamedTuple):
    """The latent trajectory of a batch of decisions, padded to K; entries at or past `steps` are zero.

    z (B, K+1, Z): z[:, 0] is the start, z[:, k+1] follows u[:, k]. u (B, K, U).
    log_prob, entropy (B, K): of u under the Gaussian, summed; entropy as avavla.md (clamped at 0, averaged).
    exit_score (B, K): g(z_{k+1}). exit_log_prob (B, K): of having stayed or left after each step, where that was drawn;
    zero where it was decided by the threshold, and at the last possible step. steps (B,) int64: latent steps taken.
    """

    z: Tensor
    u: Tensor
    log_prob: Tensor
    entropy: Tensor
    exit_score: Tensor
    exit_log_prob: Tensor
    steps: Tensor


class DecisionBatch(NamedTuple):
    """Result of `AvaVlaPolicy.decide`, for B samples.

    chunk (B, C, A) float32 in the normalised action space, drawn where its randomness was given. belief: to hand to the
    next decision. visual_weights (B, N): AVA weights, ones where AVA is off. action_log_prob (B, C): of each drawn step
    of the chunk, summed over A; zeros for a chunk that is the mean.
    """

    chunk: Tensor
    belief: Belief
    context: LatentContext
    trace: LatentTrace
    visual_weights: Tensor
    action_log_prob: Tensor


class Replay(NamedTuple):
    """Stored decisions under the present weights, differentiable; entries at or past `steps` mean nothing.

    z (B, K+1, Z): recomputed from the observation with the stored updates. log_prob, entropy (B, K): of those.
    exit_logit (B, K): of the gate at z_{k+1}. action_log_prob (B, C): of the stored chunk's steps.
    """

    z: Tensor
    log_prob: Tensor
    entropy: Tensor
    exit_logit: Tensor
    action_log_prob: Tensor


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
