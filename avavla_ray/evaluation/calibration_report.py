"""What exit calibration has come to, as tables: data, reliability before and after, and the exits to expect.

Letters: N decisions, K latent steps; the gate is asked after steps 1..K-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.reliability import Reliability, by_step, reliability
from avavla_ray.evaluation.tables import aligned, cell
from avavla_ray.learning.gate_statistics import PredictedExits, predict_exits

PROPOSAL = (
    "Exits to expect at each threshold, replayed on the states of the test episodes. This is a proposal, not a result:"
    "\na policy that stops earlier acts otherwise and is asked other things next, so only rollouts (jobs/evaluate.py)"
    "\nsay what a threshold costs. 'Value given up' is the mean of V(z_K) - V(z) of the states that decisions stop at."
)
QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)


@dataclass(frozen=True)
class GateReport:
    """How one gate does on the test episodes; steps: after each of the latent steps 1..K-1."""

    name: str
    overall: Reliability
    steps: tuple[Reliability, ...]
    exits: list[PredictedExits]


@dataclass(frozen=True)
class RoleReport:
    """Decisions of one role: label_rates and their Wilson intervals, and quantiles (QUANTILES) of the value that
    thinking on gains, after each of the latent steps 1..K-1."""

    role: str
    episodes: int
    decisions: int
    label_rates: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    gains: tuple[tuple[float, ...], ...]


def report_gate(name: str, scores: np.ndarray, labels: np.ndarray, values: np.ndarray, threshold: float) -> GateReport:
    """Args: scores (N, K - 1) float32, labels (N, K - 1), values (N, K + 1); threshold: the policy's own."""
    return GateReport(
        name, reliability(scores.ravel(), labels.ravel(), threshold), by_step(scores, labels, threshold),
        predict_exits(scores, values),
    )  # fmt: skip


def report_role(role: str, episodes: int, labels: np.ndarray, gains: np.ndarray) -> RoleReport:
    """Args: labels and gains (N, K - 1)."""
    ones = labels.sum(axis=0).astype(int)
    return RoleReport(
        role, episodes, len(labels), tuple((ones / len(labels)).tolist()),
        tuple(wilson(int(count), len(labels)) for count in ones),
        tuple(tuple(np.quantile(column, QUANTILES).tolist()) for column in gains.T),
    )  # fmt: skip


def markdown(
    title: str, roles: Sequence[RoleReport], gates: Sequence[GateReport], threshold: float, auc: float | None
) -> str:
    """All tables, with what they mean.

    Args:
        threshold: the policy's own. auc: of `gate_statistics.value_auc`.
    """
    asked = len(roles[0].label_rates)
    columns = [f"step {k}" for k in range(1, asked + 1)]
    data = aligned(
        ["episodes", "number", "decisions", *(f"label 1, {name}" for name in columns)],
        [
            [each.role, str(each.episodes), str(each.decisions), *(f"{rate:.3f}" for rate in each.label_rates)]
            for each in roles
        ],
    )
    measures = ("nll", "brier", "ece", "accuracy", "mean_score", "label_rate")
    scored = aligned(
        ["gate", "cross-entropy", "Brier", "ECE", f"right at {threshold:.2f}", "mean score", "label rate"],
        [[each.name, *(f"{getattr(each.overall, name):.4f}" for name in measures)] for each in gates],
    )
    head = ["threshold"]
    for each in gates:
        head += [f"{each.name}: latent steps", "early", "value given up"]
    exits = []
    for row in zip(*(each.exits for each in gates), strict=True):
        cells = [f"{row[0].threshold:.2f}"]
        for one in row:
            cells += [f"{one.latent_steps:.2f}", f"{one.early:.0%}", f"{one.value_given_up:+.4f}"]
        exits.append(cells)
    return (
        f"# {title}\n\nDecisions, and how often the label says exit (thinking on gains less than delta):\n\n{data}\n"
        f"V(z_K) of decisions in episodes that succeed, against others: AUC {cell(auc, '.3f')} "
        f"(0.5: the value head knows nothing of success; -: all ended alike).\n\n"
        f"Scores against labels, on the test episodes, which neither training nor post-calibration has seen:\n\n"
        f"{scored}\n{PROPOSAL}\n\n{aligned(head, exits)}"
    )


def as_json(report: GateReport | RoleReport) -> dict[str, Any]:
    """JSON-ready."""
    return asdict(report)
