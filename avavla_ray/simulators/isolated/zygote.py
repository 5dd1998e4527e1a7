"""The process that simulators' processes are forked from: it has their imports done, and nothing else going on.

    python -m avavla_ray.simulators.isolated.zygote DESCRIPTOR MODULE[:FUNCTION]...

Started by `nursery.py` with a socket to its owner. It has one thread and no graphics context, so that forking it is
safe where forking its owner would not be. It is the parent of the simulators' processes, hence the one that can kill
them without ever meeting a re-used process id, that learns how they ended, and that watches the memory they hold.
When its owner is gone, however that died, it kills them and goes too; when it is gone itself, the kernel kills them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avavla_ray.simulators.isolated.ending import Ending, oom_kills

TICK_S = 0.1
KILL_S = 10.0
MESSAGE = 2**16
DESCRIPTORS = 3
PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1
VICTIM = 800  # of 1000: the kernel, short of memory, takes a simulator before it takes who learns from it


@dataclass
class _Child:
    memory_limit: int
    oom_kills: int
    overweight: int = 0
    status: int | None = None


class Zygote:
    """Answers ("fork", memory limit, working folder) with a process id and ("end", process id) with an `Ending`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._owner = os.getppid()
        self._children: dict[int, _Child] = {}

    def run(self) -> None:
        """Serve until the owner is gone."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        # The line to the owner is enough, unless a fork of the owner's holds its end open too.
        while os.getppid() == self._owner:
            if poller.poll(1e3 * (TICK_S if self._children else 10 * TICK_S)) and not self._serve():
                break
            self._weigh()
        for pid in list(self._children):
            self._end(pid)

    def _serve(self) -> bool:
        """Answer one request; False when the owner is gone."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, MESSAGE, DESCRIPTORS)
            if not message:
                return False
            command, *arguments = pickle.loads(message)
            answer = self._fork(descriptors, *arguments) if command == "fork" else self._end(*arguments)
            self._control.send(pickle.dumps(answer))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _fork(self, descriptors: Sequence[int], memory_limit: int, folder: str) -> int:
        kills, parent = oom_kills(), os.getpid()
        pid = os.fork()
        if not pid:
            self._become_simulator(parent, descriptors, folder)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[pid] = _Child(memory_limit, kills)
        return pid

    def _become_simulator(self, parent: int, descriptors: Sequence[int], folder: str) -> None:
        """Never returns: nothing of the zygote's may run on in its child."""
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:  # else it died before that
                self._control.close()
                offer_to_the_kernel()
                os.chdir(folder)
                from avavla_ray.simulators.isolated.child import serve

                serve(*descriptors)
                status = 0
        except BaseException:  # noqa: BLE001 - shown, and the process ends
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _end(self, pid: int) -> Ending:
        """Kill the child unless it has ended already, and say how it ended."""
        child = self._children.pop(pid)
        deadline = time.monotonic() + KILL_S
        while not self._reap(pid, child) and time.monotonic() < deadline:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        return Ending(child.status, child.overweight, oom_kills() > child.oom_kills)

    @staticmethod
    def _reap(pid: int, child: _Child) -> bool:
        """Whether it has ended."""
        if child.status is None:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child.status = os.waitstatus_to_exitcode(status)
        return child.status is not None

    def _weigh(self) -> None:
        """Kill whoever holds more memory than it may."""
        for pid, child in self._children.items():
            if self._reap(pid, child) or child.overweight:
                continue
            held = PAGE * int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            if held > child.memory_limit:
                child.overweight = held
                os.kill(pid, signal.SIGKILL)


def offer_to_the_kernel() -> None:
    """Be the one that is killed when memory runs short, where the machine lets a process say so."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        score.write_text(str(max(VICTIM, int(score.read_text(encoding="ascii")))), encoding="ascii")


def preload(modules: Sequence[str]) -> str | None:
    """Import each "module", call each "module:function".

    Returns:
        The first of them that started a thread.
    """
    for place in modules:
        name, _, function = place.partition(":")
        try:
            module = importlib.import_module(name)
            if function:
                getattr(module, function)()
        except Exception as error:  # noqa: BLE001 - a child meets it again where it matters, and tells its owner
            print(f"not imported beforehand: {place} ({type(error).__name__}: {error})", file=sys.stderr, flush=True)
        if len(os.listdir("/proc/self/task")) > 1:
            return place
    return None


def main(descriptor: str, *modules: str) -> None:
    culprit = preload(modules)
    if culprit is not None:
        # Threads don't survive a fork, and the locks that they hold do: its children import that one themselves.
        print(f"{culprit} starts threads when it is imported: every simulator imports it anew", file=sys.stderr)
        others = [module for module in modules if module != culprit]
        os.execv(sys.executable, [sys.executable, "-m", "avavla_ray.simulators.isolated.zygote", descriptor, *others])
    gc.collect()
    gc.freeze()  # so that the children's collectors don't touch, hence copy, every page
    with socket.socket(fileno=int(descriptor)) as control:
        Zygote(control).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
