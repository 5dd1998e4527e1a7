"""Which exit setting to recommend, and what each latent step that is saved costs in success."""

from __future__ import annotations

from collections.abc import Sequence

from avavla_ray.evaluation.budget import MILLISECONDS, STEPS, Budget
from avavla_ray.evaluation.pareto import pareto_front
from avavla_ray.evaluation.tables import aligned
from avavla_ray.evaluation.threshold_table import COSTS, Row

COLUMNS = {STEPS: "mean_latent_steps", MILLISECONDS: "ms_mean"}  # in results and tables


def known(rows: Sequence[Row], cost: str) -> list[tuple[float, float, Row]]:
    """(success, cost, row) of the rows that have both, over all suites."""
    found = []
    for row in rows:
        spent = row.costs[list(COSTS).index(COLUMNS[cost])]
        if row.mean is not None and spent is not None:
            found.append((row.mean.rate, spent, row))
    return found


def front(rows: Sequence[Row], cost: str) -> list[Row]:
    """The Pareto front, from cheap to dear."""
    points = known(rows, cost)
    return [points[index][2] for index in pareto_front([(spent, rate) for rate, spent, _ in points])]


def choose(rows: Sequence[Row], cost: str, budget: Budget | None, give_up: float = 0.0) -> Row | None:
    """The row to recommend.

    Under a budget the highest success within it; without one the cheapest that gives up at most `give_up` of the
    highest success. Of equals the cheaper.

    Returns:
        None where nothing keeps within the budget.
    """
    points = known(rows, cost)
    if budget is not None:
        points = [point for point in points if point[1] <= budget.limit]
        return max(points, key=lambda each: (each[0], -each[1]))[2] if points else None
    if not points:
        return None
    enough = max(rate for rate, _, _ in points) - give_up - 1e-9
    return min((point for point in points if point[0] >= enough), key=lambda each: (each[1], -each[0]))[2]


def prices(rows: Sequence[Row], cost: str) -> str:
    """What success costs along the front, as Markdown: between neighbours, percentage points for one unit of cost."""
    lines: list[list[str]] = []
    before: tuple[float, float] | None = None
    for rate, spent, row in known(front(rows, cost), cost):
        gain = "-"
        if before is not None:
            gain = f"{100 * (rate - before[0]) / (spent - before[1]):+.1f}"
        lines.append([row.title, f"{spent:.2f}", f"{100 * rate:.1f}", gain])
        before = rate, spent
    unit = cost.removesuffix("s")
    return aligned(["exit setting", cost, "success %", f"points for one more {unit}"], lines)
