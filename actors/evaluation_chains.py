"""CALVIN's 1,000 chains of five tasks on the pool of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.evaluation_log import Written
from actors.evaluation_run import EvaluationPlan
from avavla_ray.errors import InputError
from avavla_ray.evaluation.calvin_chains import ChainActor, ExpertActor, PolicyActor, play_tasks
from avavla_ray.evaluation.chain_results import ChainLedger, ChainRecord, chain_table, summarise_chains
from avavla_ray.evaluation.deviations import chain_deviations
from avavla_ray.evaluation.episode import Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.protocol import Decider
from avavla_ray.evaluation.video import Scene, write_video
from avavla_ray.files import write_json, write_text
from avavla_ray.progress import Progress
from avavla_ray.simulators.calvin.adapter import MAX_STEPS
from avavla_ray.simulators.calvin.chains import CalvinWithExpert, IsolatedCalvin
from avavla_ray.simulators.calvin.sequences import COUNT, SHA256, Sequence, published_sequences
from avavla_ray.simulators.registry import CHAINS, identify
from avavla_ray.storage.names import named

METRICS = (
    "average_length", "mean_latent_steps", "ms_mean", "ms_p50", "ms_p90", "ms_p99", "chains", "aborted_chains",
)  # fmt: skip

Films = list[tuple[str, Film]]  # of each task that was begun: its instruction and pictures
FPS = 30  # CALVIN controls at 30 Hz, so that this is real time


@dataclass(frozen=True)
class Chain:
    """One chain; without a setting the scripted experts play it.

    Attributes:
        number: of the sequence among the published ones.
        filmed: pictures are wanted, too.
    """

    setting: ExitSetting | None
    number: int
    sequence: Sequence = field(compare=False)
    filmed: bool = field(default=False, compare=False)

    @property
    def label(self) -> str:
        """Of the setting; empty for experts."""
        return "" if self.setting is None else self.setting.label

    @property
    def task(self) -> int:
        """See `Play.task`: a chain that kills simulators is quarantined at all settings."""
        return self.number

    def play(self, simulator: Any, agent: Decider | None, attempt: int) -> tuple[ChainRecord, Films | None]:
        """See `Play.play`."""
        actor: ChainActor = ExpertActor()
        films: Films | None = [] if self.filmed else None
        if self.setting is not None:
            assert agent is not None
            actor = PolicyActor(agent, self.setting, films)
        record = self._record(attempt)
        play_tasks(simulator, actor, self.sequence, record)
        return record, films

    def lost(self, error: str, attempts: int, quarantined: bool) -> ChainRecord:
        """See `Play.lost`."""
        record = self._record(attempts)
        record.error, record.quarantined = error, quarantined
        return record

    def _record(self, attempts: int) -> ChainRecord:
        return ChainRecord(self.number, list(self.sequence.tasks), attempts=attempts, setting=self.label)

    def __str__(self) -> str:
        return f"sequence {self.number}"


class ChainEvaluation:
    """The published chains of a scene, at every exit setting.

    Args:
        suite: calvin_a_chains to calvin_d_chains.
        output: folder of its results and of the ledger that it resumes from. run_key: identity in MLflow.

    Attributes:
        output: that folder.

    Raises:
        InputError: what can't be evaluated.
    """

    def __init__(self, plan: EvaluationPlan, suite: str, output: Path, run_key: str) -> None:
        self._plan, self.output, self._suite = plan, output, suite
        if plan.tasks:
            raise InputError(f"--tasks: {suite} plays chains of tasks; give --episodes for the first so many of them")
        self._config = plan.simulator(suite.removesuffix(CHAINS))
        self._count = COUNT if plan.episodes is None else plan.episodes
        if self._count > COUNT:
            raise InputError(f"--episodes {self._count}: {suite} has 1 to {COUNT} chains")
        self._identity = {
            "suite": suite, "actor": plan.checkpoint.stage, "checkpoint": plan.checkpoint.digest,
            "statistics": plan.statistics.name, **identify(self._config), "render": plan.render,
            "max_steps": plan.max_steps or MAX_STEPS, "sequences_sha256": SHA256, "seed": plan.seed,
            **plan.decided_on(),
        }  # fmt: skip
        self._video = output / "videos" / f"{plan.label}_chain0_{plan.exits[0].label}.mp4"
        self._log = plan.log(output, kind="chains", run_key=run_key, params={"suite": suite})

    def open(self) -> None:
        """Read the ledger and write its head: for whoever has the folder to itself.

        Raises:
            InputError: the folder holds something else, or was logged to another store.
        """
        self._log.check(self._plan.exits)
        self._ledger = ChainLedger(self.output / "chains.jsonl", self._identity, self._plan.resume)

    def run(self) -> tuple[str, str | None]:
        """Play what is not in the ledger yet, write the results, and then log them. Call `open` before.

        Returns:
            The tables of the results, for people; and why MLflow has not all of them, None where it has.
        """
        sequences = published_sequences()[: self._count]
        filmed = self._plan.videos and not self._filmed_whole()
        chains = [
            Chain(setting, number, sequence, filmed and number == 0 and setting == self._plan.exits[0])
            for number, sequence in enumerate(sequences) for setting in self._plan.exits
        ]  # fmt: skip
        todo = [chain for chain in chains if chain.filmed or (chain.label, chain.number) not in self._ledger]
        with (
            Progress(len(chains), f"chains {self._plan.label}", "chains", done=len(chains) - len(todo)) as progress,
            self._plan.pool(self._config, factory=self._factory(), isolate=False) as pool,
        ):

            def finished(chain: Chain, record: ChainRecord, films: Films | None) -> None:
                if films:  # before the ledger, which says of which chain there is a video
                    self._write_video(record, films)
                if self._ledger.key(record) not in self._ledger:
                    self._ledger.add(record)
                lengths = [record.completed for record in self._ledger.records.values() if record.error is None]
                progress.advance(average_length=sum(lengths) / len(lengths) if lengths else "not known yet")

            pool.play(todo, finished)
            simulator = pool.provenance
        table, written = self._write(simulator)
        return table, self._log.log(written)

    def _filmed_whole(self) -> bool:
        """Whether the video is of a chain in the ledger; else a file of that name is of an earlier evaluation."""
        record = self._ledger.records.get((self._plan.exits[0].label, 0))
        return self._video.exists() and record is not None and record.error is None

    def _write_video(self, record: ChainRecord, films: Films) -> None:
        """One task after the other."""
        scenes = []
        for place, (instruction, film) in enumerate(films):
            done = "done" if place < record.completed else "not done"
            title = f"{self._plan.label}, task {place + 1} of {len(record.tasks)}: {instruction}"
            scenes.append(Scene(film, title, f"{done} after {record.steps[place]} steps"))
        write_video(self._video, scenes, fps=FPS)

    def _factory(self) -> Any:
        # Not isolated by the pool, since chains need more of a simulator than others do.
        return IsolatedCalvin if self._plan.isolate else CalvinWithExpert

    def _write(self, simulator: Mapping[str, object]) -> tuple[str, list[Written]]:
        plan = self._plan
        described = plan.described(simulator, chain_deviations(self._config, self._count))
        tables, written = [], []
        for setting in plan.exits:
            records = [
                record for record in self._ledger.records.values()
                if record.setting == setting.label and record.sequence < self._count
            ]  # fmt: skip
            result = summarise_chains(
                records, label=plan.label, checkpoint_path=named(plan.checkpoint.path), **self._identity,
                setting=setting.label, exit=setting.label, title=setting.title,
                exit_threshold=setting.exit_threshold, fixed_depth=setting.fixed_depth,
                families=dict(setting.families), provenance=described,
            )  # fmt: skip
            metrics = {name: result[name] for name in METRICS} | {
                f"success_{row['tasks']}_in_a_row": row["success_rate"] for row in result["in_a_row"]
            }
            low, high = result["average_length_ci95"]
            metrics |= {"average_length_low": low, "average_length_high": high}
            videos = [self._video] if setting == plan.exits[0] and self._filmed_whole() else []
            written.append(Written(setting, result, metrics, self.output / f"{setting.label}.json", videos))
            write_json(written[-1].path, result)
            tables.append(f"{setting.title}\n\n{chain_table(result)}")
        table = "\n".join(tables)
        write_text(self.output / "table.md", table)
        return f"{plan.label} on {self._count} chains of {self._suite}\n\n{table}", written
