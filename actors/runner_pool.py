"""The runners as the driver sees them: who is there, what each has been asked for, and what to do about the rest.

    waiting for room or a process -> hello -> start (builds its simulators) -> orders, two at a time
                ^                                                                   |
                +----- died, hung, or its node is about to go ----------------------+

Bounds: the death of a process or node is noticed by Ray, in seconds (a node that falls silent: by its health check, 15
to 30 s); a runner that has a process and does not say hello, start or deliver within `timeout_s` is killed. Nothing
bounds the wait for room in the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from actors.fragment_queue import Lot
from actors.known_runner import Request, Runner, Stage, Verdict, judge, place_of
from actors.late_deliveries import LateDeliveries
from actors.orders import NotStarted, Order

DEPTH = 2  # orders queued at a runner: while it works on one, the next lies there
HELLO_EVERY_S = 1.0
SAY_AFTER_S = 60.0
STARTS_IN_A_ROW = 3


class RunnerPool:
    """Keeps runners busy. Its methods return at once.

    Args:
        group: a `RunnerGroup`, or what has its seats.
        begin: called with (actor, seat, incarnation) of a process that has said hello: has it start, and returns the
            reference of its answer. incarnation counts the starts of a seat, over resumed runs too.
        minimum: runners that must have said hello before the first order. Afterwards the run goes on with those there
            are.
        timeout_s: see above. quarantined: the tasks that all runners leave out.

    Attributes:
        incarnations: of the last start, by seat. provenance: what the simulators say of themselves.
        weights_lost: a runner could not get its weights: publish them again, and clear this.
        returned: seats whose runner has come back after a loss, to be emptied by the reader.
    """

    def __init__(
        self,
        group: Any,
        begin: Callable[[Any, int, int], Any],
        *,
        minimum: int,
        timeout_s: float,
        quarantined: Mapping[int, str],
    ) -> None:
        self._group, self._begin, self._minimum, self._quarantined = group, begin, minimum, quarantined
        self.timeout_s = timeout_s
        self._begun: float | None = None
        self._runners = {seat: Runner(seat, group.actor(seat), time.monotonic()) for seat in group.seats}
        self._late = LateDeliveries(group.empty)
        self._order: Order | None = None  # the newest
        self._said = self._open = False
        self._failures = self._round = 0
        self._fault: Exception | None = None
        self.incarnations: dict[int, int] = {}
        self.provenance: dict[str, Any] = {}
        self.weights_lost = False
        self.returned: list[int] = []

    # Who is there

    def count(self, *stages: Stage) -> int:
        """Runners in any of these stages."""
        return sum(runner.stage in stages for runner in self._runners.values())

    @property
    def present(self) -> int:
        """Runners that have said hello, and are not about to go."""
        return self.count(Stage.STARTING, Stage.PLAYING)

    @property
    def idle(self) -> int:
        """Runners that could play, and have no order."""
        return sum(runner.idle for runner in self._runners.values())

    @property
    def busy(self) -> bool:
        """Some order has not been delivered yet."""
        return bool(self._late.going) or any(runner.orders for runner in self._runners.values())

    @property
    def references(self) -> list[Any]:
        """What becomes ready when there is something to do, for `ray.wait`."""
        calls = [runner.call for runner in self._runners.values() if runner.call is not None]
        return calls + [runner.orders[0].report for runner in self._runners.values() if runner.orders]

    # Orders and deliveries

    def give(self, order: Order) -> None:
        """Queue the order at every runner that has room for it; one in lockstep begins a round of all of them.

        Each gets it with its place among those that play, so that they share out all tasks.

        Nothing before `minimum` runners have said hello. A round waits for those that are starting.
        """
        self._open = self._open or self.present >= self._minimum
        if not self._open or (order.lockstep and (self.busy or self.count(Stage.STARTING))):
            return
        self._round, self._order = self._round + 1, order
        playing = [runner for _, runner in sorted(self._runners.items()) if runner.stage is Stage.PLAYING]
        for place, runner in enumerate(playing):
            own = replace(order, place=(place, len(playing)))
            while len(runner.orders) < (1 if order.lockstep else DEPTH):
                self._ask(runner, own)

    def hold(self) -> None:
        """Have idle runners hand in what has ended, once after every other order: nothing else asks for it just now."""
        for runner in self._runners.values():
            if runner.idle and not runner.held and self._order is not None:
                self._ask(runner, replace(self._order, hold=True))

    def _ask(self, runner: Runner, order: Order) -> None:
        runner.held = order.hold
        if not runner.orders:
            runner.since = time.monotonic()
        fragments, report = runner.actor.deliver.options(num_returns=2).remote(order)
        runner.orders.append(Request(fragments, report, self._round, runner.place[0]))

    def advance(self) -> list[Lot]:
        """Take what has been delivered, and see to runners that came, died, hung or are about to go.

        Raises (at the next call, so that what was delivered is taken first):
            InputError, NoTaskLeft: what runners refuse. SimulatorFailure: simulators that die whatever they are to
                play, on one start after the other.
            RayTaskError: a fault of the program. ActorDiedError: runners can't be made, as often as it was tried.
        """
        if self._fault is not None:
            raise self._fault from None
        waited = [runner.call for runner in self._runners.values() if runner.call is not None]
        waited += [request.report for runner in self._runners.values() for request in runner.orders]
        ready = set(ray.wait(waited, num_returns=len(waited), timeout=0, fetch_local=False)[0]) if waited else set()
        lots = self._late.take()
        for runner in self._runners.values():
            try:
                if runner.call in ready:
                    self._answered(runner)
                while runner.orders and runner.orders[0].report in ready:
                    lots.append(self._delivered(runner))
            except RayError as error:
                self._failed(runner, error)
            self._look_after(runner)
        self._say_who_is_missing()
        return lots

    def _delivered(self, runner: Runner) -> Lot:
        request = runner.orders[0]
        report = ray.get(request.report)
        runner.orders.popleft()
        runner.since = time.monotonic()
        if report.failure is None:
            self._failures = 0
        if report.away and not runner.orders:
            runner.held = False  # what is late is asked for again
        if report.leaving is not None and runner.stage is Stage.PLAYING:
            print(f"runner {runner.seat} has handed in what it had, as its node is to go: {report.leaving}", flush=True)
            runner.enter(Stage.LEAVING, time.monotonic())
            runner.left, runner.thanked = runner.place, False
            self._group.mark(runner.seat, healthy=False)
        return Lot(request.fragments, report, runner.seat, request.round, request.node)

    # Machines that are about to go

    @property
    def leaving(self) -> set[str]:
        """Nodes with runners that have handed in everything, and have not been thanked for it."""
        return {runner.place[0] for runner in self._runners.values() if self._is_done(runner)}

    def thank(self, node: str) -> None:
        """Tell those runners that what they handed in is safe: their machine need not wait for them."""
        for runner in self._runners.values():
            if self._is_done(runner) and runner.place[0] == node:
                runner.thanked = True
                runner.actor.handed_in.remote()

    @staticmethod
    def _is_done(runner: Runner) -> bool:
        return runner.stage is Stage.LEAVING and not runner.orders and not runner.thanked

    # Elastic

    def let_go(self) -> int | None:
        """End a runner that is not needed, for good: one that has not come yet, or else one that is idle.

        That one hands in first what its simulators have done since its last order, for a bounded time.

        Returns:
            Its seat; None where nobody can go: fewer than `minimum` would be left, or all are at work.
        """
        coming = [runner for runner in self._runners.values() if runner.stage is Stage.COMING]
        idle = [runner for runner in self._runners.values() if runner.idle]
        if len(self._runners) <= self._minimum or (not coming and not idle):
            return None
        runner = (coming or idle)[-1]
        del self._runners[runner.seat]
        if coming or self._order is None:
            self._group.empty(runner.seat)
        else:
            self._ask(runner, replace(self._order, last=True))
            self._late.add_last(runner.seat, runner.orders[0])
        return runner.seat

    def ask(self) -> int | None:
        """Ask for a runner in a seat that is empty; which, or None where all are taken."""
        for seat in self._group.seats:
            if seat not in self._runners and seat not in self._late.going:
                self._runners[seat] = Runner(seat, self._group.fill(seat), time.monotonic())
                return int(seat)
        return None

    # One runner

    def _answered(self, runner: Runner) -> None:
        """Its hello or its start."""
        call, runner.call = runner.call, None
        answer = ray.get(call)
        if runner.stage is Stage.STARTING:
            self.provenance = answer
            runner.enter(Stage.PLAYING, time.monotonic())
            self._group.mark(runner.seat, healthy=True)
        elif runner.stage is Stage.PLAYING:
            if place_of(answer) != runner.place:
                self._lost(runner, "its process died while it had nothing to do")
            elif answer["leaving"] and runner.idle and self._order is not None:
                self._ask(runner, self._order)  # whether or not there is anything to play: it hands in what it has
        elif (place := place_of(answer)) != runner.left:
            if runner.left is not None:
                self.returned.append(runner.seat)
            runner.place, runner.left = place, None
            self._late.add(runner.seat, runner.orders)  # of the process before, which are not this one's to lose
            runner.orders.clear()
            self._start(runner)
        elif runner.stage is Stage.COMING:  # it was out of reach, or its end is still to come
            self._group.restart(runner.seat)

    def _start(self, runner: Runner) -> None:
        incarnation = self.incarnations[runner.seat] = self.incarnations.get(runner.seat, -1) + 1
        runner.enter(Stage.STARTING, time.monotonic())
        runner.call = self._begin(runner.actor, runner.seat, incarnation)

    def _look_after(self, runner: Runner) -> None:
        """Ask for those that are to come, and give up those that hang."""
        now = time.monotonic()
        late = now - runner.since > self.timeout_s
        if runner.stage in (Stage.STARTING, Stage.PLAYING):
            if late and (runner.call is not None or runner.orders):
                what = "started" if runner.stage is Stage.STARTING else "delivered"
                self._restart(runner, f"it has not {what} for {self.timeout_s:.0f} s")
            elif runner.idle and runner.call is None and now - runner.asked > HELLO_EVERY_S:
                runner.call, runner.asked, runner.since = runner.actor.hello.remote(), now, now
            return
        if not self._group.stands(runner.seat):
            runner.since = now  # it waits for room
        elif late:
            self._restart(runner, f"it has not come back for {self.timeout_s:.0f} s")
        if runner.call is None and now - runner.asked > HELLO_EVERY_S:
            runner.call, runner.asked = runner.actor.hello.remote(), now

    def _failed(self, runner: Runner, error: RayError) -> None:
        """Deal with what is not the program's fault; the rest is raised later."""
        verdict, cause = judge(error, self._quarantined)
        if verdict is Verdict.FATAL:
            self._fault = self._fault or cause
        elif verdict is Verdict.DEAD:
            another = isinstance(cause, NotStarted)
            if another:
                self._count_failure(error)
            self._lost(runner, "its process died while it had nothing to do" if another else type(error).__name__)
            if isinstance(error, ActorDiedError):  # for good: Ray starts it no more
                self._count_failure(error)
                runner.actor = self._group.fill(runner.seat)
        elif runner.stage is Stage.LEAVING:
            runner.orders.popleft()  # it takes none any more
        elif verdict is Verdict.SICK:
            self._count_failure(cause)
            self._restart(runner, str(cause))
        elif verdict is Verdict.NO_WEIGHTS:
            print(f"runner {runner.seat} could not get its weights ({type(cause).__name__})", flush=True)
            self.weights_lost = True
            if runner.stage is Stage.STARTING:
                runner.enter(Stage.COMING, time.monotonic())
            else:
                runner.orders.popleft()
        else:
            self._fault = self._fault or error

    def _count_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures > STARTS_IN_A_ROW * len(self._group.seats):
            self._fault = self._fault or error

    def _restart(self, runner: Runner, reason: str) -> None:
        self._group.restart(runner.seat)
        self._lost(runner, reason)

    def _lost(self, runner: Runner, reason: str) -> None:
        """Wait for its next process. What it has delivered already, or in this moment, is not lost."""
        if runner.stage is not Stage.COMING:
            print(f"runner {runner.seat} is lost ({reason}); its unfinished episodes with it", flush=True)
            self._late.add(runner.seat, runner.orders)
            runner.orders.clear()
            runner.left = runner.place
            self._group.mark(runner.seat, healthy=False)
        runner.enter(Stage.COMING, time.monotonic())
        runner.call = None

    def _say_who_is_missing(self) -> None:
        """Once: a runner that no node has room for makes itself felt by nothing else."""
        now, there, seats = time.monotonic(), self.present, len(self._runners)
        self._begun = self._begun or now
        if not self._said and there < seats and now - self._begun > SAY_AFTER_S:
            self._said = True
            then = "training goes on with those" if self._open else f"training begins with {self._minimum}"
            print(f"{there} of {seats} runners are there, the others wait for room or a process; {then}", flush=True)
