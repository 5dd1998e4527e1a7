"""Asynchronous PPO over latent trajectories (arXiv 2606.15099, section 3.3) as an RLlib Algorithm.

    every runner, all the time:   fragments <- decisions in E simulators, with the newest weights
    every training step:          queue <- what runners have delivered, less what is too old; two orders at each runner
                                  learner idle and enough in the queue -> start an update on all ranks
                                  update done -> version + 1, publish the weights

Rollouts never wait for the learner unless its queue is full, nor the learner for a particular runner. `max_lag` bounds
how old a fragment may be; for the rest the loss corrects. With `max_lag` 0 it is synchronous instead:

    round <- T decisions in every simulator of every runner; as many rounds as an update needs; update; publish
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.tune.execution.placement_groups import PlacementGroupFactory

from actors import metrics
from actors.async_ppo_config import AsyncPPOConfig
from actors.curriculum import Curriculum
from actors.demand import Demand
from actors.fragment_queue import FragmentQueue, Lot
from actors.known_runner import Stage
from actors.ledger import Ledger, incarnations
from actors.orders import Order
from actors.policy_servers import PolicyServers
from actors.rescue import rescued
from actors.runner_group import RunnerGroup
from actors.runner_pool import RunnerPool
from actors.watchdog import Watchdog
from actors.weights import WeightHandle, WeightStore
from avavla_ray.simulators.base import EpisodeSummary
from avavla_ray.timing import span

STATE = "async_ppo"


class AsyncPPO(Algorithm):
    """See the module's docstring. A Tune trainable with RLlib checkpoints.

    What is noticed when: the death of a process or a node by Ray (see runner_pool.py); a simulator that hangs by its
    runner (see simulators/isolated); a runner, a server or learner ranks that hang after `runner_timeout_s`,
    `server_timeout_s` and `learner_timeout_s`.

    Attributes:
        episodes: those of which the last iteration has heard, each exactly once.
        pool, queue, servers, curriculum: see their classes.
        check: called before every training step; what it raises ends the iteration where nothing is half done.
        watchdog: counts the deaths of all simulators, and quarantines for all runners what kills simulators on two of
            them, or on the only one. What a single one of several has died of is left out there alone, until that is
            started again. A resumed run gives quarantined tasks another chance.
    """

    @classmethod
    def get_default_config(cls) -> AsyncPPOConfig:
        return AsyncPPOConfig()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """RLlib's, for Tune, and the policy servers'."""
        own = cls.get_default_config().update_from_dict(config)
        bundles = super().default_resource_request(config).bundles
        if own.policy_placement == "server":
            server = {
                "CPU": own.num_cpus_per_server, "GPU": own.num_gpus_per_server, **own.custom_resources_per_server
            }  # fmt: skip
            bundles = [*bundles, *[server] * own.num_policy_servers]
        return PlacementGroupFactory(bundles, strategy=own.placement_strategy)

    def setup(self, config: AsyncPPOConfig) -> None:
        self.episodes: list[EpisodeSummary] = []
        self.check: Callable[[], None] = lambda: None
        # Two processes that resume the same checkpoint must not name their episodes alike.
        self._name = f"{config.run_name}-{uuid.uuid4().hex[:6]}"
        self._weights = WeightStore()
        self._window = metrics.RolloutWindow()
        self.watchdog = Watchdog(config.simulator.tasks, witnesses=min(2, config.num_env_runners))
        self.curriculum = Curriculum(config.curriculum_low, config.curriculum_high, config.curriculum_floor)
        self._ledger = Ledger(config.ledger) if config.ledger is not None else None
        self._demand = Demand(config.idle_release_s) if config.idle_release_s is not None and config.max_lag else None
        self._oldest_valid, self._refusals, self._learner_restarts, self._learner_seconds = 0, 0, 0, 0.0
        super().setup(config)  # the learners first, then servers: where there is little room, it is runners that wait
        self.servers = PolicyServers(config, self.learner_group.policy_config)
        self.env_runner_group = RunnerGroup(config, self.trial_id)
        self.queue = FragmentQueue(
            config.update_decisions, ranks=len(self.learner_group), max_lag=config.max_lag, limit=config.most_queued,
            behind=config.kept_decisions,
        )  # fmt: skip
        # Runners are started by the first training step, so that a checkpoint can be restored before.
        self.pool = RunnerPool(
            self.env_runner_group, self._start_runner, minimum=config.least_env_runners,
            timeout_s=config.runner_timeout_s, quarantined=self.watchdog.quarantined,
        )  # fmt: skip
        if config.ledger is not None:  # what a checkpoint does not know of, or where there is none
            self.pool.incarnations.update(incarnations(config.ledger))
        self._learning: list[Lot] = []  # what the running update learns from
        self._begun = self._update_begun = time.monotonic()
        self._publish(self.learner_group.weights())

    def step(self) -> dict[str, Any]:
        self.episodes = []
        return super().step()

    def training_step(self) -> None:
        self.check()
        with span("ordering"):
            self._order()
        with span("waiting"):
            self._wait()
        with span("taking deliveries"):
            self.take_deliveries()
        with span("learner"):
            self._start_update()
            self._finish_update()

    def start_runners(self) -> None:
        """Wait until as many play as the run begins with: who times training starts the clock then."""
        while self.pool.count(Stage.PLAYING) < self.config.least_env_runners:
            self.check()
            self._wait()
            self.take_deliveries()
        self._begun = time.monotonic()

    def settle(self) -> None:
        """Wait for what has been ordered and for the update that is under way; nothing new is begun."""
        while self.pool.busy or self.learner_group.busy:
            self._wait()
            self.take_deliveries()
            self._finish_update()

    @property
    def weights(self) -> WeightHandle:
        """The newest published weights."""
        return self._weights.newest

    @property
    def simulator_provenance(self) -> dict[str, Any]:
        """What the simulators say of themselves, once the first runner has started."""
        return self.pool.provenance

    # Rollouts

    def _start_runner(self, actor: Any, seat: int, incarnation: int) -> Any:
        group = self.learner_group
        return actor.start.remote(
            group.policy_config, group.statistics, self._weights.newest, name=self._name, incarnation=incarnation,
            quarantined=self.watchdog.quarantined, servers=self.servers.handles,
        )  # fmt: skip

    def _order(self) -> None:
        """Keep every runner busy, unless the learner is so far behind that fragments would only grow old."""
        if self.config.max_lag:
            due = not self.queue.full and not self.pool.weights_lost
            self._adapt(idle=self.pool.idle if not due else 0)
            if not due:
                self.pool.hold()
        else:  # nothing is played while the learner learns
            due = not self.queue.enough and not self.learner_group.busy
        if due:
            weights = self.curriculum.weights() if self.config.curriculum else {}
            decisions, lockstep = self.config.get_rollout_fragment_length(), self.config.max_lag == 0
            quarantined = self.watchdog.quarantined
            self.pool.give(Order(self._weights.newest, decisions, quarantined, weights, lockstep=lockstep))

    def _adapt(self, idle: int) -> None:
        """Let a runner go that had nothing to do, or ask for one more, within bounds."""
        if self._demand is None:
            return
        starved = not self.learner_group.busy and not self.queue.enough
        change = self._demand.change(time.monotonic(), idle=idle, starved=starved)
        if change < 0 and (seat := self.pool.let_go()) is not None:
            metrics.count(self.metrics, metrics.RELEASED)
            print(f"runner {seat} is let go: the learner can't keep up with all of them", flush=True)
        elif change > 0 and (seat := self.pool.ask()) is not None:
            metrics.count(self.metrics, metrics.ASKED_FOR)
            print(f"runner {seat} is asked for: the learner waits for fragments", flush=True)

    def _wait(self) -> None:
        """Until something happens: a delivery, a runner that comes, or the end of an update."""
        pending = self.learner_group.pending
        done, open_ = ray.wait(pending, num_returns=len(pending), timeout=0) if pending else ([], [])
        if done and not open_:
            return  # the update has ended
        references = self.pool.references + open_
        if references:
            ray.wait(references, num_returns=1, timeout=1.0, fetch_local=False)
        else:
            time.sleep(0.1)  # every runner is on its way

    def take_deliveries(self) -> None:
        """What has arrived goes into queue, counters and ledger; at the end of a run nothing else asks for the last."""
        lots = self.pool.advance()
        if self._ledger is not None:
            self._ledger.append((lot.runner, lot.report) for lot in lots)
        for lot in lots:
            self._take(lot)
        if leaving := self.pool.leaving:
            self._rescue(leaving)
        if self.pool.weights_lost and not self.learner_group.reviving:  # which ends with weights, too
            weights = self.learner_group.weights()
            self.learner_group.version += 1
            self._publish(weights)

    def _take(self, lot: Lot) -> None:
        self.queue.put(lot)
        self.episodes += lot.report.finished
        self.curriculum.saw(lot.report.finished)
        self._window.add(lot.report)
        metrics.log_rollout(self.metrics, lot.report)
        self._watch(lot)

    def _rescue(self, leaving: set[str]) -> None:
        """Copy what still lies on machines that are about to go, and then tell them that they may."""
        here = ray.get_runtime_context().get_node_id()
        for node in rescued(leaving, [*self.queue.lots, *(self._learning if self.learner_group.busy else ())]):
            self.queue.moved(node, to=here)
            self.pool.thank(node)

    def _watch(self, lot: Lot) -> None:
        """Quarantine what kills simulators wherever it is played."""
        self.watchdog.among(self.env_runner_group.seats)
        new = [seen.task for seen in lot.report.outcomes if self.watchdog.saw(seen, lot.runner, lot.node)]
        for task in new:
            print(f"{self.watchdog.quarantined[task]}; no runner plays it any more", flush=True)
        metrics.count(self.metrics, metrics.TASKS_QUARANTINED, len(new))

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """RLlib calls this before every training step. The pool has seen to those that came back; here they count."""
        back, self.pool.returned = self.pool.returned, []
        metrics.count(self.metrics, metrics.RUNNER_RESTARTS, len(back))
        metrics.count(self.metrics, metrics.SERVER_RESTARTS, self.servers.restarts())
        metrics.log_timings(self.metrics, self.servers.timings)
        self.servers.timings.clear()
        return back

    # Learning

    def _start_update(self) -> None:
        """Hand the oldest fragments to the learner as soon as it is idle and there are enough."""
        group = self.learner_group
        self._count_dropped(self.queue.drop_old(group.version, self._oldest_valid))
        synchronous = self.config.max_lag == 0
        if group.busy or (synchronous and self.pool.busy) or not (lots := self.queue.take(group.version)):
            return
        self._learning = lots
        self._update_begun = time.monotonic()
        group.update_async([(lot.fragments, lot.report.decisions) for lot in lots])

    def _finish_update(self) -> None:
        outcome = self.learner_group.poll()
        if outcome is None:
            return
        self._learner_seconds += time.monotonic() - self._update_begun
        if outcome.weights is not None:
            self._publish(outcome.weights)
        if outcome.refusal is not None:
            self._refuse(outcome.refusal)
        if outcome.metrics is None:  # refused, or its ranks were lost: they have taught nothing
            self._count_dropped(self._learning)
        else:
            self._refusals = 0
            metrics.count(self.metrics, metrics.USED, len(self._learning))
            metrics.log_lag(self.metrics, self.queue.lags())
            share = self._learner_seconds / (time.monotonic() - self._begun)
            update = {**outcome.metrics, "version": outcome.version, "time_share": share}
            metrics.log_update(self.metrics, update, self._window)
            metrics.log_queue(self.metrics, self.queue.decisions)

    def _count_dropped(self, lots: list[Lot]) -> None:
        metrics.count(self.metrics, metrics.DROPPED, len(lots))
        metrics.count(self.metrics, metrics.DECISIONS_DROPPED, sum(lot.report.decisions for lot in lots))

    def _refuse(self, reason: str) -> None:
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        self._count_dropped(self.queue.drop_lost(nodes))
        self._refusals += {lot.node for lot in self._learning} <= nodes  # else it learned from what is gone with a node
        metrics.count(self.metrics, metrics.REFUSED)
        print(f"update of version {self.learner_group.version} refused: {reason}; weights are unchanged", flush=True)
        if self._refusals >= self.config.max_refusals:
            raise RuntimeError(f"{self._refusals} updates in a row were refused, the last because {reason}")

    def _publish(self, weights: Any) -> None:
        self._weights.publish(self.learner_group.version, weights)
        self.pool.weights_lost = False
        before, self._learner_restarts = self._learner_restarts, self.learner_group.restarts
        metrics.count(self.metrics, metrics.LEARNER_RESTARTS, self._learner_restarts - before)

    # Checkpoints

    def get_state(self, components: Any = None, *, not_components: Any = None, **options: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **options)
        if self._check_component(STATE, components, not_components):
            state[STATE] = {
                "incarnations": dict(self.pool.incarnations), "window": self._window.state(),
                "curriculum": self.curriculum.state(),
            }  # fmt: skip
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if STATE in state:
            self._window.restore(state[STATE]["window"])
            self.curriculum.restore(state[STATE]["curriculum"])
            # Whatever starts from here on is another incarnation: its episodes get other names and seeds.
            for seat, incarnation in state[STATE]["incarnations"].items():
                self.pool.incarnations[seat] = max(self.pool.incarnations.get(seat, -1), incarnation)

    def restore_from_path(self, path: Any, *args: Any, **options: Any) -> None:
        """Restore learner, version, metrics and iteration count. Fragments made before are dropped."""
        super().restore_from_path(path, *args, **options)
        self.queue.clear()
        self._oldest_valid = self.learner_group.version
        self._publish(self.learner_group.weights())

    def cleanup(self) -> None:
        super().cleanup()
        self.servers.stop()
