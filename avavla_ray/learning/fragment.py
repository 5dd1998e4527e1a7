"""The unit that travels from a rollout to the learner: T consecutive decisions of one simulator.

Plain numpy, so that Ray moves it through shared memory without copying. Letters: T decisions, K latent steps, Z latent
width, U update-action width, E encoding width, O observation tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from avavla_ray.simulators.base import EpisodeSummary


@dataclass
class Fragment:
    """Decisions in time order; several episodes may follow one another.

    Attributes:
        z: (T, K+1, Z) float32. u: (T, K, U) float32. log_prob, entropy, exit_score: (T, K) float32.
        steps: (T,) int64, latent steps taken. encoding: (T, E) float32. tokens: (T, O, Z) float32.
        reward: (T,) float32, task reward of the chunk. duration: (T,) int64, environment steps executed.
        terminated, truncated: (T,) bool, the episode ended with this decision by success / by its time limit.
        next_z: (T, Z) float32, z_0 of the observation that followed; zeros where terminated.
        version: (T,) int64, weights that decided. task: (T,) int64.
        episode: (T,) int64, index into `episode_ids`.
        finished: summaries of the episodes that ended inside.
    """

    z: np.ndarray
    u: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray
    exit_score: np.ndarray
    steps: np.ndarray
    encoding: np.ndarray
    tokens: np.ndarray
    reward: np.ndarray
    duration: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_z: np.ndarray
    version: np.ndarray
    task: np.ndarray
    episode: np.ndarray
    episode_ids: list[str] = field(default_factory=list)
    finished: list[EpisodeSummary] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def oldest_version(self) -> int:
        return int(self.version.min())


def concatenate(fragments: list[Fragment]) -> Fragment:
    """Join fragments end to end. The caller marks the seams with `chain_ends`."""
    offset, parts = 0, []
    for fragment in fragments:
        parts.append(fragment.episode + offset)
        offset += len(fragment.episode_ids)
    joined = {
        f.name: np.concatenate([getattr(fragment, f.name) for fragment in fragments])
        for f in fields(Fragment)
        if f.name not in ("episode", "episode_ids", "finished")
    }
    return Fragment(
        **joined,
        episode=np.concatenate(parts),
        episode_ids=[name for fragment in fragments for name in fragment.episode_ids],
        finished=[summary for fragment in fragments for summary in fragment.finished],
    )


def chain_ends(fragments: list[Fragment]) -> np.ndarray:
    """(T,) bool over the concatenation: True where the next row does not continue this one."""
    ends = []
    for fragment in fragments:
        end = np.logical_or(fragment.terminated, fragment.truncated)
        end[-1] = True
        ends.append(end)
    return np.concatenate(ends)
