"""The picture of an offline evaluation: which dimensions are wrong, and whether thinking longer helps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.offline_results import title
from avavla_ray.files import atomic_path


def plot_offline(path: str | Path, results: Sequence[dict[str, Any]], heading: str) -> None:
    """Draw the normalised error of each action dimension by exit setting, and L1 against mean latent steps, as PNG.

    Circles are exit thresholds, squares fixed depths; a setting has one colour in both panels, darker for fewer latent
    steps. The second panel does not begin at zero.

    Args:
        results: of `offline_results.summarise_offline`, one a setting.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    results = sorted(results, key=lambda result: result["mean_latent_steps"])
    names = list(results[0]["l1_dimensions"])
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(results))).tolist()
    places = np.arange(len(names))
    spread = np.linspace(-0.36, 0.36, len(results)) if len(results) > 1 else np.zeros(1)
    size = 6.0 if len(results) < 8 else 4.5
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), width_ratios=(3, 2), layout="constrained")
    for result, colour, offset in zip(results, colours, spread, strict=True):
        marker, around = ("o", "none") if result["fixed_depth"] is None else ("s", colour)
        values = [result["l1_dimensions"][name] for name in names]
        left.plot(places + offset, values, marker, color=colour, markerfacecolor=around, markersize=size)
        right.plot(
            result["mean_latent_steps"], result["l1"], marker, color=colour, markerfacecolor=around,
            markersize=9 if around == "none" else 5, label=title(result),
        )  # fmt: skip
    for place in places[:-1]:
        left.axvline(place + 0.5, color="0.85", linewidth=0.8)
    left.set_xticks(places, names)
    left.set_xlim(-0.5, len(names) - 0.5)
    left.set_ylim(bottom=0)
    left.set_ylabel("mean absolute error, normalised")
    left.grid(alpha=0.25, axis="y")
    right.set_xlabel("mean latent steps a decision")
    right.set_ylabel("L1 over all dimensions, normalised")
    errors = [result["l1"] for result in results]
    # At least a tenth of the error itself, so that differences that mean nothing look like nothing.
    middle, half = (min(errors) + max(errors)) / 2, max(0.6 * (max(errors) - min(errors)), 0.05 * max(errors))
    right.set_ylim(middle - half, middle + half)
    right.margins(x=0.12)
    right.grid(alpha=0.25)
    figure.legend(title="exit setting", loc="outside right center", fontsize=8, title_fontsize=8)
    figure.suptitle(heading)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
