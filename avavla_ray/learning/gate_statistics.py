"""What can be said of an exit gate on collected states, without playing on.

Letters: N decisions, K latent steps; the gate is asked after steps 1..K-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avavla_ray.policy.config import PAPER_THRESHOLDS


@dataclass(frozen=True)
class PredictedExits:
    """What an exit threshold would do on states that are as they are.

    This is a proposal and no evaluation. In a rollout a policy that stops earlier acts otherwise, and what it is asked
    next depends on that.

    Attributes:
        latent_steps: mean. early: share of decisions that stop before step K.
        value_given_up: mean of V(z_K) - V(z) of the states that decisions stop at.
    """

    threshold: float
    latent_steps: float
    early: float
    value_given_up: float


def predicted_depths(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Latent steps that each decision takes: scores (N, K - 1) float32 -> (N,)."""
    exits = scores > np.float32(threshold)
    return np.where(exits.any(axis=1), exits.argmax(axis=1), scores.shape[1]) + 1


def predict_exits(
    scores: np.ndarray, values: np.ndarray, thresholds: Sequence[float] = PAPER_THRESHOLDS
) -> list[PredictedExits]:
    """Replay the gate at each threshold on the same states.

    Args:
        scores: (N, K - 1) float32. values: (N, K + 1), V(z_0) to V(z_K).
    """
    found = []
    for threshold in thresholds:
        depths = predicted_depths(scores, threshold)
        given_up = values[:, -1] - values[np.arange(len(values)), depths]
        found.append(
            PredictedExits(
                threshold, float(depths.mean()), float((depths <= scores.shape[1]).mean()), float(given_up.mean())
            )
        )
    return found


def value_auc(values: np.ndarray, success: np.ndarray) -> float | None:
    """How well V(z_K) (N,) tells decisions of episodes that succeed (N,) from others: the chance that one of those has
    the larger value. 1/2 is no better than drawing lots. None where all ended alike."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(success, values)) if len(np.unique(success)) == 2 else None
