"""The episodes in a runner's simulators: which begin, what comes of their chunks, and what to do when one breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from actors.dealing import WeightedDealer
from actors.delivery import Delivery
from actors.groups import EpisodeGroups
from actors.orders import Order
from actors.rows import Rows
from actors.slots import CHUNK, RESET, Buffer, Closing, Episode, Slot
from actors.watchdog import Outcome, Watchdog
from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.side_by_side import begin_reset, finish_chunk, finish_reset
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.timing import span

FRUITLESS_IN_A_ROW = 9


class Episodes:
    """Begins episodes and takes what comes of them.

    Args:
        make: another simulator, for one that broke and is not isolated.
        slots: the runner's simulators. tasks: that they play.
        belief: hidden (M, D) and history (Z,) that an episode begins with.
        group_size: more than 1: see `EpisodeGroups`. dealer: deals to the groups, drawing their starts from `starts`.

    Attributes:
        order: that is being played; None before the first.
        draining: nothing begins any more.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Simulator],
        slots: list[Slot],
        tasks: Sequence[int],
        belief: tuple[np.ndarray, np.ndarray],
        *,
        group_size: int,
        dealer: WeightedDealer,
        starts: np.random.Generator,
    ) -> None:
        self._name, self._make, self._slots, self._belief = name, make, slots, belief
        self._dealer, self._starts = dealer, starts
        self.watchdog = Watchdog(tasks)
        self.groups = EpisodeGroups(group_size, lambda: self._start(dealer, starts)) if group_size > 1 else None
        self.delivery = Delivery(self.groups)
        self.order: Order | None = None
        self.draining = False

    @property
    def lockstep(self) -> bool:
        return self.order is not None and self.order.lockstep

    @property
    def whole(self) -> bool:
        """Whether a fragment ends with its episode."""
        return self.groups is not None or not self.lockstep

    def begin(self, slot: Slot) -> None:
        """Start the slot's next episode: a drawn start, never one of the benchmark's fixed initial states.

        Raises:
            NoTaskLeft: there is nothing to play.
        """
        slot.episode = slot.observation = None
        if self.draining:
            return
        group = None
        if self.groups is None:
            task, seed = self._start(slot.dealer, slot.starts)
        else:
            if self.lockstep and not self.groups.begun and self._asked_enough():
                return
            playable = self.watchdog.playable()
            group = self.groups.join(lambda task: task in playable)
            task, seed = group.task, group.seed
        slot.episode = Episode(f"{slot.name}-{slot.begun}", task, seed, group)
        slot.begun += 1
        slot.hidden, slot.history = self._belief
        begin_reset(slot.simulator, task, seed)
        slot.flying = RESET

    def land(self, buffer: Buffer, *, all_of_them: bool = True) -> None:
        """What came of the chunks and resets that are flying; the next episodes begin.

        Args:
            all_of_them: wait for those that are late, too.

        Raises:
            NoTaskLeft: there is nothing to play. SimulatorFailure: a simulator that never starts.
        """
        begun = time.perf_counter()
        try:
            with span("simulators"):
                for slot in buffer.flying:
                    if (all_of_them or not slot.late) and not (self.draining and slot.flying == RESET):
                        slot.late = False
                        self._landed(slot, buffer)
        finally:
            self.delivery.report.simulator_seconds += time.perf_counter() - begun

    def finish_rows(self, slot: Slot) -> None:
        """The slot's rows are a fragment, or an episode of its group."""
        rows, slot.rows = slot.rows, self.new_rows()
        self.delivery.add(rows, None if slot.episode is None else slot.episode.group)

    def new_rows(self) -> Rows:
        return Rows(1 if self.order is None else self.order.decisions)

    def _start(self, dealer: WeightedDealer, starts: np.random.Generator) -> tuple[int, int]:
        weights: Mapping[int, float] = {}
        if self.order is not None:
            weights = self.order.task_weights
            if self.order.place is not None:
                dealer.stand(*self.order.place)
        return dealer.deal(self.watchdog.playable(), weights), int(starts.integers(2**31))

    def _asked_enough(self) -> bool:
        assert self.order is not None
        return sum(slot.asked for slot in self._slots) >= self.order.decisions * len(self._slots)

    def _landed(self, slot: Slot, buffer: Buffer) -> None:
        flying, slot.flying = slot.flying, None
        outcome = _outcome(slot, flying)
        if isinstance(outcome, SimulatorFailure):
            self._lost(slot, outcome, aborted=flying == CHUNK)
        elif isinstance(outcome, ChunkResult):
            self._executed(slot, buffer, outcome)
        else:
            slot.observation = outcome
            slot.playing.instruction = outcome.instruction

    def _executed(self, slot: Slot, buffer: Buffer, result: ChunkResult) -> None:
        episode, report = slot.playing, self.delivery.report
        slot.rows.end(result)
        slot.fruitless = 0
        episode.steps += result.duration
        episode.decisions += 1
        episode.latent_steps += slot.latent_steps
        episode.task_return += result.reward
        if not result.done:
            slot.observation = result.observation
            if result.observation.instruction != episode.instruction:
                # The next task of a chain: its belief starts anew, as in the benchmark's evaluation.
                episode.instruction = result.observation.instruction
                slot.hidden, slot.history = self._belief
            return
        summary = episode.summary(result.success)
        slot.rows.finish(summary)
        report.finished.append(summary)
        report.returns.append(episode.task_return)
        self._note(Outcome(episode.task))
        if result.truncated:
            # A time limit is no failure of the policy: the value of what it was cut off from is bootstrapped.
            buffer.closings.append(Closing.of(slot, result.observation, whole=self.whole))
            if self.whole:
                slot.rows = self.new_rows()
        elif self.whole:
            self.finish_rows(slot)
        self.begin(slot)

    def _lost(self, slot: Slot, failure: SimulatorFailure, *, aborted: bool) -> None:
        """The simulator broke; what it did before this chunk stays."""
        episode, slot.episode, slot.observation = slot.playing, None, None
        print(f"{episode.name}, task {episode.task}: {failure.kind}: {failure}; the simulator is replaced", flush=True)
        self._note(Outcome(episode.task, failure.kind, str(failure), aborted, failure.shared))
        if self.groups is not None and episode.group is not None:
            slot.rows = self.new_rows()
            self.groups.ended(episode.group, None)
        elif aborted:
            self.finish_rows(slot)
        if self.draining:
            return
        if not isinstance(slot.simulator, IsolatedSimulator):  # that one starts another process by itself
            slot.simulator.close()
            slot.simulator = self._make()
        slot.fruitless += failure.shared or not aborted
        if slot.fruitless >= FRUITLESS_IN_A_ROW:
            raise failure
        self.begin(slot)

    def _note(self, outcome: Outcome) -> None:
        self.delivery.report.outcomes.append(outcome)
        if self.watchdog.saw(outcome):
            print(f"{self._name}: {self.watchdog.quarantined[outcome.task]}; it is left out here", flush=True)


def _outcome(slot: Slot, flying: str | None) -> ChunkResult | Observation | SimulatorFailure:
    try:
        if flying == CHUNK:
            assert slot.actions is not None
            return finish_chunk(slot.simulator, slot.actions)
        return finish_reset(slot.simulator, slot.playing.task, slot.playing.seed)
    except SimulatorFailure as failure:
        return failure


def make_slots(
    make: Callable[[SimulatorConfig], Simulator],
    config: SimulatorConfig,
    slots: list[Slot],
    *,
    count: int,
    first: int,
    of: int,
    seed: Sequence[int],
    name: str,
    belief: tuple[np.ndarray, np.ndarray],
) -> tuple[int, ...]:
    """Add `count` simulators to `slots`, one by one, so that those there are can be closed; returns their tasks."""
    tasks: tuple[int, ...] = config.tasks
    for index in range(count):
        simulator = make(config)
        tasks = config.tasks or tuple(range(len(simulator.spec.instructions)))
        dealer = WeightedDealer(tasks, first + index, max(of, count), count)
        starts, noise = (np.random.default_rng([*seed, index, purpose]) for purpose in (0, 1))
        slots.append(Slot(simulator, dealer, starts, noise, Rows(1), *belief, f"{name}-{index}"))
    return tasks
