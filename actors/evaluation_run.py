"""An evaluation from a checkpoint to result files, table, videos and MLflow runs: a suite of episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.evaluation_log import EvaluationLog, Written
from actors.evaluation_pool import Episode, EvaluationPool
from avavla_ray.errors import InputError, quoted
from avavla_ray.evaluation.deviations import episode_deviations
from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import Ledger, markdown_table, summarise
from avavla_ray.evaluation.video import Scene, write_video
from avavla_ray.files import write_json, write_text
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import Checkpoint
from avavla_ray.progress import Progress
from avavla_ray.provenance import provenance
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import identify, suite_spec
from avavla_ray.storage.names import named

LABEL_BYTES = 120  # of the 255 of a file's name
METRICS = (
    "success_rate", "mean_latent_steps", "ms_mean", "ms_p50", "ms_p90", "ms_p99", "episodes", "successes",
    "aborted_episodes",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationPlan:
    """What is evaluated and how: the same for all suites.

    Attributes:
        exits: at least one. label: of the checkpoint in tables and plots. run_id: identity in MLflow, at `uri`.
        tasks, episodes, max_steps: None and () are the benchmark's own.
        videos: of each task's first initial state at the first setting.
        seed: for the record; an evaluation draws nothing.
        servers, server_gpus: see `EvaluationPool`.

    Raises:
        InputError: a label that can't be part of a file's name.
    """

    checkpoint: Checkpoint
    statistics: Statistics
    exits: tuple[ExitSetting, ...]
    label: str
    run_id: str
    uri: str
    tasks: tuple[int, ...] = ()
    episodes: int | None = None
    assets: str = "bundled"
    render: str = "reference"
    max_steps: int | None = None
    videos: bool = True
    resume: bool = False
    seed: int = 0
    num_runners: int = 1
    isolate: bool = True
    servers: int = 0
    server_gpus: float = 0

    def __post_init__(self) -> None:
        if "/" in self.label or len(self.label.encode()) > LABEL_BYTES:
            raise InputError(f"--label {quoted(self.label)} is part of file names: give a short one, without a slash")

    def simulator(self, suite: str) -> SimulatorConfig:
        """The simulators of a suite."""
        return SimulatorConfig(
            suite=suite, tasks=self.tasks, assets=self.assets, render=self.render,
            image_size=self.checkpoint.policy.config.backbone.camera_size, max_steps=self.max_steps,
        )  # fmt: skip

    def decided_on(self) -> dict[str, str]:
        """A GPU rounds other than a CPU: what one has played, the other does not go on with."""
        return {"decided_on": "gpu"} if self.servers and self.server_gpus else {}

    def pool(self, config: SimulatorConfig, **options: Any) -> EvaluationPool:
        """Of the simulators of a suite."""
        agent = Agent(self.checkpoint.policy, self.statistics)
        return EvaluationPool(
            agent, config, self.num_runners, servers=self.servers, server_gpus=self.server_gpus,
            **{"isolate": self.isolate} | options,
        )  # fmt: skip

    def described(self, simulator: Mapping[str, object], deviations: Sequence[str]) -> dict[str, Any]:
        """Provenance of the results."""
        return provenance(
            seed=self.seed, simulator=simulator, trained=self.checkpoint.provenance, deviations=list(deviations)
        )

    def log(self, output: Path, *, kind: str, run_key: str, params: Mapping[str, Any]) -> EvaluationLog:
        """Of the results in `output`."""
        return EvaluationLog(
            output, self.uri, kind, run_key, self.resume, self.label, self.checkpoint.digest, params
        )  # fmt: skip


class EpisodeEvaluation:
    """A suite's fixed initial states, at every exit setting.

    Args:
        output: folder of its results and of the ledger that it resumes from. run_key: identity in MLflow.

    Attributes:
        output: that folder.

    Raises:
        InputError: what can't be evaluated.
    """

    def __init__(self, plan: EvaluationPlan, suite: str, output: Path, run_key: str) -> None:
        self._plan, self.output = plan, output
        self._config = plan.simulator(suite)
        self._data = identify(self._config)
        self._suite = suite_spec(suite)
        self._tasks = plan.tasks or tuple(range(len(self._suite.instructions)))
        self._episodes = self._suite.states_a_task(plan.episodes)
        self._identity = {
            "suite": suite, "checkpoint": plan.checkpoint.digest, "statistics": plan.statistics.name, **self._data,
            "render": plan.render, "max_steps": plan.max_steps or self._suite.max_steps, "seed": plan.seed,
            **plan.decided_on(),
        }  # fmt: skip
        self._log = plan.log(
            output, kind="evaluation", run_key=run_key,
            params={"suite": self._suite.name, "tasks": ",".join(map(str, self._tasks))},
        )  # fmt: skip
        self._filmed = plan.exits[0]
        self._videos = {
            task: output / "videos" / f"{plan.label}_task{task}_{self._filmed.label}.mp4" for task in self._tasks
        }

    def open(self) -> None:
        """Read the ledger and write its head: for whoever has the folder to itself.

        Raises:
            InputError: the folder holds something else, or was logged to another store.
        """
        self._log.check(self._plan.exits)
        self._ledger = Ledger(self.output / "episodes.jsonl", self._identity, self._plan.resume)

    def run(self) -> tuple[str, str | None]:
        """Play what is not in the ledger yet, write the results, and then log them. Call `open` before.

        Returns:
            The table of the results, for people; and why MLflow has not all of them, None where it has.
        """
        todo = self._todo()
        total = len(self._tasks) * self._episodes * len(self._plan.exits)
        title = f"evaluate {self._plan.label}"
        with (
            Progress(total, title, "episodes", done=max(0, total - len(todo))) as progress,
            self._plan.pool(self._config) as pool,
        ):

            def finished(episode: Episode, record: EpisodeRecord, film: Film | None) -> None:
                if film is not None:  # before the ledger, which says of which episodes there is one
                    self._write_video(episode.task, record, film)
                if self._ledger.key(record) not in self._ledger:
                    self._ledger.add(record)
                whole = [r.success for r in self._ledger.records.values() if r.error is None]
                progress.advance(success=sum(whole) / len(whole) if whole else "not known yet")

            pool.play(todo, finished)
            simulator = pool.provenance
        table, written = self._write(simulator)
        return table, self._log.log(written)

    def _todo(self) -> list[Episode]:
        """With a video that is absent, also of an episode that was played before."""
        todo = []
        for task in self._tasks:
            for state in range(self._episodes):
                for setting in self._plan.exits:
                    film = self._plan.videos and state == 0 and setting == self._filmed
                    film = film and not self._filmed_whole(task)
                    if film or (setting.label, task, state) not in self._ledger:
                        todo.append(Episode(setting, task, state, film))
        return todo

    def _filmed_whole(self, task: int) -> bool:
        """Whether the video is of an episode in the ledger; else a file of that name is of an earlier evaluation."""
        record = self._ledger.records.get((self._filmed.label, task, 0))
        return record is not None and record.error is None and self._videos[task].exists()

    def _write_video(self, task: int, record: EpisodeRecord, film: Film) -> None:
        outcome = f"{'success' if record.success else 'no success'} after {record.steps} steps"
        title = f"{self._plan.label}: {self._suite.instructions[task]}"
        write_video(self._videos[task], [Scene(film, title, outcome)])

    def _write(self, simulator: Mapping[str, object]) -> tuple[str, list[Written]]:
        plan = self._plan
        described = plan.described(
            simulator, episode_deviations(self._suite, self._config, self._data, self._episodes)
        )  # fmt: skip
        instructions = dict(enumerate(self._suite.instructions))
        asked = [
            record for record in self._ledger.records.values()
            if record.task in self._tasks and record.initial_state < self._episodes
        ]  # fmt: skip
        written = []
        for setting in plan.exits:
            result = summarise(
                setting, asked, instructions,
                label=plan.label, stage=plan.checkpoint.stage, checkpoint_path=named(plan.checkpoint.path),
                **self._identity, provenance=described,
            )  # fmt: skip
            metrics = {name: result[name] for name in METRICS} | {
                "quarantined_tasks": len(result["quarantined_tasks"]),
                "success_rate_low": result["ci95"][0], "success_rate_high": result["ci95"][1],
            }  # fmt: skip
            videos = [
                self._videos[task] for task in self._tasks if setting == self._filmed and self._filmed_whole(task)
            ]
            written.append(Written(setting, result, metrics, self.output / f"{setting.label}.json", videos))
            write_json(written[-1].path, result)
        table = markdown_table([each.result for each in written])
        write_text(self.output / "table.md", table)
        return f"{plan.label} on {self._suite.name}, task(s) {', '.join(map(str, self._tasks))}\n\n{table}", written
