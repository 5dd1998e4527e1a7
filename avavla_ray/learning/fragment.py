"""The unit that travels from a rollout to the learner: T consecutive decisions of one simulator.

Plain numpy, so that Ray moves it through shared memory without copying. Letters: T decisions, K latent steps, Z latent
width, U update-action width, E encoding width, O observation tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from avavla_ray.simulators.base import EpisodeSummary


@dataclass
class Seen:
    """What replaying whole decisions needs: what the policy was given, and the chunk that was drawn.

    Attributes:
        images: (T, V, H, W, 3) uint8. text: (T, L) int64. proprio: (T, P) float32, normalised.
        hidden: (T, M, D) float32, history: (T, Z) float32: the belief before the decision.
        chunk: (T, C, A) float32, normalised, as drawn. action_log_prob: (T, C) float32, of its steps.
    """

    images: np.ndarray
    text: np.ndarray
    proprio: np.ndarray
    hidden: np.ndarray
    history: np.ndarray
    chunk: np.ndarray
    action_log_prob: np.ndarray


@dataclass
class Fragment:
    """Decisions in time order; several episodes may follow one another.

    Attributes:
        z: (T, K+1, Z) float32. u: (T, K, U) float32. log_prob, entropy, exit_score: (T, K) float32.
        exit_log_prob: (T, K) float32, of the drawn exit decisions; zeros where the threshold decided.
        steps: (T,) int64, latent steps taken. encoding: (T, E) float32. tokens: (T, O, Z) float32.
        reward: (T,) float32, task reward of the chunk. duration: (T,) int64, environment steps executed.
        terminated, truncated: (T,) bool, the episode ended with this decision by success / by its time limit.
        next_z: (T, Z) float32, z_0 of the observation that followed; zeros where terminated.
        version: (T,) int64, weights that decided. task: (T,) int64.
        group: (T,) int64, episodes of one group began alike; -1 without groups. With them a fragment holds whole
            episodes, and all of a group.
        episode: (T,) int64, index into `episode_ids`. decision: (T,) int64, which of its episode's, from 0.
        seen: None where only latent steps are learned from.
        finished: summaries of the episodes that ended inside.
    """

    z: np.ndarray
    u: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray
    exit_score: np.ndarray
    exit_log_prob: np.ndarray
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
    group: np.ndarray
    episode: np.ndarray
    decision: np.ndarray
    seen: Seen | None = None
    episode_ids: list[str] = field(default_factory=list)
    finished: list[EpisodeSummary] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def oldest_version(self) -> int:
        return int(self.version.min())


def concatenate(fragments: list[Fragment]) -> Fragment:
    """Join fragments end to end. The caller marks the seams with `chain_ends`.

    Groups of different fragments are different ones, whatever their numbers.
    """
    offset, parts = 0, []
    groups, last = [], 0
    for fragment in fragments:
        parts.append(fragment.episode + offset)
        offset += len(fragment.episode_ids)
        groups.append(np.where(fragment.group < 0, fragment.group, fragment.group + last))
        last = max(last, int(groups[-1].max()) + 1)
    joined = {
        f.name: np.concatenate([getattr(fragment, f.name) for fragment in fragments])
        for f in fields(Fragment)
        if f.name not in ("episode", "group", "seen", "episode_ids", "finished")
    }
    seen = [fragment.seen for fragment in fragments if fragment.seen is not None]
    if seen and len(seen) != len(fragments):
        raise ValueError(f"{len(fragments) - len(seen)} of {len(fragments)} fragments hold no observations")
    return Fragment(
        **joined,
        group=np.concatenate(groups),
        episode=np.concatenate(parts),
        seen=Seen(**{f.name: np.concatenate([getattr(part, f.name) for part in seen]) for f in fields(Seen)})
        if seen
        else None,
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
