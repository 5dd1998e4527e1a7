"""Jobs go on where a simulator gives up; a proof does not, since its sentence is about all tasks and all episodes."""

from __future__ import annotations

import json
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs.rows import is_result
from avavla_ray.evaluation.proofs.step import Step


def check_whole(step: Step, folder: Path) -> None:
    """Refuse demonstrations that lack a task, and evaluations that lack episodes.

    Args:
        folder: of the proof.

    Raises:
        InputError: names them. The same command again tries them anew.
    """
    place = folder / step.key
    if step.job == "collect_demos":
        left_out = json.loads((place / "dataset.json").read_text(encoding="utf-8")).get("quarantined_tasks")
        if left_out:
            reasons = "; ".join(f"task {task}: {reason}" for task, reason in left_out.items())
            raise InputError(f"{place}: simulators gave up whole tasks ({reasons}): repeat the command")
    if step.job == "evaluate" and (lost := gave_up(place)):
        raise InputError(f"{place}: simulators gave up {lost} episodes, see its table.md: repeat the command")


def gave_up(folder: Path) -> int:
    """Episodes or chains that an evaluation did not play to their end."""
    results = (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json") if is_result(path))
    return sum(result["aborted_chains" if "chains" in result else "aborted_episodes"] for result in results)
