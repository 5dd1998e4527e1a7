"""What a study of ways of doing PPO leaves (study.md, study.json, a picture a panel), and what of it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.ppo_study import PANELS, Way, lines, ways
from avavla_ray.evaluation.proofs.private import copy_public
from avavla_ray.evaluation.study_curves import curve_of
from avavla_ray.evaluation.study_plot import plot_panel
from avavla_ray.evaluation.study_report import Run, report, rows, target
from avavla_ray.files import atomic_path, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]


def write_study(
    folder: Path, title: str, panels: Sequence[str], base: Way, runs: Mapping[str, Sequence[Run]],
    start: dict[str, Any], told: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """Write what the finished runs say; the files.

    Args:
        panels: what is drawn. runs: by variant; a variant may have none yet. start: result of the starting policy.
        told: what the study is, for study.json.
    """
    level, found = target(runs), rows(runs, start)
    curves = {variant: [curve_of(run.points) for run in some] for variant, some in runs.items()}
    pictures = {f"{panel}.png": PANELS[panel] for panel in panels}
    for panel, name in zip(panels, pictures, strict=True):
        plot_panel(folder / name, f"{title}, {PANELS[panel]}", lines(panel, base), curves, level)
    family = {name: asdict(way) for name, way in ways(base).items() if runs.get(name)}
    content = {"title": title, **(told or {}), "level": level, "variants": family, "rows": found}
    write_json(folder / "study.json", content)
    write_text(folder / "study.md", report(found, level, title, pictures))
    return [folder / name for name in ("study.md", "study.json", *pictures)]


def publish_study(folder: Path, files: Sequence[Path], target: Path) -> Path:
    """Copy a study's files, and the curve and summary of each of its runs, without any path of this machine.

    Args:
        folder: of the study. files: as `write_study` gave them. target: a folder, which is replaced.

    Raises:
        InputError: something would name this machine.
    """
    runs = sorted(path for name in ("curve.jsonl", "summary.json") for path in folder.glob(f"*/{name}"))
    with atomic_path(target) as temporary:
        for source in (*files, folder / "recipe.json", *runs):
            copy_public(source, temporary / source.relative_to(folder), (folder, Path.cwd(), ROOT))
    return target
