"""A fragment in the making: arrays that a decision is written into row by row, and that are handed over uncopied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.simulators.base import ChunkResult, EpisodeSummary

_COUNTED = {
    "reward": np.float32, "duration": np.int64, "terminated": np.bool_, "truncated": np.bool_, "version": np.int64,
    "task": np.int64, "episode": np.int64, "decision": np.int64,
}  # fmt: skip
_SEEN = {f"seen/{field.name}": field.name for field in fields(Seen)}
DECIDED = ("z", "u", "log_prob", "entropy", "exit_score", "exit_log_prob", "steps", "encoding", "tokens")


class Rows:
    """Decisions of one simulator, in time order.

    A row begins with its decision and counts once its chunk has been executed; what begins next takes the place of one
    whose chunk never was.

    Args:
        capacity: rows to begin with; it grows where that is too few.

    Attributes:
        loose: nothing is known yet of what followed the last row.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity, self._length, self.loose = capacity, 0, False
        self._arrays: dict[str, np.ndarray] = {}
        self._episode = ""
        self._ids: list[str] = []
        self._finished: list[EpisodeSummary] = []

    def __len__(self) -> int:
        return self._length

    def begin(
        self, parts: Mapping[str, np.ndarray], index: int, *, version: int, task: int, episode: str, decision: int
    ) -> None:
        """Write row `index` of a decision's arrays, whose z_0 is also what followed the row before.

        Args:
            parts: by name, DECIDED and maybe "seen/" and the name of a field of `Seen`. decision: see `Fragment`.
        """
        at, arrays = self._length, self._arrays
        if not arrays or at == self._capacity:
            arrays = self._grow(parts)
        if self.loose:
            self.follow(parts["z"][index, 0])
        for name, values in parts.items():
            arrays[name][at] = values[index]
        arrays["version"][at], arrays["task"][at], arrays["decision"][at] = version, task, decision
        self._episode = episode

    def end(self, result: ChunkResult) -> None:
        """The row that was begun has been executed."""
        at, arrays = self._length, self._arrays
        if not self._ids or self._ids[-1] != self._episode:
            self._ids.append(self._episode)
        arrays["episode"][at] = len(self._ids) - 1
        arrays["reward"][at], arrays["duration"][at] = result.reward, result.duration
        arrays["terminated"][at], arrays["truncated"][at] = result.success, result.truncated
        self._length += 1
        self.loose = not result.success
        if result.success:
            arrays["next_z"][at] = 0

    def finish(self, summary: EpisodeSummary) -> None:
        """The episode of the last row has ended."""
        self._finished.append(summary)

    def awaited(self) -> None:
        """What follows the last row is told by `follow` and not by the decision that comes next."""
        self.loose = False

    def follow(self, z0: np.ndarray, at: int = -1) -> None:
        """z_0 (Z,) of what followed the row at this position, by default the last."""
        self._arrays["next_z"][self._length - 1 if at < 0 else at] = z0
        self.loose = False if at < 0 else self.loose

    def discard(self) -> None:
        """Nobody will learn what followed."""
        self._length, self.loose = 0, False

    def fragment(self) -> Fragment | None:
        """What there is, without a last row that is loose; None where that is nothing. The rows are used up."""
        if self.loose:
            self._length -= 1
        if self._length == 0:
            return None
        arrays = {name: values[: self._length] for name, values in self._arrays.items()}
        seen = {field: arrays.pop(name) for name, field in _SEEN.items() if name in arrays}
        return Fragment(
            **arrays, group=np.full(self._length, -1, np.int64), seen=Seen(**seen) if seen else None,
            episode_ids=self._ids, finished=self._finished,
        )  # fmt: skip

    def _grow(self, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._arrays:
            self._capacity *= 2
        shapes = {name: (values.shape[1:], values.dtype) for name, values in parts.items()}
        shapes |= {name: ((), np.dtype(kind)) for name, kind in _COUNTED.items()}
        shapes["next_z"] = (parts["z"].shape[2:], parts["z"].dtype)
        before, self._arrays = self._arrays, {}
        for name, (shape, dtype) in shapes.items():
            array = self._arrays[name] = np.empty((self._capacity, *shape), dtype)
            if before:
                array[: self._length] = before[name]
        return self._arrays
