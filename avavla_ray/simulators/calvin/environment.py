"""PlayTableSimEnv from its YAML files: no hydra application, no data set, no tacto; cameras only when asked.

One environment a process: PyBullet's robot and camera code speaks to the process's default client, so that a second
environment renders the first one's scene.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.installation import ROBOT_FILE, Installation, import_module, need_file
from avavla_ray.simulators.calvin.observation import CAMERAS
from avavla_ray.simulators.calvin.quiet import quiet_engine

PHYSICS_HZ, CONTROL_HZ = 240.0, 30
LED = 5  # index in scene_obs

_live: Any = None


class Settings(dict):
    """A mapping whose entries are attributes too, which is how calvin_env reads its cameras' sizes."""

    __getattr__ = dict.__getitem__


def _yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(need_file(path).read_text(encoding="utf-8"))


def _settings(found: Installation, scene: str, looking: bool, robot_file: Path) -> tuple[Settings, Settings, Settings]:
    """Robot, scene and cameras with every reference between the files resolved."""
    conf = found.root / "conf"
    table = Settings(_yaml(conf / "scene" / f"calvin_scene_{scene.upper()}.yaml"), data_path=str(found.data))
    robot = Settings(
        _yaml(conf / "robot" / "panda.yaml"),
        filename=str(robot_file), gripper_joint_ids=[9, 11], tcp_link_id=15,
        base_position=table["robot_base_position"], base_orientation=table["robot_base_orientation"],
        initial_joint_positions=table["robot_initial_joint_positions"],
    )  # fmt: skip
    table["euler_obs"] = robot["euler_obs"]
    names = CAMERAS if looking else ()
    cameras = Settings({name: Settings(_yaml(conf / "cameras" / "cameras" / f"{name}.yaml")) for name in names})
    return robot, table, cameras


def _check_egl() -> None:
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        raise InputError(
            "no OpenGL library for CALVIN's reference renderer (libEGL.so.1): "
            "install it with 'apt-get install libegl1 libgl1-mesa-dri', or use --render fast"
        ) from None


def _environment_class(module: Any) -> type:
    class QuietEnvironment(module.PlayTableSimEnv):
        """Renders on demand, not at each step; frees its client once, and says nothing about it."""

        cid: int
        looking = False

        def get_camera_obs(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
            return super().get_camera_obs() if self.looking else ({}, {})

        def close(self) -> None:
            client, self.cid = self.cid, -1
            if client >= 0:
                self.p.disconnect(physicsClientId=client)

    return QuietEnvironment


def build_environment(
    found: Installation, scene: str, *, looking: bool, egl: bool, robot: Path | None = None, finest: int | None = None
) -> Any:
    """calvin_env's PlayTableSimEnv of scene "a" to "d".

    Its `looking` says whether `get_obs`, `step` and `reset` render; it is False at first.

    Args:
        looking: with cameras at all. egl: render with OpenGL instead of PyBullet's own tiny renderer.
        robot: URDF file; the clone's own when None. finest: height and width that no picture exceeds, pixels.

    Raises:
        InputError: a package or a file is missing, EGL does not load, or this process has an environment already.
    """
    global _live
    if _live is not None:
        raise InputError(
            "this process already runs a CALVIN environment, and a second one would see the first one's scene: "
            "close it, or run each in a process of its own"
        )
    module: Any = import_module("calvin_env.envs.play_table_env", found.root)
    # Its own looks for the git tree around the installed package, and raises where there is none.
    module.get_git_commit_hash = lambda _: found.commit
    if egl:
        _check_egl()
    arm, table, cameras = _settings(found, scene, looking, robot or found.data / ROBOT_FILE)
    if finest is not None:
        for camera in cameras.values():
            camera.update(width=min(finest, camera.width), height=min(finest, camera.height))
    try:
        with quiet_engine():
            environment = _environment_class(module)(
                robot_cfg=arm, scene_cfg=table, cameras=cameras, seed=0, use_vr=False, bullet_time_step=PHYSICS_HZ,
                show_gui=False, use_scene_info=True, use_egl=egl, control_freq=CONTROL_HZ,
            )  # fmt: skip
    except SystemExit:
        # calvin_env leaves the program where PyBullet can't load its renderer.
        raise InputError("PyBullet cannot load its EGL renderer here: use --render fast") from None
    _live = environment
    if egl:
        # The first frame of PyBullet's EGL renderer has no shadows.
        look(environment)
    return environment


def behaves_like(environment: Any) -> str:
    """Which of the two known versions this is, by what it does: "main", "pinned", or "other"; disturbs the scene.

    In the pinned version the LED's button forgets at a reset that its light is on, so that turning the light off takes
    two presses, and a step scales the caller's action in place.
    """
    state = environment.scene.get_obs()
    state[LED] = 1
    environment.reset(scene_obs=state)
    remembers = environment.scene.buttons[0].get_info()["logical_state"] == 1
    action = np.ones(7)
    environment.robot.relative_to_absolute(action)
    copies = bool((action == 1).all())
    return {(True, True): "main", (False, False): "pinned"}.get((remembers, copies), "other")


def look(environment: Any) -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 picture of each camera now, at the camera's own size, upright."""
    environment.looking = True
    try:
        pictures, _ = environment.get_camera_obs()
    finally:
        environment.looking = False
    return {name.removeprefix("rgb_"): np.asarray(picture, np.uint8) for name, picture in pictures.items()}


def close_environment(environment: Any) -> None:
    """Disconnect from PyBullet; another environment may be built in this process then, whatever PyBullet says."""
    global _live
    try:
        # A broken engine may have lost the client already, and what broke it is the error to tell.
        with quiet_engine(), contextlib.suppress(environment.p.error):
            environment.close()
    finally:
        if _live is environment:
            _live = None
    # What the renderer frees stays with the C library otherwise, 15 MB at each renewal; only glibc can be asked.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
