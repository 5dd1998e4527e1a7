"""CALVIN behind the `Simulator` interface: single tasks, and the chains of its evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.provenance import package_versions
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure, SuiteSpec
from avavla_ray.simulators.calvin.environment import behaves_like, build_environment, close_environment, look
from avavla_ray.simulators.calvin.installation import installation
from avavla_ray.simulators.calvin.layout import layout_of
from avavla_ray.simulators.calvin.observation import CAMERAS, PROPRIOCEPTION, proprioception, resized
from avavla_ray.simulators.calvin.oracle import Oracle
from avavla_ray.simulators.calvin.robot_meshes import LAYOUT, reduced_robot
from avavla_ray.simulators.calvin.rules import Condition
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.calvin.starts import FIXED_STARTS, published_start, start_in, start_task
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS, TASKS
from avavla_ray.simulators.episodes import check_start, checked_actions
from avavla_ray.simulators.mesh_reduction import reduction_versions
from avavla_ray.simulators.registry import CALVIN_SUITES, check_config
from avavla_ray.timing import span

MAX_STEPS = 360
SINGLE_TASKS = "single tasks from starts that CALVIN does not publish; its protocol is chains (docs/calvin.md)"
RENDERERS = {"reference": "egl", "fast": "tiny", "none": "none"}
# PyBullet's EGL renderer keeps 11 MB at every load of the scene; a new client gives them back.
LOADS_PER_CLIENT = 20


class CalvinSimulator:
    """One CALVIN scene, of which a process can hold only one.

    Actions (C, 7) in [-1, 1]: position x 0.02 m, Euler angles x 0.05 rad, both relative to the last commanded pose and
    in the world frame; gripper 0 or more opens, less closes (LIBERO's sign is the opposite). 30 steps a second.
    Proprioception (8,): hand position 3, Euler angles 3 (the first in [0, 2 pi)), finger opening, gripper command.
    Images: the benchmark's static (200 x 200) and gripper (84 x 84) cameras, resized to image_size bilinearly with
    antialiasing; "fast" draws none of them larger than image_size in the first place. CALVIN has no settling steps:
    `settle_steps` is not used.

    Attributes:
        env: calvin_env's PlayTableSimEnv, for scripted experts.
        oracle: the benchmark's 34 predicates.
        task_name: the current task, empty before the first reset. start_info: `env.get_info()` when it began.
        robot_obs, scene_obs: (15,) and (24,) float64, the state after the last step (initial_states.py).

    Raises:
        InputError: unknown suite or task, calvin_env or what it needs is missing.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        check_config(config)
        self.config = config
        self.spec = self.suite_spec(config.suite)
        for task in config.tasks:
            check_start(self.spec, config, task, None)
        self.installation = installation()
        self.max_steps = MAX_STEPS if config.max_steps is None else config.max_steps
        self.task_name = ""
        self.start_info: dict[str, Any] = {}
        self.robot_obs, self.scene_obs = np.zeros(15), np.zeros(24)
        self._unseen = False
        self._rest: list[str] = []
        self._running = False
        self._steps = 0
        self._frames: list[np.ndarray] = []
        self.oracle = Oracle(self.installation)
        self.env: Any
        self._build()
        self._behaviour = behaves_like(self.env)

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`; needs no installation, the 34 tasks are the same everywhere."""
        check_known("CALVIN suite", suite, CALVIN_SUITES)
        return SuiteSpec(suite, tuple(INSTRUCTIONS.values()), MAX_STEPS, FIXED_STARTS, deviation=SINGLE_TASKS)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`: which calvin_env, and which numbers are made of what it says."""
        found = installation()
        told: dict[str, Any] = {
            "calvin_env_commit": found.commit, "calvin_env_version": found.version, "calvin_env_digest": found.digest,
            "proprioception": PROPRIOCEPTION,
        }  # fmt: skip
        if config.render == "fast":
            reduction_versions()  # absent packages are told here, not by every actor
            told["robot_meshes"] = f"reduced, layout {LAYOUT}"
        return told

    @property
    def _sees(self) -> bool:
        return self.config.render != "none" and not self._unseen

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """See `PlaysUnseen`."""
        before, self._unseen = self._unseen, True
        try:
            yield
        finally:
            self._unseen = before

    def _build(self) -> None:
        scene = self.config.suite.removeprefix("calvin_")
        self._egl = RENDERERS[self.config.render] == "egl"
        fast: dict[str, Any] = {}
        if self.config.render == "fast":
            fast = {"robot": reduced_robot(self.installation), "finest": self.config.image_size}
        self.env = build_environment(
            self.installation, scene, looking=self.config.render != "none", egl=self._egl, **fast
        )  # fmt: skip
        self._layout = layout_of(self.env, scene)
        self._loads = 0

    @contextlib.contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        """Turn a broken simulation into SimulatorFailure, and drop the environment: its state cannot be trusted."""
        engine_error = self.env.p.error
        try:
            yield
        except SimulatorFailure:
            self.close()
            raise
        except engine_error as error:
            self.close()
            raise SimulatorFailure(f"{self.config.suite} broke: {error}") from error

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """See `Simulator.reset`; starts.py says what the fixed and the drawn starts are.

        Raises:
            InputError: the task or the initial state does not exist.
            SimulatorFailure: the physics broke, or no start could be drawn.
        """
        check_start(self.spec, self.config, task, initial_state)
        with span("reset"):
            self._load(seed)
        with self._failing_loudly(), span("reset"):
            start_task(self.env, self._layout, TASKS[task], initial_state, seed)
        self._rest = []
        return self._begin(TASKS[task])

    def begin_sequence(self, sequence: Sequence) -> Observation:
        """Start a chain: reset to its condition and begin its first task (docs/calvin.md, "Chains").

        The tasks of a chain are not held to `config.tasks`.

        Raises:
            SimulatorFailure: the physics broke.
        """
        with span("reset"):
            self._load(0)
        with self._failing_loudly(), span("reset"):
            published_start(self.env, self._layout, sequence.condition)
        first, *self._rest = sequence.tasks
        return self._begin(first)

    def begin_chain(
        self, condition: Condition, tasks: tuple[str, ...], seed: int, random: np.random.Generator
    ) -> Observation:
        """Start a chain of `tasks` in a draw of `condition` and begin its first task.

        Args:
            seed: of the scene. random: of the draw; the one that the chain was drawn with, gone on with.

        Raises:
            SimulatorFailure: the physics broke, or no start could be drawn.
        """
        self._load(seed)
        with self._failing_loudly():
            start_in(self.env, self._layout, tasks[0], condition, random)
        first, *self._rest = tasks
        return self._begin(first)

    def next_task(self) -> Observation:
        """Go on to the chain's next task in the scene as it is: new instruction, new time limit.

        Raises:
            InputError: no chain is running, or it has no more tasks.
        """
        if not self._rest or self.env is None:
            raise InputError("there is no next task: begin a sequence, which has five")
        return self._begin(self._rest.pop(0))

    def _load(self, seed: int) -> None:
        """An empty scene, the same whatever happened before: PyBullet's own reset keeps traces of the last episode."""
        self._running, self._frames = False, []
        if self.env is not None and self._egl and self._loads >= LOADS_PER_CLIENT:
            self.close()
        if self.env is None:
            self._build()
        with self._failing_loudly():
            self.env.seed(seed)
            # Captured at construction; loading the blocks draws from it.
            self.env.scene.np_random = self.env.np_random
            self.env.load()
            self._loads += 1
            # Left over from the last episode otherwise, and part of the observation.
            self.env.robot.gripper_action = 1

    def _begin(self, name: str) -> Observation:
        with self._failing_loudly():
            self._read(self.env.get_obs())
            self.start_info = self.env.get_info()
            self.task_name, self._steps, self._running = name, 0, True
            return self._observation()

    def _read(self, raw: dict[str, Any]) -> None:
        self.robot_obs, self.scene_obs = np.asarray(raw["robot_obs"], float), np.asarray(raw["scene_obs"], float)
        if not (np.isfinite(self.robot_obs).all() and np.isfinite(self.scene_obs).all()):
            raise SimulatorFailure(f"physics diverged in {self.config.suite}: a state is not finite")

    def _observation(self) -> Observation:
        size = self.config.image_size
        images = np.zeros((len(CAMERAS), size, size, 3), np.uint8)
        with span("observation"):
            if self._sees:
                with span("rendering", beside=True):
                    pictures = look(self.env)
                for index, camera in enumerate(CAMERAS):
                    images[index] = resized(pictures[camera], size)
            return Observation(images, proprioception(self.robot_obs), INSTRUCTIONS[self.task_name])

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`. With `record`, frames show the static camera, black without a renderer.

        Raises:
            InputError: actions of another shape or not finite, or no episode is running.
            SimulatorFailure: the physics diverged or PyBullet gave up; the next reset builds the scene anew.
        """
        actions = checked_actions(self.spec, actions).astype(np.float64)
        if not self._running:
            raise InputError("no episode is running: call reset first")
        # The environment accepts nothing between -1 and 1 for the gripper.
        gripper = np.where(actions[:, -1:] >= 0, 1.0, -1.0)
        commands = np.concatenate([np.clip(actions[:, :-1], -1.0, 1.0), gripper], axis=1)
        duration, success = 0, False
        with self._failing_loudly():
            while not success and duration < min(len(commands), self.max_steps - self._steps):
                # Each row belongs to us alone: the pinned calvin_env scales in place what it is given.
                with span("physics"):
                    raw, _, _, info = self.env.step(commands[duration])
                    duration += 1
                    self._read(raw)
                    success = self.oracle.done(self.task_name, self.start_info, info)
                if record:
                    self._frames.append(self._picture())
            self._steps += duration
            observation = self._observation()
        truncated = not success and self._steps >= self.max_steps
        self._running = not (success or truncated)
        return ChunkResult(observation, float(success), success, truncated, duration)

    def _picture(self) -> np.ndarray:
        if not self._sees:
            return np.zeros((self.config.image_size, self.config.image_size, 3), np.uint8)
        with span("rendering"):
            return resized(look(self.env)[CAMERAS[0]], self.config.image_size)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`."""
        frames, self._frames = self._frames, []
        return frames

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`."""
        return {
            "simulator": "calvin", "suite": self.config.suite, "render": self.config.render,
            "renderer": RENDERERS[self.config.render],
            "image_size": self.config.image_size, "max_steps": self.max_steps,
            **self.identify(self.config), "calvin_env_behaves_like": self._behaviour,
            "pybullet": package_versions().get("pybullet", "unknown"),
            "image_resize": "bilinear, larger only" if self.config.render == "fast" else "bilinear, antialiased",
        }  # fmt: skip

    def close(self) -> None:
        """Free the environment with its renderer; the simulator can be reset again."""
        if self.env is not None:
            close_environment(self.env)
        self.env = None
        self._running = False
