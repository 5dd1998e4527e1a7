"""The EnvRunner of RLlib that plays robot simulators: a process with several of them, and a policy or its server."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import ray
import torch
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from actors.orders import NotStarted, Order
from actors.placement import Placement, PolicyCopy
from actors.policy_server import ServedPolicy
from actors.report import Report
from actors.rollout import Rollout
from actors.termination import TerminationWatch
from actors.weights import WeightHandle
from avavla_ray import timing
from avavla_ray.learning.fragment import Fragment
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator


class SimulatorEnvRunner(EnvRunner, Checkpointable):
    """Plays `num_envs_per_env_runner` simulators and delivers fragments.

    The constructor does nothing that can fail, so that bad input (assets, graphics) surfaces in `start` with its own
    message instead of in RLlib's actor creation.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        torch.set_num_threads(1)
        self._rollout: Rollout | None = None
        self._watch: TerminationWatch | None = None

    def hello(self) -> dict[str, Any]:
        """Where this process is, as soon as it is up: "node", the id of its Ray node, "host" and "pid".

        "leaving" is the notice that this machine is about to be taken away; None without one.
        """
        return {
            "node": ray.get_runtime_context().get_node_id(), "host": socket.gethostname(), "pid": os.getpid(),
            "leaving": self._watch.notice if self._watch is not None else None,
        }  # fmt: skip

    def start(
        self,
        policy: PolicyConfig,
        statistics: Statistics,
        handle: WeightHandle,
        *,
        name: str,
        incarnation: int,
        quarantined: Mapping[int, str],
        servers: Sequence[Any] = (),
    ) -> dict[str, Any]:
        """Construct the simulators and begin the first episodes; returns the simulator's provenance.

        Args:
            name: prefix of episode ids.
            incarnation: how often this runner has been started in this run, over restarts and resumes. It enters the
                random seed and the episode ids, so that a restarted runner neither repeats nor renames episodes.
            quarantined: tasks not to play, and why.
            servers: handles of `PolicyServer` actors that decide; with none a copy of the policy does, here.

        Raises:
            InputError: what `make_simulator` refuses.
            NoTaskLeft, SimulatorFailure: see `Rollout`.
        """
        self.stop()
        settings = self.config
        timing.switch(settings.profile)
        runner, simulators = max(1, self.worker_index or 1), settings.num_envs_per_env_runner
        placement: Placement
        if servers:
            placement = ServedPolicy(
                servers, policy, statistics, first=runner - 1, timeout_s=settings.server_timeout_s
            )  # fmt: skip
        else:
            copy = AvaVlaPolicy(policy).eval()
            copy.set_precision(settings.rollout_precision)
            placement = PolicyCopy(copy, statistics, exit_threshold=settings.exit_threshold)
        placement.use(handle)
        watch = self._watch = TerminationWatch(settings.spot)
        factory = settings.make_simulator
        self._rollout = Rollout(
            placement, partial(IsolatedSimulator, factory) if settings.isolate else factory, settings.simulator,
            simulators=simulators, buffers=settings.buffers,
            first_slot=(runner - 1) * simulators, slots=simulators * max(1, self.num_workers),
            seed=(settings.seed or 0, runner, incarnation), name=f"{name}-{runner}.{incarnation}",
            quarantined=quarantined, group_size=settings.group_size, train_actions=settings.train_actions,
            draw_exits=settings.exit_actions, notice=lambda: watch.notice,
        )  # fmt: skip
        described = self._rollout.provenance()
        timing.take("runner")  # where the time goes is asked of playing, not of this
        return described

    def deliver(self, order: Order) -> tuple[list[Fragment], Report]:
        """Play on until there is something to deliver. Between two orders the simulators finish their chunks, so that
        none waits while the next order is there already.

        Call it with `.options(num_returns=2)`: both results then belong to the caller and survive this process.

        Raises:
            NoTaskLeft, SimulatorFailure, RayError: see `Rollout.deliver`.
        """
        return self.rollout.deliver(order)

    def handed_in(self) -> None:
        """What this runner has delivered lies on another machine too: nothing has to wait for it any more."""
        if self._watch is not None:
            self._watch.handed_in()

    def sample(
        self, handle: WeightHandle, quarantined: Mapping[int, str] | None = None, **_: Any
    ) -> tuple[list[Fragment], Report]:
        """RLlib's name for `deliver`, with an order of `rollout_fragment_length` decisions a fragment."""
        return self.deliver(Order(handle, self.config.get_rollout_fragment_length(), quarantined or {}))

    @property
    def rollout(self) -> Rollout:
        if self._rollout is None:
            raise NotStarted("this runner has not been started")
        return self._rollout

    def weights_version(self) -> int:
        """Version of the weights that this runner asks for or acts with, -1 before `start`."""
        return -1 if self._rollout is None else self._rollout.placement.version

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
        return {WEIGHTS_SEQ_NO: self.weights_version()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to set: see above."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"config": self.config}

    def assert_healthy(self) -> None:
        """The constructor can't fail half-way."""

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._rollout is not None:
            self._rollout.close()
            self._rollout = None
