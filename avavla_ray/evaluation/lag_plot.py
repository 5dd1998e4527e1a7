"""How old the data were that PPO learned from."""

from __future__ import annotations

from pathlib import Path

from avavla_ray.files import atomic_path


def plot_lag(path: str | Path, points: list[dict[str, float]], title: str) -> None:
    """Draw the shares of decisions by lag as PNG: update by update, and over the whole run.

    Args:
        points: one per update, with "total/updates", "total/decisions_used" and "lag/0", "lag/1", ...: the share of
            the update's decisions whose weights were so many versions older than the learner's. A point may lack some.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lags = sorted({int(name.removeprefix("lag/")) for point in points for name in point if name.startswith("lag/")})
    known = [point for point in points if any(name.startswith("lag/") for name in point)]
    rows = [[point.get(f"lag/{lag}", 0.0) for point in known] for lag in lags]
    totals = [point.get("total/decisions_used", 0.0) for point in known]
    weights = [now - before for now, before in zip(totals, [0.0, *totals], strict=False)]
    figure, (by_update, overall) = plt.subplots(
        1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained", sharey=True
    )
    shades = [matplotlib.colormaps["viridis"](lag / max(1, max(lags, default=0))) for lag in lags]
    if known:
        updates = [point["total/updates"] for point in known]
        by_update.stackplot(updates, rows, labels=[f"lag {lag}" for lag in lags], colors=shades, step="mid")
        by_update.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(lags), frameon=False)
        by_update.margins(x=0)
    by_update.set_xlabel("update")
    by_update.set_ylabel("share of the decisions learned from")
    by_update.set_ylim(0, 1)
    whole = sum(weights) or 1.0
    share = [sum(weight * seen for weight, seen in zip(weights, row, strict=True)) / whole for row in rows]
    bars = overall.bar([str(lag) for lag in lags], share, color=shades)
    overall.bar_label(bars, [f"{100 * value:.0f} %" for value in share], fontsize=8)
    overall.set_xlabel("lag: versions between the weights\nthat decided and the learner's")
    overall.set_title("whole run", fontsize=10)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
