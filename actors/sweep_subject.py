"""What a sweep of exit settings is about: one checkpoint in one suite, and from which initial states it is played."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.budget import Key, episode_order
from avavla_ray.evaluation.deviations import episode_deviations
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import summarise
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import Checkpoint, load_checkpoint
from avavla_ray.simulators.base import SimulatorConfig, SuiteSpec
from avavla_ray.simulators.registry import identify, suite_spec
from avavla_ray.storage.names import named


@dataclass(frozen=True)
class Subject:
    """Made by `subject_of`.

    Attributes:
        tasks: that are played. states: initial states a task that settings are compared on, the first so many.
        further: so many more, that the best setting is confirmed on.
        identity: what tells its episodes from others.
    """

    path: Path
    checkpoint: Checkpoint
    unnorm_key: str | None
    label: str
    suite: str
    spec: SuiteSpec
    tasks: tuple[int, ...]
    states: int
    further: int
    config: SimulatorConfig
    identity: dict[str, Any]
    deviations: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Of the suite, for file names."""
        return self.suite.replace(":", ".")

    @property
    def depth(self) -> int:
        """K; 0 of a policy without a latent loop."""
        latent = self.checkpoint.policy.config.latent
        return latent.max_steps if latent.enabled else 0

    @property
    def longest(self) -> int:
        """Decisions that an episode can have."""
        return math.ceil((self.config.max_steps or self.spec.max_steps) / self.checkpoint.policy.config.chunk)

    @property
    def planned(self) -> tuple[Key, ...]:
        """Episodes of a full evaluation, in random order."""
        return tuple(episode_order(self.tasks, range(self.states), self.seed))

    @property
    def confirming(self) -> tuple[Key, ...]:
        """Those that no search has seen."""
        return tuple(episode_order(self.tasks, range(self.states, self.states + self.further), self.seed))

    @property
    def instructions(self) -> dict[int, str]:
        return dict(enumerate(self.spec.instructions))

    def pool(self, num_runners: int, isolate: bool, servers: int, server_gpus: float) -> Callable[[], Any]:
        """Makes the `EvaluationPool` that plays it, in another process."""
        agent = Agent(self.checkpoint.policy, self.checkpoint.statistics_of(self.unnorm_key))
        return functools.partial(_make_pool, agent, self.config, num_runners, isolate, servers, server_gpus)

    def result(
        self, setting: ExitSetting, records: Iterable[EpisodeRecord], states: Iterable[int], provenance: dict[str, Any]
    ) -> dict[str, Any]:
        """Of the episodes from these initial states, as evaluations write it."""
        wanted = set(states)
        asked = [record for record in records if record.task in self.tasks and record.initial_state in wanted]
        return summarise(
            setting, asked, self.instructions, label=self.label, stage=self.checkpoint.stage,
            checkpoint_path=named(self.path), **self.identity, provenance=provenance,
        )  # fmt: skip


def subject_of(
    path: Path, suite: str, *, unnorm_key: str | None, tasks: tuple[int, ...], states: int | None, confirm: int | None,
    label: str | None, assets: str, render: str, max_steps: int | None, seed: int,
    on_gpu: bool = False,
) -> Subject:  # fmt: skip
    """Read and check everything, start nothing.

    Args:
        states: initial states a task; LIBERO's 50, or as many as there are, when None. confirm: further ones; as many
            again when None, or as the suite has. on_gpu: where decisions are made, which rounds other
            than a CPU: what one has played, the other does not go on with.

    Raises:
        InputError: something given does not exist or does not go together.
    """
    checkpoint = load_checkpoint(path)
    policy, statistics = checkpoint.policy.config, checkpoint.statistics_of(unnorm_key)
    config = SimulatorConfig(
        suite=suite, tasks=tasks, assets=assets, render=render, image_size=policy.backbone.camera_size,
        max_steps=max_steps,
    )  # fmt: skip
    data, spec = identify(config), suite_spec(suite)
    count = spec.states_a_task(states)
    if confirm is not None and confirm < 0:
        raise InputError(f"--confirm {confirm}: give 0 or more")
    if confirm is not None and confirm > spec.num_initial_states - count:
        raise InputError(
            f"--confirm {confirm}: beyond the {count} initial states a task that settings are compared on, {suite} has "
            f"{spec.num_initial_states - count}; give fewer, or fewer --episodes"
        )
    identity = {
        "suite": suite, "checkpoint": checkpoint.digest, "statistics": statistics.name, **data, "render": render,
        "max_steps": max_steps or spec.max_steps, "seed": seed, **({"decided_on": "gpu"} if on_gpu else {}),
    }  # fmt: skip
    return Subject(
        path=path, checkpoint=checkpoint, unnorm_key=unnorm_key, label=label or checkpoint.stage, suite=suite,
        spec=spec, tasks=tasks or tuple(range(len(spec.instructions))), states=count,
        further=min(count, spec.num_initial_states - count) if confirm is None else confirm,
        config=config, identity=identity, deviations=tuple(episode_deviations(spec, config, data, count)), seed=seed,
    )  # fmt: skip


def _make_pool(
    agent: Agent, config: SimulatorConfig, num_runners: int, isolate: bool, servers: int, server_gpus: float
) -> Any:
    from actors.evaluation_pool import EvaluationPool

    return EvaluationPool(agent, config, num_runners, isolate=isolate, servers=servers, server_gpus=server_gpus)
