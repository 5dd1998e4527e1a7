"""Playing several simulators so that none of them waits, and cutting what happens into fragments.

The simulators are shared out over buffers. While those of one buffer step in their processes, the policy decides for
another, and they go on stepping between orders:

    chunks of a buffer executed -> rows, next episodes begun -> question to the policy
    its answer -> next chunks begun -> fragments that are complete

One that takes much longer than the others of its buffer, or has hung, joins them again when it is ready or replaced.

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
from actors.deciding import Deciding
from actors.delivery import Delivery
from actors.episodes import Episodes, make_slots
from actors.orders import Order
from actors.placement import Placement, PolicyServerLost
from actors.report import Report
from actors.slots import CHUNK, Buffer, Slot
from actors.watchdog import Watchdog
from avavla_ray.learning.fragment import Fragment
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.side_by_side import is_stuck, wait_for
from avavla_ray.timing import span

PATIENCE_S = 10.0  # after which an answer of the policy is looked after
DRAIN_S = 10.0  # that the last chunks of a runner which is to go are waited for
STRAGGLER_S = 1.0  # after which the simulators of a buffer go on without those of them that are not ready


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
        self.placement, self._notice = placement, notice
        self._failure: SimulatorFailure | None = None
        self._left: str | None = None
        self._idle_since: float | None = None
        self._looked, self._stuck = 0.0, set[int]()  # when was looked for simulators that have hung, and which had
        self._slots: list[Slot] = []
        policy = placement.translation.config
        belief = (
            np.zeros((policy.action_tokens, policy.backbone.width), np.float32),
            np.zeros(policy.latent.width, np.float32),
        )
        try:
            tasks = make_slots(
                make_simulator, config, self._slots,
                count=simulators, first=first_slot, of=slots, seed=seed, name=name, belief=belief,
            )  # fmt: skip
            self._buffers = [Buffer(self._slots[at::buffers]) for at in range(min(buffers, simulators))]
            self._episodes = Episodes(
                name, lambda: make_simulator(config), self._slots, tasks, belief, group_size=group_size,
                # A runner deals to its groups as if it were one simulator.
                dealer=WeightedDealer(tasks, first_slot // simulators, max(1, slots // simulators)),
                starts=np.random.default_rng([*seed, simulators, 2]),
            )  # fmt: skip
            self._deciding = Deciding(placement, self._episodes, actions=train_actions, exits=draw_exits)
            self.watchdog.adopt(quarantined or {})
            for slot in self._slots:
                self._episodes.begin(slot)
            while any(slot.flying for slot in self._slots):
                for buffer in self._buffers:
                    self._episodes.land(buffer)
        except BaseException:
            self.close()
            raise

    def deliver(self, order: Order) -> tuple[list[Fragment], Report]:
        """Play on until something is complete, or what the order says; see `Order` and `Report`.

        Returns:
            Fragments, each of one simulator and unbroken in time, or of a group; a fragment ends with its episode, or
            with T decisions; with `lockstep` only with its T decisions or the failure of its simulator. Their list is
            empty where an episode has ended and its fragment waits, for its last value or for the others of its group,
            or where nothing more can be played.

        Raises:
            NoTaskLeft: the last task that was left has been quarantined; so the report before this call said.
            SimulatorFailure: simulators die whatever they are to play, or no policy server answers; likewise.
            RayError: the weights are lost. Nothing else is: order again with others.
        """
        if self._failure is not None:
            raise self._failure
        begun = time.perf_counter()
        if self._idle_since is not None:
            self._delivery.report.idle_seconds += begun - self._idle_since
        self._episodes.order = order
        try:
            if order.last and self._left is None:
                self._left = "this runner is let go"
                self._drain()
            elif self._left is None:
                self.watchdog.adopt(order.quarantined)
                if order.hold:  # nothing is decided, and so no newer weights are needed
                    self._hold()
                else:
                    with span("weights"):
                        self.placement.use(order.handle)
                    self._delivery.report.weights_seconds += time.perf_counter() - begun
                    self._play(order)
        except SimulatorFailure as failure:
            # Raised at the next call, so that what has been played and learned of the tasks is delivered first.
            self._failure, self._delivery.report.failure = failure, str(failure)
            self._drain()
        finally:
            self._idle_since = time.perf_counter()
            self._delivery.report.seconds += self._idle_since - begun
        with span("delivering"):
            fragments, report = self._delivery.take(order, self.simulators)
        report.quarantined, report.leaving = dict(self.watchdog.quarantined), self._left
        return fragments, report

    @property
    def watchdog(self) -> Watchdog:
        return self._episodes.watchdog

    @property
    def _delivery(self) -> Delivery:
        return self._episodes.delivery

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
            for slot in self._slots:  # which begin as many as all of them have not asked for yet
                if slot.episode is None:
                    self._episodes.begin(slot)
        while order.lockstep or not self._delivery.ready:
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

    def _hold(self) -> None:
        """Land what is flying and go no further. Who is late in a buffer that the policy is asked for lands with the
        answer; the report says whether anybody is still away."""
        waiting = self._wait(STRAGGLER_S)
        for buffer in self._buffers:
            if buffer.ticket is None:
                self._land(buffer, waiting)
                self._deciding.settle(buffer)
        self._delivery.report.away = any(slot.flying == CHUNK for slot in self._slots)

    def _waited_for(self) -> set[int]:
        """Simulators that are at something, by id."""
        return {id(slot.simulator) for buffer in self._buffers for slot in buffer.flying}

    def _wait(self, seconds: float) -> set[int]:
        """Until nothing flies any more, at most so long; which still do, by id."""
        end, waiting = time.monotonic() + seconds, self._waited_for()
        while waiting and time.monotonic() < end:
            waiting -= wait_for([slot.simulator for slot in self._slots if id(slot.simulator) in waiting], None, 0.1)
        return waiting - self._hung(waiting)

    def _land(self, buffer: Buffer, waiting: set[int]) -> None:
        """Its simulators that are not waited for any more."""
        for slot in buffer.flying:
            slot.late = id(slot.simulator) in waiting
        self._stuck &= waiting  # the others are landed now, and what replaces one has its id
        self._episodes.land(buffer, all_of_them=False)

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
        return any(slot.flying == CHUNK or (slot.episode and self._deciding.wanted(slot)) for slot in buffer.slots)

    def _first_ready(self) -> Buffer:
        begun = time.perf_counter()
        waiting = self._waited_for() - self._stuck
        with span("waiting"):
            while True:
                for buffer in self._buffers:
                    if self._is_ready(buffer, waiting):
                        for slot in buffer.flying:
                            slot.late = id(slot.simulator) in waiting
                        buffer.landed = None
                        if buffer.ticket is None:  # they are landed now; what replaces one has its id
                            self._stuck -= {id(slot.simulator) for slot in buffer.flying}
                        waited = time.perf_counter() - begun
                        if buffer.ticket is None:
                            self._delivery.report.simulator_seconds += waited
                        else:
                            self._delivery.report.policy_seconds += waited
                        return buffer
                simulators = [slot.simulator for slot in self._slots if id(slot.simulator) in waiting]
                waiting -= wait_for(simulators, self.placement.woken, STRAGGLER_S)
                waiting -= self._hung(waiting)
                self.placement.heard()

    @staticmethod
    def _is_ready(buffer: Buffer, waiting: set[int]) -> bool:
        """Whether there is something to do for it: an answer, or simulators that have landed, all or after a while."""
        now = time.monotonic()
        if buffer.ticket is not None:
            return buffer.ticket.done or now - buffer.since > PATIENCE_S
        away = [slot for slot in buffer.flying if id(slot.simulator) in waiting]
        if not away:
            return True
        landed = any(
            slot.observation is not None or (slot.flying and id(slot.simulator) not in waiting) for slot in buffer.slots
        )
        buffer.landed = (buffer.landed or now) if landed else None
        return buffer.landed is not None and (now - buffer.landed > STRAGGLER_S or all(slot.late for slot in away))

    def _hung(self, waiting: set[int]) -> set[int]:
        """Those among the ones that are waited for: to land them says so. Looks about every second."""
        now = time.monotonic()
        if now - self._looked >= STRAGGLER_S:
            self._looked = now
            self._stuck = {
                id(slot.simulator)
                for buffer in self._buffers for slot in buffer.flying
                if (slot.late or now - buffer.since > STRAGGLER_S) and is_stuck(slot.simulator)
            }  # fmt: skip
        return self._stuck & waiting

    def _advance(self, buffer: Buffer) -> None:
        if buffer.ticket is None:
            self._episodes.land(buffer, all_of_them=self._episodes.lockstep)
            self._deciding.ask(buffer)
            if buffer.ticket is None or not buffer.ticket.done:
                return
        self._deciding.act(buffer)

    def _drain(self) -> None:
        """Finish the chunks that are flying, begin nothing, and cut everything."""
        self._episodes.draining = True
        for buffer in self._buffers:
            if buffer.ticket is not None and not isinstance(self._failure, PolicyServerLost):
                self._deciding.act(buffer)
        waiting = self._wait(DRAIN_S)
        for buffer in self._buffers:
            self._land(buffer, waiting)
        self._cut()

    def _cut(self) -> None:
        """Make fragments of all rows, whose last ones are followed by what is seen now."""
        for buffer in self._buffers:
            if isinstance(self._failure, PolicyServerLost):
                for closing in buffer.closings:
                    closing.rows.discard()
            else:
                self._deciding.close(buffer)
        if self._episodes.groups is None:
            for slot in self._slots:
                self._episodes.finish_rows(slot)
        elif self._episodes.draining:
            self._episodes.groups.give_up()
