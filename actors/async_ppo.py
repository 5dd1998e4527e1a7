"""Asynchronous PPO over latent trajectories (arXiv 2606.15099, section 3.3) as an RLlib Algorithm.

    every runner, all the time:   fragment <- T decisions in E simulators with the newest weights
    every training step:          drop the fragments that are too old
                                  learner idle and enough fragments -> start an update on all ranks
                                  update done -> version + 1, publish the weights

Rollouts never wait for the learner, nor the learner for a particular runner. `max_lag` bounds how old a fragment may
be; for the rest the loss corrects (decoupled PPO).
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from actors import metrics
from actors.async_ppo_config import AsyncPPOConfig
from actors.report import Report
from actors.watchdog import NoTaskLeft, Watchdog
from actors.weights import WeightHandle, WeightStore
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import EpisodeSummary, SimulatorFailure

STATE = "async_ppo"
STARTS_IN_A_ROW = 3


@dataclass(frozen=True)
class Lot:
    """What one request brought: a reference of fragments, owned by this process so that it survives their maker."""

    fragments: Any
    report: Report


@dataclass(frozen=True)
class Request:
    """A runner at work since `begun`. `start`: its preceding start, until that is known to have gone well."""

    fragments: Any
    report: Any
    start: Any
    begun: float


class AsyncPPO(Algorithm):
    """See the module's docstring. A Tune trainable with RLlib checkpoints.

    Attributes:
        episodes: those that ended during the last iteration, each exactly once.
        simulator_provenance: what the simulators say of themselves, from the first fragment on.
        watchdog: counts the deaths of all simulators, and quarantines for all runners what kills simulators on two of
            them, or on the only one. What a single one of several has died of is left out there alone, until that is
            started again. A resumed run gives quarantined tasks another chance.
    """

    @classmethod
    def get_default_config(cls) -> AsyncPPOConfig:
        return AsyncPPOConfig()

    def setup(self, config: AsyncPPOConfig) -> None:
        self.episodes: list[EpisodeSummary] = []
        self.simulator_provenance: dict[str, Any] = {}
        # Two processes that resume the same checkpoint must not name their episodes alike.
        self._name = f"{config.run_name}-{uuid.uuid4().hex[:6]}"
        self._weights = WeightStore()
        self._window = metrics.RolloutWindow()
        self.watchdog = Watchdog(config.simulator.tasks, witnesses=min(2, config.num_env_runners))
        self._queue: list[Lot] = []
        self._requests: dict[int, Request] = {}
        self._incarnations: dict[int, int] = {}
        self._unstarted: set[int] = set()
        self._oldest_valid, self._refusals, self._failed_starts = 0, 0, 0
        self._learner_seconds = 0.0
        super().setup(config)
        self._begun = self._update_begun = self._last_request = time.monotonic()
        # Runners are started with their first request, so that a checkpoint can be restored before.
        self._unstarted = set(self.env_runner_group.healthy_env_runner_ids())
        self._publish(self.learner_group.weights())

    def step(self) -> dict[str, Any]:
        self.episodes = []
        return super().step()

    def training_step(self) -> None:
        self._request_fragments()
        self._wait()
        self._collect_fragments()
        self._drop_old_fragments()
        self._start_update()
        self._finish_update()

    def settle(self) -> None:
        """Wait for the fragments and the update that are under way; nothing new is started."""
        while self._requests or self.learner_group.pending:
            self._wait()
            self._collect_fragments()
            self._finish_update()

    @property
    def weights(self) -> WeightHandle:
        """The newest published weights."""
        return self._weights.newest

    # Rollouts

    def _request_fragments(self) -> None:
        """Keep every runner busy, unless the learner is so far behind that fragments would only grow old."""
        config, manager = self.config, self.env_runner_group._worker_manager
        lot = config.rollout_fragment_length * config.num_envs_per_env_runner
        ahead = 2 * config.update_decisions
        waiting = sum(queued.report.decisions for queued in self._queue) + lot * len(self._requests)
        for runner in manager.healthy_actor_ids():
            if runner in self._requests or (waiting >= ahead and self._requests):
                continue
            actor, start = manager.actors()[runner], None
            if runner in self._unstarted:
                self._unstarted.discard(runner)
                group = self.learner_group
                start = actor.start.remote(
                    group.policy_config, group.statistics, self._weights.newest,
                    name=self._name, incarnation=self._incarnations.get(runner, 0),
                    quarantined=self.watchdog.quarantined,
                )  # fmt: skip
            # Both results belong to this process: what a runner has delivered survives it.
            fragments, report = actor.sample.options(num_returns=2).remote(
                self._weights.newest, self.watchdog.quarantined
            )
            self._last_request = time.monotonic()
            self._requests[runner] = Request(fragments, report, start, self._last_request)
            waiting += lot

    def _wait(self) -> None:
        """Until something happens: a fragment, or the end of an update."""
        references = [request.report for request in self._requests.values()] + self.learner_group.pending
        if references:
            ray.wait(references, num_returns=1, timeout=1.0, fetch_local=False)
        elif time.monotonic() - self._last_request > self.config.runner_timeout_s:
            raise RuntimeError(f"no runner came back within {self.config.runner_timeout_s:.0f} s: see their logs")
        else:
            time.sleep(0.1)  # every runner is on its way back

    def _collect_fragments(self) -> None:
        reports = {request.report: runner for runner, request in self._requests.items()}
        if not reports:
            return
        ready, _ = ray.wait(list(reports), num_returns=len(reports), timeout=0, fetch_local=False)
        for runner, request in list(self._requests.items()):
            if request.report not in ready and time.monotonic() - request.begun > self.config.runner_timeout_s:
                del self._requests[runner]
                self._restart_runner(runner, f"it has not delivered for {self.config.runner_timeout_s:.0f} s")
        for reference in ready:
            runner = reports[reference]
            request = self._requests.pop(runner)
            try:
                if request.start is not None:
                    self.simulator_provenance = ray.get(request.start)
                lot = Lot(request.fragments, ray.get(request.report))
            except RayTaskError as error:
                self._runner_raised(runner, request, error)
            except RayError as error:
                self._runner_lost(runner, type(error).__name__)
            else:
                if lot.report.failure is None:
                    self._failed_starts = 0
                if lot.report.decisions:  # none where every simulator failed at its first chunk
                    self._queue.append(lot)
                self.episodes += lot.report.finished
                self._window.add(lot.report)
                metrics.log_rollout(self.metrics, lot.report)
                self._watch(runner, lot.report)

    def _watch(self, runner: int, report: Report) -> None:
        """Quarantine what kills simulators wherever it is played."""
        new = [self.watchdog.quarantined[seen.task] for seen in report.outcomes if self.watchdog.saw(seen, runner)]
        for reason in new:
            print(f"{reason}; no runner plays it any more", flush=True)
        metrics.count(self.metrics, metrics.TASKS_QUARANTINED, len(new))

    def _runner_raised(self, runner: int, request: Request, error: RayTaskError) -> None:
        """Deal with what is not the program's fault; raise the rest."""
        if isinstance(error.cause, InputError):
            raise error.cause from None
        if isinstance(error.cause, NoTaskLeft) and error.cause.quarantined.keys() <= self.watchdog.quarantined.keys():
            raise error.cause from None
        if isinstance(error.cause, SimulatorFailure):  # its machine may be at fault: a fresh process may do better
            self._failed_starts += 1
            if self._failed_starts > STARTS_IN_A_ROW * self.config.num_env_runners:
                raise error.cause from None
            self._restart_runner(runner, str(error.cause))
        elif isinstance(error.cause, RayError):  # the weights were lost with the machine that held them
            reason = type(error.cause).__name__
            print(f"runner {runner} could not get its weights ({reason}): they are published again", flush=True)
            if request.start is not None:
                self._unstarted.add(runner)
            self.learner_group.version += 1
            self._publish(self.learner_group.weights())
        else:
            raise error

    def _restart_runner(self, runner: int, reason: str) -> None:
        ray.kill(self.env_runner_group._worker_manager.actors()[runner], no_restart=False)
        self._runner_lost(runner, reason)

    def _runner_lost(self, runner: int, reason: str) -> None:
        print(f"runner {runner} is lost ({reason}); its unfinished episodes with it", flush=True)
        self.env_runner_group._worker_manager.set_actor_state(runner, healthy=False)

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """RLlib calls this before every training step. Runners that are back get policy, weights and new seeds."""
        back = env_runner_group.probe_unhealthy_env_runners()
        for runner in back:
            self._incarnations[runner] = self._incarnations.get(runner, 0) + 1
            self._requests.pop(runner, None)
            self._unstarted.add(runner)
            metrics.count(self.metrics, metrics.RUNNER_RESTARTS)
        return back

    # Learning

    def _drop_old_fragments(self) -> None:
        oldest = max(self._oldest_valid, self.learner_group.version - self.config.max_lag)
        fresh = [lot for lot in self._queue if lot.report.version >= oldest]
        metrics.count(self.metrics, metrics.DROPPED, len(self._queue) - len(fresh))
        self._queue = fresh

    def _start_update(self) -> None:
        """Hand the oldest fragments to the learner as soon as it is idle and there are enough."""
        group = self.learner_group
        if group.pending:
            return
        decisions = 0
        for count, lot in enumerate(self._queue, start=1):
            decisions += lot.report.decisions
            if decisions >= self.config.update_decisions and count >= len(group):
                batch, self._queue = self._queue[:count], self._queue[count:]
                metrics.count(self.metrics, metrics.USED, count)
                self._update_begun = time.monotonic()
                group.update_async([(lot.fragments, lot.report.decisions) for lot in batch])
                return

    def _finish_update(self) -> None:
        outcome = self.learner_group.poll()
        if outcome is None:
            return
        self._learner_seconds += time.monotonic() - self._update_begun
        if outcome.restarted:
            metrics.count(self.metrics, metrics.LEARNER_RESTARTS)
        if outcome.weights is not None:
            self._publish(outcome.weights)
        if outcome.refusal is not None:
            self._refuse(outcome.refusal)
        if outcome.metrics is not None:
            self._refusals = 0
            share = self._learner_seconds / (time.monotonic() - self._begun)
            update = {**outcome.metrics, "version": outcome.version, "time_share": share}
            metrics.log_update(self.metrics, update, self._window)

    def _refuse(self, reason: str) -> None:
        self._refusals += 1
        metrics.count(self.metrics, metrics.REFUSED)
        print(f"update of version {self.learner_group.version} refused: {reason}; weights are unchanged", flush=True)
        if self._refusals >= self.config.max_refusals:
            raise RuntimeError(f"{self._refusals} updates in a row were refused, the last because {reason}")

    def _publish(self, weights: Any) -> None:
        self._weights.publish(self.learner_group.version, weights)

    # Checkpoints

    def get_state(self, components: Any = None, *, not_components: Any = None, **options: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **options)
        if self._check_component(STATE, components, not_components):
            state[STATE] = {"incarnations": dict(self._incarnations), "window": self._window.state()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if STATE in state:
            self._window.restore(state[STATE]["window"])
            # Whatever runs from here on is another incarnation: its episodes get other names and seeds.
            for runner, incarnation in state[STATE]["incarnations"].items():
                self._incarnations[runner] = max(self._incarnations.get(runner, 0), incarnation)

    def restore_from_path(self, path: Any, *args: Any, **options: Any) -> None:
        """Restore learner, version, metrics and iteration count. Fragments made before are dropped."""
        super().restore_from_path(path, *args, **options)
        self._queue, self._oldest_valid = [], self.learner_group.version
        for runner in self.env_runner_group._worker_manager.actor_ids():
            self._incarnations[runner] = self._incarnations.get(runner, 0) + 1
        self._publish(self.learner_group.weights())
