"""Playing several simulators so that none of them waits, and cutting what happens into fragments.

The simulators are shared out over buffers. While those of one buffer step in their processes, the policy decides for
another, and they go on stepping between orders:

    chunks of a buffer executed -> rows, next episodes begun -> question to the policy
    its answer -> next chunks begun -> fragments that are complete

What a simulator is to play and the noise of its decisions are its own, so that neither depends on which buffer was
faster. Plain Python without Ray: `actors/env_runner.py` puts it on a cluster. Letters: E simulators, T decisions a
fragment, K latent steps, Z latent width.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from actors.dealing import WeightedDealer
from actors.groups import EpisodeGroups, Group
from actors.orders import Order
from actors.placement import Placement, PolicyServerLost
from actors.report import Report
from actors.rows import Rows
from actors.slots import CHUNK, RESET, Buffer, Closing, Episode, Slot, make_question, to_keep
from actors.watchdog import Outcome, Watchdog
from avavla_ray.learning.fragment import Fragment
from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.side_by_side import begin_chunk, begin_reset, finish_chunk, finish_reset, wait_for
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.timing import span, take_seconds

STARTS_IN_A_ROW = 9
PATIENCE_S = 10.0  # after which what a buffer waits for is looked after, which ends it when it has hung


class Rollout:
    """E simulators that a policy plays with sampled latent updates and early exit.

    Args:
        placement: what decides.
        make_simulator: called once per simulator, and again after a failure of one that is not isolated.
        buffers: so many parts of the simulators, at most one each, are decided for in turn.
        first_slot, slots: position of these simulators among those of all runners.
        seed: anything that numpy's SeedSequence takes; decides starts and noise.
        name: prefix of episode ids; unique per run, runner and incarnation.
        quarantined: tasks to leave out from the start, and why.
        group_size: more than 1: so many episodes from every start, see `EpisodeGroups`.
        train_actions: draw the chunks, and keep what replaying whole decisions needs. draw_exits: draw the exits.
        notice: says why this machine is about to be taken away, once it is.

    Raises:
        NoTaskLeft: every task kills its simulator.
        SimulatorFailure: simulators die whatever they are to play.
    """

    def __init__(
        self,
        placement: Placement,
        make_simulator: Callable[[SimulatorConfig], Simulator],
        config: SimulatorConfig,
        *,
        simulators: int = 1,
        buffers: int = 2,
        first_slot: int = 0,
        slots: int = 1,
        seed: Sequence[int] = (0,),
        name: str = "rollout",
        quarantined: Mapping[int, str] | None = None,
        group_size: int = 0,
        train_actions: bool = False,
        draw_exits: bool = False,
        notice: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.placement, self._make, self._config, self._name = placement, make_simulator, config, name
        self._train_actions, self._draw_exits, self._notice = train_actions, draw_exits, notice
        self._order: Order | None = None
        self._report, self._complete = Report(-1), list[Fragment]()
        self._failure: SimulatorFailure | None = None
        self._left: str | None = None
        self._draining = False
        self._idle_since: float | None = None
        self._buffers: list[Buffer] = []
        self._slots: list[Slot] = []
        policy = placement.translation.config
        self._no_belief = (
            np.zeros((policy.action_tokens, policy.backbone.width), np.float32),
            np.zeros(policy.latent.width, np.float32),
        )
        try:
            for index in range(simulators):
                simulator = make_simulator(config)
                tasks = config.tasks or tuple(range(len(simulator.spec.instructions)))
                dealer = WeightedDealer(tasks, first_slot + index, max(slots, simulators))
                starts, noise = (np.random.default_rng([*seed, index, purpose]) for purpose in (0, 1))
                self._slots.append(Slot(simulator, dealer, starts, noise, Rows(1), *self._no_belief, f"{name}-{index}"))
            self._buffers = [Buffer(self._slots[at::buffers]) for at in range(min(buffers, simulators))]
            self.watchdog = Watchdog(tasks)
            self.watchdog.adopt(quarantined or {})
            self._groups: EpisodeGroups | None = None
            if group_size > 1:  # a runner deals to its groups as if it were one simulator
                self._group_dealer = WeightedDealer(tasks, first_slot // simulators, max(1, slots // simulators))
                self._group_starts = np.random.default_rng([*seed, simulators, 2])
                self._groups = EpisodeGroups(group_size, self._group_start)
            for slot in self._slots:
                self._begin(slot)
            while any(slot.flying for slot in self._slots):
                for buffer in self._buffers:
                    self._land(buffer)
        except BaseException:
            self.close()
            raise

    def deliver(self, order: Order) -> tuple[list[Fragment], Report]:
        """Play on until something is complete, or what the order says; see `Order` and `Report`.

        Returns:
            Fragments, each of one simulator and unbroken in time, or of a group; a fragment ends with its episode, or
            with T decisions; with `lockstep` only with its T decisions or the failure of its simulator. Their list is
            empty where an episode of a group has ended and its group has not, or where nothing more can be played.

        Raises:
            NoTaskLeft: the last task that was left has been quarantined; so the report before this call said.
            SimulatorFailure: simulators die whatever they are to play, or no policy server answers; likewise.
            RayError: the weights are lost. Nothing else is: order again with others.
        """
        if self._failure is not None:
            raise self._failure
        begun = time.perf_counter()
        if self._idle_since is not None:
            self._report.idle_seconds += begun - self._idle_since
        self._order = order
        try:
            if self._left is None:
                with span("weights"):
                    self.placement.use(order.handle)
                self._report.weights_seconds += time.perf_counter() - begun
                self.watchdog.adopt(order.quarantined)
                self._play(order)
        except SimulatorFailure as failure:
            # Raised at the next call, so that what has been played and learned of the tasks is delivered first.
            self._failure, self._report.failure = failure, str(failure)
            self._drain()
        finally:
            self._idle_since = time.perf_counter()
            self._report.seconds += self._idle_since - begun
        return self._hand_over(order)

    @property
    def simulators(self) -> list[Simulator]:
        return [slot.simulator for slot in self._slots]

    def provenance(self) -> dict[str, Any]:
        """What the simulators say of themselves."""
        return {"isolated": False, **self._slots[0].simulator.provenance()}

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all of them, even if one raises
            stack.callback(self.placement.close)
            for slot in self._slots:
                stack.callback(slot.simulator.close)

    # Orders

    def _play(self, order: Order) -> None:
        if order.lockstep:
            for slot in self._slots:
                slot.asked = 0
                if slot.episode is None:
                    self._begin(slot)
        while order.lockstep or not (self._complete or (self._groups is not None and self._report.finished)):
            if (reason := self._notice()) is not None:
                self._left = reason
                self._drain()
                return
            buffer = self._next(order)
            if buffer is None:
                break
            self._advance(buffer)
        if order.lockstep:
            self._cut()

    def _next(self, order: Order) -> Buffer | None:
        """The buffer to look after: in turn, unless another one is ready first; None when a lockstep order is done."""
        if order.lockstep:
            open_ = [buffer for buffer in self._buffers if self._unfinished(buffer)]
            buffer = open_[0] if open_ else None
        else:
            buffer = self._first_ready()
        if buffer is not None:
            self._buffers.remove(buffer)
            self._buffers.append(buffer)
        return buffer

    def _unfinished(self, buffer: Buffer) -> bool:
        if buffer.ticket is not None:
            return True
        return any(slot.flying == CHUNK or (slot.episode and self._wanted(slot)) for slot in buffer.slots)

    def _wanted(self, slot: Slot) -> bool:
        """Whether the order asks for another decision in this simulator."""
        order = self._order
        return order is None or not order.lockstep or self._groups is not None or slot.asked < order.decisions

    def _first_ready(self) -> Buffer:
        begun = time.perf_counter()
        waiting = {id(slot.simulator) for buffer in self._buffers for slot in buffer.flying}
        with span("waiting"):
            while True:
                for buffer in self._buffers:
                    if buffer.ticket is None:
                        ready = not any(id(slot.simulator) in waiting for slot in buffer.flying)
                    else:
                        ready = buffer.ticket.done
                    if ready or time.monotonic() - buffer.since > PATIENCE_S:
                        waited = time.perf_counter() - begun
                        if buffer.ticket is None:
                            self._report.simulator_seconds += waited
                        else:
                            self._report.policy_seconds += waited
                        return buffer
                simulators = [slot.simulator for slot in self._slots if id(slot.simulator) in waiting]
                waiting -= wait_for(simulators, self.placement.woken, 1.0)
                self.placement.heard()

    def _advance(self, buffer: Buffer) -> None:
        if buffer.ticket is None:
            self._land(buffer)
            self._ask(buffer)
            if buffer.ticket is None or not buffer.ticket.done:
                return
        self._act(buffer)

    def _drain(self) -> None:
        """Finish the chunks that are flying, begin nothing, and cut everything."""
        self._draining = True
        for buffer in self._buffers:
            if buffer.ticket is not None and not isinstance(self._failure, PolicyServerLost):
                self._act(buffer)
            self._land(buffer)
        self._cut()

    def _cut(self) -> None:
        """Make fragments of all rows, whose last ones are followed by what is seen now."""
        for buffer in self._buffers:
            for slot in buffer.slots:
                if slot.rows.loose and slot.observation is not None:
                    buffer.closings.append(Closing.of(slot, slot.observation, whole=False))
            if isinstance(self._failure, PolicyServerLost):
                for closing in buffer.closings:
                    closing.rows.discard()
                continue
            self._ask(buffer, decide=False)
            if buffer.ticket is not None:
                self._act(buffer)
        if self._groups is None:
            for slot in self._slots:
                self._finish_rows(slot)
        elif self._draining:
            self._groups.give_up()

    def _hand_over(self, order: Order) -> tuple[list[Fragment], Report]:
        report, fragments = self._report, self._complete
        if self._groups is not None:
            fragments += self._groups.complete()
            report.groups_dropped, self._groups.dropped = self._groups.dropped, 0
        self._report, self._complete = Report(-1), []
        report.version = min((fragment.oldest_version for fragment in fragments), default=order.handle.version)
        report.decisions = sum(map(len, fragments))
        report.env_steps = sum(int(fragment.duration.sum()) for fragment in fragments)
        report.latent_steps = sum(int(fragment.steps.sum()) for fragment in fragments)
        report.quarantined, report.leaving = dict(self.watchdog.quarantined), self._left
        report.pids = [s.pid for s in self.simulators if isinstance(s, IsolatedSimulator) and s.pid is not None]
        report.timings = take_seconds("runner")
        for simulator in self.simulators:
            if isinstance(simulator, IsolatedSimulator):
                for path, spent in simulator.take_timings().items():
                    report.timings[path] = report.timings.get(path, 0.0) + spent
        return fragments, report

    # Simulators

    def _land(self, buffer: Buffer) -> None:
        """What came of the chunks and resets that are flying; the next episodes begin."""
        begun = time.perf_counter()
        with span("simulators"):
            for slot in buffer.flying:
                if self._draining and slot.flying == RESET:
                    continue
                kind, slot.flying = slot.flying, None
                outcome = self._outcome(slot, kind)
                if isinstance(outcome, SimulatorFailure):
                    self._lost(slot, outcome, aborted=kind == CHUNK)
                elif isinstance(outcome, ChunkResult):
                    self._executed(slot, buffer, outcome)
                else:
                    slot.observation, slot.failed_starts = outcome, 0
        self._report.simulator_seconds += time.perf_counter() - begun

    @staticmethod
    def _outcome(slot: Slot, kind: str | None) -> ChunkResult | Observation | SimulatorFailure:
        try:
            if kind == CHUNK:
                assert slot.actions is not None
                return finish_chunk(slot.simulator, slot.actions)
            return finish_reset(slot.simulator, slot.playing.task, slot.playing.seed)
        except SimulatorFailure as failure:
            return failure

    def _executed(self, slot: Slot, buffer: Buffer, result: ChunkResult) -> None:
        episode = slot.playing
        slot.rows.end(result)
        episode.steps += result.duration
        episode.decisions += 1
        episode.latent_steps += slot.latent_steps
        episode.task_return += result.reward
        if not result.done:
            slot.observation = result.observation
            return
        summary = episode.summary(result.success)
        slot.rows.finish(summary)
        self._report.finished.append(summary)
        self._report.returns.append(episode.task_return)
        self._note(Outcome(episode.task))
        if result.truncated:
            # A time limit is no failure of the policy: the value of what it was cut off from is bootstrapped.
            whole = self._groups is not None or not self._lockstep
            buffer.closings.append(Closing.of(slot, result.observation, whole=whole))
            if whole:
                slot.rows = self._new_rows()
        elif self._groups is not None or not self._lockstep:
            self._finish_rows(slot)
        self._begin(slot)

    def _lost(self, slot: Slot, failure: SimulatorFailure, *, aborted: bool) -> None:
        """The simulator broke; what it did before this chunk stays."""
        episode, slot.episode, slot.observation = slot.playing, None, None
        print(f"{episode.name}, task {episode.task}: {failure.kind}: {failure}; the simulator is replaced", flush=True)
        self._note(Outcome(episode.task, failure.kind, str(failure), aborted))
        if self._groups is not None and episode.group is not None:
            slot.rows = self._new_rows()
            self._groups.ended(episode.group, None)
        elif aborted:
            self._finish_rows(slot)
        if self._draining:
            return
        if not isinstance(slot.simulator, IsolatedSimulator):  # that one starts another process by itself
            slot.simulator.close()
            slot.simulator = self._make(self._config)
        slot.failed_starts += not aborted
        if slot.failed_starts >= STARTS_IN_A_ROW:
            raise failure
        self._begin(slot)

    def _begin(self, slot: Slot) -> None:
        """Start the slot's next episode: a drawn start, never one of the benchmark's fixed initial states."""
        slot.episode = slot.observation = None
        if self._draining:
            return
        group = None
        if self._groups is None:
            task = slot.dealer.deal(self.watchdog.playable(), self._weights)
            seed = int(slot.starts.integers(2**31))
        else:
            if self._lockstep and not self._groups.begun and self._asked_enough():
                return
            playable = self.watchdog.playable()
            group = self._groups.join(lambda task: task in playable)
            task, seed = group.task, group.seed
        slot.episode = Episode(f"{slot.name}-{slot.begun}", task, seed, group)
        slot.begun += 1
        slot.hidden, slot.history = self._no_belief
        begin_reset(slot.simulator, task, seed)
        slot.flying = RESET

    def _group_start(self) -> tuple[int, int]:
        task = self._group_dealer.deal(self.watchdog.playable(), self._weights)
        return task, int(self._group_starts.integers(2**31))

    def _asked_enough(self) -> bool:
        assert self._order is not None
        return sum(slot.asked for slot in self._slots) >= self._order.decisions * len(self._slots)

    def _note(self, outcome: Outcome) -> None:
        self._report.outcomes.append(outcome)
        if self.watchdog.saw(outcome):
            print(f"{self._name}: {self.watchdog.quarantined[outcome.task]}; it is left out here", flush=True)

    @property
    def _lockstep(self) -> bool:
        return self._order is not None and self._order.lockstep

    @property
    def _weights(self) -> Mapping[int, float]:
        return {} if self._order is None else self._order.task_weights

    # The policy

    def _ask(self, buffer: Buffer, *, decide: bool = True) -> None:
        """Ask what to do in the buffer's simulators, and what its closings wait for."""
        slots = [s for s in buffer.slots if s.observation is not None and self._wanted(s)] if decide else []
        buffer.since = time.monotonic()
        if not slots and not buffer.closings:
            return
        begun = time.perf_counter()
        with span("policy"):
            buffer.asked = slots
            buffer.question = make_question(
                slots, buffer.closings, self.placement.translation,
                actions=self._train_actions, exits=self._draw_exits,
            )  # fmt: skip
            buffer.ticket = self.placement.ask(buffer.question)
        self._report.policy_seconds += time.perf_counter() - begun

    def _act(self, buffer: Buffer) -> None:
        """Do what the policy says; what it was asked about is recorded while the simulators step."""
        ticket, question, begun = buffer.ticket, buffer.question, time.perf_counter()
        assert ticket is not None
        assert question is not None
        with span("policy"):
            answer = ticket.result()
        self._report.policy_seconds += time.perf_counter() - begun
        closings, buffer.closings, buffer.ticket = buffer.closings, [], None
        if buffer.asked and not self._draining:
            actions = self.placement.translation.actions(answer.rows["chunk"])
            for slot, chunk in zip(buffer.asked, actions, strict=True):
                begin_chunk(slot.simulator, chunk)
                slot.flying, slot.actions = CHUNK, chunk
            buffer.since = time.monotonic()
        with span("recording"):
            for closing, z0 in zip(closings, answer.z0, strict=True):
                closing.rows.follow(z0, closing.position)
                if closing.whole:
                    self._whole(closing.rows, closing.group)
            if not buffer.asked:
                return
            kept = to_keep(question, answer, seen=self._train_actions)
            for index, slot in enumerate(buffer.asked):
                self._decided(slot, kept, index, answer.version)
                slot.hidden, slot.history = answer.rows["hidden"][index], answer.rows["history"][index]

    def _decided(self, slot: Slot, kept: Mapping[str, np.ndarray], index: int, version: int) -> None:
        if self._draining:
            if slot.rows.loose:
                slot.rows.follow(kept["z"][index, 0])
            return
        assert self._order is not None
        if slot.rows.loose and len(slot.rows) >= self._order.decisions and self._groups is None and not self._lockstep:
            slot.rows.follow(kept["z"][index, 0])
            self._finish_rows(slot)
        if not len(slot.rows):
            slot.rows = self._new_rows()
        episode = slot.playing
        slot.rows.begin(kept, index, version=version, task=episode.task, episode=episode.name)
        slot.observation = None
        slot.latent_steps = int(kept["steps"][index])
        slot.asked += 1

    def _new_rows(self) -> Rows:
        return Rows(1 if self._order is None else self._order.decisions)

    def _finish_rows(self, slot: Slot) -> None:
        """The slot's rows are a fragment, or an episode of its group."""
        rows, slot.rows = slot.rows, self._new_rows()
        self._whole(rows, None if slot.episode is None else slot.episode.group)

    def _whole(self, rows: Rows, group: Group | None) -> None:
        fragment = rows.fragment()
        if group is not None and self._groups is not None:
            self._groups.ended(group, fragment)
        elif fragment is not None:
            self._complete.append(fragment)
