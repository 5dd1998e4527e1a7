"""The jobs that a study of ways of doing PPO runs, each with an identity of its own: what is finished is not done
again, what was stopped is resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.study_curves import Point, read_points
from avavla_ray.job_chain import run_stage

DAY = 24 * 60  # minutes; a cloning recipe would end before its steps on a slow machine


@dataclass(frozen=True)
class Chain:
    """Jobs below a folder.

    Attributes:
        output: the study's folder. key: its identity, which those of its jobs begin with. uri: MLflow's store.
        suite: of all of them. simulator: flags of those with simulators. limit: flags of those whose policy acts, too.
    """

    output: Path
    key: str
    uri: str
    suite: str
    simulator: Sequence[Any]
    limit: Sequence[Any] = ()

    def collect(self, words: Sequence[Any]) -> str:
        """Demonstrations of the scripted expert; their folder. That job goes on with what its folder holds anyway."""
        demos = str(self.output / "demos")
        run_stage("demonstrations", "collect_demos", [*self.simulator, *words, "--output", demos])
        return demos

    def clone(self, recipe: str, steps: int | None, words: Sequence[Any]) -> Path:
        """A policy cloned for so many steps, or for the recipe's; its checkpoint."""
        length = [] if steps is None else ["--steps", steps]
        words = ["--recipe", recipe, *length, "--minutes", DAY, "--workers", 1, *words]
        return self._run("cloning", self._of_suite("bc"), "cloning", words) / "checkpoint"

    def train(self, name: str, words: Sequence[Any]) -> tuple[Path, list[Point]]:
        """PPO; the checkpoint of its last policy and the points of its learning curve."""
        folder = self._run(f"PPO: {name}", self._of_suite("ppo"), name, [*self.simulator, *self.limit, *words])
        return folder / "checkpoint", read_points(folder / "curve.jsonl")

    def play(self, name: str, checkpoint: Path, depth: int, episodes: int) -> dict[str, Any]:
        """A policy from the fixed initial states, so many a task, at a fixed depth; the result."""
        folder = self._run(f"evaluation: {name}", "evaluate", f"evaluate/{name}", [
            *self.simulator, *self.limit, "--checkpoint", checkpoint, "--label", name, "--no-videos",
            "--thresholds", "--depths", depth, "--episodes", episodes,
        ])  # fmt: skip
        path = folder / f"{ExitSetting(fixed_depth=depth).label}.json"
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    def _of_suite(self, job: str) -> str:
        return f"{job}_calvin" if self.suite.startswith("calvin") else f"{job}_libero"

    def _run(self, title: str, job: str, folder: str, words: Sequence[Any]) -> Path:
        output = self.output / folder
        own = ["--output", output, "--run-id", f"{self.key}/{folder}", "--tracking-uri", self.uri]
        run_stage(title, job, [*words, *own])
        return output
