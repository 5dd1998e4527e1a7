"""The EnvRunner of RLlib that plays robot simulators: a process with a policy copy and several of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from actors.report import Report
from actors.rollout import Rollout
from actors.weights import WeightHandle, pull_if_newer
from avavla_ray.learning.fragment import Fragment
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator


class SimulatorEnvRunner(EnvRunner, Checkpointable):
    """Plays `num_envs_per_env_runner` simulators and returns fragments.

    The constructor does nothing that can fail, so that bad input (assets, graphics) surfaces in `start` with its own
    message instead of in RLlib's actor creation.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        torch.set_num_threads(1)
        self._rollout: Rollout | None = None
        self._version = -1

    def start(
        self,
        policy: PolicyConfig,
        statistics: Statistics,
        handle: WeightHandle,
        *,
        name: str,
        incarnation: int,
        quarantined: Mapping[int, str],
    ) -> dict[str, Any]:
        """Build policy and simulators and begin the first episodes; returns the simulator's provenance.

        Args:
            name: prefix of episode ids.
            incarnation: how often this runner has been started in this run, over restarts and resumes. It enters the
                random seed and the episode ids, so that a restarted runner neither repeats nor renames episodes.
            quarantined: tasks not to play, and why.

        Raises:
            InputError: what `make_simulator` refuses.
            NoTaskLeft, SimulatorFailure: see `Rollout`.
        """
        settings = self.config
        agent = Agent(AvaVlaPolicy(policy).eval(), statistics)
        self._version = pull_if_newer(agent.policy, -1, handle)
        simulators, runner = settings.num_envs_per_env_runner, max(1, self.worker_index or 1)
        factory = settings.make_simulator
        self._rollout = Rollout(
            agent, partial(IsolatedSimulator, factory) if settings.isolate else factory, settings.simulator,
            simulators=simulators, first_slot=(runner - 1) * simulators, slots=simulators * max(1, self.num_workers),
            seed=(settings.seed or 0, runner, incarnation),
            name=f"{name}-{runner}.{incarnation}",
            exit_threshold=settings.exit_threshold, quarantined=quarantined,
        )  # fmt: skip
        return self._rollout.provenance()

    def sample(
        self, handle: WeightHandle, quarantined: Mapping[int, str] | None = None, **_: Any
    ) -> tuple[list[Fragment], Report]:
        """`rollout_fragment_length` decisions in every simulator, with the handle's weights if they are newer.

        Call it with `.options(num_returns=2)`: both results then belong to the caller and survive this process.

        Args:
            quarantined: tasks not to begin any more, and why.

        Raises:
            NoTaskLeft, SimulatorFailure: see `Rollout.collect`.
        """
        self._version = pull_if_newer(self.rollout.agent.policy, self._version, handle)
        self.rollout.watchdog.adopt(quarantined or {})
        return self.rollout.collect(self.config.get_rollout_fragment_length(), self._version)

    @property
    def rollout(self) -> Rollout:
        if self._rollout is None:
            raise RuntimeError("this runner has not been started")
        return self._rollout

    def weights_version(self) -> int:
        """Version of the weights that this runner acts with, -1 before `start`."""
        return self._version

    # What RLlib asks of an EnvRunner besides. Weights reach it with each request and belief belongs to the episode, so
    # there is no state of its own to save.

    def get_spaces(self) -> dict[str, Any]:
        return {INPUT_ENV_SPACES: (self.config.observation_space, self.config.action_space)}

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        return {WEIGHTS_SEQ_NO: self._version}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to set: see above."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"config": self.config}

    def assert_healthy(self) -> None:
        """The constructor can't fail half-way."""

    def stop(self) -> None:
        if self._rollout is not None:
            self._rollout.close()
