"""Which settings are worth choosing: those that no other one beats in success without costing more."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other dominates, by rising cost.

    One point dominates another if it costs no more and succeeds no less often, and one of the two differs. Of points
    that are alike, the first stands for all.

    Args:
        points: (cost, success rate).
    """
    front: list[int] = []
    best = -float("inf")
    for index in sorted(range(len(points)), key=lambda each: (points[each][0], -points[each][1], each)):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
