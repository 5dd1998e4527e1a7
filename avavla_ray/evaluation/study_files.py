"""What a study of ways of doing PPO leaves: study.md, study.json, and a picture a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.ppo_study import PANELS, Way, lines, ways
from avavla_ray.evaluation.study_curves import curve_of
from avavla_ray.evaluation.study_plot import plot_panel
from avavla_ray.evaluation.study_report import Run, report, rows, target
from avavla_ray.files import write_json, write_text


def write_study(
    folder: Path, title: str, panels: Sequence[str], base: Way, runs: Mapping[str, Sequence[Run]],
    start: dict[str, Any],
) -> list[Path]:  # fmt: skip
    """Write what the finished runs say; the files.

    Args:
        panels: what is drawn. runs: by variant; a variant may have none yet. start: result of the starting policy.
    """
    level, found = target(runs), rows(runs, start)
    curves = {variant: [curve_of(run.points) for run in some] for variant, some in runs.items()}
    pictures = {f"{panel}.png": PANELS[panel] for panel in panels}
    for panel, name in zip(panels, pictures, strict=True):
        plot_panel(folder / name, f"{title}, {PANELS[panel]}", lines(panel, base), curves, level)
    family = {name: asdict(way) for name, way in ways(base).items() if runs.get(name)}
    write_json(folder / "study.json", {"title": title, "level": level, "variants": family, "rows": found})
    write_text(folder / "study.md", report(found, level, title, pictures))
    return [folder / name for name in ("study.md", "study.json", *pictures)]
