"""Playing several simulators in lockstep with one copy of the policy, and cutting what happens into fragments.

Plain Python without Ray: `actors/env_runner.py` puts it on a cluster. Letters: E simulators, T decisions a fragment,
K latent steps, Z latent width.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from actors.report import Report
from actors.watchdog import Outcome, TaskDealer, Watchdog
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.types import Belief, DecisionBatch, stack_beliefs
from avavla_ray.simulators.base import (
    ChunkResult,
    EpisodeSummary,
    Observation,
    Simulator,
    SimulatorConfig,
    SimulatorFailure,
)
from avavla_ray.simulators.isolated.side_by_side import begin_chunk, begin_reset, finish_chunk, finish_reset
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator

STARTS_IN_A_ROW = 9
_ARRAYS = tuple(f.name for f in fields(Fragment) if f.name not in ("seen", "episode_ids", "finished"))
_OF_TRACE = ("z", "u", "log_prob", "entropy", "exit_score", "exit_log_prob", "steps")


@dataclass
class _Slot:
    """One simulator and the episode in it; `rows` are the decisions of the fragment that is being built."""

    simulator: Simulator
    tasks: TaskDealer
    observation: Observation
    belief: Belief
    episode_id: str = ""
    task: int = 0
    seed: int = 0
    steps: int = 0
    decisions: int = 0
    latent_steps: int = 0
    task_return: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    finished: list[EpisodeSummary] = field(default_factory=list)


class Rollout:
    """E simulators that an agent plays with sampled latent updates and early exit.

    Args:
        make_simulator: called once per simulator, and again after a failure of one that is not isolated.
        first_slot, slots: position of these simulators among those of all runners.
        seed: anything that numpy's SeedSequence takes; decides starts and latent noise.
        name: prefix of episode ids; unique per run, runner and incarnation.
        exit_threshold: of the gate; None takes the policy's own.
        quarantined: tasks to leave out from the start, and why.

    Raises:
        NoTaskLeft: every task kills its simulator.
        SimulatorFailure: simulators die whatever they are to play.
    """

    def __init__(
        self,
        agent: Agent,
        make_simulator: Callable[[SimulatorConfig], Simulator],
        config: SimulatorConfig,
        *,
        simulators: int = 1,
        first_slot: int = 0,
        slots: int = 1,
        seed: Sequence[int] = (0,),
        name: str = "rollout",
        exit_threshold: float | None = None,
        quarantined: Mapping[int, str] | None = None,
    ) -> None:
        self.agent, self._make, self._config, self._name = agent, make_simulator, config, name
        self._exit_threshold = exit_threshold
        self._random = np.random.default_rng(list(seed))
        self._noise = torch.Generator().manual_seed(int(self._random.integers(2**62)))
        self._episodes = 0
        self._report = Report(-1)
        self._fragments: list[Fragment] = []
        self._outcomes: list[Outcome] = []  # since the last report
        self._failure: SimulatorFailure | None = None
        self._slots: list[_Slot] = []
        try:
            for index in range(simulators):
                simulator = make_simulator(config)
                tasks = config.tasks or tuple(range(len(simulator.spec.instructions)))
                dealer = TaskDealer(tasks, first_slot + index, max(slots, simulators))
                blank = Observation(np.zeros(0), np.zeros(0), "")
                self._slots.append(_Slot(simulator, dealer, blank, agent.policy.initial_belief(1)))
            self.watchdog = Watchdog(tasks)
            self.watchdog.adopt(quarantined or {})
            self._begin(self._slots)
        except BaseException:
            self.close()
            raise

    def collect(self, decisions: int, version: int) -> tuple[list[Fragment], Report]:
        """Take `decisions` decisions in every simulator with the agent's present weights, called `version`.

        Returns:
            A fragment per simulator (one more for every simulator that failed in between), each unbroken in time,
            with the start latent of what followed each decision; and the report. Where no further episode can begin,
            what happened until then: the report names the failure.

        Raises:
            NoTaskLeft: the last task that was left has been quarantined; so the report before this call said.
            SimulatorFailure: simulators die whatever they are to play; likewise.
        """
        if self._failure is not None:
            raise self._failure
        start = time.perf_counter()
        self._report, self._fragments = Report(version), []
        try:
            for _ in range(decisions):
                self._tick(version)
        except SimulatorFailure as failure:
            # Raised at the next call, so that what has been played and learned of the tasks is delivered first.
            self._failure, self._report.failure = failure, str(failure)
        self._bootstrap([slot for slot in self._slots if slot.rows and "next_z" not in slot.rows[-1]])
        for slot in self._slots:
            self._cut(slot)
        self._report.seconds = time.perf_counter() - start
        self._report.outcomes, self._outcomes = self._outcomes, []
        self._report.quarantined = dict(self.watchdog.quarantined)
        return self._fragments, self._report

    @property
    def simulators(self) -> list[Simulator]:
        return [slot.simulator for slot in self._slots]

    def provenance(self) -> dict[str, Any]:
        """What the simulators say of themselves."""
        return {"isolated": False, **self._slots[0].simulator.provenance()}

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all of them, even if one raises
            for slot in self._slots:
                stack.callback(slot.simulator.close)

    def _tick(self, version: int) -> None:
        """One decision in every simulator."""
        decision, actions, milliseconds = self.agent.decide(
            [slot.observation for slot in self._slots],
            stack_beliefs([slot.belief for slot in self._slots]),
            exit_threshold=self._exit_threshold,
            draws=self.agent.policy.draws(len(self._slots), self._noise),
        )
        self._report.policy_seconds += milliseconds / 1e3
        for index, slot in enumerate(self._slots):
            if slot.rows and "next_z" not in slot.rows[-1]:
                slot.rows[-1]["next_z"] = decision.trace.z[index, 0].numpy()
        truncated, over = [], []
        for index, (slot, result) in enumerate(zip(self._slots, self._run(actions), strict=True)):
            if isinstance(result, SimulatorFailure):
                self._cut(slot)  # the episode is lost; what came before this chunk stays
                self._replace(slot, result, aborted=True)
                over.append(slot)
                continue
            self._record(slot, index, decision, result, version)
            if result.done:
                self._finish(slot, result)
                over.append(slot)
            if result.truncated:
                truncated.append(slot)
        # A time limit is no failure of the policy: the value of what it was cut off from is bootstrapped, so the last
        # observation is encoded before the next episode begins.
        self._bootstrap(truncated)
        self._begin(over)

    def _run(self, actions: np.ndarray) -> list[ChunkResult | SimulatorFailure]:
        """Execute (E, C, A) actions, a chunk in every simulator."""
        start = time.perf_counter()
        results: list[ChunkResult | SimulatorFailure] = []
        for slot, chunk in zip(self._slots, actions, strict=True):
            begin_chunk(slot.simulator, chunk)
        for slot, chunk in zip(self._slots, actions, strict=True):
            try:
                results.append(finish_chunk(slot.simulator, chunk))
            except SimulatorFailure as failure:
                results.append(failure)
        self._report.simulator_seconds += time.perf_counter() - start
        return results

    def _record(self, slot: _Slot, index: int, decision: DecisionBatch, result: ChunkResult, version: int) -> None:
        row: dict[str, Any] = {name: getattr(decision.trace, name)[index].numpy() for name in _OF_TRACE}
        row["encoding"] = decision.context.encoding[index].numpy()
        row["tokens"] = decision.context.tokens[index].numpy()
        row["reward"], row["duration"] = result.reward, result.duration
        row["terminated"], row["truncated"] = result.success, result.truncated
        row["version"], row["task"], row["episode"], row["group"] = version, slot.task, slot.episode_id, -1
        if result.success:
            row["next_z"] = np.zeros_like(row["z"][0])
        slot.rows.append(row)
        slot.observation = result.observation
        slot.belief = Belief(*(part[index : index + 1] for part in decision.belief))
        taken = int(decision.trace.steps[index])
        slot.steps += result.duration
        slot.decisions += 1
        slot.latent_steps += taken
        slot.task_return += result.reward
        self._report.decisions += 1
        self._report.env_steps += result.duration
        self._report.latent_steps += taken

    def _bootstrap(self, slots: list[_Slot]) -> None:
        """Fill `next_z` of these slots' last rows with the start latent of the observation that they now hold."""
        if not slots:
            return
        inputs = self.agent.inputs([slot.observation for slot in slots])
        _, z0 = self.agent.policy.initial_latent(inputs, stack_beliefs([slot.belief for slot in slots]))
        for slot, latent in zip(slots, z0.numpy(), strict=True):
            slot.rows[-1]["next_z"] = latent

    def _finish(self, slot: _Slot, result: ChunkResult) -> None:
        summary = EpisodeSummary(
            episode_id=slot.episode_id, task=slot.task, initial_state=None, seed=slot.seed, success=result.success,
            steps=slot.steps, decisions=slot.decisions, latent_steps=slot.latent_steps / slot.decisions,
        )  # fmt: skip
        slot.finished.append(summary)
        self._report.finished.append(summary)
        self._note(Outcome(slot.task))
        self._report.returns.append(slot.task_return)

    def _begin(self, slots: list[_Slot]) -> None:
        """Start the slots' next episodes: drawn starts, never one of the benchmark's fixed initial states."""
        start = time.perf_counter()
        for attempt in range(STARTS_IN_A_ROW):
            failed: list[tuple[_Slot, SimulatorFailure]] = []
            for slot in slots:
                self._deal(slot)
                begin_reset(slot.simulator, slot.task, slot.seed)
            for slot in slots:
                try:
                    slot.observation = finish_reset(slot.simulator, slot.task, slot.seed)
                except SimulatorFailure as failure:
                    failed.append((slot, failure))
            for slot, reason in failed:
                self._replace(slot, reason, aborted=False)
            if failed and attempt == STARTS_IN_A_ROW - 1:
                raise failed[0][1]
            slots = [slot for slot, _ in failed]
        self._report.simulator_seconds += time.perf_counter() - start

    def _deal(self, slot: _Slot) -> None:
        slot.task = slot.tasks.deal(self.watchdog.playable())
        slot.seed = int(self._random.integers(2**31))
        slot.episode_id = f"{self._name}-{self._episodes}"
        self._episodes += 1
        slot.steps = slot.decisions = slot.latent_steps = 0
        slot.task_return = 0.0
        slot.belief = self.agent.policy.initial_belief(1)

    def _note(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if self.watchdog.saw(outcome):
            print(f"{self._name}: {self.watchdog.quarantined[outcome.task]}; it is left out here", flush=True)

    def _replace(self, slot: _Slot, failure: SimulatorFailure, *, aborted: bool) -> None:
        print(f"{slot.episode_id}, task {slot.task}: {failure.kind}: {failure}; the simulator is replaced", flush=True)
        self._note(Outcome(slot.task, failure.kind, str(failure), aborted))
        if not isinstance(slot.simulator, IsolatedSimulator):  # that one starts another process by itself
            slot.simulator.close()
            slot.simulator = self._make(self._config)

    def _cut(self, slot: _Slot) -> None:
        """Turn the slot's rows into a fragment."""
        if not slot.rows:
            return
        names = list(dict.fromkeys(row["episode"] for row in slot.rows))
        for row in slot.rows:
            row["episode"] = names.index(row["episode"])
        kinds = {"reward": np.float32, "duration": np.int64, "version": np.int64, "task": np.int64}
        arrays = {
            name: np.stack([np.asarray(row[name], dtype=kinds.get(name)) for row in slot.rows]) for name in _ARRAYS
        }
        self._fragments.append(Fragment(**arrays, episode_ids=names, finished=slot.finished))
        slot.rows, slot.finished = [], []
