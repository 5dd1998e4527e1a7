"""The simulator's side of the line: constructs it, does what it is told, and puts what it sees into shared memory.

Commands are tuples (name, arguments, keyword arguments); answers are ("ready" | "seen" | "said" | "raised", ...).
Pictures and proprioception never travel on the line: an answer holds their shapes. With every answer goes where the
time since the last one was spent, if the process is timed.
"""

from __future__ import annotations

import faulthandler
import pickle
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from avavla_ray.simulators.base import ChunkResult, Observation, Simulator
from avavla_ray.simulators.isolated.memory import SharedMemory
from avavla_ray.simulators.isolated.pulse import HEADER, beat
from avavla_ray.timing import span, switch, take_seconds

Layout = tuple[tuple[int, ...], str]  # shape and dtype of an array in shared memory


class Child:
    """One simulator and the memory that it shows its observations in."""

    def __init__(self, line: Connection, seen: SharedMemory, films: SharedMemory) -> None:
        self._line, self._seen, self._films = line, seen, films
        self._simulator: Simulator | None = None

    def run(self) -> None:
        """Until it is told to close, or the owner is gone."""
        while True:
            try:
                with span("idle"):
                    message = self._line.recv_bytes()
            except (EOFError, ConnectionResetError):
                return
            try:
                command, arguments, options = pickle.loads(message)
                answer = getattr(self, f"do_{command}")(*arguments, **options)
            except Exception as error:  # noqa: BLE001 - raised again where the command came from
                answer = ("raised", _portable(error), traceback.format_exc())
            try:
                with span("answering"):
                    self._line.send((answer, take_seconds("simulator")))
            except (BrokenPipeError, ConnectionResetError):
                return
            if command == "close":
                return

    @property
    def simulator(self) -> Simulator:
        if self._simulator is None:
            raise RuntimeError("no simulator has been constructed")
        return self._simulator

    def do_construct(self, factory: bytes, timed: bool) -> tuple[Any, ...]:
        switch(timed)
        with span("construction"):
            make, config = pickle.loads(factory)
            self._simulator = make(config)
        return "ready", self._simulator.spec, self._simulator.config, self._simulator.provenance()

    def do_reset(self, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        return "seen", self._show(self.simulator.reset(*arguments, **options)), None

    def do_run_chunk(self, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        return self._tell(self.simulator.run_chunk(*arguments, **options))

    def do_begin_episode(self, method: str, *arguments: Any) -> tuple[Any, ...]:
        return "seen", self._show(getattr(self.simulator, method)(*arguments)), None

    def do_run_steps(self, method: str, steps: int) -> tuple[Any, ...]:
        return self._tell(getattr(self.simulator, method)(steps))

    def do_frames(self) -> tuple[Any, ...]:
        layouts, end = [], 0
        frames = self.simulator.frames()
        self._films.grow(sum(frame.nbytes + 64 for frame in frames))
        for frame in frames:
            layouts.append((frame.shape, frame.dtype.str))
            end = self._films.write(np.ascontiguousarray(frame), end)
        return "said", layouts

    def do_provenance(self) -> tuple[Any, ...]:
        return "said", self.simulator.provenance()

    def do_close(self) -> tuple[Any, ...]:
        if self._simulator is not None:
            self._simulator.close()
        return "said", None

    def _tell(self, result: ChunkResult) -> tuple[Any, ...]:
        outcome = (result.reward, result.success, result.truncated, result.duration)
        return "seen", self._show(result.observation), outcome

    def _show(self, observation: Observation) -> tuple[Layout, Layout, str]:
        images, proprio = np.asarray(observation.images), np.asarray(observation.proprio)
        self._seen.grow(HEADER + images.nbytes + proprio.nbytes + 64)
        with span("answering"):
            self._seen.write(proprio, self._seen.write(images, HEADER))
        return (images.shape, images.dtype.str), (proprio.shape, proprio.dtype.str), observation.instruction


def _portable(error: Exception) -> Exception:
    """The error itself, or its text where it can't travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - anything may happen in somebody else's pickling
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def serve(line: int, seen: int, films: int) -> None:
    """Run a simulator behind these descriptors: of a socket, of the observations' memory and of the films'."""
    faulthandler.enable(2)  # a crash in C names the Python line that led there
    np.random.seed()  # else all that were forked from one process would draw alike
    beat(SharedMemory(seen))
    Child(Connection(line), SharedMemory(seen), SharedMemory(films)).run()
