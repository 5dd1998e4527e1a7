"""LIBERO's environment with the savings that change no state and no pixel: cameras on demand, soft resets.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libero.libero
import numpy as np
from libero.libero.envs import TASK_MAPPING, OffScreenRenderEnv
from libero.libero.envs.bddl_base_domain import BDDLBaseDomain
from libero.libero.envs.bddl_utils import get_problem_info
from robosuite import load_controller_config
from robosuite.utils.binding_utils import MjRenderContextOffscreen
from robosuite.utils.errors import RandomizationError
from robosuite.utils.observables import sensor

from avavla_ray.simulators.base import SimulatorFailure

SCENE_CAMERA, WRIST_CAMERA = "agentview", "robot0_eye_in_hand"
PROPRIOCEPTION = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
# Model arrays that a reset or a step of LIBERO writes: fixtures are moved, sites shown and hidden.
MUTABLE_MODEL_ARRAYS = ("body_pos", "body_quat", "site_rgba")
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


_CONTEXTS: weakref.WeakSet[OwnRenderContext] = weakref.WeakSet()


def _release_all() -> None:
    for context in list(_CONTEXTS):
        context.release()


@functools.cache
def _release_all_at_exit() -> None:
    # Registered after robosuite's exit handler, hence run before it: that one takes the display away.
    atexit.register(_release_all)


class OwnRenderContext(MjRenderContextOffscreen):
    """robosuite's renderer with a GL context that lives beside others in one process and is freed once, in order."""

    _freed = True  # until the constructor has come to its end

    def __init__(self, sim: Any, device_id: int) -> None:
        super().__init__(sim, device_id=device_id)
        self._freed = False
        _CONTEXTS.add(self)
        _release_all_at_exit()

    def render(self, *args: Any, **kwargs: Any) -> None:
        self.gl_ctx.make_current()
        super().render(*args, **kwargs)

    def release(self) -> None:
        """Free the renderer's memory and its GL context; a second call does nothing."""
        if not self._freed:
            self._freed = True
            self.gl_ctx.make_current()
            self.con.free()
            self.gl_ctx.free()

    def __del__(self) -> None:
        self.release()


class DecisionCameras(BDDLBaseDomain):
    """Mixed into a LIBERO problem class: stock physics and stock observation timing at a lower cost.

    Cameras render only while they are in `watching`; the sampling instant stays robosuite's own, so a picture that is
    taken is the stock one to the pixel. Observables that nobody reads are left out. Resets keep the compiled model
    and still start from the state that a hard reset starts from.
    """

    render_context = OwnRenderContext

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.watching: set[str] = set()
        self._soft_reset = False
        super().__init__(*args, **kwargs)

    def _assert_problem_name(self) -> None:
        """The class was looked up by the problem's name; robosuite compares it with that of this subclass."""

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        super()._initialize_sim(xml_string)
        model = self.sim.model._model
        self._pristine = {name: getattr(model, name).copy() for name in MUTABLE_MODEL_ARRAYS}

    def _reset_internal(self) -> None:
        if self.sim._render_context_offscreen is None:
            self.render_context(self.sim, device_id=self.render_gpu_device_id)
        if self._soft_reset:
            # A hard reset runs the dynamics for the new model and for its renderer; the solver's warm start remembers.
            self.sim.forward()
            self.sim.forward()
        super()._reset_internal()

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
        """Choose what the next steps render: both cameras, the scene camera for a film, or nothing."""
        self.watching = {SCENE_CAMERA, WRIST_CAMERA} if deciding else {SCENE_CAMERA} if recording else set()

    def sample_now(self) -> dict[str, np.ndarray]:
        """Observe the present state, whatever the sampling clock says."""
        return self._get_observations(force_update=True)

    def close(self) -> None:
        """Free renderer, model and data."""
        if self.sim is not None and self.sim._render_context_offscreen is not None:
            self.sim._render_context_offscreen.release()
        super().close()

    def _create_camera_sensors(self, cam_name: str, *args: Any, **kwargs: Any) -> tuple[list, list]:
        (render, *others), names = super()._create_camera_sensors(cam_name, *args, **kwargs)
        assert not others
        picture = np.zeros((kwargs["cam_h"], kwargs["cam_w"], 3), np.uint8)

        @sensor(modality="image")
        def on_demand(obs_cache: dict) -> np.ndarray:
            nonlocal picture
            if cam_name in self.watching:
                picture = render(obs_cache)
            return picture

        return [on_demand], names

    def _setup_observables(self) -> dict[str, Any]:
        wanted = {*PROPRIOCEPTION, f"{SCENE_CAMERA}_image", f"{WRIST_CAMERA}_image"}
        return {name: value for name, value in super()._setup_observables().items() if name in wanted}


class LiberoEnvironment(OffScreenRenderEnv):
    """LIBERO's `OffScreenRenderEnv` with its settings, built around a problem class with mixins.

    Args:
        bddl: the task's file. assets: root of the asset set.
        image_size: height and width of both cameras, pixels.
        mixin: subclass of `DecisionCameras` to put before the problem class.
    """

    def __init__(self, bddl: Path, assets: Path, image_size: int, mixin: type[DecisionCameras]) -> None:
        problem = get_problem_info(str(bddl))
        self.problem_name = problem["problem_name"]
        self.domain_name = problem["domain_name"]
        self.language_instruction = problem["language_instruction"]
        stock = TASK_MAPPING[self.problem_name]
        problem_class = type(stock)(mixin.__name__ + stock.__name__, (mixin, stock), {})
        with assets_in_use(assets):
            self.env = problem_class(
                str(bddl),
                robots=["Panda"],
                controller_configs=load_controller_config(default_controller="OSC_POSE"),
                initialization_noise=None,
                camera_names=[SCENE_CAMERA, WRIST_CAMERA],
                camera_heights=image_size,
                camera_widths=image_size,
                control_freq=20,
                # Time limits are the caller's; robosuite's own (1000 steps) would end an episode with an exception.
                ignore_done=True,
                hard_reset=False,
            )
