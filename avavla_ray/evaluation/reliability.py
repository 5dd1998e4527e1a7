"""Whether a gate that says 70 % is right seven times in ten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avavla_ray.evaluation.intervals import wilson

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Scores in (low, high]; the first bin has those of 0 too.

    Attributes:
        count: of scores. score: their mean. share: of labels that are 1. interval: 95 % Wilson interval of `share`,
            as if labels were independent of each other, which those of one episode are not quite.
    """

    low: float
    high: float
    count: int
    score: float
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Reliability:
    """How scores compare with labels.

    Attributes:
        count: of scores. bins: those that hold any.
        label_rate: share of labels that are 1. mean_score: what scores say it is.
        ece: expected calibration error, the mean over scores of the distance between their bin's mean score and share.
        brier: mean squared distance between score and label. nll: cross-entropy, nats.
        accuracy: share of labels that (score > threshold) meets.
    """

    count: int
    bins: tuple[ReliabilityBin, ...]
    label_rate: float
    mean_score: float
    ece: float
    brier: float
    nll: float
    accuracy: float


def reliability(scores: np.ndarray, labels: np.ndarray, threshold: float, bins: int = BINS) -> Reliability:
    """Compare scores (M,) in [0, 1] with labels (M,), 0 or 1; M at least 1.

    Args:
        threshold: exit threshold of `accuracy`. bins: of equal width.
    """
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    found = []
    for index in np.unique(place):
        here = place == index
        count, ones = int(here.sum()), int(labels[here].sum())
        low, high = float(edges[index]), float(edges[index + 1])
        found.append(
            ReliabilityBin(low, high, count, float(scores[here].mean()), ones / count, wilson(ones, count))
        )  # fmt: skip
    right = np.where(labels > 0.5, scores, 1.0 - scores)
    return Reliability(
        count=len(scores),
        bins=tuple(found),
        label_rate=float(labels.mean()),
        mean_score=float(scores.mean()),
        ece=sum(each.count * abs(each.score - each.share) for each in found) / len(scores),
        brier=float(((scores - labels) ** 2).mean()),
        nll=float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()),
        accuracy=float(((scores > threshold) == (labels > 0.5)).mean()),
    )


def by_step(scores: np.ndarray, labels: np.ndarray, threshold: float, bins: int = BINS) -> tuple[Reliability, ...]:
    """The same after each of the latent steps 1..K-1: scores and labels (N, K - 1)."""
    columns = zip(scores.T, labels.T, strict=True)
    return tuple(reliability(*column, threshold, bins) for column in columns)
