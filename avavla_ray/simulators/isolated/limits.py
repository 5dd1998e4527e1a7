"""How long a simulator's process may take and how much memory it may hold."""

from __future__ import annotations

from dataclasses import dataclass, fields

from avavla_ray.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What a simulator's process is killed for. The defaults forgive a loaded machine a factor of ten and more.

    Measured on two shared cores with LIBERO: construction below 1 s, a reset that builds another scene 1 to 5 s (12 s
    more where numba has to compile), an environment step 10 to 30 ms (400 ms with stock settings), 0.5 to 2.4 GB.

    Attributes:
        start_s: from asking for a process until its simulator is constructed, imports included.
        reset_s: of a reset, and of whatever else is asked of a simulator. step_s: of one environment step of a chunk.
            These deadlines are wall time, and they decide: nothing that a process shows of itself extends them.
        silence_s: a process that neither beats, nor uses the processor, nor waits for one, for so long, is stuck for
            certain (a deadlock, or stopped) and is killed before its deadline. See `pulse.py`.
        memory_bytes: resident memory of one simulator process.
    """

    start_s: float = 300.0
    reset_s: float = 180.0
    step_s: float = 10.0
    silence_s: float = 30.0
    memory_bytes: int = 6 * 2**30

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise InputError(f"limit {field.name} is {getattr(self, field.name)}: give more than 0")
