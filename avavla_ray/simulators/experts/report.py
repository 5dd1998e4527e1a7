"""How often the scripted expert succeeds: python -m avavla_ray.simulators.experts.report --suite libero_object"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError


@dataclass(frozen=True)
class ReportSettings:
    """What to try.

    Attributes:
        suite: name of the suite.
        assets: official, bundled, or a directory.
        tasks: indices; all of the suite's when empty.
        episodes: per task; initial states 0, 1, ... or seeds 0, 1, ... of drawn starts.
        drawn: draw the starts instead of taking the published initial states.
        noise: standard deviation of the expert's action noise.
        json: file for the results, beside the table on standard output.
    """

    suite: str = "libero_object"
    assets: str = "bundled"
    tasks: tuple[int, ...] = ()
    episodes: int = 5
    drawn: bool = False
    noise: float = 0.0
    json: Path | None = None


@dataclass
class TaskReport:
    """Outcome of one task's episodes: steps of those that succeeded, and which failed (in which phase)."""

    task: int
    instruction: str
    steps: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def episodes(self) -> int:
        return len(self.steps) + len(self.failures)

    def row(self) -> str:
        spread = f"{min(self.steps)}-{max(self.steps)}" if self.steps else "-"
        missed = f" | failed: {', '.join(self.failures)}" if self.failures else ""
        return (
            f"{self.task:4d}  {len(self.steps):3d}/{self.episodes:<3d} {spread:>8s}  "
            f"{self.seconds / max(1, self.episodes):5.1f}  {self.instruction}{missed}"
        )


def run_task(settings: ReportSettings, task: int) -> TaskReport:
    """Run the expert through the episodes of one task."""
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.experts.expert import make_expert
    from avavla_ray.simulators.registry import make_simulator

    simulator = make_simulator(SimulatorConfig(suite=settings.suite, assets=settings.assets, render="none"))
    report = TaskReport(task, simulator.spec.instructions[task])
    begin = time.monotonic()
    for episode in range(settings.episodes):
        simulator.reset(task, initial_state=None if settings.drawn else episode, seed=episode)
        expert = make_expert(simulator, seed=episode, noise=settings.noise)
        steps = 0
        while True:
            result = simulator.run_chunk(expert.act()[None])
            steps += result.duration
            if result.done:
                break
        if result.success:
            report.steps.append(steps)
        else:
            report.failures.append(f"{episode} ({expert.phase_name})")
    report.seconds = time.monotonic() - begin
    simulator.close()
    return report


def main(settings: ReportSettings) -> None:
    """Print a row a task, and the total."""
    from avavla_ray.files import write_json
    from avavla_ray.simulators.registry import suite_spec

    if settings.episodes < 1:
        raise InputError(f"{settings.episodes} episodes is nothing to run: give at least 1")
    tasks = settings.tasks or tuple(range(len(suite_spec(settings.suite).instructions)))
    starts = "drawn starts" if settings.drawn else "published initial states"
    print(f"{settings.suite}, assets {settings.assets}, {starts}\ntask success    steps  s/ep  instruction")
    reports = []
    for task in tasks:
        reports.append(run_task(settings, task))
        print(reports[-1].row(), flush=True)
    successes = sum(len(report.steps) for report in reports)
    episodes = sum(report.episodes for report in reports)
    mean = np.mean([steps for report in reports for steps in report.steps]) if successes else float("nan")
    print(f"total {successes}/{episodes} = {successes / episodes:.1%}, {mean:.0f} steps on average")
    if settings.json is not None:
        rows = [{"task": r.task, "successes": len(r.steps), "steps": r.steps, "failures": r.failures} for r in reports]
        write_json(
            settings.json,
            {"suite": settings.suite, "assets": settings.assets, "drawn": settings.drawn, "rate": successes / episodes,
             "tasks": rows},
        )  # fmt: skip


if __name__ == "__main__":
    run_job(main, ReportSettings)
