"""RLlib configuration of asynchronous PPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from actors.env_runner import SimulatorEnvRunner
from actors.learner_group import DeepSpeedLearnerGroup
from actors.settings import PPOSettings
from avavla_ray.errors import InputError, check_fraction, check_known
from avavla_ray.simulators.base import Simulator, SimulatorConfig
from avavla_ray.simulators.registry import make_simulator
from avavla_ray.training.engine import PRECISIONS, EngineSettings

OWN = (
    "checkpoint", "unnorm_key", "simulator", "make_simulator", "exit_threshold", "demonstrations", "engine",
    "snapshot_every", "run_name", "min_env_runners", "idle_release_s", "queue_decisions", "delay_updates",
    "policy_placement", "num_policy_servers", "num_cpus_per_server", "num_gpus_per_server",
    "custom_resources_per_server", "server_batch", "rollout_precision", "buffers",
    "spot", "ledger", "runner_timeout_s", "server_timeout_s", "learner_timeout_s", "profile",
)  # fmt: skip
PLACEMENTS = ("copy", "server")


class AsyncPPOConfig(AlgorithmConfig):
    """RLlib's configuration plus the fields of `PPOSettings`, flat, so that Tune can sweep any of them.

    One iteration (`Algorithm.train`) is one update. RLlib's `rollout_fragment_length` counts decisions of each
    simulator, and `num_envs_per_env_runner` the simulators of a runner. Its `custom_resources_per_env_runner` (for
    instance {"simulator": 1}) keep runners on the nodes that have these resources, and so off the learners';
    `custom_resources_per_learner` likewise, so that learners take none of the processors that runners could have.

    Attributes (besides those of `PPOSettings` and RLlib's own):
        checkpoint: folder of the policy to start from. unnorm_key: data set whose units are meant, where it knows
            several.
        simulator: what the runners play. make_simulator: how they make it; a module-level function.
        exit_threshold: of the gate in rollouts, one for all latent steps or one for each of 1 to K - 1; None takes the
            policy's own.
        demonstrations: folder for the behaviour-cloning loss, readable by every learner rank; None for none.
        engine: DeepSpeed engine of the learner ranks.
        snapshot_every: versions between snapshots of the engine, which lost ranks start again from.
        run_name: prefix of episode ids.
        min_env_runners: the run begins as soon as so many of the `num_env_runners` are there, and lets none of them go;
            None is 1, and all of them with `max_lag` 0.
        idle_release_s: where runners had to wait for the learner, all together, for one runner's worth of this time,
            one is ended for good, so that the cluster may take its node; where the learner had to wait for fragments,
            one is asked for again. None keeps all.
        queue_decisions: runners wait while so many decisions wait to be learned from; None is two updates' worth, and
            what the delay keeps.
        delay_updates: so many updates' worth of decisions wait on when an update takes the oldest. Makes experience
            that much older, whoever is faster, for studies of what that costs.
        policy_placement: "copy" of the policy in every runner, or "server", shared by all.
        num_policy_servers, num_cpus_per_server, num_gpus_per_server, custom_resources_per_server: how many, and what
            each has for itself.
        server_batch: observations that a server decides together at most.
        rollout_precision: of the backbone that decides, "float32" or "bfloat16", which some processors compute faster;
            latent steps and likelihoods are float32 with either, and the loss corrects for the difference as for age.
        buffers: groups of simulators in a runner; while one steps the next one's actions are decided. 1: all together.
        spot: how a runner hears that its machine is about to be taken away: "off", "aws", "gcp", or "file:PATH", a file
            whose appearance says so.
        ledger: file to which every episode that ends is added at once; None for none.
        runner_timeout_s: a runner that takes longer to start or to deliver has hung, and is killed and started again.
        server_timeout_s: a policy server that takes longer to answer, likewise.
        learner_timeout_s: an update that takes longer has hung, and all ranks are killed and started again.
        profile: every process times what it does; see avavla_ray/timing.py.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        if algo_class is None:
            from actors.async_ppo import AsyncPPO as algo_class
        super().__init__(algo_class)
        for name in PPOSettings.names():
            setattr(self, name, getattr(PPOSettings, name))
        self.checkpoint: str | None = None
        self.unnorm_key: str | None = None
        self.simulator = SimulatorConfig()
        self.make_simulator: Callable[[SimulatorConfig], Simulator] = make_simulator
        self.exit_threshold: float | tuple[float, ...] | None = None
        self.demonstrations: str | None = None
        self.engine = EngineSettings()
        self.snapshot_every = 1
        self.run_name = "ppo"
        self.min_env_runners: int | None = None
        self.idle_release_s: float | None = 120.0
        self.queue_decisions: int | None = None
        self.delay_updates = 0
        self.policy_placement = "copy"
        self.num_policy_servers = 1
        self.num_cpus_per_server = 1.0
        self.num_gpus_per_server = 0.0
        self.custom_resources_per_server: dict[str, float] = {}
        self.server_batch = 64
        self.rollout_precision = "float32"
        self.buffers = 2
        self.spot = "off"
        self.ledger: str | None = None
        self.runner_timeout_s = 600.0
        self.server_timeout_s = 60.0
        self.learner_timeout_s = 600.0
        self.profile = False

        # RLlib's own.
        self.env_runner_cls = SimulatorEnvRunner
        self.num_env_runners = 1
        self.num_envs_per_env_runner = 2
        self.rollout_fragment_length = 16
        self.create_local_env_runner = False
        self.num_learners = 1
        self.num_cpus_per_learner = 1
        self.min_time_s_per_iteration = None
        self.min_train_timesteps_per_iteration = 1
        self.restart_failed_env_runners = True
        self.max_num_env_runner_restarts = -1
        self.delay_between_env_runner_restarts_s = 0.0
        self.validate_env_runners_after_construction = False  # which would wait for all of them
        # Weights travel with requests and there are no connector states: RLlib's own broadcasts have nothing to do.
        self._dont_auto_sync_env_runner_states = True
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False
        # RLlib asks every algorithm for the spaces of a gym environment; simulators have none, and nothing reads these.
        self.observation_space = gym.spaces.Box(0, 255, (1,), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def training(self, **settings: Any) -> AsyncPPOConfig:
        """Set fields of `PPOSettings` and our others by name; the rest goes to RLlib's own method."""
        for name in {*PPOSettings.names(), *OWN} & set(settings):
            setattr(self, name, settings.pop(name))
        super().training(**settings)
        return self

    def validate(self) -> None:
        """Refuse settings that can't work.

        Raises:
            InputError: names the setting.
        """
        super().validate()
        if self.in_evaluation:  # RLlib's derived copy for evaluation runners, of which there are none
            return
        PPOSettings.of(self)
        thresholds = self.exit_threshold if isinstance(self.exit_threshold, tuple) else (self.exit_threshold,)
        for threshold in thresholds:
            if threshold is not None:
                check_fraction("exit threshold", threshold)
        if self.engine.precision != "float32":
            raise InputError(f"PPO compares likelihoods in float32: it can't be trained in {self.engine.precision}")
        if self.engine.accumulation != 1:
            raise InputError(f"accumulation {self.engine.accumulation}: a PPO minibatch is one step; give smaller ones")
        check_known("policy placement", self.policy_placement, PLACEMENTS)
        check_known("rollout precision", self.rollout_precision, PRECISIONS)
        for name in ("num_env_runners", "num_envs_per_env_runner", "snapshot_every", "least_env_runners", "buffers",
                     "num_policy_servers", "server_batch", "num_learners"):  # fmt: skip
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('least', 'min')} is {getattr(self, name)}: give at least 1")
        for name in ("runner_timeout_s", "server_timeout_s", "learner_timeout_s", "idle_release_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: give more than 0")
        if self.least_env_runners > self.num_env_runners:
            raise InputError(
                f"min_env_runners is {self.least_env_runners}, and there are {self.num_env_runners}: training would "
                "never begin; give at most that"
            )
        if not 0 <= self.delay_updates <= self.max_lag:
            raise InputError(
                f"delay_updates is {self.delay_updates}, and what is more than {self.max_lag} updates old is dropped: "
                "give 0 to that, or a larger max_lag"
            )
        waits = self.update_decisions + self.kept_decisions
        if self.most_queued < waits:
            raise InputError(
                f"queue_decisions is {self.queue_decisions}, and an update waits for {waits}: give at least that"
            )

    @property
    def least_env_runners(self) -> int:
        """`min_env_runners`, or what None of it means."""
        if self.min_env_runners is not None:
            return self.min_env_runners
        return self.num_env_runners if self.max_lag == 0 else 1

    @property
    def most_queued(self) -> int:
        """`queue_decisions`, or what None of it means."""
        most = 2 * self.update_decisions + self.kept_decisions
        return most if self.queue_decisions is None else self.queue_decisions

    @property
    def kept_decisions(self) -> int:
        """That wait on while an update learns, for the sake of `delay_updates`."""
        return self.delay_updates * self.update_decisions

    @property
    def is_online(self) -> bool:
        """Not in RLlib's sense: its set-up would make runners and wait for the first, which may have to wait itself
        until the cluster has room."""
        return False

    def build_learner_group(self, **_: Any) -> DeepSpeedLearnerGroup:
        """The seam at which RLlib's own learners are replaced."""
        return DeepSpeedLearnerGroup(self)

    def get_multi_rl_module_spec(self, **_: Any) -> MultiRLModuleSpec:
        """No RLModules: the policy lives in learner ranks and runners, as a plain module."""
        return MultiRLModuleSpec(rl_module_specs={})
