"""Play CALVIN's evaluation: chains of five tasks, with a checkpoint or with the scripted experts.

Example: python -m avavla_ray.evaluation.calvin_chains --sequences 100 --output runs/chains
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import ChainLedger, ChainRecord, chain_table, summarise_chains
from avavla_ray.files import write_json, write_text
from avavla_ray.simulators.base import Observation, SimulatorConfig, SimulatorFailure

if TYPE_CHECKING:
    from avavla_ray.evaluation.episode import ExitSetting
    from avavla_ray.policy.agent import Agent
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator
    from avavla_ray.simulators.calvin.sequences import Sequence


class ChainActor(Protocol):
    """Something that plays one task after the other."""

    def begin(self, simulator: CalvinSimulator) -> None:
        """A task begins: forget the one before, as the protocol has it."""
        ...

    def chunk(self, observation: Observation, record: ChainRecord) -> np.ndarray:
        """(C, 7) actions to execute next; may note in `record` what they cost."""
        ...


class PolicyActor:
    """A policy at one exit setting. Its belief starts anew at each task: the protocol resets the model there."""

    def __init__(self, agent: Agent, setting: ExitSetting) -> None:
        self._agent, self._setting = agent, setting

    def begin(self, simulator: CalvinSimulator) -> None:
        """See `ChainActor.begin`."""
        self._belief = self._agent.policy.initial_belief(1)

    def chunk(self, observation: Observation, record: ChainRecord) -> np.ndarray:
        """See `ChainActor.chunk`."""
        import torch

        with torch.no_grad():
            decision, actions, milliseconds = self._agent.decide(
                [observation], self._belief,
                exit_threshold=self._setting.exit_threshold, depth=self._setting.fixed_depth,
            )  # fmt: skip
        self._belief = decision.belief
        record.latent_steps.append(int(decision.trace.steps[0]))
        record.milliseconds.append(milliseconds)
        return actions[0]


class ExpertActor:
    """The scripted expert of each task."""

    def begin(self, simulator: CalvinSimulator) -> None:
        """See `ChainActor.begin`."""
        from avavla_ray.simulators.experts.expert import make_expert

        self._expert = make_expert(simulator)

    def chunk(self, observation: Observation, record: ChainRecord) -> np.ndarray:
        """See `ChainActor.chunk`."""
        return self._expert.act()[None]


def play_chain(simulator: CalvinSimulator, actor: ChainActor, number: int, sequence: Sequence) -> ChainRecord:
    """Play tasks until one fails: one reset a chain, a new instruction and 360 steps for each task.

    A simulator that breaks ends the chain, and the record says so.
    """
    record = ChainRecord(number, list(sequence.tasks))
    try:
        observation = simulator.begin_sequence(sequence)
        for place in range(len(sequence.tasks)):
            if place:
                observation = simulator.next_task()
            actor.begin(simulator)
            record.steps.append(0)
            done = False
            while not done:
                result = simulator.run_chunk(actor.chunk(observation, record))
                observation, done = result.observation, result.done
                record.steps[-1] += result.duration
            if not result.success:
                break
            record.completed += 1
    except SimulatorFailure as failure:
        record.error = str(failure)
    return record


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation on chains."""

    scene: Literal["a", "b", "c", "d"] = "d"
    """The published protocol evaluates in scene D."""
    sequences: int = 1000
    """How many of the 1,000 published sequences, from the first."""
    checkpoint: Path | None = None
    """Checkpoint folder; the scripted experts play when left out."""
    threshold: float = 0.55
    """Exit threshold of the checkpoint's policy."""
    depth: int | None = None
    """Fixed number of latent steps instead of a threshold."""
    render: Literal["reference", "fast", "none"] | None = None
    """reference (EGL) for published numbers; when left out, reference for a checkpoint and none for experts."""
    max_steps: int | None = None
    """Steps a task; 360 when left out. Another number is a deviation and is recorded."""
    output: Path = Path("runs/calvin_chains")
    resume: bool = False
    """Keep the finished chains found in the output folder."""


def main(settings: Settings) -> None:
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance
    from avavla_ray.simulators.calvin.sequences import COUNT, SHA256, published_sequences
    from avavla_ray.simulators.registry import identify, make_simulator

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
        "suite": config.suite, **played, **identify(config), "render": render, "max_steps": settings.max_steps,
        "sequences_sha256": SHA256,
    }  # fmt: skip
    simulator: Any = make_simulator(config)
    try:
        ledger = ChainLedger(settings.output / "chains.jsonl", identity, settings.resume)
        sequences = published_sequences()[: settings.sequences]
        todo = [number for number in range(len(sequences)) if number not in ledger.records]
        with Progress(len(sequences), "chains", "chains", done=len(sequences) - len(todo)) as progress:
            for number in todo:
                ledger.add(play_chain(simulator, actor, number, sequences[number]))
                lengths = [record.completed for record in ledger.records.values()]
                progress.advance(average_length=sum(lengths) / len(lengths))
        described = provenance(seed=0, simulator=simulator.provenance(), deviations=_deviations(settings, render))
    finally:
        simulator.close()
    records = [record for number, record in ledger.records.items() if number < len(sequences)]
    result = summarise_chains(records, **identity, provenance=described)
    write_json(settings.output / "chains.json", result)
    table = chain_table(result)
    write_text(settings.output / "table.md", table)
    print(f"\n{played['actor']} on {len(records)} chains in scene {settings.scene.upper()}\n\n{table}")
    print(f"results in {settings.output}")


def _actor(settings: Settings) -> tuple[ChainActor, int, dict[str, Any]]:
    """Who plays, the image size that it wants, and how the result names it."""
    if settings.checkpoint is None:
        return ExpertActor(), SimulatorConfig().image_size, {"actor": "scripted experts"}
    from avavla_ray.evaluation.episode import exit_settings
    from avavla_ray.policy.agent import Agent
    from avavla_ray.policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(settings.checkpoint)
    thresholds, depths = ((settings.threshold,), ()) if settings.depth is None else ((), (settings.depth,))
    (setting,) = exit_settings(thresholds, depths, checkpoint.policy.config)
    named = {"actor": checkpoint.stage, "checkpoint": checkpoint.digest, "exit": setting.label}
    actor = PolicyActor(Agent(checkpoint.policy, checkpoint.statistics), setting)
    return actor, checkpoint.policy.config.backbone.image_size, named


def _deviations(settings: Settings, render: str) -> list[str]:
    """How this evaluation differs from the published protocol."""
    found = []
    if settings.scene != "d":
        found.append(f"scene {settings.scene.upper()} instead of D")
    if render != "reference":
        found.append(f"render {render} instead of reference")
    if settings.max_steps not in (None, 360):
        found.append(f"{settings.max_steps} steps a task instead of 360")
    if settings.sequences != 1000:
        found.append(f"the first {settings.sequences} sequences instead of 1,000")
    if settings.checkpoint is None:
        found.append("scripted experts, which see the simulator's state")
    return found


if __name__ == "__main__":
    run_job(main, Settings)
