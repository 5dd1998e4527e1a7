"""One simulator process as its owner sees it: the line to it, the memory it shows observations in, and its end."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections import defaultdict, deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from avavla_ray.simulators.base import Observation, Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.child import Layout
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.memory import SharedMemory
from avavla_ray.simulators.isolated.nursery import Nursery
from avavla_ray.simulators.isolated.pulse import HEADER, Pulse
from avavla_ray.timing import is_on

TICK_S = 0.25
CLOSE_S = 5.0


class RemoteTraceback(Exception):
    """Where in the simulator's process an exception came from; the cause of that exception here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class SimulatorProcess:
    """A process that constructs `factory(config)` and does what it is told; see child.py for the commands.

    Args:
        timings: seconds by path of its timing tree are added here, if this process is being timed now.

    Raises:
        SimulatorFailure: there is no such process to be had.
    """

    def __init__(
        self,
        nursery: Nursery,
        factory: Callable[[SimulatorConfig], Simulator],
        config: SimulatorConfig,
        limits: Limits,
        timings: defaultdict[str, float],
    ) -> None:
        construction = cloudpickle.dumps((factory, config))  # raises before there is anything to clean up
        self._nursery, self._limits, self._timings = nursery, limits, timings
        self._seen, self._films = SharedMemory(), SharedMemory()
        self._seen.grow(HEADER)
        self._line, theirs = multiprocessing.Pipe()
        self._asked: deque[tuple[str, float]] = deque()
        self._since = 0.0  # when the oldest unanswered command could begin
        self._dead_before = ""
        self._pulse: Pulse | None = None  # felt while an answer is awaited
        try:
            with theirs:
                ends = [theirs.fileno(), self._seen.descriptor, self._films.descriptor]
                self.pid = nursery.fork(ends, limits.memory_bytes, limits.start_s)
        except BaseException:
            self._close()
            raise
        self.ask("construct", limits.start_s, construction, is_on())

    @property
    def line(self) -> Connection:
        """Readable once the process has answered something, or has died."""
        return self._line

    def ask(self, command: str, seconds: float, *arguments: Any, **options: Any) -> None:
        """Send a command, to be answered within `seconds` from the answer to the one before it.

        Never raises for a process that has died: `answer` does.
        """
        if not self._asked:
            self._since = time.monotonic()
        self._asked.append((command, seconds))
        try:
            self._line.send((command, arguments, options))
        except (BrokenPipeError, ConnectionResetError):
            self._dead_before = command

    @property
    def stuck(self) -> bool:
        """Whether `answer` would give the process up at once. Ask again and again, about every second."""
        if not self._asked or self._line.poll(0):
            return False
        pulse = self._pulse = self._pulse or Pulse(self.pid, self._seen)
        pulse.feel()
        late = time.monotonic() >= self._since + self._asked[0][1]
        return late or pulse.dead or pulse.silence > self._limits.silence_s

    def answer(self) -> tuple[Any, ...]:
        """What came of the oldest unanswered command.

        Raises:
            SimulatorFailure: the process died or hung; it is gone now.
            Exception: whatever the simulator raised; SimulatorFailure and InputError among it.
        """
        command, seconds = self._asked.popleft()
        deadline, pulse = self._since + seconds, self._pulse or Pulse(self.pid, self._seen)
        self._pulse = None
        while not self._line.poll(min(TICK_S, max(0.0, deadline - time.monotonic()))):
            pulse.feel()
            if pulse.dead and not self._line.poll(0):
                raise self._died(command)
            late = time.monotonic() >= deadline
            if late or pulse.silence > self._limits.silence_s:
                why = f"took longer than {seconds:.0f} s" if late else f"showed no life for {pulse.silence:.0f} s"
                self.end()
                raise SimulatorFailure(f"{command} {why} and was killed ({pulse.describe()})", "hang")
        try:
            (word, *content), timings = self._line.recv()
        except (EOFError, ConnectionResetError):
            raise self._died(command) from None
        self._since = time.monotonic()
        for path, spent in timings.items():
            self._timings[path] += spent
        if word == "raised":
            error, trace = content
            raise error from RemoteTraceback(trace)
        return tuple(content)

    def _died(self, command: str) -> SimulatorFailure:
        self._close()
        ending = self._nursery.end(self.pid)
        when = f"before {self._dead_before}" if self._dead_before else f"in {command}"
        return SimulatorFailure(f"{ending.describe()} {when}", ending.kind)

    def observation(self, images: Layout, proprio: Layout, instruction: str) -> Observation:
        """Copied out of the shared memory, where the next observation will overwrite it."""
        behind = HEADER + int(np.prod(images[0])) * np.dtype(images[1]).itemsize
        try:
            return Observation(
                self._seen.read(*images, HEADER), self._seen.read(*proprio, -(-behind // 64) * 64), instruction
            )
        except ValueError as error:
            raise SimulatorFailure(f"the simulator announced what it did not send: {error}", "garbage") from error

    def film(self, layouts: list[Layout]) -> list[np.ndarray]:
        """Copied out of the films' memory."""
        frames, offset = [], 0
        for shape, dtype in layouts:
            frames.append(self._films.read(shape, dtype, offset))
            offset = -(-(offset + frames[-1].nbytes) // 64) * 64
        return frames

    def close(self) -> None:
        """Let the simulator close itself if it answers, then end the process; raises what the simulator raises."""
        self.ask("close", CLOSE_S)
        try:
            self.answer()
        except SimulatorFailure:
            pass  # it is gone already, which is all that is wanted
        finally:
            self.end()

    def end(self) -> None:
        """Kill the process and free what its owner holds of it; a second call does nothing."""
        if self._line.closed:
            return
        self._close()
        with contextlib.suppress(SimulatorFailure):  # its zygote is gone, and it with that
            self._nursery.end(self.pid)

    def _close(self) -> None:
        self._line.close()
        self._seen.close()
        self._films.close()
