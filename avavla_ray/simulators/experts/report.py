"""How often the scripted expert succeeds: python -m avavla_ray.simulators.experts.report --suite libero_object"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure


@dataclass(frozen=True)
class ReportSettings:
    """What to try.

    Attributes:
        suite: name of the suite.
        assets: official, bundled, or a directory.
        tasks: indices; all of the suite's when empty.
        episodes: per task; initial states 0, 1, ... or seeds 0, 1, ... of drawn starts.
        drawn: draw the starts instead of taking the published initial states; so it is where there are none.
        noise: standard deviation of the expert's action noise.
        json: file for the results, beside the table on standard output.
        markdown: file whose section on this suite is replaced by the table (only the rows of `tasks`, if given), or to
            which it is added.
    """

    suite: str = "libero_object"
    assets: str = "bundled"
    tasks: tuple[int, ...] = ()
    episodes: int = 5
    drawn: bool = False
    noise: float = 0.0
    json: Path | None = None
    markdown: Path | None = None

    @property
    def simulator(self) -> SimulatorConfig:
        """What is tried in; nobody looks."""
        return SimulatorConfig(suite=self.suite, tasks=self.tasks, assets=self.assets, render="none")


@dataclass
class TaskReport:
    """Outcome of one task's episodes: steps of those that succeeded, and which failed (in which phase).

    Attributes:
        no_expert: why nothing was tried, when there is no expert for the task.
        seconds: of wall time, all episodes together.
    """

    task: int
    instruction: str
    steps: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    no_expert: str = ""
    seconds: float = 0.0

    @property
    def episodes(self) -> int:
        return len(self.steps) + len(self.failures)

    def cells(self) -> tuple[str, str, str, str]:
        """Task, successes, range of steps, instruction."""
        spread = f"{min(self.steps)}-{max(self.steps)}" if self.steps else "-"
        score = "no expert" if self.no_expert else f"{len(self.steps)}/{self.episodes}"
        return str(self.task), score, spread, self.instruction

    def remarks(self) -> str:
        """Why there is no expert, or which episodes failed."""
        return self.no_expert or (f"failed: {', '.join(self.failures)}" if self.failures else "")

    def row(self) -> str:
        """A line of the table on standard output."""
        task, score, spread, instruction = self.cells()
        remarks = f" | {self.remarks()}" if self.remarks() else ""
        return (
            f"{task:>4s} {score:>9s} {spread:>8s}  {self.seconds / max(1, self.episodes):5.1f}  {instruction}{remarks}"
        )


def run_task(settings: ReportSettings, task: int) -> TaskReport:
    """Run the expert through the episodes of one task; one whose simulator broke counts as failed."""
    from avavla_ray.simulators.experts.expert import NoExpert
    from avavla_ray.simulators.registry import make_simulator

    simulator = make_simulator(settings.simulator)
    drawn = settings.drawn or not simulator.spec.num_initial_states
    report = TaskReport(task, simulator.spec.instructions[task])
    begin = time.monotonic()
    for episode in range(settings.episodes):
        try:
            steps, phase = _play(simulator, task, None if drawn else episode, episode, settings.noise)
        except NoExpert as error:
            report.no_expert = str(error)
            break
        except SimulatorFailure as error:
            report.failures.append(f"{episode} (simulator broke: {error.kind})")
            simulator.close()
            simulator = make_simulator(settings.simulator)
            continue
        if phase is None:
            report.steps.append(steps)
        else:
            report.failures.append(f"{episode} ({phase})")
    report.seconds = time.monotonic() - begin
    simulator.close()
    return report


def _play(
    simulator: Simulator, task: int, initial_state: int | None, seed: int, noise: float
) -> tuple[int, str | None]:
    """Steps of one episode, and what the expert was doing when the time was up; None if it had succeeded."""
    from avavla_ray.simulators.experts.expert import make_expert

    simulator.reset(task, initial_state=initial_state, seed=seed)
    expert = make_expert(simulator, seed=seed, noise=noise)
    steps = 0
    while True:
        result = simulator.run_chunk(expert.act()[None])
        steps += result.duration
        if result.done:
            return steps, None if result.success else expert.phase_name


def summary(reports: list[TaskReport]) -> str:
    """Successes and steps over all tasks that have an expert, and how many have none."""
    steps = [steps for report in reports for steps in report.steps]
    episodes = sum(report.episodes for report in reports)
    without = sum(bool(report.no_expert) for report in reports)
    parts = [f"{len(steps)}/{episodes} = {len(steps) / episodes:.1%}"] if episodes else []
    parts += [f"{np.mean(steps):.0f} steps on average"] if steps else []
    parts += [f"no expert for {without} of {len(reports)} tasks"] if without else []
    return ", ".join(parts)


def main(settings: ReportSettings) -> None:
    """Print a row a task, and the total."""
    from avavla_ray.files import write_json
    from avavla_ray.simulators.experts.tables import replace_section, rows_of, section
    from avavla_ray.simulators.registry import identify, suite_spec

    if settings.episodes < 1:
        raise InputError(f"{settings.episodes} episodes is nothing to run: give at least 1")
    if settings.noise < 0:
        raise InputError(f"expert noise {settings.noise} is negative: give 0 or more")
    spec = suite_spec(settings.suite)
    drawn = settings.drawn or not spec.num_initial_states
    starts = "drawn starts" if drawn else "published initial states"
    # Not every simulator has assets to choose from.
    assets = {"assets": settings.assets} if "assets" in identify(settings.simulator) else {}
    title = ", ".join([settings.suite, *(f"assets {name}" for name in assets.values()), starts])
    print(f"{title}\ntask   success    steps  s/ep  instruction")
    reports = []
    for task in settings.tasks or tuple(range(len(spec.instructions))):
        reports.append(run_task(settings, task))
        print(reports[-1].row(), flush=True)
    print(f"total {summary(reports)}")
    if settings.json is not None:
        episodes = sum(report.episodes for report in reports)
        rate = sum(len(report.steps) for report in reports) / episodes if episodes else None
        rows = [
            {"task": r.task, "instruction": r.instruction, "successes": len(r.steps), "steps": r.steps,
             "failures": r.failures, "no_expert": r.no_expert}
            for r in reports
        ]  # fmt: skip
        facts = {"suite": settings.suite, **assets, "drawn": drawn, "noise": settings.noise}
        write_json(settings.json, {**facts, "rate": rate, "tasks": rows})
    if settings.markdown is not None:
        kept = rows_of(settings.markdown, settings.suite) if settings.tasks else {}
        text = section(title, settings.suite, reports, kept, settings.episodes)
        replace_section(settings.markdown, settings.suite, text)


if __name__ == "__main__":
    run_job(main, ReportSettings)
