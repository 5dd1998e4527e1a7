"""LIBERO's environment with the savings that change no state and no pixel: cameras on demand, soft resets.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libero.libero
import mujoco
import numpy as np
from libero.libero.envs import TASK_MAPPING, OffScreenRenderEnv
from libero.libero.envs.bddl_base_domain import BDDLBaseDomain
from libero.libero.envs.bddl_utils import get_problem_info
from robosuite import load_controller_config
from robosuite.utils.errors import RandomizationError

from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.simulators.libero.rendering import Renderer, SharedContext
from avavla_ray.simulators.libero.sampling import Sample, SamplingClock
from avavla_ray.timing import span

CAMERAS = ("agentview", "robot0_eye_in_hand")
# Model arrays that a reset or a step of LIBERO writes: fixtures are moved, sites shown and hidden.
MUTABLE_MODEL_ARRAYS = ("body_pos", "body_quat", "site_rgba")
CONTROL_FREQUENCY = 20  # environment steps a second
ARM_NOISE = 0.02  # radians, standard deviation
PLACEMENT_ATTEMPTS = 100


@contextlib.contextmanager
def assets_in_use(path: Path) -> Iterator[None]:
    """Let LIBERO build its models from `path`, so that several sets can live in one process."""
    before = libero.libero._assets_path_cache
    libero.libero._assets_path_cache = str(path)
    try:
        yield
    finally:
        libero.libero._assets_path_cache = before


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which LIBERO's placement samplers use, and put it back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


class DecisionCameras(BDDLBaseDomain):
    """Mixed into a LIBERO problem class: stock physics and stock observation timing at a lower cost.

    The scene is sampled only while somebody watches; the instant stays robosuite's own, so a picture that is taken is
    the stock one to the pixel. Observables that nobody reads are left out. Resets keep the compiled model and still
    start from the state that a hard reset starts from.

    Attributes:
        draws_with: class of the renderer; None for those who do not look.
        sample: what was seen last.

    Args:
        args, kwargs: of the problem class.
        size: height and width of pictures, pixels.
        context: where to draw; may be None where `draws_with` is.
    """

    draws_with: type[Renderer] | None = Renderer
    sample: Sample

    def __init__(self, *args: Any, size: int, context: SharedContext | None, **kwargs: Any) -> None:
        self._size, self._context = size, context
        self._renderer: Renderer | None = None
        self._cameras: tuple[int, ...] = ()
        self._watching = False
        self._soft_reset = False
        self._clock = SamplingClock(1.0 / CONTROL_FREQUENCY)
        self._pictures = np.zeros((len(CAMERAS), size, size, 3), np.uint8)
        super().__init__(*args, **kwargs)
        self.deterministic_reset = False

    def _assert_problem_name(self) -> None:
        """The class was looked up by the problem's name; robosuite compares it with that of this subclass."""

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        super()._initialize_sim(xml_string)
        # Objects are placed by the first reset; while the environment is built that would be in vain, and may fail.
        self.deterministic_reset = True
        model, data = self.sim.model._model, self.sim.data._data
        # Nobody reads the force sensors of the gripper, and nothing depends on them.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
        self._pristine = {name: getattr(model, name).copy() for name in MUTABLE_MODEL_ARRAYS}
        if self.draws_with is not None:
            assert self._context is not None
            self._renderer = self.draws_with(model, data, self._size, self._context)

    def _reset_internal(self) -> None:
        if self._soft_reset:
            # A hard reset runs the dynamics for the new model and for its renderer; the solver's warm start remembers.
            self.sim.forward()
            self.sim.forward()
        super()._reset_internal()
        self._clock.restart()

    def reset(self) -> dict[str, Any]:
        model = self.sim.model._model
        for name, values in self._pristine.items():
            getattr(model, name)[:] = values
        for robot in self.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self._soft_reset = True
        return super().reset()

    def reset_with(self, seed: int) -> None:
        """Draw fixtures and objects from the task's placement regions with `seed`.

        Raises:
            SimulatorFailure: no placement without overlap was found.
        """
        with numpy_seed(seed):
            for _ in range(PLACEMENT_ATTEMPTS):
                try:
                    self.reset()
                    return
                except RandomizationError:
                    continue
        raise SimulatorFailure(f"no placement without overlap in {PLACEMENT_ATTEMPTS} attempts with seed {seed}")

    def scatter_arm(self, seed: int) -> None:
        """Move the arm's joints by robosuite's default start noise.

        LIBERO's wrapper switches that off, but its published initial states were drawn with it: a policy that has only
        seen the exact start pose meets another distribution there.
        """
        noise = np.random.default_rng(seed).normal(0.0, ARM_NOISE, 7)
        self.sim.data.qpos[self.robots[0]._ref_joint_pos_indexes] += noise
        self.sim.forward()

    def watch(self, *, deciding: bool, recording: bool = False) -> None:
        """Choose what the next steps sample: everything, the scene camera for a film, or nothing."""
        self._watching = deciding or recording
        self._cameras = (0, 1) if deciding else (0,) if recording else ()

    def sample_now(self) -> Sample:
        """Observe the present state, whatever the sampling clock says."""
        self._update_observables(force=True)
        return self.sample

    def close(self) -> None:
        """Free renderer, model and data."""
        if self._renderer is not None:
            self._renderer.release()
        super().close()

    def _setup_observables(self) -> dict[str, Any]:
        (robot,) = self.robots
        model = self.sim.model
        self._hand_site, self._hand_body = robot.eef_site_id, model.body_name2id(robot.robot_model.eef_name)
        self._finger_joints = np.array(robot._ref_gripper_joint_pos_indexes)
        self._camera_ids = [model.camera_name2id(camera) for camera in CAMERAS]
        return {}

    def _update_observables(self, force: bool = False) -> None:
        if self._clock.tick(self.model_timestep, force) and self._watching:
            data = self.sim.data._data
            if self._renderer is not None:
                with span("rendering", beside=True):
                    for camera in self._cameras:
                        self._renderer.draw(self._camera_ids[camera], self._pictures[camera])
            w, x, y, z = data.xquat[self._hand_body]
            self.sample = Sample(
                data.site_xpos[self._hand_site].copy(), np.array([x, y, z, w]), data.qpos[self._finger_joints],
                self._pictures,
            )  # fmt: skip

    def _get_observations(self, force_update: bool = False) -> dict[str, Any]:
        """robosuite's resets move the clock through here; what they would have seen is not needed."""
        if force_update:
            self._update_observables(force=True)
        return {}


@functools.cache
def mixed(mixin: Any, problem: Any) -> Any:
    """Class of a LIBERO problem with `mixin` before it; one for each pair, because robosuite never forgets a class."""
    return type(problem)(mixin.__name__ + problem.__name__, (mixin, problem), {})


class LiberoEnvironment(OffScreenRenderEnv):
    """LIBERO's `OffScreenRenderEnv` with its settings, built around a problem class with mixins.

    Args:
        bddl: the task's file. assets: root of the asset set.
        image_size: height and width of both cameras, pixels.
        mixin: subclass of `DecisionCameras` to put before the problem class.
        context: where it draws; None when `mixin` does not draw.
    """

    def __init__(
        self, bddl: Path, assets: Path, image_size: int, mixin: type[DecisionCameras], context: SharedContext | None
    ) -> None:
        problem = get_problem_info(str(bddl))
        self.problem_name = problem["problem_name"]
        self.domain_name = problem["domain_name"]
        self.language_instruction = problem["language_instruction"]
        with assets_in_use(assets):
            mixin_class: Any = mixin
            self.env = mixed(mixin_class, TASK_MAPPING[self.problem_name])(
                str(bddl),
                size=image_size,
                context=context,
                robots=["Panda"],
                controller_configs=load_controller_config(default_controller="OSC_POSE"),
                initialization_noise=None,
                # Cameras are drawn by the mixin.
                use_camera_obs=False,
                has_offscreen_renderer=False,
                control_freq=CONTROL_FREQUENCY,
                # Time limits are the caller's; robosuite's own (1000 steps) would end an episode with an exception.
                ignore_done=True,
                hard_reset=False,
            )
