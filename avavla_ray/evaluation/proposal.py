"""Which exit thresholds are worth playing, guessed from one evaluation at full depth.

At fixed depth K the records hold the gate's score after every latent step. Where a score exceeds a threshold the policy
would have left, which gives the mean latent steps at every threshold without playing again. That is exact for the first
decision of each episode alone: whoever leaves earlier acts otherwise, hands on another belief and sees other things
from then on. So it proposes what to play, and is never a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.tables import aligned

NOTE = (
    "Replayed from the gate's scores at full depth: not exact for closed-loop rollouts (after an earlier exit the "
    "robot acts and sees otherwise), and only used to propose what to play."
)
GRID = tuple(round(value / 100, 2) for value in range(101))


def recorded_scores(records: Iterable[EpisodeRecord], depth: int) -> np.ndarray:
    """Scores of all decisions of whole episodes at fixed depth K: (N, K).

    Raises:
        InputError: there are none, or the records are of another depth.
    """
    rows = [row for record in records if record.error is None for row in record.scores]
    if not rows:
        raise InputError("no gate scores were recorded: evaluate the policy at its full depth first")
    if any(len(row) != depth for row in rows):
        raise InputError(f"gate scores of another depth than {depth}: evaluate the policy at its full depth first")
    return np.array(rows)


def exit_steps(scores: np.ndarray, setting: ExitSetting) -> np.ndarray:
    """Latent steps (N,) after which the gate's scores (N, K) would have let each decision go; nobody is asked after K.

    Args:
        setting: a threshold, or one for each of the steps 1 to K - 1; without families.
    """
    depth = scores.shape[1]
    limits = np.broadcast_to(np.asarray(setting.exit_threshold, float), (depth - 1,))
    leaves = np.concatenate([scores[:, :-1] > limits, np.ones((len(scores), 1), bool)], axis=1)
    return leaves.argmax(axis=1) + 1


def threshold_for(scores: np.ndarray, steps: float) -> float:
    """The highest multiple of 0.01 at which the replay takes at most `steps` latent steps on average; 0 of none."""
    for threshold in reversed(GRID):
        if exit_steps(scores, ExitSetting(exit_threshold=threshold)).mean() <= steps:
            return threshold
    return 0.0


def fill_gaps(scores: np.ndarray, thresholds: Sequence[float], count: int) -> tuple[float, ...]:
    """So many more thresholds, each where the replayed mean steps of those so far are farthest apart.

    Fewer, where no other threshold lies between.
    """
    means = {value: float(exit_steps(scores, ExitSetting(exit_threshold=value)).mean()) for value in GRID}
    taken, found = sorted(set(thresholds)), []
    for _ in range(count):
        gaps = sorted(((means[high] - means[low], low, high) for low, high in pairwise(taken)), reverse=True)
        between: list[float] = []
        for _, low, high in gaps:
            between = [value for value in GRID if low < value < high and means[low] < means[value] < means[high]]
            if between:
                middle = (means[low] + means[high]) / 2
                found.append(min((abs(means[value] - middle), value) for value in between)[1])
                taken = sorted([*taken, found[-1]])
                break
        if not between:
            break
    return tuple(found)


def proposal_table(scores: np.ndarray, thresholds: Sequence[float]) -> str:
    """Replayed mean latent steps by threshold, as Markdown that says what it is not."""
    rows = [
        [f"{value:.2f}", f"{exit_steps(scores, ExitSetting(exit_threshold=value)).mean():.2f}"]
        for value in sorted(set(thresholds))
    ]  # fmt: skip
    return aligned(["exit threshold", "replayed mean latent steps"], rows) + f"\n{NOTE}\n"
