"""The table-top behind the `Simulator` interface: a real little MuJoCo scene for tests of what drives a simulator.

Actions (7), normalised to [-1, 1] and clipped to it, move the gripper on its rails: 0, 1, 2 its x, y, z by up to 1 cm
in an environment step; 3, 4 (roll, pitch) are ignored, there is no such rail; 5 its yaw by up to 0.1 rad; 6 the
fingers, from -1 open to +1 closed. Proprioception (8): x, y, z of the point between the fingertips, the gripper's
rotation vector (0, 0, yaw), and how far either finger is from the middle; metres and radians. So a policy for LIBERO
fits without a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.provenance import package_versions
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure, SuiteSpec
from avavla_ray.simulators.episodes import check_start, checked_actions, start_random
from avavla_ray.simulators.mujoco_cameras import MujocoCameras
from avavla_ray.simulators.mujoco_physics import load_mujoco
from avavla_ray.simulators.registry import check_config
from avavla_ray.simulators.tabletop.goals import Goal
from avavla_ray.simulators.tabletop.scene import (
    SCENE_CAMERA,
    WRIST_CAMERA,
    scene_digest,
    start_gripper,
    start_poses,
)
from avavla_ray.simulators.tabletop.tasks import CUE_STEPS, Task, suite_spec, task_at
from avavla_ray.timing import span

if TYPE_CHECKING:
    from avavla_ray.simulators.tabletop.world import World


class TabletopSimulator:
    """One table. Its scene has no assets and one way to be rendered: "fast" and "reference" are the same.

    A start depends on the seed, or on the number of the initial state, and not on the task. In tabletop_memory the
    lamp shows the target for CUE_STEPS environment steps, and chunks that begin while it is lit have no effect: the
    gripper stands still, so that nothing in the scene can remember the colour.

    Attributes:
        world: the running physics, for scripted experts.
        task: the current task, None before the first reset.

    Raises:
        InputError: unknown suite or task, no OpenGL, MuJoCo not installed.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        check_config(config)
        self.config = config
        self.spec = suite_spec(config.suite)
        for task in config.tasks:
            task_at(config.suite, task)
        self.max_steps = self.spec.max_steps if config.max_steps is None else config.max_steps
        self.task: Task | None = None
        self._world: World | None = None
        self._goal: Goal | None = None
        self._cameras: MujocoCameras | None = None
        self._open()
        self._running = False
        self._steps = 0
        self._frames: list[np.ndarray] = []

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`."""
        return suite_spec(suite)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`: the digest of the scene; it has no assets, whatever `config.assets` says."""
        suite_spec(config.suite)
        return {"scene_digest": scene_digest()}

    def _open(self) -> None:
        load_mujoco()
        from avavla_ray.simulators.tabletop.world import World

        self._world = World()
        self._cameras = MujocoCameras(self._world.model, self.config.image_size, blind=self.config.render == "none")

    @property
    def world(self) -> World:
        if self._world is None:
            self._open()
        assert self._world is not None
        return self._world

    @property
    def cue_lit(self) -> bool:
        """Whether the lamp shows the target now."""
        return self.task is not None and self.task.kind == "recall" and self._steps < CUE_STEPS

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """See `Simulator.reset`.

        Raises:
            InputError: the task or the initial state does not exist.
        """
        check_start(self.spec, self.config, task, initial_state)
        random = start_random(initial_state, seed)
        self.task = task_at(self.config.suite, task)
        self._goal = Goal(self.task)
        self._steps, self._frames, self._running = 0, [], True
        with span("reset"):
            self.world.place(start_poses(random), start_gripper(random))
            for _ in range(self.config.settle_steps):
                self._step(None)
        return self._observe()

    def _step(self, action: np.ndarray | None) -> None:
        try:
            self.world.step(action)
        except SimulatorFailure:
            self.close()
            raise

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`.

        Raises:
            InputError: actions of another shape or not finite, or no episode is running.
            SimulatorFailure: the physics diverged; the next reset builds the scene anew.
        """
        actions = checked_actions(self.spec, actions)
        if not self._running or self._goal is None:
            raise InputError("no episode is running: call reset first")
        success, duration, braked = False, 0, self.cue_lit
        for action in actions[: self.max_steps - self._steps]:
            with span("physics"):
                self._step(None if braked else action)
                self._steps += 1
                duration += 1
                success = self._goal.check(self.world)
            if record:
                self._frames.append(self._look(SCENE_CAMERA)[0])
            if success:
                break
        truncated = not success and self._steps >= self.max_steps
        self._running = not (success or truncated)
        return ChunkResult(self._observe(), float(success), success, truncated, duration)

    def _look(self, *cameras: str) -> np.ndarray:
        """(V, H, W, 3) uint8."""
        assert self._cameras is not None
        assert self.task is not None
        self.world.light(self.task.block if self.cue_lit else "dark")
        with span("rendering", beside=True):
            return self._cameras.render(self.world.data, cameras)

    def _observe(self) -> Observation:
        assert self.task is not None
        with span("observation"):
            x, y, z, yaw = self.world.gripper
            proprio = np.array([x, y, z, 0.0, 0.0, yaw, *self.world.fingers], np.float32)
            return Observation(self._look(SCENE_CAMERA, WRIST_CAMERA), proprio, self.task.instruction)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`."""
        frames, self._frames = self._frames, []
        return frames

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`."""
        return {
            "simulator": "tabletop", "suite": self.config.suite, "render": self.config.render,
            "image_size": self.config.image_size, "settle_steps": self.config.settle_steps,
            "max_steps": self.max_steps, "scene_digest": scene_digest(), "mujoco": package_versions()["mujoco"],
        }  # fmt: skip

    def close(self) -> None:
        """Free scene and renderer; the simulator can be reset again."""
        if self._cameras is not None:
            self._cameras.release()
        self._world = self._cameras = self.task = None
        self._running = False
