"""The one interface between robots in simulation and everything that acts in them.

Shapes: V cameras, H x W pixels, P proprioception, C chunk length, A action dimension.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from avavla_ray.errors import InputError

PUBLISHED_STATES = 50  # fixed initial states a task of LIBERO's protocol


class SimulatorFailure(RuntimeError):
    """The simulator itself broke; the episode in it is lost, the run is not.

    Attributes:
        kind: "physics" (the simulation diverged or its engine gave up), "crash" (its process died), "memory" (killed
            for memory), "hang" (a step or a reset passed its deadline) or "garbage" (values or pictures that no
            simulator sends).
        shared: it did not break by itself: others went with it, and what it played is not to blame.
    """

    def __init__(self, message: str, kind: str = "physics", shared: bool = False) -> None:
        super().__init__(message, kind, shared)
        self.kind, self.shared = kind, shared

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class SimulatorConfig:
    """Which simulator, with which assets and renderer. Frozen and picklable: it travels to actors and into results.

    Attributes:
        suite: name of the task suite, for instance "libero_object".
        tasks: indices of the tasks in the suite that may be reset to; empty means all.
        assets: "official", "bundled", or a directory laid out like LIBERO's assets.
        render: "reference" (the simulator's own settings), "fast", or "none" (black images, for those who don't
            look, such as scripted experts). LIBERO's physics is stock to the last bit under "reference" and to
            rounding under the others, which agree with each other to the last bit.
        image_size: height and width of the square camera images, pixels.
        max_steps: environment steps after which an episode is truncated; None takes the suite's published limit.
        settle_steps: null actions after a reset, before the first observation.
    """

    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    assets: str = "bundled"
    render: str = "fast"
    image_size: int = 128
    max_steps: int | None = None
    settle_steps: int = 10


@dataclass(frozen=True)
class Observation:
    """What the policy may see.

    Attributes:
        images: (V, H, W, 3) uint8, upright as the policy sees them: camera 0 is the scene, camera 1 the wrist.
        proprio: (P,) float32, in the simulator's own units.
        instruction: the task in words.
    """

    images: np.ndarray
    proprio: np.ndarray
    instruction: str


@dataclass(frozen=True)
class ChunkResult:
    """What came of executing a chunk.

    Attributes:
        observation: after the last executed step.
        reward: sum of the task rewards over the executed steps (LIBERO: 1 on success).
        success: the task's own success check held.
        truncated: the time limit was reached without success.
        duration: environment steps executed, 1 <= duration <= C; fewer than C when the episode ended inside.
    """

    observation: Observation
    reward: float
    success: bool
    truncated: bool
    duration: int

    @property
    def done(self) -> bool:
        return self.success or self.truncated


@dataclass(frozen=True)
class SuiteSpec:
    """Fixed facts of a suite.

    Attributes:
        name: the suite.
        instructions: one per task.
        max_steps: the published limit of environment steps for an episode.
        num_initial_states: published fixed initial states per task.
        action_dim, proprio_dim, num_cameras: A, P, V.
        deviation: how episodes from its fixed initial states differ from what the benchmark publishes, in a phrase;
            results name it. Empty when they are the benchmark's own.
    """

    name: str
    instructions: tuple[str, ...]
    max_steps: int
    num_initial_states: int
    action_dim: int = 7
    proprio_dim: int = 8
    num_cameras: int = 2
    deviation: str = ""

    def states_a_task(self, asked: int | None) -> int:
        """How many fixed initial states of each task are played; LIBERO's 50, or all of fewer, when nobody says.

        Raises:
            InputError: there are not so many.
        """
        count = min(PUBLISHED_STATES, self.num_initial_states) if asked is None else asked
        if not 1 <= count <= self.num_initial_states:
            raise InputError(f"--episodes {count}: {self.name} has 1 to {self.num_initial_states} a task")
        return count


class Simulator(Protocol):
    """One robot scene. Not thread-safe; one per actor slot.

    Actions are in the environment's own normalised convention: (C, A) float32 in [-1, 1]; for LIBERO six OSC deltas
    and the gripper (-1 open, +1 close).
    """

    spec: SuiteSpec
    config: SimulatorConfig

    def __init__(self, config: SimulatorConfig) -> None: ...

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """Fixed facts of `suite`, without starting anything.

        Raises:
            InputError: the simulator is not installed.
        """
        ...

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """Refuse, without starting anything, what this simulator can't do; name the data that it would run on.

        Raises:
            InputError: the data is absent or does not cover the suite.
        """
        ...

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """Start an episode.

        Args:
            task: index in the suite.
            initial_state: index of a published fixed initial state; None draws a start from the task's own
                distribution with `seed` (training and demonstrations do, so that evaluation's states stay unseen).

        Raises:
            InputError: the task or the initial state does not exist.
        """
        ...

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """Execute (C, A) actions open loop, stopping at success or the time limit; render only at the end.

        With `record`, `frames()` afterwards returns a picture for every executed step.
        """
        ...

    def frames(self) -> list[np.ndarray]:
        """(H, W, 3) uint8 pictures of the scene camera since the last call; empty unless recording."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Simulator, versions, renderer, assets and their hash: what a result must name."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class PlaysUnseen(Protocol):
    """A simulator whose pictures cost many times its physics: an episode is better played first and looked at then."""

    def unseen(self) -> AbstractContextManager[None]:
        """Render nothing inside; pictures are black, and all else is as if they had been rendered."""


@dataclass
class EpisodeSummary:
    """How an episode ended; what metrics and ledgers keep.

    Attributes:
        episode_id: unique text.
        task: index in the suite.
        initial_state: published index, or None for a drawn start.
        steps: environment steps. decisions: decisions taken.
        latent_steps: mean latent steps over its decisions.
    """

    episode_id: str
    task: int
    initial_state: int | None
    seed: int
    success: bool
    steps: int
    decisions: int
    latent_steps: float
    milliseconds: list[float] = field(default_factory=list)
