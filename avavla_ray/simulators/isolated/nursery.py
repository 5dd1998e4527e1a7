"""The owner's side of the zygote: where simulators' processes come from and are brought to their end."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.ending import Ending
from avavla_ray.simulators.isolated.zygote import KILL_S, MESSAGE
from avavla_ray.simulators.registry import SUITES, entry_of

# A simulator computes on one core; and libraries that keep a pool of threads would start it when imported.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
STOP_S = 15.0


def modules_of(factory: Callable[..., Any], config: SimulatorConfig) -> tuple[str, ...]:
    """What a zygote for these simulators imports beforehand: what the suite names, and where the factory is from."""
    callables: list[Any] = [factory]
    for made in callables:
        if isinstance(made, partial):
            callables += [made.func, *filter(callable, made.args)]
    modules = [made.__module__ for made in callables if not isinstance(made, partial)]
    places = [module for module in modules if module != "__main__"]
    if config.suite in SUITES or ":" in config.suite:
        entry = entry_of(config.suite)
        places += [entry.simulator.partition(":")[0], *entry.preload]
    return tuple(dict.fromkeys(places))


class Nursery:
    """A zygote process of this process's own.

    Its processes have the environment and the module search path that this process had when it was started. It never
    imports this process's main module.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [os.path.abspath(path) for path in sys.path]  # "" is the working folder
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "avavla_ray.simulators.isolated.zygote", str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # an interrupt at the terminal is its owner's to act on
            )

    def fork(self, descriptors: Sequence[int], memory_limit: int, timeout_s: float) -> int:
        """A new process that serves behind these descriptors (see `child.serve`); its id.

        Raises:
            SimulatorFailure: the zygote hangs in its imports, or has died.
        """
        return self._ask(("fork", memory_limit, os.getcwd()), descriptors, timeout_s)

    def end(self, pid: int) -> Ending:
        """Kill that process, if it has not ended already; how it ended.

        Raises:
            SimulatorFailure: the zygote has died, and with it all its processes.
        """
        return self._ask(("end", pid), (), 2 * KILL_S)

    def _ask(self, request: tuple[Any, ...], descriptors: Sequence[int], timeout_s: float) -> Any:
        with self._lock:
            try:
                self._control.settimeout(timeout_s)
                socket.send_fds(self._control, [pickle.dumps(request)], list(descriptors))
                answer = self._control.recv(MESSAGE)
            except TimeoutError as error:
                self.stop(at_once=True)
                raise SimulatorFailure(
                    f"no process to simulate in within {timeout_s:.0f} s", "hang", shared=True
                ) from error
            except OSError:
                answer = b""
            except BaseException:
                self.stop(at_once=True)  # an interrupt: the answer that comes would be taken for that to another
                raise
            if not answer:
                self.stop(at_once=True)
                raise SimulatorFailure(
                    "the process that simulators are forked from died, and they with it", "crash", shared=True
                )
        return pickle.loads(answer)

    @property
    def stopped(self) -> bool:
        return self._process.returncode is not None

    def stop(self, at_once: bool = False) -> None:
        """End the zygote and all its processes."""
        self._control.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_NURSERIES: dict[tuple[Any, ...], tuple[Nursery, int]] = {}
_GUARD = threading.Lock()


class Place:
    """A simulator's claim to a nursery. Those in one process with the same imports and environment share one, which
    ends when the last of them gives up its place."""

    def __init__(self, modules: Sequence[str]) -> None:
        # A process that was forked from this one has nurseries of its own.
        self._key = (os.getpid(), tuple(modules), tuple(sorted(os.environ.items())))
        with _GUARD:
            nursery, places = _NURSERIES.get(self._key, (None, 0))
            if nursery is None or nursery.stopped:
                nursery, places = Nursery(modules), 0
            self.nursery = nursery
            _NURSERIES[self._key] = (nursery, places + 1)

    def give_up(self) -> None:
        with _GUARD:
            nursery, places = _NURSERIES.get(self._key, (None, 0))
            if nursery is not self.nursery:
                return  # it died, and the others have another one by now
            if places > 1:
                _NURSERIES[self._key] = (nursery, places - 1)
                return
            del _NURSERIES[self._key]
        if not self.nursery.stopped:
            self.nursery.stop()
