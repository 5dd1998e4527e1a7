"""Play CALVIN's evaluation, chains of five tasks, in one simulator: with a checkpoint or with the scripted experts.

`jobs/evaluate.py --suite calvin_d_chains` plays them with a checkpoint on all cores, at several exit settings.

Example: python -m avavla_ray.evaluation.calvin_chains --sequences 100 --output runs/chains
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import ChainLedger, ChainRecord, chain_table, summarise_chains
from avavla_ray.evaluation.deviations import chain_deviations
from avavla_ray.evaluation.episode import Film, round_scores
from avavla_ray.files import write_json, write_text
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure

if TYPE_CHECKING:
    from avavla_ray.evaluation.exit_setting import ExitSetting
    from avavla_ray.evaluation.protocol import Decider
    from avavla_ray.simulators.calvin.chains import CalvinWithExpert, IsolatedCalvin
    from avavla_ray.simulators.calvin.sequences import Sequence

    ChainSimulator = IsolatedCalvin | CalvinWithExpert


ATTEMPTS = 3  # at a chain whose simulator breaks, each in a new process; as for the episodes of other suites
EXPERT_STEPS = 30  # that an expert acts at once: a second of the robot's


class ChainActor(Protocol):
    """Something that plays one task after the other."""

    def begin(self) -> None:
        """A task begins: forget the one before, as the protocol has it."""
        ...

    def act(self, simulator: ChainSimulator, observation: Observation, record: ChainRecord) -> ChunkResult:
        """Act once on what is seen; may note in `record` what that cost."""
        ...


class PolicyActor:
    """A policy at one exit setting. Its belief starts anew at each task: the protocol resets the model there.

    Args:
        films: given a list, each task that is begun adds its instruction and its pictures.
    """

    def __init__(self, agent: Decider, setting: ExitSetting, films: list[tuple[str, Film]] | None = None) -> None:
        self._agent, self._setting, self._films = agent, setting, films

    def begin(self) -> None:
        """See `ChainActor.begin`."""
        self._belief = self._agent.initial_belief()
        self._film: Film | None = None

    def act(self, simulator: ChainSimulator, observation: Observation, record: ChainRecord) -> ChunkResult:
        """See `ChainActor.act`."""
        import torch

        from avavla_ray.evaluation.protocol import add_to_film, begin_film

        own = self._setting.of(observation.instruction)
        if self._films is not None and self._film is None:
            self._film = Film()
            begin_film(self._film, self._agent, own)
            self._films.append((observation.instruction, self._film))
        with torch.no_grad():
            decision, actions, milliseconds = self._agent.decide([observation], self._belief, **own.decide_options())
        self._belief = decision.belief
        taken = int(decision.trace.steps[0])
        record.latent_steps.append(taken)
        record.scores.append(round_scores(decision.trace.exit_score[0, :taken].tolist()))
        record.milliseconds.append(milliseconds)
        result = simulator.run_chunk(actions[0], record=self._film is not None)
        if self._film is not None:
            add_to_film(self._film, self._agent, simulator, observation, decision)
        return result


class ExpertActor:
    """The scripted expert of each task, which lives with the simulator."""

    def begin(self) -> None:
        """See `ChainActor.begin`: the simulator's next task has an expert of its own."""

    def act(self, simulator: ChainSimulator, observation: Observation, record: ChainRecord) -> ChunkResult:
        """See `ChainActor.act`."""
        return simulator.run_expert(EXPERT_STEPS)


def play_chain(simulator: ChainSimulator, actor: ChainActor, number: int, sequence: Sequence) -> ChainRecord:
    """Play tasks until one fails: one reset a chain, a new instruction and a new step limit for each task.

    A chain in which the simulator breaks is begun again from its start, in a new process if the simulator is isolated.
    One that breaks at every attempt is given up, and its record says so.
    """
    for attempt in range(1, ATTEMPTS + 1):
        record = ChainRecord(number, list(sequence.tasks), attempts=attempt)
        try:
            play_tasks(simulator, actor, sequence, record)
        except SimulatorFailure as failure:
            record.error = str(failure)
        else:
            break
    return record


def play_tasks(simulator: ChainSimulator, actor: ChainActor, sequence: Sequence, record: ChainRecord) -> None:
    """Play a chain once, and note in `record` what came of it. Raises SimulatorFailure."""
    observation = simulator.begin_sequence(sequence)
    for place in range(len(sequence.tasks)):
        if place:
            observation = simulator.next_task()
        actor.begin()
        record.steps.append(0)
        done = False
        while not done:
            result = actor.act(simulator, observation, record)
            observation, done = result.observation, result.done
            record.steps[-1] += result.duration
        if not result.success:
            break
        record.completed += 1


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation on chains."""

    scene: Literal["a", "b", "c", "d"] = "d"
    """The published protocol evaluates in scene D."""
    sequences: int = 1000
    """How many of the 1,000 published sequences, from the first."""
    checkpoint: Path | None = None
    """Checkpoint folder; the scripted experts play when left out."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    threshold: float = 0.55
    """Exit threshold of the checkpoint's policy."""
    depth: int | None = None
    """Fixed number of latent steps instead of a threshold; 0 for a policy without a latent loop."""
    render: Literal["reference", "fast", "none"] | None = None
    """reference (EGL) for published numbers; when left out, reference for a checkpoint and none for experts."""
    max_steps: int | None = None
    """Steps a task; 360 when left out. Another number is a deviation and is recorded."""
    output: Path = Path("runs/calvin_chains")
    run_id: str | None = None
    """Identity of this evaluation: given, the same command again goes on with it."""
    resume: bool = False
    """Keep the finished chains found in the output folder; aborted ones are played again."""


def main(settings: Settings) -> None:
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance
    from avavla_ray.simulators.calvin.adapter import MAX_STEPS
    from avavla_ray.simulators.calvin.chains import IsolatedCalvin
    from avavla_ray.simulators.calvin.sequences import COUNT, SHA256, published_sequences
    from avavla_ray.simulators.registry import identify

    if not 1 <= settings.sequences <= COUNT:
        raise InputError(f"--sequences {settings.sequences}: there are 1 to {COUNT}")
    actor, image_size, played = _actor(settings)
    render = settings.render or ("none" if settings.checkpoint is None else "reference")
    if settings.checkpoint is not None and render == "none":
        raise InputError("--render none shows the policy black images: give reference or fast")
    config = SimulatorConfig(
        suite=f"calvin_{settings.scene}", render=render, image_size=image_size, max_steps=settings.max_steps
    )
    identity = {
        "suite": config.suite, **played, **identify(config), "render": render,
        "max_steps": settings.max_steps or MAX_STEPS, "sequences_sha256": SHA256,
    }  # fmt: skip
    simulator = IsolatedCalvin(config)
    try:
        ledger = ChainLedger(settings.output / "chains.jsonl", identity, settings.resume)
        sequences = published_sequences()[: settings.sequences]
        todo = [number for number in range(len(sequences)) if ("", number) not in ledger]
        with Progress(len(sequences), "chains", "chains", done=len(sequences) - len(todo)) as progress:
            for number in todo:
                ledger.add(play_chain(simulator, actor, number, sequences[number]))
                lengths = [record.completed for record in ledger.records.values() if record.error is None]
                progress.advance(average_length=sum(lengths) / len(lengths) if lengths else "not known yet")
        deviations = chain_deviations(config, settings.sequences, experts=settings.checkpoint is None)
        described = provenance(seed=0, simulator=simulator.provenance(), deviations=deviations)
    finally:
        simulator.close()
    records = [record for record in ledger.records.values() if record.sequence < len(sequences)]
    result = summarise_chains(records, **identity, provenance=described)
    write_json(settings.output / "chains.json", result)
    table = chain_table(result)
    write_text(settings.output / "table.md", table)
    print(f"\n{played['actor']} on {result['chains']} chains in scene {settings.scene.upper()}\n\n{table}")
    print(f"results in {settings.output}")


def _actor(settings: Settings) -> tuple[ChainActor, int, dict[str, Any]]:
    """Who plays, the image size that it wants, and how the result names it."""
    if settings.checkpoint is None:
        if settings.unnorm_key is not None:
            raise InputError("--unnorm-key names a data set of the --checkpoint: give that too")
        return ExpertActor(), SimulatorConfig().image_size, {"actor": "scripted experts"}
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.policy.agent import Agent
    from avavla_ray.policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(settings.checkpoint)
    statistics = checkpoint.statistics_of(settings.unnorm_key)
    thresholds, depths = ((settings.threshold,), ()) if settings.depth is None else ((), (settings.depth,))
    (setting,) = exit_settings(thresholds, depths, checkpoint.policy.config)
    named = {
        "actor": checkpoint.stage, "checkpoint": checkpoint.digest, "statistics": statistics.name,
        "exit": setting.label,
    }  # fmt: skip
    actor = PolicyActor(Agent(checkpoint.policy, statistics), setting)
    return actor, checkpoint.policy.config.backbone.camera_size, named


if __name__ == "__main__":
    run_job(main, Settings)
