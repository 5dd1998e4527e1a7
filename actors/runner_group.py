"""RLlib's group of runners, made elastic: seats that can be emptied and filled while training goes on."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.rllib.env.env_runner_group import EnvRunnerGroup

STOP_S = 10.0


class RunnerGroup(EnvRunnerGroup):
    """`num_env_runners` seats, numbered from 1, each with an actor that plays or waits until a node has room for it.

    RLlib's own group waits for its runners when it is made, probed and stopped; this one never does, since a runner
    may wait for room for hours. RLlib makes the actors (with their resources, and under Tune in the bundle of their
    seat), and Ray starts one again whose process or node has died, as often as it takes.
    """

    def __init__(self, config: Any, trial: str | None = None) -> None:
        """
        Args:
            config: an `AsyncPPOConfig`. trial: of Tune.
        """
        super().__init__(config=config, local_env_runner=False, tune_trial_id=trial)
        self._timeout_s = config.runner_timeout_s
        self._without = dict[int, float]()  # since when a seat's actor has had no process, as far as Ray knows
        self._seated = {identity: identity for identity in self._worker_manager.actor_ids()}
        self.seats = tuple(self._seated)
        for seat in self.seats:
            self.mark(seat, healthy=False)

    def actor(self, seat: int) -> Any:
        """Handle of the actor in this seat."""
        return self._worker_manager.actors()[self._seated[seat]]

    def fill(self, seat: int) -> Any:
        """Put a new actor into the seat, in place of the one there, if any; returns its handle."""
        self.empty(seat)
        actor = self._make_worker(
            env_creator=None, validate_env=None, worker_index=seat, num_workers=len(self.seats),
            config=self._remote_config_obj_ref,
        )  # fmt: skip
        self._worker_manager.add_actors([actor])
        self._seated[seat] = self._worker_manager.actor_ids()[-1]
        self.mark(seat, healthy=False)
        return actor

    def empty(self, seat: int) -> None:
        """End the seat's actor for good, if there is one: its node may go."""
        if seat in self._seated:
            ray.kill(self._worker_manager.remove_actor(self._seated.pop(seat)))

    def restart(self, seat: int) -> None:
        """End the seat's process; Ray starts another, where there is room."""
        ray.kill(self.actor(seat), no_restart=False)

    def stands(self, seat: int) -> bool:
        """Whether the seat's actor has a process, as far as Ray knows, which takes a second to notice a death.

        Ray says no of a process that hangs while it starts, too. So an actor that has had none for `runner_timeout_s`
        is started again; one that waits for room goes on waiting.
        """
        if self.actor(seat)._get_local_state() == gcs_pb2.ActorTableData.ALIVE:
            self._without.pop(seat, None)
            return True
        now = time.monotonic()
        if now - self._without.setdefault(seat, now) > self._timeout_s:
            self._without[seat] = now
            self.restart(seat)
        return False

    def mark(self, seat: int, *, healthy: bool) -> None:
        """For RLlib's own statistics, and so that it calls none that may not answer."""
        self._without.pop(seat, None)
        self._worker_manager.set_actor_state(self._seated[seat], healthy=healthy)

    def probe_unhealthy_env_runners(self, timeout_seconds: float | None = None) -> list[int]:
        """Nothing: the pool hears of runners that come back by their hello."""
        return []

    def stop(self) -> None:
        """Let those that play close their simulators, for a bounded time, then end all."""
        manager = self._worker_manager
        stopped = [manager.actors()[identity].stop.remote() for identity in manager.healthy_actor_ids()]
        if stopped:
            ray.wait(stopped, num_returns=len(stopped), timeout=STOP_S)
        manager.clear()
        self._seated = {}
