"""Stored states of LIBERO shown again: pictures of any size of an episode that was recorded elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Observation
from avavla_ray.simulators.libero.adapter import LiberoSimulator
from avavla_ray.simulators.libero.suites import task_at

Poses = Mapping[str, tuple[np.ndarray, np.ndarray]]


def body_poses(model_file: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position (3,) and quaternion (4,) w, x, y, z of every named body in its parent, as MuJoCo saved a model.

    Raises:
        InputError: "sort: particulars"; not a saved MJCF model.
    """
    try:
        return {
            body.attrib["name"]: (_numbers(body, "pos", "0 0 0"), _numbers(body, "quat", "1 0 0 0"))
            for body in ElementTree.fromstring(model_file).iter("body")
            if "name" in body.attrib
        }
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"not readable: model_file is no MuJoCo model ({error})") from error


def _numbers(body: ElementTree.Element, key: str, default: str) -> np.ndarray:
    numbers = np.array(body.get(key, default).split(), float)
    if len(numbers) != len(default.split()) or not np.isfinite(numbers).all():
        raise ValueError(f"{key} of body {body.get('name')} is {body.get(key)!r}")
    other = {"axisangle", "euler", "xyaxes", "zaxis"} & set(body.keys())
    if other:
        raise ValueError(f"body {body.get('name')} has {min(other)}, where MuJoCo saves quat")
    return numbers


class LiberoReplay(LiberoSimulator):
    """Shows states instead of making them; what it shows depends on the state alone.

    A state's observation is that of its own instant. A running episode is observed up to one physics step (2 ms)
    earlier, see `LiberoSimulator`.
    """

    def begin(self, task: int, fixtures: Poses | None) -> None:
        """Go to a task's scene.

        Args:
            fixtures: where the recording's bodies stood. Furniture is drawn anew at every reset and is not part of a
                state, so None will do only for scenes that have none.

        Raises:
            InputError: no such task, assets that lack one of its files, or `fixtures` without one of the scene's.
            SimulatorFailure: objects could not be placed.
        """
        self._running = False
        self._switch_to(task_at(self.config.suite, task))
        scene = self.env.env
        with self._failing_loudly():
            scene.watch(deciding=False)
            scene.reset_with(0)
        for name, fixture in scene.fixtures_dict.items():
            if fixtures is None:
                raise InputError(f"missing: model_file, and nothing else says where {name} stood")
            if fixture.root_body not in fixtures:
                raise InputError(f"missing: model_file has no body {fixture.root_body} for {name}")
            body = scene.sim.model.body_name2id(fixture.root_body)
            self.model.body_pos[body], self.model.body_quat[body] = fixtures[fixture.root_body]

    @property
    def state_size(self) -> int:
        """1 + nq + nv: time, positions and velocities."""
        return 1 + self.model.nq + self.model.nv

    def show(self, state: np.ndarray) -> Observation:
        """What is seen in `state` (1 + nq + nv,)."""
        scene = self.env.env
        with self._failing_loudly():
            scene.watch(deciding=True)
            self.env.set_init_state(state)
        return self._observation(scene.sample)

    def succeeded(self) -> bool:
        """Whether the task's goal holds in the state shown last."""
        return bool(self.env.env._check_success())

    def act(self, actions: np.ndarray) -> bool:
        """Run the last of `actions` (T, 7) from the state shown last, to which those before it led.

        They tell where the fingers were being sent, which is no part of a state.

        Returns:
            whether the task's goal holds afterwards.

        Raises:
            SimulatorFailure: the physics diverged.
        """
        scene = self.env.env
        (robot,) = scene.robots
        gripped = np.array([1.0, -1.0])  # episodes begin with an open hand
        travel = robot.gripper.speed * round(scene.control_timestep / scene.model_timestep)
        for command in np.sign(actions[:-1, -1]):
            gripped = np.clip(gripped + np.array([-1.0, 1.0]) * command * travel, -1.0, 1.0)
        robot.gripper.current_action = gripped
        with self._failing_loudly():
            scene.watch(deciding=False)
            scene.follow_state()
            return bool(scene.step(actions[-1]))
