"""Signs of life of a simulator's process.

What is used for what:

- The deadline decides (limits.py). An endless loop in Python beats and burns processor time like a slow simulator;
  only the clock tells them apart.
- The heart is a thread of the simulator's process that writes the time into shared memory. It stops while C code holds
  the interpreter's lock, so that its silence alone proves nothing: compiling a shader is silent too. But compiling uses
  the processor, and on a loaded machine waits for one. A process that does neither and does not beat waits for
  something that nobody will ever give it: it need not be waited for until its deadline.
- The failure's message says what the process showed, so that a reader can tell a slow machine from a deadlock.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from avavla_ray.simulators.isolated.memory import SharedMemory

BEAT_S = 0.25
HEADER = 64  # bytes at the start of the shared memory; the heart's time is the first eight of them


def beat(memory: SharedMemory) -> None:
    """Start the heart of this process; `memory` is its alone."""
    heart = memory.view((1,), "f8")

    def keep_beating() -> None:
        while True:
            heart[0] = time.monotonic()
            time.sleep(BEAT_S)

    threading.Thread(target=keep_beating, name="heart", daemon=True).start()


class Pulse:
    """Watches the process `pid` while its owner waits for an answer."""

    def __init__(self, pid: int, memory: SharedMemory) -> None:
        self._stat, self._memory = Path(f"/proc/{pid}/stat"), memory
        self._seen: tuple[float, int] = (0.0, 0)
        self._sign = time.monotonic()
        self.state = "R"

    def feel(self) -> None:
        """Look now; call it every few tenths of a second."""
        try:
            # The name in parentheses may hold spaces; times are those of all threads, in ticks.
            fields = self._stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            self.state = "Z"
            return
        self.state = fields[0]
        seen = (float(self._memory.view((1,), "f8")[0]), int(fields[11]) + int(fields[12]))
        if seen != self._seen or self.state == "R":
            self._seen, self._sign = seen, time.monotonic()

    @property
    def dead(self) -> bool:
        """It has ended, perhaps with others still holding its end of the line open."""
        return self.state in "ZX"

    @property
    def silence(self) -> float:
        """Seconds without a heartbeat, without processor time, and without waiting for the processor."""
        return time.monotonic() - self._sign

    def describe(self) -> str:
        """For a message."""
        age = time.monotonic() - self._seen[0]
        heart = "its heart beats" if age < 4 * BEAT_S else f"its heart has not beaten for {age:.0f} s"
        return f"{heart}, process state {self.state}"
