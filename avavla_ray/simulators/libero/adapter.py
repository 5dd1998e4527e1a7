"""LIBERO behind the `Simulator` interface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.provenance import package_versions
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.libero.assets import AssetSource, resolve_assets
from avavla_ray.simulators.libero.installation import prepare
from avavla_ray.simulators.libero.suites import Task, initial_states, suite_spec, task_at

NULL_ACTION = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(3,) rotation vector, radians, of a unit quaternion (x, y, z, w).

    q and -q are one rotation. The one with x >= 0 is taken: the hand points down, a half turn about x, so this choice
    is continuous around every pose that it works in, where w >= 0 would flip the sign of the vector at rest.
    """
    x, y, z, w = quaternion if quaternion[0] >= 0 else -quaternion
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-8:
        return np.zeros(3)
    return np.array([x, y, z]) / length * (2 * math.atan2(length, w))


class LiberoSimulator:
    """One LIBERO scene; it holds the environment of the current task and builds another when the task changes.

    Observations are sampled when stock LIBERO samples them, which is one physics step (2 ms) before the end of the
    environment step. The picture of an episode that ended inside a chunk is of the end of its last step.

    Attributes:
        env: LIBERO's environment of the current task, for scripted experts; so are `model` and `data`.
        task: the current task, None before the first reset.
        assets: the set of assets in use.

    Raises:
        InputError: unknown suite or task, assets that do not cover the suite, no OpenGL, LIBERO not installed.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.spec = suite_spec(config.suite)
        for task in config.tasks:
            task_at(config.suite, task)
        self.assets: AssetSource = resolve_assets(config.assets, config.suite)
        prepare()
        self.max_steps = self.spec.max_steps if config.max_steps is None else config.max_steps
        self.env: Any = None
        self.task: Task | None = None
        self._running = False
        self._steps = 0
        self._frames: list[np.ndarray] = []

    @property
    def model(self) -> Any:
        """MuJoCo's MjModel of the current task."""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """MuJoCo's MjData of the current task."""
        return self.env.sim.data._data

    def _build(self, task: Task) -> None:
        from avavla_ray.simulators.libero.environment import LiberoEnvironment
        from avavla_ray.simulators.libero.fast import FastRendering
        from avavla_ray.simulators.libero.stepping import ExactSteps

        self.close()
        mixin = {"reference": ExactSteps, "fast": FastRendering}[self.config.render]
        try:
            self.env = LiberoEnvironment(task.bddl, self.assets.path, self.config.image_size, mixin)
        except FileNotFoundError as error:
            raise InputError(
                f"the assets at {self.assets.path} do not cover {task.suite} task {task.index}: "
                f"{error.filename} is missing; use --assets official or another directory"
            ) from error
        self.task = task

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """See `Simulator.reset`. Fixtures are placed with `seed` also when `initial_state` is given.

        Raises:
            InputError: the task or the initial state does not exist, or the assets lack one of its files.
            SimulatorFailure: objects could not be placed, or the physics diverged while they settled.
        """
        wanted = task_at(self.config.suite, task)
        if self.config.tasks and task not in self.config.tasks:
            raise InputError(f"task {task} is not among the tasks {self.config.tasks} of this simulator")
        if initial_state is not None and not 0 <= initial_state < self.spec.num_initial_states:
            raise InputError(
                f"initial state {initial_state} does not exist: {self.config.suite} has 0 to "
                f"{self.spec.num_initial_states - 1} for each task"
            )
        if self.task != wanted:
            self._build(wanted)
        self._steps, self._frames, self._running = 0, [], False
        self.env.env.reset_with(seed)
        if initial_state is None:
            self.env.env.scatter_arm(seed)
        else:
            self.env.set_init_state(initial_states(wanted)[initial_state])
        for step in range(self.config.settle_steps):
            self._watch(step == self.config.settle_steps - 1)
            raw, _ = self._step(NULL_ACTION)
        if not self.config.settle_steps:
            raw = self._sample_now()
        self._running = True
        return self._observation(raw)

    def _watch(self, deciding: bool, recording: bool = False) -> None:
        from avavla_ray.simulators.libero.environment import SCENE_CAMERA, WRIST_CAMERA

        cameras = {SCENE_CAMERA, WRIST_CAMERA} if deciding else {SCENE_CAMERA} if recording else set()
        self.env.env.watching = cameras

    def _sample_now(self) -> dict[str, np.ndarray]:
        self._watch(True)
        return self.env.env._get_observations(force_update=True)

    def _step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
        raw, _, success, _ = self.env.step(action)
        self._check_physics()
        return raw, bool(success)

    def _check_physics(self) -> None:
        # MuJoCo answers a diverged state with a warning and a silent reset to the model's default pose.
        import mujoco

        kinds = mujoco.mjtWarning
        for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
            if self.data.warning[kind].number:
                self._running = False
                raise SimulatorFailure(
                    f"physics diverged in {self.config.suite} after {self._steps} steps ({kind.name})"
                )

    def _observation(self, raw: dict[str, np.ndarray]) -> Observation:
        assert self.task is not None
        images = np.stack([raw["agentview_image"], raw["robot0_eye_in_hand_image"]])
        proprio = np.concatenate(
            [raw["robot0_eef_pos"], axis_angle(raw["robot0_eef_quat"]), raw["robot0_gripper_qpos"]]
        )
        # OpenGL rows run bottom up; OpenVLA turns the raw frame by 180 degrees, and policies expect its mirror image.
        return Observation(
            np.ascontiguousarray(images[:, ::-1, ::-1]), proprio.astype(np.float32), self.task.instruction
        )

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`.

        Raises:
            InputError: actions of another shape or not finite, or no episode is running.
            SimulatorFailure: the physics diverged.
        """
        actions = np.asarray(actions, np.float32)
        if actions.ndim != 2 or actions.shape[1] != self.spec.action_dim or not len(actions):
            raise InputError(f"actions of shape {actions.shape}: give (C, {self.spec.action_dim}) with C of at least 1")
        if not np.isfinite(actions).all():
            raise InputError("actions hold a value that is not finite: check what made them")
        if not self._running:
            raise InputError("no episode is running: call reset first")
        last = min(len(actions), self.max_steps - self._steps)
        for duration, action in enumerate(actions[:last], start=1):
            self._watch(duration == last, record)
            raw, success = self._step(action)
            self._steps += 1
            if success and duration < last:
                raw = self._sample_now()
            if record:
                self._frames.append(np.ascontiguousarray(raw["agentview_image"][::-1, ::-1]))
            if success:
                break
        truncated = not success and self._steps >= self.max_steps
        self._running = not (success or truncated)
        return ChunkResult(self._observation(raw), float(success), success, truncated, duration)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`."""
        frames, self._frames = self._frames, []
        return frames

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`."""
        versions = package_versions()
        return {
            "simulator": "libero", "suite": self.config.suite, "render": self.config.render,
            "image_size": self.config.image_size, "settle_steps": self.config.settle_steps,
            "max_steps": self.max_steps, "assets": self.assets.kind, "assets_path": str(self.assets.path),
            "assets_digest": self.assets.digest, "mujoco": versions["mujoco"], "robosuite": versions["robosuite"],
            "hf_libero": versions["hf-libero"],
        }  # fmt: skip

    def close(self) -> None:
        """Free the environment with its renderer; the simulator can be reset again."""
        if self.env is not None:
            self.env.close()
        self.env = self.task = None
        self._running = False
