"""How a simulator's process ended, in words and as a kind of `SimulatorFailure`."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ending:
    """What the zygote saw of a child's end.

    Attributes:
        status: exit status, minus the signal's number if it died of one; None when it could not be killed (a process
            that hangs inside the kernel).
        overweight: bytes it held when it was killed for that, else 0.
        oom: the kernel has killed for want of memory during its life.
    """

    status: int | None
    overweight: int = 0
    oom: bool = False

    @property
    def kind(self) -> str:
        short_of_memory = self.overweight or (self.oom and self.status == -signal.SIGKILL)
        return "memory" if short_of_memory else "crash"

    def describe(self) -> str:
        if self.overweight:
            return f"its process held {self.overweight / 2**20:.0f} MiB and was killed for that"
        if self.kind == "memory":
            return "the kernel killed its process for want of memory"
        if self.status is None:
            return "its process ended and could not be waited for"
        if self.status >= 0:
            return f"its process ended with status {self.status}"
        if -self.status not in set(signal.Signals):  # real-time signals have no names
            return f"its process died of signal {-self.status}"
        number = signal.Signals(-self.status)
        return f"its process died of {number.name} ({(signal.strsignal(number) or 'signal').lower()})"


def oom_kills() -> int:
    """Processes on this machine that the kernel has killed for want of memory, inside control groups or not.

    0 where the kernel does not count them: such an end is then told as a crash.
    """
    counters = Path("/proc/vmstat")
    for line in counters.read_text(encoding="ascii").splitlines() if counters.exists() else ():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0
