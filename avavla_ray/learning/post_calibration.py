"""Maps that make a trained gate's scores mean what they say, fitted on decisions that it was not trained on.

Letters: N decisions, K latent steps; the gate is asked after steps 1..K-1.
"""

from __future__ import annotations

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.policy.gate_map import GateMap, temperature_map

METHODS = ("temperature", "temperature_by_step", "isotonic")
_LOG_TEMPERATURES = (-4.0, 4.0)


def fit_gate_maps(method: str, logits: np.ndarray, labels: np.ndarray) -> tuple[GateMap, ...]:
    """Fit `LatentConfig.gate_maps`.

    Args:
        method: "temperature", one for all steps; "temperature_by_step", one for each; "isotonic", one map for all.
        logits: (N, K - 1), the gate's own. labels: (N, K - 1), 0 or 1.

    Raises:
        InputError: there is no such method, or the labels that a map would be fitted to are all the same.
    """
    check_known("post-calibration", method, METHODS)
    if method == "temperature_by_step":
        columns = zip(logits.T, labels.T, strict=True)
        return tuple(
            fit_temperature(own, wanted, f" after latent step {k}") for k, (own, wanted) in enumerate(columns, start=1)
        )
    fit = fit_temperature if method == "temperature" else fit_isotonic
    return (fit(logits.ravel(), labels.ravel()),)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, which: str = "") -> GateMap:
    """The temperature of the least cross-entropy, within e^-4 to e^4 (Guo et al., arXiv 1706.04599): (M,), (M,)."""
    from scipy.optimize import minimize_scalar

    _check_both(labels, which)
    wrong = np.where(labels > 0.5, -1.0, 1.0) * logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, wrong * np.exp(-log_temperature)).mean())

    return temperature_map(float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x)))


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> GateMap:
    """Isotonic regression (Zadrozny and Elkan, 2002): (M,), (M,).

    Its blocks' means are the knots and lines join them, where the regression itself has steps: the map must rise
    strictly. No share is nearer to 0 or 1 than half a decision of all, since no logit is infinite.
    """
    from sklearn.isotonic import IsotonicRegression

    _check_both(labels)
    logits = logits.astype(np.float64)
    levels = IsotonicRegression().fit_transform(logits, labels.astype(np.float64))
    least = 0.5 / len(labels)
    knots: list[tuple[np.float32, np.float32]] = []
    for level in np.unique(levels):
        share = np.clip(level, least, 1.0 - least)
        knot = np.float32(logits[levels == level].mean()), np.float32(np.log(share) - np.log1p(-share))
        if not knots or (knot[0] > knots[-1][0] and knot[1] > knots[-1][1]):  # or float32 can't tell them apart
            knots.append(knot)
    return GateMap("isotonic", tuple(float(x) for x, _ in knots), tuple(float(y) for _, y in knots))


def _check_both(labels: np.ndarray, which: str = "") -> None:
    ones = int((labels > 0.5).sum())
    if ones in (0, len(labels)):
        says = "exit" if ones else "stay"
        raise InputError(
            f"post-calibration: all {len(labels)} labels of the validation episodes{which} say {says}, so that there "
            "is nothing to fit: give more --episodes, another --delta, or --post none"
        )
