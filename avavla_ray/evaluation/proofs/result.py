"""OUTPUT/result: the raw results of a proof, its pictures and videos, its rows and its table, ready to be published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.proofs.cloning_curve import CURVE, PICTURE
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.private import check_public, cleaned, copy_public
from avavla_ray.evaluation.proofs.rows import is_result, proof_rows, result_path
from avavla_ray.evaluation.proofs.step import Proof
from avavla_ray.evaluation.proofs.table import proof_section
from avavla_ray.files import atomic_path, write_json, write_text

RESULT, ROWS, TABLE = "result", "row.json", "table.md"
_PPO = ("summary.json", "curve.jsonl", "learning_curve.png", "lag.png")
# What of a job's folder is kept; results of exit settings besides.
KEPT: dict[str, tuple[str, ...]] = {
    "bc_libero": (CURVE, PICTURE),
    "bc_calvin": (CURVE, PICTURE),
    "ppo_libero": _PPO,
    "ppo_calvin": _PPO,
    "calibrate_exit": ("summary.json", "calibration.md", "reliability.png", "exits.png"),
    "sweep_exit": ("pareto.png", "threshold_table.md", "recommendation.md", "exit_preset.json"),
    "evaluate": ("table.md", "chains.jsonl"),
}
RESULTS: dict[str, tuple[str, ...]] = {"evaluate": ("*.json",), "sweep_exit": ("*/*.json", "*/confirmation/*.json")}
VIDEO_BYTES = 1_500_000


def write_result(proof: Proof, notes: Notes, *, command: str, asked: Mapping[str, Any]) -> Path:
    """Gather what a finished proof publishes, anew.

    Args:
        command, asked: see `proof_rows`.

    Raises:
        InputError: something is missing, or would name this machine.
    """
    rows = proof_rows(proof, notes, command=command, asked=asked)
    folders = (notes.folder, Path.cwd(), Path(__file__).resolve().parents[3])
    with atomic_path(notes.folder / RESULT) as result:
        result.mkdir()
        for source in kept_files(proof, notes.folder):
            copy_public(source, result / source.relative_to(notes.folder), folders)
        for name, video in chosen_videos(proof, notes.folder).items():
            (result / "videos").mkdir(exist_ok=True)
            shutil.copyfile(video, result / "videos" / name)
        write_json(result / ROWS, json.loads(cleaned(json.dumps(rows), folders)))
        write_text(result / TABLE, cleaned(proof_section(proof.name, proof.sentence, rows), folders))
        for path in files_of(result):
            check_public(path)
    return notes.folder / RESULT


def files_of(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def kept_files(proof: Proof, folder: Path) -> list[Path]:
    """Raw results and pictures."""
    found: list[Path] = []
    for step in proof.steps:
        place = folder / step.key
        found += [place / name for name in KEPT.get(step.job, ()) if (place / name).is_file()]
        for pattern in RESULTS.get(step.job, ()):
            found += [path for path in sorted(place.glob(pattern)) if is_result(path)]
    return list(dict.fromkeys(found))


def chosen_videos(proof: Proof, folder: Path) -> dict[str, Path]:
    """A success and a failure, the smallest file of each, of the last row that has one: by the name to publish as."""
    found: dict[str, Path] = {}
    for play in reversed(proof.plays):
        place = folder / play.step
        result = json.loads(result_path(place).read_text(encoding="utf-8"))
        for outcome, video in sorted(_filmed(place, result), key=lambda each: each[1].stat().st_size):
            if video.stat().st_size <= VIDEO_BYTES and not any(name.startswith(outcome) for name in found):
                found[f"{outcome}_{video.name.replace(' ', '_')}"] = video
    return found


def _filmed(folder: Path, result: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The videos of an evaluation, with how their episodes ended; of chains the first chain's."""
    ending = f"{result['setting']}.mp4"
    if "chains" in result:
        yield from (("chain", path) for path in folder.glob(f"videos/*_chain0_{ending}"))
        return
    tasks: Sequence[Mapping[str, Any]] = result["tasks"]
    for task in tasks:
        outcome = "success" if 0 in task["succeeded_from"] else "failure" if 0 in task["failed_from"] else None
        for path in folder.glob(f"videos/*_task{task['task']}_{ending}"):
            if outcome is not None:
                yield outcome, path
