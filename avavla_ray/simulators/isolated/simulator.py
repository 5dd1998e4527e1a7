"""Any simulator in a process of its own: what happens to that process costs an episode and nothing else."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators import registry
from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig, SimulatorFailure, SuiteSpec
from avavla_ray.simulators.isolated.garbage import wrong_observation, wrong_result
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.nursery import Place, modules_of
from avavla_ray.simulators.isolated.process import SimulatorProcess


class IsolatedSimulator:
    """A `Simulator` whose scene lives in another process.

    A process that dies, hangs, holds too much memory or sends garbage is killed; so is one whose simulator raises
    SimulatorFailure itself. The caller gets SimulatorFailure of the fitting kind, and the next `reset` starts another
    process: a fork of one that has the imports done, so about as fast as constructing the simulator. One that is
    dropped without `close` ends its process too.

    `begin_reset` and `begin_chunk` return at once and `finish_reset` and `finish_chunk` bring the results, so that
    several simulators of one owner work at the same time.

    Args:
        factory: makes the simulator, in its process. Importable, or what cloudpickle can send.
        config: for it. limits: what its process is killed for.

    Attributes:
        spec, config: those of the simulator.
        failures: processes lost so far, by kind (see `SimulatorFailure`).

    Raises:
        InputError: what `factory` refuses.
        SimulatorFailure: it broke while it was constructed.
    """

    def __init__(
        self,
        factory: Callable[[SimulatorConfig], Simulator] = registry.make_simulator,
        config: SimulatorConfig | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.config = config or SimulatorConfig()
        self.spec: SuiteSpec
        self.failures: Counter[str] = Counter()
        self._factory, self._limits = factory, limits or Limits()
        self._wanted = self.config
        self._modules = modules_of(factory, self.config)
        self._place: Place | None = None
        self._process: SimulatorProcess | None = None
        self._constructed = self._running = False
        self._pending: str | None = None  # the command whose result is still to be fetched
        self._chunk = 0
        self._lost: Exception | None = None  # told of when that result is fetched
        self._described: dict[str, Any] = {}
        self._timings = defaultdict[str, float](float)
        try:
            self._start()
            self._guarded(self._construction)
        except BaseException:
            self.close()
            raise

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`."""
        return registry.suite_spec(suite)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`."""
        return registry.identify(config)

    @property
    def pid(self) -> int | None:
        """Id of the simulator's process, None between its end and the next reset."""
        return None if self._process is None else self._process.pid

    def begin_reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> None:
        """Begin `reset`, in a new process if the last one is gone."""
        self._begin("reset", "reset", task, initial_state=initial_state, seed=seed)

    def finish_reset(self) -> Observation:
        """The first observation; raises what `reset` raises."""
        self._expect("reset")
        observation = self._guarded(self._first_observation)
        self._running = True
        return observation

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """See `Simulator.reset`.

        Raises:
            InputError: from the simulator. SimulatorFailure: the process is gone; reset again for another one.
        """
        self.begin_reset(task, initial_state=initial_state, seed=seed)
        return self.finish_reset()

    def begin_chunk(self, actions: np.ndarray, *, record: bool = False) -> None:
        """Begin `run_chunk`."""
        if not self._running or self._process is None or self._pending:
            raise InputError("no episode is running, or its last chunk is not finished: call reset first")
        self._chunk = len(np.atleast_1d(actions))
        self._process.ask("run_chunk", self._limits.step_s * max(1, self._chunk), actions, record=record)
        self._pending = "chunk"

    def finish_chunk(self) -> ChunkResult:
        """What came of the chunk; raises what `run_chunk` raises."""
        self._expect("chunk")
        return self._guarded(self._result)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`.

        Raises:
            InputError: from the simulator. SimulatorFailure: the process is gone and the episode with it.
        """
        self.begin_chunk(actions, record=record)
        return self.finish_chunk()

    def begin_episode(self, method: str, *arguments: Any) -> Observation:
        """Begin an episode by the simulator's own `method` instead of by `reset`.

        Deadline, new process and failures are those of `reset`. Called while an episode runs, in a process that lives,
        it goes on from there if that is what the method does.

        Raises:
            InputError: from the simulator. SimulatorFailure: the process is gone.
        """
        self._begin(method, "begin_episode", method, *arguments)
        observation = self._guarded(self._first_observation)
        self._running = True
        return observation

    def run_steps(self, method: str, steps: int) -> ChunkResult:
        """Execute at most `steps` steps by the simulator's own `method(steps)` instead of by `run_chunk`.

        Raises:
            InputError: from the simulator. SimulatorFailure: the process is gone and the episode with it.
        """
        if not self._running or self._process is None or self._pending:
            raise InputError("no episode is running, or its last chunk is not finished: call reset first")
        self._chunk = steps
        self._process.ask("run_steps", self._limits.step_s * max(1, steps), method, steps)
        self._pending = method
        return self._guarded(self._result)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`. Empty when the process that recorded is gone."""
        if self._pending:
            raise InputError(f"the {self._pending} that was begun is not finished")
        return [] if self._process is None else self._guarded(self._film)

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`; what was said last while there is no process to ask."""
        if self._process is not None and not self._pending:
            self._described = self._guarded(self._said_provenance)
        return {**self._described, "isolated": True}

    def close(self) -> None:
        """End the process. The simulator can be reset again.

        Raises:
            Exception: what the simulator's own `close` raises; the process is ended all the same.
        """
        try:
            if self._process is not None and self._constructed and not self._pending:
                self._process.close()
        finally:
            try:
                self._end()
            finally:
                self._leave()

    def take_timings(self) -> dict[str, float]:
        """Seconds by path of its processes' timing trees since the last call, "simulator" being all of it; empty unless
        this process was timed (avavla_ray/timing.py) when they were started."""
        taken = dict(self._timings)
        self._timings.clear()
        return taken

    def _begin(self, what: str, command: str, *arguments: Any, **options: Any) -> None:
        """Ask for a first observation, in a new process if the last one is gone."""
        if self._pending:  # the caller was interrupted: whatever that one still says belongs to nobody
            self._end()
        try:
            process = self._process or self._start()
            process.ask(command, self._limits.reset_s, *arguments, **options)
        except SimulatorFailure as failure:
            self._lost = failure
        self._pending, self._running = what, False

    def _start(self) -> SimulatorProcess:
        if self._place is None or self._place.nursery.stopped:
            self._leave()
            self._place = Place(self._modules)
            self._when_dropped_leave = self._when_dropped(self._place.give_up)
        self._process = SimulatorProcess(self._place.nursery, self._factory, self._wanted, self._limits, self._timings)
        self._when_dropped_end = self._when_dropped(self._process.end)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        self._constructed = self._running = False
        self._pending = self._lost = None
        if process is not None:
            self._when_dropped_end.detach()
            process.end()

    def _leave(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._when_dropped_leave.detach()
            place.give_up()

    def _when_dropped(self, do: Callable[[], None]) -> weakref.finalize:
        finalizer = weakref.finalize(self, _do_beside, os.getpid(), do)
        finalizer.atexit = False  # the zygote notices the end of its owner by itself
        return finalizer

    def _expect(self, command: str) -> None:
        if self._pending != command:
            raise InputError(f"no {command} has been begun")

    def _guarded(self, step: Callable[[SimulatorProcess], Any]) -> Any:
        """`step`, with the process ended where it fails."""
        try:
            if self._lost is not None:
                raise self._lost
            assert self._process is not None
            outcome = step(self._process)
        except (SimulatorFailure, MemoryError) as error:
            kind = error.kind if isinstance(error, SimulatorFailure) else "memory"
            self.failures[kind] += 1
            self._end()
            if isinstance(error, SimulatorFailure):
                raise
            raise SimulatorFailure("the simulator found no memory", kind) from error
        except Exception as error:
            # The simulator's own complaint, for instance of a task that does not exist: it lives on. The episode does
            # only where input was refused; else nobody knows how far the scene has come.
            self._pending = None
            self._running = self._running and isinstance(error, InputError)
            if not self._constructed:
                self._end()
            raise
        except BaseException:
            self._end()  # an interrupt: nobody will fetch what it still answers
            raise
        self._pending = None
        return outcome

    def _construction(self, process: SimulatorProcess) -> None:
        self.spec, self.config, self._described = process.answer()
        self._constructed = True

    def hear(self) -> bool:
        """Take the answer of a new process that it is there, if that is what can be read; True while the answer to what
        it was asked to do is still to come."""
        process = self._process
        if process is None or self._constructed or not self._pending or not process.line.poll(0):
            return False
        try:
            self._construction(process)
        except Exception as error:  # noqa: BLE001 - whoever fetches the result is told
            # Its line is closed, or will say what nobody has asked: it is not to be looked at again.
            pending = self._pending
            self._end()
            self._pending, self._lost = pending, error
            return False
        return not process.line.poll(0)

    def _first_observation(self, process: SimulatorProcess) -> Observation:
        if not self._constructed:
            self._construction(process)
        seen, _ = process.answer()
        observation = process.observation(*seen)
        self._check(wrong_observation(observation, self.spec, self.config))
        return observation

    def _result(self, process: SimulatorProcess) -> ChunkResult:
        seen, outcome = process.answer()
        result = ChunkResult(process.observation(*seen), *outcome)
        self._check(wrong_result(result, self.spec, self.config, self._chunk))
        self._running = not result.done
        return result

    def _film(self, process: SimulatorProcess) -> list[np.ndarray]:
        process.ask("frames", self._limits.reset_s)
        return process.film(*process.answer())

    def _said_provenance(self, process: SimulatorProcess) -> dict[str, Any]:
        process.ask("provenance", self._limits.reset_s)
        (described,) = process.answer()
        return described

    @staticmethod
    def _check(wrong: str | None) -> None:
        if wrong is not None:
            raise SimulatorFailure(f"the simulator sent {wrong}", "garbage")


def _do_beside(owner: int, do: Callable[[], None]) -> None:
    """In another thread: what drops a simulator, the garbage collector for one, may hold the locks that it takes."""
    if os.getpid() == owner:  # a copy in a fork of the owner's has nothing to end
        threading.Thread(target=do, daemon=True).start()
